"""Covariance selection against a general-purpose optimiser, and its certificate against the known maximum."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import pgm_sync as ps
from pgm_sync.errors import CovarianceError
from pgm_sync.learning import select_covariance

from .test_moments import NETWORKS, sample_covariance


def log_likelihood(precision, covariance):
    return 0.5 * (torch.logdet(precision) - (precision * covariance).sum()).item()


def maximised(covariance, network, size):
    """scipy's BFGS over the free entries of the precision."""
    n = network.number_of_nodes()
    free = torch.tensor(nx.to_numpy_array(network, nodelist=range(n)) + np.eye(n)) > 0
    free = torch.kron(free, torch.ones(size, size, dtype=torch.bool))
    i, j = torch.triu(free).nonzero().T

    def loss(values):
        half = torch.zeros(len(covariance), len(covariance), dtype=torch.float64)
        half[i, j] = torch.from_numpy(values)
        precision = half + half.T - torch.diag(half.diagonal())
        if torch.linalg.cholesky_ex(precision)[1] > 0:
            return np.inf, np.zeros(len(values))
        slope = covariance - torch.linalg.inv(precision)
        weight = torch.where(i == j, 0.5, 1.0)
        return -log_likelihood(precision, covariance), (slope[i, j] * weight).numpy()

    start = torch.diag(1 / covariance.diagonal())[i, j].numpy()
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    half = torch.zeros(len(covariance), len(covariance), dtype=torch.float64)
    half[i, j] = torch.from_numpy(found.x)
    return half + half.T - torch.diag(half.diagonal())


@pytest.mark.parametrize(("kind", "size"), [("ring", 1), ("ring", 2), ("grid", 1), ("triangulated", 2)])
def test_it_is_the_maximum_of_the_likelihood(kind, size):
    network = NETWORKS[kind]
    n = network.number_of_nodes()
    covariance = sample_covariance(n * size)
    blocks = {k: torch.arange(k * size, (k + 1) * size) for k in network.nodes}
    found = select_covariance(covariance, network, blocks)
    other = maximised(covariance, network, size)
    assert torch.allclose(found.precision, other, atol=1e-5 * other.abs().max().item())
    assert log_likelihood(found.precision, covariance) >= log_likelihood(other, covariance) - 1e-12
    assert 0 <= found.duality_gap < 1e-7
    scale = covariance.diagonal().sqrt()
    eigenvalues = np.linalg.eigvalsh((found.precision * scale[:, None] * scale).numpy())
    assert found.smallest_eigenvalue == pytest.approx(eigenvalues[0])


@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-4])
def test_the_gap_bounds_what_stopping_early_costs(tolerance):
    network = NETWORKS["grid"]
    covariance = sample_covariance(9)
    blocks = {k: torch.tensor([k]) for k in network.nodes}
    early = select_covariance(covariance, network, blocks, tolerance)
    late = select_covariance(covariance, network, blocks, 1e-12)
    short = log_likelihood(late.precision, covariance) - log_likelihood(early.precision, covariance)
    assert 0 < short < early.duality_gap
    assert early.duality_gap < 100 * short  # and says something


def test_large_loops_take_seconds():
    """256 features on an 8 x 8 grid; units from 1e-3 to 1e3, as pixels beside metres."""
    network = nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 8))
    blocks = {k: torch.arange(4 * k, 4 * k + 4) for k in network.nodes}
    units = torch.logspace(-3, 3, 256, dtype=torch.float64)
    covariance = sample_covariance(256) * units[:, None] * units
    found = select_covariance(covariance, network, blocks)
    assert found.duality_gap < 1e-6
    model = torch.linalg.inv(found.precision)
    scale = covariance.diagonal().rsqrt()
    for a, b in network.edges:
        rows = torch.cat([blocks[a], blocks[b]])
        difference = (model - covariance) * scale[:, None] * scale
        assert difference[rows[:, None], rows].abs().max() < 1e-6


def test_the_certificate_is_recorded():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    fitted = ps.fit(ps.ring_graph(4, 1), {k: x[:, k : k + 1] for k in range(4)}, heldout=0)
    details = ps.Fit.of(fitted).details
    assert details["selection_duality_gap"] < 1e-7
    assert details["selection_deviation"] == ps.Fit.of(fitted).objective[-1] < 1e-8
    assert details["selection_smallest_eigenvalue"] > 0


def test_constants_are_named():
    covariance = torch.eye(3, dtype=torch.float64)
    covariance[1, 1] = 0
    with pytest.raises(CovarianceError, match="feature 1 of 3 has no variance"):
        select_covariance(covariance, nx.path_graph(3), {k: torch.tensor([k]) for k in range(3)})
