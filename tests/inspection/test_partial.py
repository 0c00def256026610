"""Partial correlations, against the inverse of a covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import UnsupportedError


def test_scalars_against_the_inverse(generator):
    a = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    covariance = a @ a.T
    graph = ps.FactorGraph()
    for k in range(4):
        graph.add_trajectory(k, 1)
    graph.add_factor("all", [0, 1, 2, 3], ps.JointGaussian(covariance=covariance))
    inverse = np.linalg.inv(covariance.numpy())
    for row in ps.partial_correlations(graph):
        i, j = row.first, row.second
        assert row.partial == pytest.approx(-inverse[i, j] / np.sqrt(inverse[i, i] * inverse[j, j]))
        assert row.rho == pytest.approx(
            (covariance[i, j] / (covariance[i, i] * covariance[j, j]).sqrt()).item()
        )
        assert row.mutual_information == pytest.approx(-0.5 * np.log(1 - row.partial**2))


def test_vectors_given_the_other_nodes(generator):
    a = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    covariance = (a @ a.T).numpy()
    graph = ps.FactorGraph()
    for k in range(3):
        graph.add_trajectory(k, 2)
    graph.add_factor("all", [0, 1, 2], ps.JointGaussian(covariance=torch.from_numpy(covariance)))
    first, rest = np.arange(4), np.arange(4, 6)  # nodes 0 and 1 given node 2, by the Schur complement
    cross = covariance[np.ix_(first, rest)]
    known = covariance[:4, :4] - cross @ np.linalg.solve(covariance[np.ix_(rest, rest)], cross.T)
    rows = [row for row in ps.partial_correlations(graph) if {row.first, row.second} == {0, 1}]
    for k, row in enumerate(rows):
        assert row.partial == pytest.approx(known[k, k + 2] / np.sqrt(known[k, k] * known[k + 2, k + 2]))


def test_an_edge_that_a_path_explains_has_none():
    """0 - 1 - 2 with the correlation that the path makes stated on an edge 0 - 2 as well."""
    rho = torch.tensor([[1, 0.8, 0.64], [0.8, 1, 0.8], [0.64, 0.8, 1]], dtype=torch.float64)
    graph = ps.FactorGraph()
    for k in range(3):
        graph.add_trajectory(k, 1)
    graph.add_factor("all", [0, 1, 2], ps.JointGaussian(covariance=rho))
    found = {(row.first, row.second): row for row in ps.partial_correlations(graph)}
    assert found[0, 2].rho == pytest.approx(0.64)
    assert found[0, 2].partial == pytest.approx(0, abs=1e-12)


def test_large_contents_element_by_element():
    small, large = (ps.partial_correlations(ps.ring_graph(4, n, ps.Correlation(0.4))) for n in (1, 600))
    for a, b in zip(small, large, strict=True):
        assert (a.rho, a.partial) == pytest.approx((b.rho, b.partial))
    wide = ps.chain_graph(
        2, (2, 600), ps.Correlation(0.4), features=lambda shape: ps.Crop(shape, (0,), (300,))
    )
    with pytest.raises(UnsupportedError, match="does not see whole contents"):
        ps.partial_correlations(wide)


def test_tables_become_data_frames():
    pandas = pytest.importorskip("pandas")
    graph = ps.chain_graph(3, 1, ps.Correlation(0.8))
    frame = ps.partial_correlations(graph).to_frame()
    assert list(frame.columns) == [
        "factor",
        "first",
        "second",
        "mode",
        "rho",
        "partial",
        "mutual_information",
    ]
    assert frame["partial"].tolist() == pytest.approx([0.8 / np.sqrt(1 + 0.8**2)] * 2)
    stated = ps.correlations(graph).to_frame()
    assert isinstance(stated, pandas.DataFrame)
    assert stated["rho"].tolist() == [0.8, 0.8]
    assert ps.correlations(ps.chain_graph(3, 1)).to_frame().empty
