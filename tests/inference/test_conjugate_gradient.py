"""Conjugate gradients: the same means as the dense solve, and said where variances are estimates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.sparse import csr_array

import pgm_sync as ps
from pgm_sync.errors import ConvergenceError, ImproperGraphError, ParameterError, UnsupportedError
from pgm_sync.inference.conjugate_gradient import colouring

from .strategies import graphs_with_evidence
from .test_infer import close


@given(graphs_with_evidence())
def test_means_and_covariances_equal_the_dense_solve(case):
    graph, evidence = case
    cg, dense = (
        ps.infer(graph, evidence, method="cg", tolerance=1e-12),
        ps.infer(graph, evidence, method="dense"),
    )
    for name in graph.variables:
        close(cg.mean[name], dense.mean[name])
        close(cg.variance[name], dense.variance[name])
    close(cg.covariance(0, 1), dense.covariance(0, 1))
    assert cg.info.variances_exact


def long_ring(n=400):
    graph = ps.ring_graph(n, (1,), ps.Attraction(1.0))
    generator = torch.Generator().manual_seed(0)
    return graph, {k: (torch.randn(1, generator=generator).double(), 0.5) for k in range(n)}


def test_probing_is_flagged_and_near():
    graph, evidence = long_ring()
    cg, exact = ps.infer(graph, evidence, method="cg"), ps.infer(graph, evidence)
    assert not cg.info.variances_exact
    assert "probing" in cg.info.plan
    error = max(abs(cg.variance[k] / exact.variance[k] - 1).item() for k in range(400))
    # What probing adds are covariances with sites of the same colour, on both sides at distances 4, 8, ...: (1/2)^d of
    # the variance each, since 1/r + r = 2.5 has the root 1/2.
    assert 1e-6 < error < 2 * 0.5**4 / (1 - 0.5**4)


def test_a_start_saves_iterations():
    graph, evidence = long_ring()
    plan = ps.compile(graph)
    first = ps.infer(plan, evidence, method="cg")
    again = ps.infer(plan, evidence, method="cg", start=first)
    assert "0 iterations" in again.info.plan
    near = {k: (mean + 1e-6, p) for k, (mean, p) in evidence.items()}
    warm, cold = ps.infer(plan, near, method="cg", start=first), ps.infer(plan, near, method="cg")
    assert len(warm.trace) < len(cold.trace)
    close(warm.mean[3], cold.mean[3], 1e-8)


def test_not_converged_says_so_and_keeps_what_it_has():
    graph, evidence = long_ring()
    with pytest.raises(ConvergenceError, match="after 3 iterations, above the tolerance 1e-10") as caught:
        ps.infer(graph, evidence, method="cg", max_iterations=3)
    assert len(caught.value.trace) == 4
    assert torch.isfinite(caught.value.mean).all()


def test_improper_graphs_are_refused_by_name():
    graph = ps.complete_graph(5, 1, ps.Correlation(0.95))
    with pytest.raises(ImproperGraphError, match="without positive precision"):
        ps.infer(graph, {k: (float(k), 1.0) for k in range(5)}, method="cg")


def test_what_it_cannot_do():
    graph, evidence = long_ring(6)
    posterior = ps.infer(graph, evidence, method="cg")
    with pytest.raises(UnsupportedError, match="no log evidence"):
        posterior.log_evidence  # noqa: B018
    with pytest.raises(ParameterError, match="'schedule' is no option of method='cg'"):
        ps.infer(graph, evidence, method="cg", schedule="tree")


def test_implicit_gradients():
    graph = ps.ring_graph(4, (2,), ps.Attraction(1.0))
    graph.add_factor("joint", [0, 2], ps.JointGaussian(None, 0.5 * torch.eye(4).double() + 0.1))

    def means(mean, precision, strength):
        stronger = graph.with_potentials({graph.factors[1]: ps.Attraction(strength)})
        evidence = {k: (mean * (k + 1), precision + 9) for k in range(4)}
        posterior = ps.infer(stronger, evidence, method="cg", tolerance=1e-13)
        return posterior.mean[0], posterior.mean[3]

    mean = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(means, (mean, precision, strength))


def test_auto_iterates_where_elimination_would_fill_in(monkeypatch):
    monkeypatch.setattr("pgm_sync.inference.ordering.AFFORDABLE", 1e4)
    graph = ps.grid_graph(20, 20, (1,), ps.Attraction(1.0))
    evidence = {n: (float(k), 1.0) for k, n in enumerate(graph.trajectories)}
    posterior = ps.infer(graph, evidence)
    assert posterior.info.method == "cg"
    assert "fill in" in posterior.info.reason
    close(
        posterior.mean[graph.trajectories[7]],
        ps.infer(graph, evidence, method="exact").mean[graph.trajectories[7]],
        1e-8,
    )


def test_colours_are_apart():
    ring = csr_array(np.roll(np.eye(24), 1, axis=1))
    colours = colouring(ring, 4)
    for shift in (1, 2, 3):
        assert (colours != np.roll(colours, shift)).all()


def test_every_problem_of_a_batch_is_looked_at():
    """Where eta is zero no iteration is needed, so that nothing was known of the precision."""
    graph = ps.chain_graph(3, 2, ps.Attraction(1.0))
    precision = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ImproperGraphError, match="without positive precision"):
        ps.infer(graph, {0: (1.0, precision)}, method="cg")
    posterior = ps.infer(graph, {0: (torch.tensor([[1.0], [0.0]], dtype=torch.float64), 1.0)}, method="cg")
    assert torch.allclose(posterior.mean[2], torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
