"""Learned features against scikit-learn and models whose informative directions are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

import pgm_sync as ps
from pgm_sync.errors import BatchError, ParameterError, UnknownNameError, UnsupportedError
from pgm_sync.learning.estimate import estimate_model, information_gain
from pgm_sync.learning.learned_features import with_features
from pgm_sync.learning.problem import features, pose

SHAPE = (2, 3)


def hidden(n, rho, seed=0, nodes=2, size=6):
    """Independent numbers of decreasing variance; the *last* one of every node is a chain with correlation rho."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, nodes, size, generator=generator, dtype=torch.float64)
    shared = [noise[:, 0, -1]]
    for k in range(1, nodes):
        shared.append(rho * shared[-1] + math.sqrt(1 - rho**2) * noise[:, k, -1])
    noise[:, :, -1] = torch.stack(shared, 1)
    x = noise * torch.linspace(3, 1, size, dtype=torch.float64)
    return {k: x[:, k].reshape(n, *SHAPE) for k in range(nodes)}


def rows_of(graph, factor, end):
    return graph.maps(factor)[end].dense()


def test_principal_features_are_scikit_learns():
    data = hidden(200, 0.9)
    graph = ps.pca_features(ps.chain_graph(2, SHAPE), data, 3)
    for end in (0, 1):
        expected = PCA(3).fit(data[end].flatten(1).numpy()).components_
        found = rows_of(graph, (0, 1), end).numpy()
        assert np.allclose(np.abs(found @ expected.T), np.eye(3), atol=1e-8)


def test_canonical_features_span_scikit_learns_directions():
    data = hidden(300, 0.7)
    graph = ps.canonical_features(ps.chain_graph(2, SHAPE), data, 2, ridge=0.0)
    oracle = CCA(2, scale=False, tol=1e-12, max_iter=10000).fit(
        *(x.flatten(1).numpy() for x in data.values())
    )
    for end, weights in enumerate((oracle.x_rotations_, oracle.y_rotations_)):
        rows = rows_of(graph, (0, 1), end)
        assert torch.allclose(rows @ rows.T, torch.eye(2).double(), atol=1e-10)
        basis = np.linalg.qr(weights)[0]
        assert np.allclose(np.linalg.svd(rows.numpy() @ basis)[1], 1, atol=1e-5)


def test_canonical_features_find_what_principal_components_miss():
    """The one informative number has the least variance of six."""
    data = hidden(3000, 0.9)
    last = torch.eye(6).double()[-1]
    graph = ps.chain_graph(2, SHAPE)
    canonical = rows_of(ps.canonical_features(graph, data, 1), (0, 1), 0)
    assert (canonical @ last).abs().item() > 0.99
    assert (rows_of(ps.pca_features(graph, data, 1), (0, 1), 0) @ last).abs().item() < 0.1


def test_a_node_with_several_neighbours_has_one_map_for_all():
    data = hidden(500, 0.8, nodes=4)
    # node 0 shares another number with node 3, the two edges need two directions of it
    data[3] = data[3].clone()
    data[3].view(500, 6)[:, 2] = data[0].view(500, 6)[:, 2] + 0.3 * data[3].view(500, 6)[:, 2]
    network_edges = [(0, 1), (0, 3)]
    graph = ps.FactorGraph()
    for k in (0, 1, 3):
        graph.add_trajectory(k, SHAPE)
    for a, b in network_edges:
        graph.add_factor((a, b), [a, b], ps.JointGaussian())
    found = ps.canonical_features(graph, {k: data[k] for k in (0, 1, 3)}, 2, ridge=0.1)
    rows = rows_of(found, (0, 1), 0)
    assert torch.equal(rows, rows_of(found, (0, 3), 0))
    assert torch.allclose(rows @ rows.T, torch.eye(2).double(), atol=1e-10)
    for wanted in (2, 5):
        assert (rows[:, wanted]).norm() > 0.97
    fitted = ps.fit(found, {k: data[k] for k in (0, 1, 3)})
    assert ps.JointDenoiser(fitted) is not None
    # nested: more features begin with the fewer
    more = rows_of(ps.canonical_features(graph, {k: data[k] for k in (0, 1, 3)}, 4, ridge=0.1), (0, 1), 0)
    assert torch.allclose(more[:2], rows)


def test_the_choice_is_the_information_of_the_model():
    """A chain of three: 2 edges of -log(1 - .9^2) / 2 nats, in one direction per node out of six."""
    data = hidden(1000, 0.9, nodes=3)
    graph = ps.chain_graph(3, SHAPE)
    kinds = {"dct": [1], "pca": [1, 5, 6], "cca": [1, 3]}
    choice = ps.choose_features(graph, data, kinds, shrinkage="none", folds=3)
    assert (choice.best.kind, choice.best.number) == ("cca", 1)
    truth = -math.log(1 - 0.81)
    assert choice.best.interval[0] < truth < choice.best.interval[1]
    by_name = {(row.kind, row.number): row for row in choice.rows}
    assert by_name["pca", 5].information < 0.2 * truth
    assert by_name["pca", 6].information == pytest.approx(truth, rel=0.1)
    assert by_name["pca", 6].behind[0] > 0  # 36 numbers to learn per edge, 1 worth it
    assert by_name["cca", 1].behind == (0, 0)
    assert by_name["dct", 1].features == 1
    assert choice.graph.maps((0, 1))[0].out_size == 1
    assert not choice.graph.potential((0, 1)).fitted
    assert str(choice).splitlines()[1].startswith("cca 1 ")


def test_features_are_learned_without_the_samples_they_are_scored_on():
    """Independent nodes: directions of all 30 samples are correlated, on samples not seen there is nothing."""
    data = hidden(30, 0.0)
    graph = ps.chain_graph(2, SHAPE)
    everything = ps.fit(ps.canonical_features(graph, data, 1, ridge=0.0), data, shrinkage="none", heldout=0)
    assert ps.correlations(everything)[0].mutual_information > 0.1
    choice = ps.choose_features(graph, data, {"cca": [1]}, shrinkage="none")
    assert choice.best.information < 0
    # and shrinkage knows of it, whereas the features' own samples would ask for little
    assert ps.choose_features(graph, data, {"cca": [1]}, folds=3).shrinkage[1] >= 0.7


def test_the_ridge_is_chosen_on_samples_not_seen():
    """20 samples of 6 numbers: without a ridge the directions of least variance correlate by chance."""
    gains = []
    for seed in range(5):
        x = torch.randn(520, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        y = torch.randn(520, 6, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
        y[:, 0] = 0.8 * x[:, 0] + 0.6 * y[:, 0]
        spread = torch.tensor([3, 1, 1, 1, 1, 1], dtype=torch.float64)
        data = {0: (x * spread).reshape(-1, *SHAPE), 1: (y * spread).reshape(-1, *SHAPE)}
        few, fresh = {k: v[:20] for k, v in data.items()}, {k: v[20:] for k, v in data.items()}
        scores = []
        for ridge in (None, 0.0):
            graph = ps.canonical_features(ps.chain_graph(2, SHAPE), few, 1, ridge=ridge)
            problem = pose(graph)
            model = estimate_model(features(problem, few), "ledoit_wolf", problem.network, problem.blocks)
            scores.append(information_gain(features(problem, fresh), model, problem.blocks).mean().item())
        gains.append(scores)
    chosen, without = np.mean(gains, 0)
    assert chosen > without + 0.1


def test_canvases_and_other_factors_stay():
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda s: ps.DCT(s, 2))
    canvas = torch.randn(60, 1, 4, 10, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    found = ps.pca_features(graph, {"canvas": canvas}, 3)
    assert found.factors == graph.factors
    assert found.hidden == ["canvas"]
    assert found.maps(("w0", "w1"))[0].out_size == 3
    assert ps.Fit.of(ps.fit(found, {"canvas": canvas})).features == 9


def test_bad_input():
    data = hidden(30, 0.5)
    graph = ps.chain_graph(2, SHAPE)
    with pytest.raises(ParameterError, match="candidates has 'ica', which is not one of dct, pca, cca"):
        ps.choose_features(graph, data, {"ica": [1]})
    with pytest.raises(ParameterError, match="candidates is empty"):
        ps.choose_features(graph, data, {"pca": []})
    with pytest.raises(ParameterError, match=r"0 has 1..6 features of this kind .*, 7 asked for"):
        ps.pca_features(graph, data, 7)
    with pytest.raises(ParameterError, match="0 features asked for"):
        ps.canonical_features(graph, data, 0)
    with pytest.raises(BatchError, match="2 groups of samples do not make 5 folds"):
        ps.choose_features(graph, data, {"pca": [1]}, groups=[0] * 15 + [1] * 15)
    with pytest.raises(UnknownNameError, match="no data for 1"):
        ps.pca_features(graph, {0: data[0]}, 1)
    fitted = ps.fit(graph, data)
    with pytest.raises(UnsupportedError, match="is fitted to the features it sees"):
        with_features(fitted, {0: ps.Identity(SHAPE)})
