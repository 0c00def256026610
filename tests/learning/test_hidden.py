"""Hidden variables against scikit-learn's factor analysis, closed forms, and models that made the data."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from diffusers import DDIMScheduler
from sklearn.decomposition import FactorAnalysis

import pgm_sync as ps
from pgm_sync.errors import ConvergenceError, UnsupportedError
from pgm_sync.learning.hidden import complete


def star(count, size=1, hidden=1):
    graph = ps.FactorGraph()
    for k in range(count):
        graph.add_trajectory(k, size)
    graph.add_variable("style", hidden)
    for k in range(count):
        graph.add_factor(("style", k), ["style", k], ps.JointGaussian())
    return graph


def factor_data(n, count, hidden, seed=0):
    """n samples of `count` numbers that share `hidden` causes, and their covariance."""
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(count, hidden, generator=generator, dtype=torch.float64)
    own = torch.rand(count, generator=generator, dtype=torch.float64) + 0.2
    cause = torch.randn(n, hidden, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, count, generator=generator, dtype=torch.float64) * own.sqrt()
    return cause @ loadings.T + noise + 1, loadings @ loadings.T + torch.diag(own)


@pytest.mark.parametrize("hidden", [1, 2])
def test_a_star_is_factor_analysis(hidden):
    count = 6
    x, _ = factor_data(500, count, hidden)
    centred = x - x.mean(0)
    network = nx.Graph([("style", k) for k in range(count)])
    blocks = {"style": torch.arange(hidden), **{k: torch.tensor([hidden + k]) for k in range(count)}}
    found = complete(centred.T @ centred / len(x), network, blocks, ["style"], tolerance=1e-8)
    oracle = FactorAnalysis(hidden, tol=1e-9, max_iter=20000, svd_method="lapack").fit(x.numpy())
    constant = count / 2 * math.log(2 * math.pi)
    assert found.trace[-1] - constant == pytest.approx(oracle.score(x.numpy()), abs=1e-5)
    assert all(after >= before - 1e-12 for before, after in zip(found.trace, found.trace[1:], strict=False))
    model = torch.linalg.inv(found.precision)
    assert torch.allclose(model[hidden:, hidden:], torch.from_numpy(oracle.get_covariance()), atol=5e-3)
    assert torch.allclose(model[:hidden, :hidden], torch.eye(hidden).double(), atol=1e-9)


def test_fitted_and_sampled_the_trajectories_have_the_models_covariance():
    """Gaussian denoisers with the fitted marginals: Eq. 9 holds with a hidden node in the graph."""
    count = 4
    x, truth = factor_data(2000, count, 1, seed=6)
    graph = star(count)
    fitted = ps.fit(graph, {k: x[:, k : k + 1] for k in range(count)}, shrinkage="none")
    record = ps.Fit.of(fitted)
    assert record.details["hidden"] == ["'style'"]
    gain = 0.5 * (truth.diagonal().log().sum() - torch.logdet(truth)).item()  # .90 nats
    assert record.heldout - record.details["heldout_independent"] == pytest.approx(gain, abs=0.3)
    oracle = FactorAnalysis(1, tol=1e-9, max_iter=20000, svd_method="lapack").fit(x.numpy())
    covariance = torch.from_numpy(oracle.get_covariance())
    denoisers = {
        k: ps.GaussianDenoiser(x[:, k].mean()[None], covariance[k, k].reshape(1, 1)) for k in range(count)
    }
    result = ps.sample(
        fitted, denoisers, DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), 100, num_samples=4000,
        dtype=torch.float64, progress=False,
    )  # fmt: skip
    drawn = torch.cat([result.samples[k] for k in range(count)], 1)
    scale = covariance.diagonal().rsqrt()
    expected = covariance * scale[:, None] * scale
    # five standard errors of a correlation, and the bias of 100 steps
    assert (torch.corrcoef(drawn.T) - expected).abs().max() < 5 / math.sqrt(4000) + 0.03


def test_two_styles_on_a_tree():
    """A tree of scalars with two hidden ones: covariances between leaves are products along paths, as on any tree."""
    a, b, leaves = 0.9, 0.8, 3
    graph = ps.FactorGraph()
    for name in [(s, k) for s in "lr" for k in range(leaves)]:
        graph.add_trajectory(name, 1)
    graph.add_variable("l", 1)
    graph.add_variable("r", 1)
    graph.add_factor("between", ["l", "r"], ps.JointGaussian())
    for s, k in graph.trajectories:
        graph.add_factor(("edge", s, k), [s, (s, k)], ps.JointGaussian())
    within, across = a * a, a * a * b
    same = torch.full((leaves, leaves), within).fill_diagonal_(1)
    other = torch.full((leaves, leaves), across)
    truth = torch.cat([torch.cat([same, other], 1), torch.cat([other, same], 1)]).double()
    blocks = {name: torch.tensor([k]) for k, name in enumerate([*graph.trajectories, "l", "r"])}
    found = complete(truth, graph.markov_network(), blocks, ["l", "r"], tolerance=1e-12)
    model = torch.linalg.inv(found.precision)
    assert torch.allclose(model[:6, :6], truth, atol=1e-3)
    assert abs(model[6, 7].item()) == pytest.approx(b, abs=1e-3)


def test_bad_input():
    x, _ = factor_data(50, 3, 1)
    graph = ps.FactorGraph()
    for k in range(3):
        graph.add_trajectory(k, 2)
    graph.add_variable("style", 1)
    for k in range(3):
        graph.add_factor(k + 10, ["style", k], ps.JointGaussian(), [None, ps.Crop((2,), (0,), (1,))])
    with pytest.raises(UnsupportedError, match="the hidden variable 'style' without data"):
        ps.fit(graph, {k: torch.randn(9, 2) for k in range(3)})
    blocks = {"style": torch.tensor([3]), **{k: torch.tensor([k]) for k in range(3)}}
    network = nx.Graph([("style", k) for k in range(3)])
    with pytest.raises(ConvergenceError, match="the hidden 'style' still gained") as caught:
        complete(torch.cov(x.T), network, blocks, ["style"], most_iterations=3)
    assert len(caught.value.trace) == 3
