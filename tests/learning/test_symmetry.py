"""Tied moments: the symmetries hold to rounding, they are the averages they say, and they save samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, ShapeError, UnknownNameError, UnsupportedError
from pgm_sync.learning import FeatureMoments
from pgm_sync.learning.estimate import estimate_model, log_density
from pgm_sync.learning.problem import features, pose
from pgm_sync.learning.symmetry import bind_ties

SHAPE = (2, 3, 4)


def data_of(count, n, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, count, *shape, generator=generator, dtype=torch.float64).cumsum(1).cumsum(-1) + 1
    return {k: x[:, k] for k in range(count)}


def mirrored(data):
    """The data set of mirrored pictures, written down without the package."""
    names = list(data)
    return {name: data[other].flip(-1) for name, other in zip(names, reversed(names), strict=True)}


GRAPHS = {
    "chain": (ps.chain_graph(3, SHAPE), None),
    "modes": (ps.chain_graph(4, SHAPE, features=lambda s: ps.DCT(s, 3)), None),
    "ring": (ps.ring_graph(4, SHAPE, features=lambda s: ps.DCT(s, 3)), None),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_mirror_tie_is_the_fit_of_the_data_and_their_mirror_images(kind):
    graph, _ = GRAPHS[kind]
    data = data_of(len(graph.trajectories), 60)
    both = {name: torch.cat([x, mirrored(data)[name]]) for name, x in data.items()}
    tied = ps.fit(graph, data, shrinkage="none", ties=ps.mirror(graph), heldout=0)
    augmented = ps.fit(graph, both, shrinkage="none", heldout=0)
    for factor in graph.factors:
        a, b = tied.potential(factor), augmented.potential(factor)
        assert torch.allclose(a.mean, b.mean, atol=1e-10)
        assert torch.allclose(a.covariance, b.covariance, atol=1e-6)
    assert "mirror" not in ps.Fit.of(tied).details["ties"][0]
    assert "Flip" in ps.Fit.of(tied).details["ties"][0]


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_mirrored_model_is_the_model(kind):
    """Exactly: density of mirrored samples, to rounding, on loops too, whose fit stops at 1e-8."""
    graph, _ = GRAPHS[kind]
    problem = pose(graph)
    data = data_of(len(graph.trajectories), 60)
    ties = bind_ties(ps.mirror(graph), problem)
    assert len(ties.group) == 2
    model = estimate_model(features(problem, data), "ledoit_wolf", problem.network, problem.blocks, ties=ties)
    one, other = (log_density(features(problem, d), *model[:2]) for d in (data, mirrored(data)))
    assert torch.allclose(one, other, rtol=1e-11)
    assert not torch.allclose(one, one.flip(0), rtol=1e-3)


def test_products_of_symmetries_are_symmetries():
    """Two flips of a window and the reversal: the group has eight elements, and every one leaves the model alone."""
    graph = ps.chain_graph(2, (4, 4))
    up, over = ps.Flip((4, 4), (0,)), ps.Flip((4, 4), (1,))
    turned = ps.Symmetry({0: 1, 1: 0}, ps.Rotate((4, 4)))
    problem = pose(graph)
    ties = bind_ties([ps.Symmetry({}, up), ps.Symmetry({}, over), ps.Symmetry({0: 1, 1: 0})], problem)
    assert len(ties.group) == 8
    assert len(bind_ties(turned, problem).group) == 4
    samples = features(problem, data_of(2, 50, shape=(4, 4)))
    mean, covariance, _ = ties.moments(samples.mean(0), samples.T.cov())
    for rotation in ties.group:
        assert torch.allclose(rotation @ mean, mean, atol=1e-12)
        assert torch.allclose(rotation @ covariance @ rotation.T, covariance, atol=1e-12)


def chain_windows(n, seed, count=6, rho=0.8):
    """A stationary chain of windows of two numbers, the second negatively coupled to the first of the one before."""
    generator = torch.Generator().manual_seed(seed)
    step = rho * torch.tensor([[0.8, 0.5], [-0.6, 0.7]], dtype=torch.float64)
    covariance = torch.eye(2, dtype=torch.float64)
    noise = torch.linalg.cholesky(covariance - step @ covariance @ step.T)
    x = [torch.randn(n, 2, generator=generator, dtype=torch.float64)]
    for _ in range(count - 1):
        x.append(x[-1] @ step.T + torch.randn(n, 2, generator=generator, dtype=torch.float64) @ noise.T)
    return {k: 3 + own for k, own in enumerate(x)}


STATIONARY = ps.Stationary({k: 10 * k for k in range(6)})


def test_stationary_windows_share_their_moments():
    graph, data = ps.chain_graph(6, 2), chain_windows(30, 0)
    fitted = ps.fit(graph, data, shrinkage="none", ties=STATIONARY, heldout=0)
    first = fitted.potential((0, 1))
    for factor in graph.factors[1:]:
        assert torch.allclose(fitted.potential(factor).covariance, first.covariance, atol=1e-12)
        assert torch.allclose(fitted.potential(factor).mean, first.mean, atol=1e-12)
    assert torch.allclose(first.covariance[:2, :2], first.covariance[2:, 2:], atol=1e-12)
    # the averages, by numpy: about one mean, over all pairs of neighbours, over all windows
    x = np.stack([data[k].numpy() for k in range(6)], 1)
    x = x - x.mean((0, 1))
    cross = np.einsum("nka,nkb->ab", x[:, :-1], x[:, 1:]) / (30 * 5)
    own = np.einsum("nka,nkb->ab", x, x) / (30 * 6)
    assert np.allclose(first.covariance[:2, 2:], cross)
    assert np.allclose(first.covariance[:2, :2], own)


@pytest.mark.parametrize("shrinkage", ["none", "heldout"])
def test_ties_save_samples(shrinkage):
    """50 samples of a stationary chain: every one of 5 fits is better on 20,000 fresh samples with ties."""
    graph, fresh = ps.chain_graph(6, 2), chain_windows(20000, 99)
    problem = pose(graph)
    ties = bind_ties(STATIONARY, problem)
    heldout = features(problem, fresh)
    for seed in range(5):
        samples = features(problem, chain_windows(50, seed))
        scores = [
            log_density(
                heldout,
                *estimate_model(samples, shrinkage, problem.network, problem.blocks, ties=tie)[:2],
            ).mean()
            for tie in (ties, None)
        ]
        assert scores[0] > scores[1] + 0.1  # nats


def test_averages_over_displacements_stay_positive_definite():
    """Two samples of a constant that drifts: the average over displacements alone is indefinite."""
    graph = ps.complete_graph(3, 1)
    problem = pose(graph)
    ties = bind_ties(ps.Stationary({0: 0, 1: 1, 2: 2}), problem)
    covariance = torch.tensor([[1, 0.9, 0.2], [0.9, 1, 0.9], [0.2, 0.9, 1]], dtype=torch.float64)
    assert torch.linalg.eigvalsh(covariance)[0] < 0
    _, tied, between = ties.moments(torch.zeros(3).double(), covariance)
    assert torch.linalg.eigvalsh(tied)[0] == pytest.approx(1e-3)
    assert 0 < between < 0.5
    assert torch.allclose(tied.diagonal(), torch.ones(3).double())
    assert torch.allclose(tied[0, 1:] / covariance[0, 1:], torch.full((2,), 1 - between).double())


def test_stationary_and_mirrored_together():
    graph = ps.chain_graph(4, SHAPE, features=lambda s: ps.DCT(s, 3))
    ties = bind_ties([ps.mirror(graph), ps.Stationary({k: k for k in range(4)})], pose(graph))
    samples = features(pose(graph), data_of(4, 80))
    mean, covariance, _ = ties.moments(samples.mean(0), samples.T.cov())
    rotation = ties.group[1]
    assert torch.allclose(rotation @ covariance @ rotation.T, covariance, atol=1e-12)
    rows = list(ties.blocks.values())
    for k in range(2):
        assert torch.allclose(
            covariance[rows[k][:, None], rows[k + 1]],
            covariance[rows[k + 1][:, None], rows[k + 2]],
            atol=1e-12,
        )
    assert torch.allclose(mean[rows[0]], mean[rows[3]], atol=1e-12)


def test_batches_take_ties():
    graph, data = ps.chain_graph(6, 2), chain_windows(30, 0)
    moments = FeatureMoments(graph)
    moments.update(data)
    both = [ps.fit(graph, d, shrinkage="oas", ties=STATIONARY, heldout=0) for d in (moments, data)]
    for factor in graph.factors:
        a, b = (fitted.potential(factor).covariance for fitted in both)
        assert torch.allclose(a, b, atol=1e-10)


def test_single_views_take_ties_and_may_be_the_denoisers_own_samples():
    """A denoiser whose prior is an exponential kernel: mirrored potentials, close to the truth."""
    from diffusers import DDIMScheduler

    width, length = 12, 8.0
    place = torch.arange(3 * width, dtype=torch.float64)
    kernel = torch.exp(-(place[:, None] - place).abs() / length)
    alone = ps.FactorGraph()
    alone.add_trajectory("window", (1, width))
    denoiser = ps.GaussianDenoiser(torch.zeros(1, width).double(), kernel[:width, :width])
    views = ps.sample(
        alone,
        {"window": denoiser},
        DDIMScheduler(clip_sample=False),
        200,
        num_samples=4000,
        seed=0,
        progress=False,
    ).samples["window"]
    graph = ps.chain_graph(2, (1, width), features=lambda s: ps.DCT(s, 2))
    fitted = ps.fit(graph, views, method="single_view", positions={0: 0, 1: 2 * width}, ties=ps.mirror(graph))
    found = fitted.potential((0, 1)).covariance
    rows = ps.DCT((1, width), 2).dense()
    truth = torch.cat([
        torch.cat([rows @ kernel[:width, :width] @ rows.T, rows @ kernel[:width, 2 * width :] @ rows.T], 1),
        torch.cat([rows @ kernel[2 * width :, :width] @ rows.T, rows @ kernel[:width, :width] @ rows.T], 1),
    ])  # fmt: skip
    scale = truth.diagonal().rsqrt()
    assert ((found - truth) * scale[:, None] * scale).abs().max() < 0.06
    flip = torch.diag(torch.tensor([1.0, -1.0])).double()  # of the two cosine modes
    swapped = torch.cat(
        [torch.cat([found[2:, 2:], found[2:, :2]], 1), torch.cat([found[:2, 2:], found[:2, :2]], 1)]
    )
    both = torch.block_diag(flip, flip)
    assert torch.allclose(both @ swapped @ both, found, atol=1e-12)


@pytest.mark.parametrize(("ties", "error", "message"), [
    (ps.Symmetry({0: 1}), ParameterError, "no permutation"),
    (ps.Symmetry({0: 9, 9: 0}), UnknownNameError, "moves 9, which no factor"),
    (ps.Symmetry({0: 1, 1: 0}), ParameterError, "takes the edge 1 - 2 to 0 - 2, which is none"),
    (ps.Symmetry({}, ps.Flip((7, 7))), ShapeError, r"takes 0 of shape \(2, 3, 4\)"),
    (ps.Symmetry({}, ps.Permutation(SHAPE, torch.arange(24).roll(1))), UnsupportedError, "not closed under"),
    (ps.Stationary({0: 0, 1: 1}), ParameterError, "no entry for 2"),
    (ps.Stationary({0: 0, 1: 1, 2: 1}), ParameterError, "1 and 2 at one place"),
    (ps.Stationary({0: 0, 1: (1, 1), 2: 1}), ParameterError, "different dimensions"),
    ([ps.Stationary({}), ps.Stationary({})], ParameterError, "2 Stationary entries"),
    (["flip"], ParameterError, "neither a Symmetry nor Stationary"),
])  # fmt: skip
def test_bad_input(ties, error, message):
    graph = ps.chain_graph(3, SHAPE, features=lambda s: ps.DCT(s, 3))
    with pytest.raises(error, match=message):
        ps.fit(graph, data_of(3, 20), ties=ties)
