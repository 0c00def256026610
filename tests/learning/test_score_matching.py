"""Eq. 16 against the joint denoiser itself, and against Gaussians whose joint denoiser is known."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, UnknownNameError, UnsupportedError
from pgm_sync.learning.score_matching import default_levels, denoised_moments, fit_precision, joint_loss

from .test_moments import sample_covariance


def chain_of_gaussians(count=3, size=2, seed=0):
    """A Gaussian Markov chain: its covariance, the exact denoisers of its parts, and a sampler."""
    blocks = {k: torch.arange(k * size, (k + 1) * size) for k in range(count)}
    full = sample_covariance(count * size, seed)
    precision = ps.learning.select_covariance(full, nx.path_graph(count), blocks).precision
    covariance = torch.linalg.inv(precision)
    mean = torch.linspace(-1, 1, count * size).double()
    denoisers = {
        k: ps.GaussianDenoiser(mean[rows], covariance[rows[:, None], rows]) for k, rows in blocks.items()
    }
    generator = torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(covariance)

    def draw(n):
        x = mean + torch.randn(n, count * size, generator=generator, dtype=torch.float64) @ root.T
        return {k: x[:, rows] for k, rows in blocks.items()}

    return precision, mean, blocks, denoisers, draw


def test_the_loss_is_that_of_the_joint_denoiser():
    """Same noise, sample by sample through the engine, at a level each."""
    precision, mean, blocks, denoisers, draw = chain_of_gaussians()
    data = draw(50)
    graph = ps.fit(ps.chain_graph(3, 2), data, heldout=0)
    model = torch.linalg.inv(ps.infer(graph, {
        k: ps.Gaussian.from_moments(*(graph.potential(graph.factors[max(k - 1, 0)]).marginals([(2,), (2,)])[min(k, 1)]))
        for k in range(3)
    }).joint([0, 1, 2]).covariance)  # fmt: skip
    centre = torch.cat([graph.potential((0, 1)).mean, graph.potential((1, 2)).mean[2:]])
    joint = ps.JointDenoiser(graph)
    for level in default_levels(3):
        features = {k: ps.Identity((2,)) for k in range(3)}
        moments = denoised_moments(
            data, denoisers, features, [level], centre, torch.Generator().manual_seed(5)
        )
        generator = torch.Generator().manual_seed(5)
        noisy = {}
        for k, x in data.items():
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            noisy[k] = level.alpha * x + level.sigma * noise
        own = {k: denoisers[k].denoise(x, level) for k, x in noisy.items()}
        together = joint(noisy, own, level).mean
        error = sum((together[k] - data[k]).square().sum() for k in range(3))
        alone = sum((own[k] - data[k]).square().sum() for k in range(3))
        assert joint_loss(model, list(blocks.values()), moments).item() == pytest.approx(
            (error / alone).item()
        )


def test_the_exact_precision_is_the_minimum():
    """Gaussian data and denoisers: Eq. 9 says the best joint denoiser is the true model's (20,000 samples)."""
    precision, mean, blocks, denoisers, draw = chain_of_gaussians()
    features = {k: ps.Identity((2,)) for k in range(3)}
    generator = torch.Generator().manual_seed(1)
    train, heldout = (
        denoised_moments(draw(20000), denoisers, features, default_levels(6), mean, generator)
        for _ in range(2)
    )
    own = torch.block_diag(
        *(torch.linalg.inv(torch.linalg.inv(precision)[r[:, None], r]) for r in blocks.values())
    )
    found = fit_precision(own, nx.path_graph(3), blocks, train, heldout)
    assert found.losses[0] == pytest.approx(1.0)  # started without any coupling
    truth = joint_loss(precision, list(blocks.values()), heldout).item()
    assert found.heldout[found.best] < 1 - 0.98 * (1 - truth)  # 98 % of what there is to gain, at least
    free = (found.precision != 0) | (precision != 0)
    assert free.sum() == 36 - 8  # the zeros of the chain are kept

    def correlation(matrix):
        covariance = torch.linalg.inv(matrix)
        scale = covariance.diagonal().rsqrt()
        return covariance * scale[:, None] * scale

    assert (correlation(found.precision) - correlation(precision)).abs().max() < 0.05


def test_fit_by_score_improves_on_heavy_shrinkage():
    _, _, _, denoisers, draw = chain_of_gaussians(seed=2)
    data = draw(2000)
    fitted = ps.fit(
        ps.chain_graph(3, 2), data, method="score", denoisers=denoisers, shrinkage=0.8, iterations=60
    )
    record = ps.Fit.of(fitted)
    assert record.method == "score"
    assert record.heldout < record.details["heldout_losses"][0] - 0.02
    assert record.heldout == min(record.details["heldout_losses"])
    again = ps.fit(
        ps.chain_graph(3, 2), data, method="score", denoisers=denoisers, shrinkage=0.8, iterations=60
    )
    assert ps.Fit.of(again).objective == record.objective
    assert ps.infer(fitted, dict.fromkeys(range(3), (0.0, 5.0))).mean[0].shape == (2,)


def test_bad_input():
    _, _, _, denoisers, draw = chain_of_gaussians()
    data, graph = draw(20), ps.chain_graph(3, 2)
    with pytest.raises(ParameterError, match="needs denoisers="):
        ps.fit(graph, data, method="score")
    with pytest.raises(UnknownNameError, match="no denoiser for 2"):
        ps.fit(graph, data, method="score", denoisers={0: denoisers[0], 1: denoisers[1]})
    with pytest.raises(ParameterError, match="iterations=0"):
        ps.fit(graph, data, method="score", denoisers=denoisers, iterations=0)
    canvas = ps.wide_canvas((1, 4, 6), (4, 4), 2, features=lambda shape: ps.DCT(shape, 2))
    with pytest.raises(UnsupportedError, match="share a canvas"):
        ps.fit(canvas, {"canvas": torch.randn(9, 1, 4, 6)}, method="score", denoisers=denoisers[0])


def test_the_anchor_leads_from_moments_to_what_denoising_wants(generator):
    """Two modes per side: the surrogate's posterior is too wide, so the best potentials are not the moments' ones.

    Without an anchor the descent runs into the edge of the normalisable potentials, and stops at a worse loss.
    """
    modes = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])[torch.randint(3, (3000,), generator=generator)]
    clean = modes + 0.1 * torch.randn(3000, 2, generator=generator)
    denoisers = {
        0: ps.MixtureDenoiser([2 / 3, 1 / 3], [[-1.0], [1.0]], [[[0.01]], [[0.01]]]),
        1: ps.MixtureDenoiser([1 / 3, 2 / 3], [[-1.0], [1.0]], [[[0.01]], [[0.01]]]),
    }
    data = {0: clean[:, :1], 1: clean[:, 1:]}

    def fitted(anchor):
        graph = ps.fit(
            ps.chain_graph(2, 1), data, method="score", denoisers=denoisers, anchor=anchor, shrinkage=0.0
        )
        return ps.correlations(graph)[0].rho, ps.Fit.of(graph)

    moments = ps.correlations(ps.fit(ps.chain_graph(2, 1), data, shrinkage=0.0, heldout=0.2))[0].rho
    held_fast, _ = fitted(1e6)
    assert held_fast == pytest.approx(moments, abs=0.03)  # of four fifths of the samples
    _, free = fitted(0.01)
    assert free.heldout < free.details["heldout_losses"][0] - 0.005
    assert free.details["iteration"] > 3
