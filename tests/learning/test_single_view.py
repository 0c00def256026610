"""Correlations between windows that were never seen together, against processes whose covariance is known."""

from __future__ import annotations

import math

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.learning.problem import features, pose
from pgm_sync.learning.single_view import fit_stationary

WIDTH = 12


def process(count, length, scales, shares, generator, rows=2):
    """Stationary Gaussian rows with correlation ``sum_k share_k exp(-d / scale_k)``, infinite scales too."""
    out = torch.zeros(count, rows, length, dtype=torch.float64)
    for scale, share in zip(scales, shares, strict=True):
        rho = math.exp(-1 / scale)
        x = torch.randn(count, rows, generator=generator, dtype=torch.float64)
        for u in range(length):
            out[..., u] += math.sqrt(share) * x
            x = rho * x + math.sqrt(1 - rho**2) * torch.randn(
                count, rows, generator=generator, dtype=torch.float64
            )
    return out


def windows_graph(count, maps=None):
    graph = ps.FactorGraph()
    for k in range(count):
        graph.add_trajectory(k, (2, WIDTH))
    for a in range(count):
        for b in range(a + 1, count):
            graph.add_factor((a, b), [a, b], ps.JointGaussian(), maps)
    return graph


@pytest.mark.parametrize("scales", [(6.0,), (math.inf, 3.0)], ids=["exponential", "constant and short"])
def test_kernels_are_recovered(scales):
    """4000 windows: correlations at every distance inside the window, and four windows beyond it."""
    shares = (1.0,) if len(scales) == 1 else (0.4, 0.6)
    views = process(4000, WIDTH, scales, shares, torch.Generator().manual_seed(0))
    model = fit_stationary(views)
    distance = torch.arange(4.0 * WIDTH).double()
    expected = sum(share * torch.exp(-distance / scale) for scale, share in zip(scales, shares, strict=True))
    assert (model.correlation(distance)[:, :WIDTH] - expected[:WIDTH]).abs().max() < 0.03
    assert (model.correlation(distance) - expected).abs().max() < 0.08
    assert (model.weights >= 0).all()


def test_features_of_far_windows_have_the_true_correlation():
    """Oracle: the features' covariance from the true kernel, written down as a double sum over pixels."""
    generator = torch.Generator().manual_seed(1)
    views = process(4000, WIDTH, (8.0,), (1.0,), generator)
    dct = ps.DCT((2, WIDTH), 2)
    fitted = ps.fit(
        windows_graph(3, [dct, dct]), views, method="single_view", positions={k: WIDTH * k for k in range(3)}
    )
    pixel = torch.arange(3 * WIDTH).double()
    kernel = torch.exp(-(pixel[:, None] - pixel).abs() / 8.0)
    whole = torch.block_diag(kernel, kernel)  # two independent rows
    rows = dct.dense().reshape(-1, 2, WIDTH)
    for shift, (a, b) in ((WIDTH, (0, 1)), (2 * WIDTH, (0, 2))):
        far = torch.zeros(len(rows), 2, 3 * WIDTH).double()
        far[..., shift : shift + WIDTH] = rows
        near = torch.zeros_like(far)
        near[..., :WIDTH] = rows
        first, second = near.flatten(1), far.flatten(1)
        true = (first @ whole @ second.T) / torch.sqrt(
            (first @ whole @ first.T).diagonal()[:, None] * (second @ whole @ second.T).diagonal()
        )
        k = len(rows)
        covariance = fitted.potential((a, b)).covariance
        scale = covariance.diagonal().rsqrt()
        ours = (covariance * scale[:, None] * scale)[:k, k:]
        assert (ours - true).abs().max() < 0.05
    assert ps.Fit.of(fitted).method == "single_view"


def test_moments_with_many_joint_samples_agree():
    generator = torch.Generator().manual_seed(2)
    wide = process(6000, 3 * WIDTH, (math.inf, 5.0), (0.3, 0.7), generator)
    joint = {k: wide[..., WIDTH * k : WIDTH * (k + 1)] for k in range(3)}
    dct = ps.DCT((2, WIDTH), 2)
    graph = windows_graph(3, [dct, dct])
    moments = ps.fit(graph, joint)
    single = ps.fit(graph, joint, method="single_view", positions={k: WIDTH * k for k in range(3)})
    for pair in ((0, 1), (0, 2)):
        both = []
        for fitted in (moments, single):
            covariance = fitted.potential(pair).covariance
            scale = covariance.diagonal().rsqrt()
            both.append(covariance * scale[:, None] * scale)
        assert (both[0] - both[1]).abs().max() < 0.08
    samples, blocks = features(pose(graph), joint), pose(graph).blocks
    assert samples.shape == (6000, 6)
    assert set(blocks) == {0, 1, 2}


def test_a_vertical_axis_is_the_transposed_picture():
    views = process(300, WIDTH, (5.0,), (1.0,), torch.Generator().manual_seed(3))[:, None]  # (n, 1, 2, W)
    positions = {0: 0, 1: WIDTH}

    def graph(shape):
        out = ps.FactorGraph()
        for k in range(2):
            out.add_trajectory(k, shape)
        out.add_factor("f", [0, 1], ps.JointGaussian())
        return out

    wide = ps.fit(graph((1, 2, WIDTH)), views, method="single_view", positions=positions)
    tall = ps.fit(graph((1, WIDTH, 2)), views.mT, method="single_view", positions=positions, axis=-2)
    order = torch.arange(2 * WIDTH).reshape(2, WIDTH).T.flatten()
    both = torch.cat([order, 2 * WIDTH + order])
    expected = wide.potential("f").covariance[both[:, None], both]
    assert torch.allclose(tall.potential("f").covariance, expected, atol=1e-8)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"positions": None}, ParameterError, "needs positions="),
    ({"positions": {0: 0}}, ParameterError, "no entry for 1"),
    ({"axis": 1}, ParameterError, "axis=1 must be negative"),
    ({"data": torch.zeros(5, 3, WIDTH)}, ShapeError, r"expected \(n, 2, 12\)"),
    ({"data": {7: torch.zeros(5, 2, WIDTH)}}, UnknownNameError, "data for 7"),
    ({"data": torch.zeros(1, 2, WIDTH)}, BatchError, "1 single views"),
    ({"data": torch.full((5, 2, WIDTH), math.nan)}, NotFiniteError, "the views"),
    ({"method": "two_views"}, ParameterError, "not one of moments, single_view"),
])  # fmt: skip
def test_bad_input(options, error, message):
    given = {
        "data": torch.randn(5, 2, WIDTH),
        "method": "single_view",
        "positions": {0: 0, 1: WIDTH},
        **options,
    }
    with pytest.raises(error, match=message):
        ps.fit(windows_graph(2), **given)


def test_windows_of_other_shapes_and_features():
    graph = windows_graph(2)
    graph.add_trajectory("other", (2, 5))
    graph.add_factor("odd", [0, "other"], ps.JointGaussian())
    with pytest.raises(ShapeError, match="windows of one shape"):
        ps.fit(graph, torch.randn(5, 2, WIDTH), method="single_view", positions={0: 0, 1: 12, "other": 24})
    mixed = ps.chain_graph(3, (2, WIDTH))
    mixed.nodes[(0, 1)]["maps"] = (ps.DCT((2, WIDTH), 2), ps.DCT((2, WIDTH), 2))
    with pytest.raises((UnsupportedError, ps.PgmSyncError), match="same features|features"):
        ps.fit(mixed, torch.randn(5, 2, WIDTH), method="single_view", positions={0: 0, 1: 12, 2: 24})
