"""Round trips through scipy, networkx and pyro."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given

import pgm_sync as ps
from pgm_sync.errors import (
    CovarianceError,
    DtypeError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from pgm_sync.inference import correlation_network, dense_joint, from_scipy, to_scipy

from .strategies import graphs_with_evidence
from .test_infer import close


@given(graphs_with_evidence())
def test_to_scipy_is_the_dense_joint(case):
    graph, evidence = case
    joint = dense_joint(graph, evidence)
    if joint.precision.ndim > 2:
        with pytest.raises(UnsupportedError, match="different precisions"):
            to_scipy(graph, evidence)
        return
    system = to_scipy(graph, evidence)
    close(torch.from_numpy(system.precision.toarray()), joint.precision, 1e-12)
    close(torch.from_numpy(system.eta).expand_as(joint.eta), joint.eta, 1e-12)


def test_a_matrix_becomes_a_graph_and_back(tmp_path):
    generator = np.random.default_rng(0)
    sparse = scipy.sparse.random_array((30, 30), density=0.1, rng=generator)
    precision = sparse @ sparse.T + scipy.sparse.eye_array(30)
    eta = generator.standard_normal(30)
    graph = from_scipy(precision, eta)
    posterior = ps.infer(graph)
    covariance = np.linalg.inv(precision.toarray())
    assert np.allclose(posterior.element_mean.numpy(), covariance @ eta, atol=1e-12)
    assert np.allclose(posterior.element_variance.numpy(), covariance.diagonal(), atol=1e-12)
    back = to_scipy(graph)
    assert abs(back.precision - precision).max() < 1e-14
    assert np.array_equal(back.eta, eta)
    for file in ("graph.json", "graph.safetensors"):
        graph.save(tmp_path / file)
        assert abs(to_scipy(ps.FactorGraph.load(tmp_path / file)).precision - precision).max() < 1e-14


def test_a_joint_marginal_goes_through_pyro():
    from pyro.ops.gaussian import Gaussian as PyroGaussian

    graph = ps.ring_graph(4, 2, ps.Attraction(1.0))
    posterior = ps.infer(graph, {k: (torch.randn(2).double(), 1.0) for k in range(4)})
    pair = posterior.joint([0, 1])
    theirs = pair.to_pyro()
    assert isinstance(theirs, PyroGaussian)
    x = torch.randn(5, 4).double()
    close(theirs.log_density(x), pair.log_density(x), 1e-12)
    close(theirs.event_logsumexp(), torch.zeros(()).double(), 1e-10)
    close(ps.Gaussian.from_pyro(theirs).precision, pair.precision, 1e-12)


def test_correlations_for_networkx(tmp_path):
    graph = ps.chain_graph(3, 2, ps.Correlation(-0.5))
    posterior = ps.infer(graph, dict.fromkeys(range(3), (0.0, 1.0)))
    network = correlation_network(posterior)
    assert network.edges[0, 1]["correlation"] == pytest.approx(posterior.correlation(0, 1)[0].item())
    assert network.edges[0, 1]["correlation"] < 0
    nx.write_graphml(network, tmp_path / "network.graphml")  # plain floats only
    assert len(nx.read_graphml(tmp_path / "network.graphml").edges) == 2


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((np.ones((2, 3)),), ShapeError, r"shape \(2, 3\); a square matrix"),
    ((np.float64(3.0),), ShapeError, r"shape \(\); a square matrix"),
    ((1j * np.eye(2),), DtypeError, "precision has dtype complex128; real numbers needed"),
    ((scipy.sparse.csr_array(1j * np.eye(2)),), DtypeError, "precision has dtype complex128"),
    ((np.array([["a"]], dtype=object),), DtypeError, "precision has dtype object"),
    ((np.eye(2), np.ones(2) * 1j), DtypeError, "eta has dtype complex128"),
    ((np.eye(2), np.ones(3)), ShapeError, r"eta has shape \(3,\)"),
    ((np.array([[1.0, 0.5], [0.2, 1.0]]),), CovarianceError, "entries for . and . differ by 0.3"),
    ((np.array([[1.0, np.nan], [np.nan, 1.0]]),), NotFiniteError, "precision has 2 NaN"),
    ((np.eye(2), np.array([1.0, np.inf])), NotFiniteError, "eta has 1 NaN"),
    ((np.eye(2), None, ["a", "a"]), ParameterError, "2 names, 1 of them different, for 2"),
])  # fmt: skip
def test_bad_matrices(arguments, error, message):
    with pytest.raises(error, match=message):
        from_scipy(*arguments)
