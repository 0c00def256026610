"""Fitted potentials against the likelihood equations, scikit-learn, and models that made the data."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import scale

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    ConvergenceError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.learning import FeatureMoments, select_covariance, shrunk_covariance

NETWORKS = {
    "chain": nx.path_graph(4),
    "triangulated": nx.Graph([(0, 1), (1, 2), (0, 2), (2, 3), (1, 3)]),
    "two components": nx.Graph([(0, 1), (2, 3)]),
    "ring": nx.cycle_graph(5),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
}


def sample_covariance(n, seed=0):
    x = torch.randn(4 * n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x + 0.7 * x.roll(1, 1) + x[:, :1]
    return x.T @ x / len(x)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_likelihood_equations_hold(kind, size):
    """The maximum is where the model agrees with the data on every edge and has no other precision (Lauritzen 5.3)."""
    network = NETWORKS[kind]
    n = network.number_of_nodes()
    covariance = sample_covariance(n * size)
    blocks = {k: torch.arange(k * size, (k + 1) * size) for k in network.nodes}
    found = select_covariance(covariance, network, blocks)
    model = torch.linalg.inv(found.precision)
    for a in network.nodes:
        for b in network.nodes:
            rows = blocks[a][:, None], blocks[b]
            if a == b or network.has_edge(a, b):
                assert torch.allclose(model[rows], covariance[rows], atol=1e-7)
            else:
                assert torch.allclose(found.precision[rows], torch.zeros(size, size).double(), atol=1e-9)
    assert torch.linalg.eigvalsh(found.precision)[0] > 0
    assert (len(found.trace) == 1) == nx.is_chordal(network)


def test_selection_says_when_it_does_not_converge():
    blocks = {k: torch.tensor([k]) for k in range(5)}
    with pytest.raises(ConvergenceError, match="shrink more") as caught:
        select_covariance(sample_covariance(5), nx.cycle_graph(5), blocks, most_sweeps=2)
    assert len(caught.value.trace) == 2


def test_shrinkage_is_scikit_learns_on_standardised_data():
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 7)
    x = x - x.mean(0)
    found, intensity = shrunk_covariance(x, "ledoit_wolf")
    oracle = LedoitWolf(assume_centered=True).fit(scale(x.numpy()))
    std = x.square().mean(0).sqrt()
    assert intensity == pytest.approx(oracle.shrinkage_, abs=1e-12)
    assert torch.allclose(found / std[:, None] / std, torch.from_numpy(oracle.covariance_), atol=1e-10)
    same, none = shrunk_covariance(x, "none")
    assert none == 0
    assert torch.allclose(same, x.T @ x / 30)


@pytest.mark.parametrize("kind", ["chain", "ring", "grid"])
def test_the_potentials_multiply_to_the_fitted_model(kind):
    """Potentials times own marginals, through the engine: covariances on edges are the data's, log mass is 0."""
    network = NETWORKS[kind]
    n = network.number_of_nodes()
    covariance = sample_covariance(2 * n)
    x = (
        torch.linalg.cholesky(covariance)
        @ torch.randn(2 * n, 300, generator=torch.Generator().manual_seed(1)).double()
    )
    data = {k: x[2 * k : 2 * k + 2].T for k in network.nodes}
    fitted = ps.fit(ps.from_trajectory_graph(network, (2,)), data, shrinkage="none", heldout=0)
    sample = torch.cov(x, correction=0)
    own = {
        k: ps.Gaussian.from_moments(
            x.mean(1)[2 * k : 2 * k + 2], sample[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
        )
        for k in network.nodes
    }
    posterior = ps.infer(fitted, own)
    assert posterior.log_evidence.item() == pytest.approx(0, abs=1e-6)
    for a, b in network.edges:
        rows = torch.tensor([2 * a, 2 * a + 1, 2 * b, 2 * b + 1])
        joint = posterior.joint([a, b])
        assert torch.allclose(joint.covariance, sample[rows[:, None], rows], atol=1e-6)
        assert torch.allclose(joint.mean, x.mean(1)[rows], atol=1e-6)


def test_a_known_correlation_is_recovered(tmp_path):
    """rho = .8 and n = 4,000: inside the Fisher interval at five standard errors; the interval itself is scipy's."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 1, 4, 4, generator=generator).double()
    b = 0.8 * a + 0.6 * torch.randn(4000, 1, 4, 4, generator=generator).double()
    graph = ps.chain_graph(2, (1, 4, 4), features=lambda s: ps.DCT(s, 3))
    fitted = ps.fit(graph, {0: a, 1: b})
    table = ps.correlations(fitted)
    assert [row.mode for row in table] == ps.DCT((1, 4, 4), 3).labels()
    for row in table:
        assert math.atanh(row.rho) == pytest.approx(math.atanh(0.8), abs=5 / math.sqrt(3997))
        assert math.atanh(row.high) - math.atanh(row.rho) == pytest.approx(
            1.959964 / math.sqrt(3997), abs=1e-6
        )
        assert row.mutual_information == pytest.approx(-0.5 * math.log(1 - row.rho**2))
    assert table.mutual_information[0, 1] == pytest.approx(-1.5 * math.log(1 - 0.64), rel=0.05)
    record = ps.Fit.of(fitted)
    assert record.num_samples == 4000
    assert record.heldout_samples == 800
    assert record.heldout > record.details["heldout_independent"]
    assert "held out (800 samples)" in str(record)
    assert not graph.potential((0, 1)).fitted
    fitted.save(tmp_path / "graph.safetensors")
    loaded = ps.FactorGraph.load(tmp_path / "graph.safetensors")
    assert ps.Fit.of(loaded) == record
    assert str(ps.correlations(loaded)) == str(table)
    assert "<table>" in table._repr_html_()
    assert table.to_dicts()[0]["first"] == 0


def test_views_are_cut_from_canvas_data():
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda s: ps.DCT(s, 2))
    data = torch.randn(50, 1, 4, 10)
    from_canvas = ps.fit(graph, {"canvas": data})
    views = {f"w{k}": data[..., 3 * k : 3 * k + 4] for k in range(3)}
    from_views = ps.fit(graph, views)
    for factor in [("w0", "w1"), ("w1", "w2")]:
        assert torch.equal(from_canvas.potential(factor).covariance, from_views.potential(factor).covariance)


def test_factors_that_see_different_parts_are_fitted_one_by_one():
    graph = ps.FactorGraph()
    for name in "abc":
        graph.add_trajectory(name, (4,))
    left, right = ps.Crop((4,), (0,), (2,)), ps.Crop((4,), (2,), (2,))
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(), [right, left])
    graph.add_factor("bc", ["b", "c"], ps.JointGaussian(), [right, left])
    x = torch.randn(200, 12).double().cumsum(1)
    fitted = ps.fit(graph, {"a": x[:, :4], "b": x[:, 4:8], "c": x[:, 8:]}, shrinkage="none")
    assert ps.Fit.of(fitted).details["estimator"] == "pairwise"
    assert torch.allclose(fitted.potential("bc").covariance, torch.cov(x[:, 6:10].T, correction=0), atol=1e-9)
    assert ps.JointDenoiser(fitted) is not None


PAIR = ps.chain_graph(2, (3,))
X = torch.randn(10, 3)


@pytest.mark.parametrize(("graph", "data", "options", "error", "message"), [
    (PAIR, {0: X}, {}, UnknownNameError, r"no data for 1, which factor \(0, 1\) joins"),
    (PAIR, {0: X, 1: X, 7: X}, {}, UnknownNameError, "data for 7"),
    (PAIR, {0: X, 1: X[:, :2]}, {}, ShapeError, r"data for 1 has shape \(10, 2\), expected \(n, 3\)"),
    (PAIR, {0: X, 1: X[:5]}, {}, BatchError, "same number of joint samples"),
    (PAIR, {0: X[:1], 1: X[:1]}, {}, BatchError, "at least 2"),
    (PAIR, {0: X, 1: X / 0}, {}, NotFiniteError, "data for 1"),
    (PAIR, {0: X, 1: X}, {"method": "magic"}, ParameterError, "method='magic'"),
    (PAIR, {0: X, 1: X}, {"positions": {}}, ParameterError, "no option 'positions'.*'single_view' does"),
    (PAIR, {0: X, 1: X}, {"shrinkge": 0.1}, ParameterError, r"no option 'shrinkge' \(it takes shrinkage, heldout"),
    (PAIR, {0: X, 1: X}, {"shrinkage": "much"}, ParameterError, "shrinkage='much'"),
    (PAIR, {0: X, 1: X}, {"shrinkage": 2.0}, ParameterError, r"must lie in \[0, 1\]"),
    (PAIR, {0: X, 1: X}, {"heldout": 1.0}, ParameterError, "heldout=1.0"),
    (PAIR, {0: X, 1: X}, {"groups": [1, 2]}, BatchError, "2 group labels for 10 samples"),
    (ps.chain_graph(2, (3,), ps.Correlation(0.5)), {0: X, 1: X}, {}, ParameterError, "no JointGaussian factor"),
])  # fmt: skip
def test_bad_input(graph, data, options, error, message):
    with pytest.raises(error, match=message):
        ps.fit(graph, data, **options)


@pytest.mark.parametrize("shrinkage", ["oas", "none", 0.3])
def test_batches_give_the_fit_of_all_samples(shrinkage):
    """OAS from moments is scikit-learn's OAS on the samples, which `fit` uses on data in memory."""
    graph = ps.ring_graph(4, 3)
    x = sample_covariance(12)
    root = torch.linalg.cholesky(x)
    samples = torch.randn(230, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ root.T + 2
    data = {k: samples[:, 3 * k : 3 * k + 3] for k in range(4)}
    moments = FeatureMoments(graph)
    for part in torch.arange(230).split(37):
        moments.update({k: v[part] for k, v in data.items()})
    whole, gathered = ps.fit(graph, data, shrinkage=shrinkage, heldout=0), ps.fit(graph, moments, shrinkage=shrinkage)
    for factor in graph.factors:
        assert torch.allclose(
            gathered.potential(factor).covariance, whole.potential(factor).covariance, rtol=1e-7, atol=1e-9
        )
        assert torch.allclose(gathered.potential(factor).mean, whole.potential(factor).mean)
    assert ps.Fit.of(gathered).num_samples == 230


def test_bad_batches():
    graph = ps.chain_graph(2, 3)
    moments = FeatureMoments(graph)
    with pytest.raises(BatchError, match="the moments are of 0 samples"):
        ps.fit(graph, moments, shrinkage="oas")
    moments.update({0: torch.randn(9, 3), 1: torch.randn(9, 3)})
    before = moments.covariance.clone()
    with pytest.raises(NotFiniteError, match="data for 1"):
        moments.update({0: torch.randn(9, 3), 1: torch.full((9, 3), math.nan)})
    assert torch.equal(moments.covariance, before)
    with pytest.raises(ParameterError, match="needs the samples themselves"):
        ps.fit(graph, moments)
    with pytest.raises(ParameterError, match="moments gathered in batches are for 'moments'"):
        ps.fit(graph, moments, method="score")
    with pytest.raises(ParameterError, match="the graph's factors see"):
        ps.fit(ps.chain_graph(2, 4), moments, shrinkage="oas")
    with pytest.raises(ParameterError, match="no JointGaussian factor"):
        FeatureMoments(ps.chain_graph(2, 3, ps.Correlation(0.5)))


def test_a_record_needs_a_fit():
    with pytest.raises(ParameterError, match="no record of a fit"):
        ps.Fit.of(PAIR)


def test_moments_of_batches_need_whole_nodes():
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, (4,))
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(), [ps.Crop((4,), (0,), (2,)), None])
    with pytest.raises(UnsupportedError, match="see the same features"):
        FeatureMoments(graph)
