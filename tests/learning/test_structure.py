"""Learned graphs against the graphs that made the data, scikit-learn, and closed forms."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.covariance import GraphicalLassoCV

import pgm_sync as ps
from pgm_sync.errors import BatchError, ParameterError, UnknownNameError, UnsupportedError
from pgm_sync.learning.estimate import folds
from pgm_sync.learning.structure import chow_liu, pair_information


def trajectories(n, size=1):
    graph = ps.FactorGraph()
    for k in range(n):
        graph.add_trajectory(k, size)
    return graph


def from_model(network, rho, count, size=1, seed=0):
    """Samples of the Gaussian Markov model in which neighbours on `network` (a forest) have correlation `rho`."""
    generator = torch.Generator().manual_seed(seed)
    x = {}
    for component in nx.connected_components(network):
        start = min(component)
        x[start] = torch.randn(count, size, generator=generator)
        for a, b in nx.bfs_edges(network, start):
            x[b] = rho * x[a] + math.sqrt(1 - rho**2) * torch.randn(count, size, generator=generator)
    return {k: x[k] for k in sorted(x)}


def edges(graph):
    return {frozenset(graph.scope(f)) for f in graph.factors}


@pytest.mark.parametrize("rho", [0.6, -0.5])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_trees_are_recovered(rho, size, seed):
    """2000 samples: the weakest true edge has 0.14 nats, far from the 0.03 of the strongest false one."""
    network = nx.random_labeled_tree(8, seed=seed)
    data = from_model(network, rho, 2000, size, seed)
    found = ps.learn_structure(trajectories(8, size), data)
    assert edges(found) == {frozenset(edge) for edge in network.edges}
    posterior = ps.infer(found, {k: (0.0, 1 / float(v.var(0).mean())) for k, v in data.items()})
    a, b = next(iter(network.edges))
    assert posterior.correlation(a, b).mean().item() == pytest.approx(rho, abs=0.08)


def test_independent_trajectories_stay_apart():
    data = from_model(nx.empty_graph(4), 0.0, 500)
    found = ps.learn_structure(trajectories(4), data)
    assert found.factors == []
    assert len(ps.learn_structure(trajectories(4), data, significant=False).factors) == 3


def test_the_tree_is_the_best_of_all_trees():
    """Cayley: 125 labelled trees on 5 nodes; none has more mutual information."""
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x + 0.8 * x.roll(1, 1) + 0.3 * x.roll(2, 1)
    information = pair_information(x.T.cov(), {k: torch.tensor([k]) for k in range(5)})
    rho = np.corrcoef(x.T.numpy())
    for a, b, weight in information.edges(data="weight"):
        assert weight == pytest.approx(-0.5 * math.log(1 - rho[a, b] ** 2))
    best = max(
        sum(information.edges[e]["weight"] for e in nx.from_prufer_sequence(list(code)).edges)
        for code in itertools.product(range(5), repeat=3)
    )
    assert chow_liu(information).size(weight="weight") == pytest.approx(best)


def test_the_lasso_is_scikit_learns():
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = x + 0.7 * x.roll(1, 1)
    found = ps.learn_structure(trajectories(4), {k: x[:, k : k + 1] for k in range(4)}, "glasso")
    scaled = (x - x.mean(0)) / x.std(0)
    with np.errstate(invalid="ignore"):
        precision = GraphicalLassoCV(assume_centered=True).fit(scaled.numpy()).precision_
    expected = {frozenset((a, b)) for a, b in itertools.combinations(range(4), 2) if precision[a, b] != 0}
    assert edges(found) == expected


def test_features_and_saving(tmp_path):
    network = nx.path_graph(3)
    generator = torch.Generator().manual_seed(0)
    level = from_model(network, 0.9, 600)
    data = {k: v[..., None] + 0.3 * torch.randn(600, 4, 4, generator=generator) for k, v in level.items()}
    found = ps.learn_structure(trajectories(3, (4, 4)), data, maps={k: ps.DCT((4, 4), 2) for k in range(3)})
    assert edges(found) == {frozenset((0, 1)), frozenset((1, 2))}
    found.save(tmp_path / "found.json")
    again = ps.FactorGraph.load(tmp_path / "found.json")
    assert again.graph["structure"]["method"] == "chow_liu"
    assert len(again.graph["structure"]["mutual_information"]) == 3


def test_candidates_are_ranked_by_what_made_the_data():
    network = nx.path_graph(5)
    data = from_model(network, 0.7, 400)
    candidates = {
        "chain": ps.chain_graph(5, 1),
        "star": ps.star_graph(4, 1),
        "complete": ps.complete_graph(5, 1),
    }
    rows = ps.compare_graphs(candidates, data)
    assert rows[0].name == "chain"
    assert rows[-1].name == "star"
    # the information of a Markov chain is the sum over its edges
    expected = -0.5 * math.log(1 - 0.7**2) * 4
    assert rows[0].interval[0] < expected < rows[0].interval[1]
    assert rows[0].samples == 400


def denoisers_of(data):
    """Exact for the marginals of `from_model`: standard normal."""
    return {k: ps.GaussianDenoiser(torch.zeros(1).double(), torch.eye(1).double()) for k in data}


def test_candidates_by_joint_denoising():
    """Losses of the best graph are those of the true joint denoiser, in closed form (Eq. 9); a wrong one is behind."""
    data = {k: v.double() for k, v in from_model(nx.path_graph(4), 0.8, 3000).items()}
    candidates = {
        "chain": ps.chain_graph(4, 1),
        "star": ps.star_graph(3, 1),
        "complete": ps.complete_graph(4, 1),
    }
    levels = [ps.NoiseLevel(alpha=math.cos(a), sigma=math.sin(a)) for a in (0.3, 0.8, 1.3)]
    rows = ps.compare_graphs(candidates, data, by="score", denoisers=denoisers_of(data), levels=levels)
    by_name = {row.name: row for row in rows}
    place = torch.arange(4.0).double()
    covariance = 0.8 ** (place[:, None] - place).abs()
    expected = []
    for level in levels:
        snr = float(level.alpha / level.sigma) ** 2
        joint = torch.linalg.inv(torch.linalg.inv(covariance) + snr * torch.eye(4)).trace()
        expected.append((joint / (4 / (1 + snr))).item())
    truth = 1 - sum(expected) / 3
    assert by_name["chain"].interval[0] < truth < by_name["chain"].interval[1]
    assert by_name["chain"].gain == pytest.approx(1 - by_name["chain"].loss, abs=1e-9)
    assert rows[-1].name == "star"
    assert by_name["star"].behind[0] > 0
    assert by_name[rows[0].name].behind == (0, 0)
    again = ps.compare_graphs(candidates, data, by="score", denoisers=denoisers_of(data), levels=levels)
    assert again == rows


def test_joint_denoising_of_a_candidate_is_the_joint_denoisers():
    """Sample by sample against JointDenoiser with the fit of the other folds."""
    from pgm_sync.learning.comparison import _denoised

    data = {k: v.double() for k, v in from_model(nx.path_graph(3), 0.7, 40).items()}
    graph, own = ps.chain_graph(3, 1), denoisers_of(data)
    level = ps.NoiseLevel(alpha=0.8, sigma=0.6)
    (row,) = ps.compare_graphs({"chain": graph}, data, by="score", denoisers=own, levels=[level], folds=2)
    (denoised,) = _denoised(data, own, {k: ps.Identity((1,)) for k in data}, [level], 0)
    generator, total = torch.Generator().manual_seed(0), 0.0
    noisy = {
        k: 0.8 * x + 0.6 * torch.randn(x.shape, generator=generator, dtype=x.dtype) for k, x in data.items()
    }
    for part in folds(torch.arange(40), 2, 0):
        fitted = ps.fit(graph, {k: x[~part] for k, x in data.items()}, heldout=0)
        joint = ps.JointDenoiser(fitted)(
            {k: x[part] for k, x in noisy.items()}, {k: denoised[part][:, [k]] for k in data}, level
        )
        total += sum((joint.mean[k] - data[k][part]).square().sum().item() for k in data)
    alone = (denoised - torch.cat(list(data.values()), 1)).square().sum().item()
    assert row.loss == pytest.approx(total / alone)


def test_bad_input():
    graph, data = trajectories(3), from_model(nx.path_graph(3), 0.5, 50)
    with pytest.raises(ParameterError, match="method='best' is not one of chow_liu, glasso"):
        ps.learn_structure(graph, data, "best")
    with pytest.raises(ParameterError, match="joins at least two"):
        ps.learn_structure(trajectories(1), {0: data[0]})
    with pytest.raises(UnknownNameError, match="no data for 2"):
        ps.learn_structure(graph, {k: data[k] for k in (0, 1)})
    with pytest.raises(ParameterError, match="folds=1"):
        ps.compare_graphs({"chain": ps.chain_graph(3, 1)}, data, folds=1)
    with pytest.raises(BatchError, match="2 groups of samples do not make 5 folds"):
        ps.compare_graphs({"chain": ps.chain_graph(3, 1)}, data, groups=[0] * 25 + [1] * 25)
    pair = trajectories(3)
    pair.add_factor("f", [0, 1], ps.JointGaussian())
    with pytest.raises(ParameterError, match="candidate 'pair' sees features"):
        ps.compare_graphs({"chain": ps.chain_graph(3, 1), "pair": pair}, data)
    with pytest.raises(ParameterError, match="candidates is empty"):
        ps.compare_graphs({}, data)
    chain = {"chain": ps.chain_graph(3, 1)}
    with pytest.raises(ParameterError, match="by='taste' is not one of likelihood, score"):
        ps.compare_graphs(chain, data, by="taste")
    with pytest.raises(ParameterError, match="by='score' needs denoisers"):
        ps.compare_graphs(chain, data, by="score")
    with pytest.raises(UnknownNameError, match="no denoiser for 2"):
        ps.compare_graphs(chain, data, by="score", denoisers={k: denoisers_of(data)[k] for k in (0, 1)})
    with pytest.raises(UnsupportedError, match="do not share a canvas"):
        ps.compare_graphs(
            {"wide": ps.wide_canvas((1, 2, 6), (2, 4), 2, features=lambda s: ps.DCT(s, 1))},
            {"canvas": torch.randn(20, 1, 2, 6)},
            by="score",
            denoisers={},
        )
