"""Spectral radii and margins against dense eigenvalues and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch
from hypothesis import given

import pgm_sync as ps
from pgm_sync.errors import ImproperGraphError
from pgm_sync.inference import dense_joint, from_scipy

from .strategies import graphs_with_evidence
from .test_infer import close


@given(graphs_with_evidence())
def test_bounds_enclose_the_dense_spectral_radius(case):
    graph, evidence = case
    found = ps.walk_summability(graph, evidence)
    precision = dense_joint(graph, evidence).precision
    scale = precision.diagonal(dim1=-2, dim2=-1).rsqrt()
    walks = (torch.eye(scale.shape[-1]).double() - scale[..., None] * precision * scale.unsqueeze(-2)).abs()
    radius = torch.linalg.eigvalsh(walks)[..., -1]
    assert (found.lower <= radius + 1e-7).all()
    assert (found.upper >= radius - 1e-7).all()
    # iterated until the bounds on 1 + rho are within 1e-8 of it
    assert ((found.radius - radius).abs() <= 1e-8 * (1 + radius)).all()


@pytest.mark.parametrize("n", [3, 8, 50])
def test_a_ring_in_closed_form(n):
    """Two neighbours of weight 1 / (2 + p) each."""
    found = ps.walk_summability(ps.ring_graph(n, 2, ps.Attraction(1.0)), dict.fromkeys(range(n), (0.0, 0.5)))
    assert found.radius.item() == pytest.approx(2 / 2.5, abs=1e-8)
    assert found.walk_summable


def test_a_chain_in_closed_form():
    """The path graph's largest eigenvalue is 2 cos(pi / (n + 1)) (coupling 1 everywhere, equal diagonals)."""
    n, p = 12, 3.0
    graph = ps.FactorGraph()
    for k in range(n):
        graph.add_trajectory(k, 1)
    for k in range(n - 1):
        graph.add_factor((k, k + 1), [k, k + 1], ps.Quadratic(torch.tensor([[0.0, -1.0], [-1.0, 0.0]])))
    found = ps.walk_summability(graph, dict.fromkeys(range(n), (0.0, p)))
    assert found.radius.item() == pytest.approx(2 * math.cos(math.pi / (n + 1)) / p, abs=1e-6)
    assert ps.margin(graph, dict.fromkeys(range(n), (0.0, p))).smallest.item() == pytest.approx(
        p - 2 * math.cos(math.pi / (n + 1))
    )


def test_a_frustrated_complete_graph_is_proper_and_not_walk_summable():
    """K4 with couplings +0.4: smallest eigenvalue 1 - 0.4, but rho(|R|) = 3 * 0.4 (Malioutov et al., 2006)."""
    graph = ps.complete_graph(4, 1, ps.Quadratic(torch.tensor([[0.0, 0.4], [0.4, 0.0]])))
    evidence = dict.fromkeys(range(4), (0.0, 1.0))
    found = ps.walk_summability(graph, evidence)
    assert found.radius.item() == pytest.approx(1.2)
    assert not found.walk_summable
    margin = ps.margin(graph, evidence)
    assert margin.smallest.item() == pytest.approx(0.6)
    assert margin.proper


@given(graphs_with_evidence())
def test_margins_are_the_smallest_eigenvalues(case):
    graph, evidence = case
    found = ps.margin(graph, evidence)
    values = torch.linalg.eigvalsh(dense_joint(graph, evidence).precision)[..., 0]
    close(found.smallest, values, 1e-9)
    assert found.proper


@pytest.mark.parametrize("dense", [True, False])
def test_the_margin_of_an_improper_graph_and_its_direction(dense, monkeypatch):
    if not dense:
        for module in ("spectrum", "precision"):
            monkeypatch.setattr(f"pgm_sync.inference.{module}.DENSE_UP_TO", 0)
    n, rho = 5, 0.95
    graph = ps.complete_graph(n, 3, ps.Correlation(rho))
    found = ps.margin(graph, dict.fromkeys(range(n), (0.0, 1.0)))
    # Eq. 2 on paper: the direction (1, ..., 1) of the complete graph
    assert found.smallest.item() == pytest.approx(1 + (n - 1) * (rho**2 - rho) / (1 - rho**2))
    assert not found.proper
    parts = torch.stack([found.direction[k] for k in range(n)]).abs()
    assert parts.sum(0).count_nonzero() == 1  # one element, the first of equals
    close(parts[parts > 0.1], torch.full((n,), n**-0.5).double(), 1e-7)


def test_a_site_without_precision():
    graph = ps.chain_graph(2, 1, ps.Attraction(1.0))
    graph.add_trajectory("alone", 2)
    with pytest.raises(ImproperGraphError, match="an element of 'alone' has no precision of its own"):
        ps.walk_summability(graph, {0: (0.0, 1.0)})


def test_a_batch_whose_members_have_different_couplings():
    """Oracle: dense eigenvalues. What is coupled in one problem falls apart in another."""
    precision = torch.eye(4).double().repeat(3, 1, 1)
    for k, a, b, value in ((0, 0, 1, 0.3), (0, 2, 3, -0.6), (1, 0, 1, 0.3), (1, 1, 2, 0.1), (1, 2, 3, 0.6)):
        precision[k, a, b] = precision[k, b, a] = value
    graph = ps.FactorGraph()
    graph.add_trajectory("x", 4)
    evidence = {"x": ps.Gaussian(precision, torch.zeros(3, 4).double(), torch.zeros(3).double())}
    found = ps.walk_summability(graph, evidence)
    walks = (torch.eye(4).double() - precision).abs()
    close(found.radius, torch.linalg.eigvalsh(walks)[:, -1], 1e-7)
    close(found.upper_of["x"][0], torch.tensor([0.3, 0.3, 0.6, 0.6]).double(), 1e-7)
    assert (found.upper_of["x"][2] == 0).all()
    # one step of a power iteration has loose bounds, which hold all the same, for every component
    early = ps.walk_summability(graph, evidence, max_iterations=1)
    assert (early.lower <= found.radius).all()
    assert (found.radius <= early.upper).all()
    assert (early.upper - early.lower)[1] > 0.1
    assert (early.lower_of["x"] <= found.lower_of["x"] + 1e-12).all()


def test_which_part_is_not_walk_summable():
    graph = ps.complete_graph(4, 1, ps.Quadratic(torch.tensor([[0.0, 0.4], [0.4, 0.0]])))
    graph.add_trajectory("a", 2)
    graph.add_trajectory("b", 2)
    graph.add_factor("f", ["a", "b"], ps.Quadratic(torch.tensor([[0.0, 0.2], [0.2, 0.0]])))
    found = ps.walk_summability(graph, dict.fromkeys([0, 1, 2, 3, "a", "b"], (0.0, 1.0)))
    assert [name for name, radius in found.lower_of.items() if (radius >= 1).any()] == [0, 1, 2, 3]
    close(found.upper_of["b"], torch.full((2,), 0.2).double(), 1e-7)


@pytest.mark.parametrize("kind", ["chain", "random", "indefinite chain", "blocks"])
def test_margins_of_large_components(kind):
    """Above `DENSE_UP_TO` by iteration; oracle: scipy's tridiagonal solver, or LAPACK."""
    n = 1500 if "chain" in kind else 450
    generator = np.random.default_rng(0)
    if kind == "blocks":
        root = torch.from_numpy(generator.standard_normal((n, n)))
        matrix = root @ root.T / n + 0.1 * torch.eye(n).double()
        graph = ps.FactorGraph()
        graph.add_trajectory("x", n)
        found = ps.margin(graph, {"x": ps.Gaussian(matrix, torch.zeros(n).double(), torch.zeros(()).double())})
        values = np.linalg.eigvalsh(matrix.numpy())
    else:
        if kind == "random":
            part = scipy.sparse.random_array((n, n), density=6 / n, rng=generator)
            matrix = (part + part.T + scipy.sparse.eye_array(n)).tocsr()
            joined = scipy.sparse.csgraph.connected_components(matrix)[1]
            matrix = matrix[joined == np.bincount(joined).argmax()][:, joined == np.bincount(joined).argmax()]
            values = np.linalg.eigvalsh(matrix.toarray())
        else:
            diagonal = np.full(n, 2.0 if kind == "chain" else 1.5) + 1e-3 * generator.random(n)
            matrix = scipy.sparse.diags_array([-np.ones(n - 1), diagonal, -np.ones(n - 1)], offsets=[-1, 0, 1])
            values = scipy.linalg.eigvalsh_tridiagonal(diagonal, -np.ones(n - 1))
        found = ps.margin(from_scipy(matrix))
    assert found.smallest.item() == pytest.approx(values[0], abs=1e-10)
    assert found.largest.item() == pytest.approx(values[-1], abs=1e-10)
    assert found.relative.item() == pytest.approx(values[0] / values[-1], abs=1e-9)
    assert found.proper is bool(values[0] > 0)
    along = torch.cat([found.direction[name] for name in found.direction]).numpy()
    dense = matrix.numpy() if kind == "blocks" else matrix
    assert along @ along == pytest.approx(1)
    assert np.linalg.norm(dense @ along - found.smallest.item() * along) < 1e-7
