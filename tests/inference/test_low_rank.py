"""Features of large nodes: diagonal plus low rank, against the dense solve."""

from __future__ import annotations

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ImproperGraphError, UnsupportedError

from .strategies import covariance
from .test_infer import close

SHAPE = (4, 4)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Nodes of 16 elements count as large."""
    monkeypatch.setattr("pgm_sync.inference.low_rank.SMALLEST", 16)
    monkeypatch.setattr("pgm_sync.inference.low_rank.RATIO", 1)


def graph_of_features(extra=True):
    """A ring of three nodes through cosines, one edge of channel means of another size, evidence in the graph."""
    generator = torch.Generator().manual_seed(0)
    graph = ps.FactorGraph()
    for k in range(3):
        graph.add_trajectory(k, SHAPE)
    dct = ps.DCT(SHAPE, 3)
    graph.add_factor(
        "a",
        [0, 1],
        ps.JointGaussian(torch.randn(6, generator=generator), covariance(6, generator)),
        [dct, dct],
    )
    graph.add_factor("b", [1, 2], ps.Attraction(0.7), [dct, ps.DCT(SHAPE, 3)])
    graph.add_factor(
        "c", [2, 0], ps.JointGaussian(None, covariance(8, generator)), [ps.DCT(SHAPE, 4), ps.DCT(SHAPE, 4)]
    )
    graph.add_factor("seen", [1], ps.Evidence(1.0, 2.0))
    if extra:  # nodes that have nothing to do with features
        graph.add_trajectory("left", (3,))
        graph.add_trajectory("right", (3,))
        graph.add_factor("pair", ["left", "right"], ps.Correlation(0.4))
    return graph


def evidence_of(graph, batch=(), precision_batch=()):
    generator = torch.Generator().manual_seed(1)
    return {
        name: (
            torch.randn(*batch, *graph.shape(name), generator=generator).double(),
            40 + torch.rand(*precision_batch, *graph.shape(name), generator=generator).double(),
        )
        for name in graph.trajectories
    }


@pytest.mark.parametrize(("batch", "precision_batch"), [((), ()), ((5,), ()), ((2, 3), (2, 3)), ((3,), (1,))])
def test_everything_equals_the_dense_solve(batch, precision_batch):
    graph = graph_of_features()
    evidence = evidence_of(graph, batch, precision_batch)
    low, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    assert "11 features of 3 nodes" in low.info.plan
    assert low.info.blocks == 0
    assert low.info.residual < 1e-12
    close(low.log_evidence, dense.log_evidence, 1e-10)
    close(low.entropy(), dense.entropy(), 1e-10)
    for name in graph.trajectories:
        close(low.mean[name], dense.mean[name], 1e-11)
        close(low.variance[name], dense.variance[name], 1e-11)
    for a, b in ((0, 1), (0, 2), (1, 1), ("left", "right")):
        close(low.covariance(a, b), dense.covariance(a, b), 1e-11)
        close(low.partial_correlation(a, b), dense.partial_correlation(a, b), 1e-10)
    close(low.cross_covariance(0, [1, "left"]), dense.cross_covariance(0, [1, "left"]), 1e-11)
    right = torch.randn(*batch, low._sites.size).double()
    close(low._solution.solve(right), dense._solution.solve(right), 1e-11)


def test_the_root_gives_the_covariance():
    graph = graph_of_features()
    evidence = evidence_of(graph)
    low, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    half = low._solution.root(torch.eye(low._sites.size).double())
    names = graph.trajectories
    close(half.mT @ half, dense.cross_covariance(names, names), 1e-11)


def test_gradients():
    graph = graph_of_features(extra=False)

    def quantities(mean, precision):
        posterior = ps.infer(graph, {k: (mean * (k + 1), precision + 40) for k in range(3)})
        assert "features" in posterior.info.plan
        return posterior.mean[0], posterior.variance[1], posterior.log_evidence

    mean = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(SHAPE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantities, (mean, precision))


def test_large_latents_take_no_matrix_of_their_elements(monkeypatch):
    """4 x 64 x 64 latents in float32: the matrix over two of them would take 4 GB."""
    monkeypatch.undo()
    shape = (4, 64, 64)
    dct = ps.DCT(shape, 16)
    sigma = covariance(128, torch.Generator().manual_seed(0))
    graph = ps.FactorGraph()
    for k in range(4):
        graph.add_trajectory(k, shape)
    for k in range(3):
        graph.add_factor((k, k + 1), [k, k + 1], ps.JointGaussian(None, sigma), [dct, dct])
    posterior = ps.infer(graph, {k: (torch.randn(2, *shape), 60.0) for k in range(4)})
    assert posterior.info.residual < 1e-4
    assert posterior.variance[2].shape == shape or posterior.variance[2].shape == (1, *shape)
    with pytest.raises(UnsupportedError, match="features of 32768 elements"):
        ps.infer(graph, dict.fromkeys(range(4), (0.0, 60.0)), method="gbp")


def test_without_evidence_elements_outside_the_features_are_improper():
    graph = graph_of_features(extra=False)
    evidence = evidence_of(graph)
    del evidence[0]
    with pytest.raises(ImproperGraphError, match="component of 0"):
        ps.infer(graph, evidence)


@pytest.mark.parametrize("change", ["elementwise coupling", "matrix evidence", "observed"])
def test_other_graphs_keep_their_plan_and_stay_exact(change):
    graph = graph_of_features(extra=False)
    evidence, options = evidence_of(graph), {}
    if change == "elementwise coupling":
        graph.add_factor("pull", [0, 1], ps.Attraction(1.0))
    elif change == "matrix evidence":
        mean, precision = evidence[0]
        evidence[0] = ps.Gaussian(
            torch.diag(precision.flatten()), (mean * precision).flatten(), torch.zeros(()).double()
        )
    else:
        options = {"observed": {0: 1.0}}
    other = ps.infer(graph, evidence, **options)
    assert "features" not in other.info.plan
    close(other.mean[2], ps.infer(graph, evidence, method="dense", **options).mean[2], 1e-11)
