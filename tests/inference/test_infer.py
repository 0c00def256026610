"""Every plan agrees with the dense solve, and with closed forms nobody here wrote."""

from __future__ import annotations

import itertools
import math
import re
import time
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import pytest
import torch
from hypothesis import given
from torch.distributions import MultivariateNormal

import pgm_sync as ps
from pgm_sync.errors import (
    CovarianceError,
    DtypeError,
    EmptyGraphError,
    GraphStructureError,
    ImproperGraphError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    StalePlanError,
    UnfittedError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.inference import dense_joint
from pgm_sync.potentials import Information, Potential

from .strategies import covariance, graphs_with_evidence


@dataclass(frozen=True, eq=False, repr=False)
class Own(Potential):
    """A normalised Gaussian on one node: the g_i that turn the ratios of Eq. 1 back into a density."""

    mean: torch.Tensor
    covariance: torch.Tensor
    ends: ClassVar[int] = 1

    def information(self, shapes):
        return Information(*ps.Gaussian.from_moments(self.mean, self.covariance))


def close(a, b, tolerance=1e-9):
    a, b = torch.broadcast_tensors(a, b)
    scale = max(b.abs().max().item(), 1e-3)
    assert (a - b).abs().max().item() <= tolerance * scale


@given(graphs_with_evidence())
def test_elimination_equals_the_dense_solve(case):
    graph, evidence = case
    exact, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    close(exact.log_evidence, dense.log_evidence)
    for name in graph.variables:
        close(exact.mean[name], dense.mean[name])
        close(exact.variance[name], dense.variance[name])
    for a, b in itertools.combinations(graph.variables, 2):
        close(exact.covariance(a, b), dense.covariance(a, b))
    assert exact.info.residual < 1e-12
    assert exact.info.variances_exact


@given(graphs_with_evidence(kinds=["correlation", "attraction", "masked"]))
def test_relabelling_nodes_changes_nothing(case):
    graph, evidence = case
    other = ps.FactorGraph()
    for name in reversed(graph.trajectories):
        other.add_trajectory(("new", name), graph.shape(name))
    for factor in reversed(graph.factors):
        scope = [("new", end) for end in graph.scope(factor)]
        other.add_factor(("new", factor), scope, graph.potential(factor), graph.nodes[factor]["maps"])
    renamed = ps.infer(other, {("new", name): value for name, value in evidence.items()})
    first = ps.infer(graph, evidence)
    for name in graph.trajectories:
        close(renamed.mean["new", name], first.mean[name])
        close(renamed.variance["new", name], first.variance[name])


@pytest.mark.parametrize("graph", [
    ps.chain_graph(4, (1, 3)), ps.star_graph(3, (1, 3)), ps.from_trajectory_graph(nx.balanced_tree(2, 2), (1, 3)),
], ids=["chain", "star", "binary tree"])  # fmt: skip
def test_a_tree_of_joint_gaussians_is_the_multivariate_normal(graph):
    """Oracle: torch.distributions on the covariance that the tree's pairwise marginals imply (Eq. 2)."""
    n = len(graph.trajectories)
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(3 * n, generator=generator, dtype=torch.float64)
    fitted, model, own = tree_model(graph, mean, generator)
    precision = 2.0
    seen = torch.randn(5, n, 1, 3, generator=generator, dtype=torch.float64)
    observed = {name: (seen[:, k], precision) for k, name in enumerate(fitted.trajectories)}
    for k, name in enumerate(fitted.trajectories):
        fitted.add_factor(("own", name), [name], Own(mean[3 * k : 3 * k + 3], own[name]))
    posterior = ps.infer(fitted, observed)
    noise = torch.eye(3 * n, dtype=torch.float64) / precision
    evidence = MultivariateNormal(mean, model + noise).log_prob(seen.reshape(5, -1))
    close(posterior.log_evidence, evidence)
    gain = model @ torch.linalg.inv(model + noise)
    expected = mean + (seen.reshape(5, -1) - mean) @ gain.T
    left = torch.cat([posterior.mean[name].reshape(5, -1) for name in fitted.trajectories], 1)
    close(left, expected)
    close(posterior.joint(fitted.trajectories).covariance, model - gain @ model)


def tree_model(graph, mean, generator):
    """A Markov covariance on the tree, built edge by edge, and the graph with its pairwise marginals."""
    names = graph.trajectories
    rows = {name: slice(3 * k, 3 * k + 3) for k, name in enumerate(names)}
    model = torch.zeros(3 * len(names), 3 * len(names), dtype=torch.float64)
    network = graph.markov_network()
    root = names[0]
    model[rows[root], rows[root]] = covariance(3, generator)
    known = [root]
    for parent, child in nx.bfs_edges(network, root):
        gain = 0.7 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
        for other in known:  # Cov(child, other) = gain Cov(parent, other)
            model[rows[child], rows[other]] = gain @ model[rows[parent], rows[other]]
            model[rows[other], rows[child]] = model[rows[child], rows[other]].T
        model[rows[child], rows[child]] = gain @ model[rows[parent], rows[parent]] @ gain.T + covariance(
            3, generator
        )
        known.append(child)
    potentials = {}
    for factor in graph.factors:
        index = torch.cat([torch.arange(len(mean))[rows[name]] for name in graph.scope(factor)])
        potentials[factor] = ps.JointGaussian(mean[index], model[index[:, None], index])
    own = {name: model[rows[name], rows[name]] for name in names}
    return graph.with_potentials(potentials), model, own


def test_log_evidence_and_moments_of_a_pair_in_closed_form():
    rho, precision, seen = 0.8, 4.0, 1.0
    graph = ps.chain_graph(2, (1,), ps.Correlation(rho))
    unit = (0.0, 1.0)
    posterior = ps.infer(graph, {0: (seen, precision), 1: unit})
    # node 0 keeps N(0, 1) under the copula only with its own prior: add it as evidence too
    graph.add_factor("own", [0], ps.Evidence(0.0, 1.0))
    posterior = ps.infer(graph, {0: (seen, precision), 1: unit})
    assert posterior.mean[0].item() == pytest.approx(precision / (1 + precision) * seen, abs=1e-12)
    assert posterior.mean[1].item() == pytest.approx(rho * precision / (1 + precision) * seen, abs=1e-12)
    assert posterior.variance[1].item() == pytest.approx(1 - rho**2 + rho**2 / (1 + precision), abs=1e-12)
    expected = torch.distributions.Normal(0.0, (1 + 1 / precision) ** 0.5).log_prob(torch.tensor(seen)).item()
    assert posterior.log_evidence.item() == pytest.approx(expected, abs=1e-6)


def test_two_factors_on_one_scope_add_up():
    evidence = {0: (torch.randn(4, 3).double(), 1.0), 1: (0.0, 1.0)}
    twice = ps.chain_graph(2, 3, ps.Attraction(1.0))
    twice.add_factor("more", [0, 1], ps.Attraction(0.5))
    once = ps.chain_graph(2, 3, ps.Attraction(1.5))
    close(ps.infer(twice, evidence).mean[1], ps.infer(once, evidence).mean[1], 1e-12)


def test_strong_attraction_tends_to_the_precision_weighted_average():
    means = torch.randn(3, 5).double()
    precisions = torch.tensor([1.0, 2.0, 3.0]).double()
    graph = ps.complete_graph(3, 5, ps.Attraction(1e7))
    posterior = ps.infer(graph, {k: (means[k], precisions[k]) for k in range(3)})
    average = (precisions[:, None] * means).sum(0) / precisions.sum()
    for k in range(3):
        close(posterior.mean[k], average, 1e-6)


def test_equality_merges_elements_and_precisions():
    graph = ps.wide_canvas((1, 4, 6), (4, 4), 2)
    left, right = torch.randn(1, 4, 4).double(), torch.randn(1, 4, 4).double()
    posterior = ps.infer(graph, {"w0": (left, 1.0), "w1": (right, 3.0)})
    middle = (left[..., 2:] + 3 * right[..., :2]) / 4
    expected = torch.cat([left[..., :2], middle, right[..., 2:]], -1)
    close(posterior.mean["canvas"], expected, 1e-12)
    close(posterior.mean["w1"], expected[..., 2:], 1e-12)
    assert posterior.correlation("w0", "w0").allclose(torch.ones(()).double())


def test_batches_are_loops():
    graph = ps.ring_graph(4, (2,), ps.Correlation(0.4))
    means = {k: torch.randn(3, 5, 2).double() for k in range(4)}
    precisions = {k: 1 + torch.rand(3, 5, 2).double() for k in range(4)}
    together = ps.infer(graph, {k: (means[k], precisions[k]) for k in range(4)})
    for i, j in itertools.product(range(3), range(5)):
        alone = ps.infer(graph, {k: (means[k][i, j], precisions[k][i, j]) for k in range(4)})
        close(together.mean[2][i, j], alone.mean[2], 1e-12)
        close(together.variance[2][i, j], alone.variance[2], 1e-12)
        close(together.log_evidence[i, j], alone.log_evidence, 1e-12)


@given(graphs_with_evidence(kinds=["correlation", "equality", "masked"]))
def test_elements_say_what_a_dictionary_says(case):
    graph, evidence = case
    evidence = {n: value for n, value in evidence.items() if not isinstance(value, ps.Gaussian)}
    pairs = {name: evidence.get(name, (torch.zeros(2, 3).double(), 150.0)) for name in graph.trajectories}
    batch = torch.broadcast_shapes(*(mean.shape[:-2] for mean, _ in pairs.values()))
    mean = torch.cat([mean.expand(*batch, 2, 3).flatten(-2) for mean, _ in pairs.values()], -1)
    precision = torch.cat(
        [torch.as_tensor(p).double().expand(*batch, 2, 3).flatten(-2) for _, p in pairs.values()], -1
    )
    for a, b in ((ps.infer(graph, ps.Elements(mean, precision)), ps.infer(graph, pairs)),):
        close(a.element_mean, torch.cat([b.mean[n].flatten(-2) for n in graph.trajectories], -1), 1e-12)
        close(
            a.element_variance, torch.cat([b.variance[n].flatten(-2) for n in graph.trajectories], -1), 1e-12
        )
        close(a.log_evidence, b.log_evidence, 1e-12)


def test_single_precision_is_single_precision():
    graph = ps.grid_graph(3, 3, (4,), ps.Correlation(0.3))
    means = {name: torch.randn(6, 4) for name in graph.trajectories}
    exact = ps.infer(graph, {n: (m.double(), 1.5) for n, m in means.items()})
    single = ps.infer(graph, {n: (m, 1.5) for n, m in means.items()})
    for name in graph.trajectories:
        assert single.mean[name].dtype == torch.float32
        close(single.mean[name].double(), exact.mean[name], 1e-5)


@pytest.mark.parametrize("graph", [
    ps.ring_graph(4, (2,), ps.Correlation(0.3)),
    ps.chain_graph(3, (2,), ps.JointGaussian(None, covariance(4, torch.Generator().manual_seed(3)))),
], ids=["elements", "blocks"])  # fmt: skip
def test_gradients(graph):
    names = graph.trajectories

    def quantities(mean, precision):
        posterior = ps.infer(graph, {n: (mean * (k + 1), precision + 20) for k, n in enumerate(names)})
        return (
            posterior.mean[names[0]],
            posterior.variance[names[1]],
            posterior.covariance(names[0], names[2]),
            posterior.log_evidence,
        )

    mean = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantities, (mean, precision))


@pytest.mark.parametrize("n", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_chain_does_not_recurse(n):
    graph = ps.chain_graph(n, (1,), ps.Correlation(0.9))
    posterior = ps.infer(graph, {0: (1.0, 1e6), **dict.fromkeys(range(1, n), (0.0, 1.0))})
    # Evidence N(0, 1) on node k > 0 and the copula's own -1 of precision cancel up to its own marginal: x_1 = .9 x_0.
    assert posterior.mean[1].item() == pytest.approx(0.9, abs=1e-5)
    assert posterior.mean[2].item() == pytest.approx(0.81, abs=1e-5)


def test_a_plan_is_reused_and_a_stale_one_refused():
    graph = ps.chain_graph(3, (2,), ps.Correlation(0.5))
    plan = ps.compile(graph)
    evidence = {k: (torch.randn(2).double(), 1.0) for k in range(3)}
    assert torch.equal(ps.infer(plan, evidence).mean[1], ps.infer(graph, evidence).mean[1])
    graph.add_factor("more", [0, 2], ps.Attraction(1.0))
    with pytest.raises(StalePlanError, match="has changed since this plan was compiled"):
        ps.infer(plan, evidence)


def test_the_dense_reference_on_paper():
    """Lambda and eta of one Attraction between two scalars, written down by hand."""
    joint = dense_joint(ps.chain_graph(2, 1, ps.Attraction(3.0)), {0: (2.0, 1.0), 1: (0.0, 5.0)})
    assert joint.precision.tolist() == [[4.0, -3.0], [-3.0, 8.0]]
    assert joint.eta.tolist() == [2.0, 0.0]


def test_an_improper_graph_names_its_nodes_and_a_cure():
    graph = ps.chain_graph(3, 2, ps.Attraction(1.0))
    graph.add_trajectory("apart", 1)
    with pytest.raises(ImproperGraphError, match=r"component of 0, 1, 2: .*add_factor\('prior'") as caught:
        ps.infer(graph, {"apart": (0.0, 1.0)})
    assert set(caught.value.nodes) == {0, 1, 2}
    direction = caught.value.direction
    close(direction / direction[0], torch.ones(3).double(), 1e-6)
    with pytest.raises(ImproperGraphError, match="'apart'"):
        ps.infer(graph, {0: (0.0, 1.0)})


@pytest.mark.parametrize("method", ["exact", "dense"])
def test_potentials_that_are_too_strong_together(method):
    n, rho = 5, 0.95
    graph = ps.complete_graph(n, 1, ps.Correlation(rho))
    with pytest.raises(ImproperGraphError, match="too strong together") as caught:
        ps.infer(graph, dict.fromkeys(range(n), (0.0, 1.0)), method=method)
    # Eq. 2 on paper: the direction (1, ..., 1) of the complete graph
    strength = rho / (1 - rho**2)
    expected = 1 + (n - 1) * (rho * strength - strength)
    assert caught.value.smallest_eigenvalue == pytest.approx(expected, abs=1e-9)
    # couplings times s: 1 + (n - 1) strength (rho - s) = 0
    assert caught.value.safe_scale == pytest.approx((1 / (n - 1) / strength + rho), abs=1e-9)
    # rho r: 1 + (n - 1) (r^2 - r) / (1 - r^2) = 1 - (n - 1) r / (1 + r) = 0
    assert caught.value.safe_rho * rho == pytest.approx(1 / (n - 2), abs=1e-5)
    assert "or every Correlation.rho times 0.3508)" in str(caught.value)  # 1 / 3 / .95, rounded down: it must be enough
    ps.infer(ps.complete_graph(n, 1, ps.Correlation(0.3508 * rho)), dict.fromkeys(range(n), (0.0, 1.0)))
    # what the message recommends is enough, and not by much less than could be
    enough = float(re.search(r"every Correlation\.rho times ([\d.e-]+)\)", str(caught.value))[1])
    unit = dict.fromkeys(range(n), (0.0, 1.0))
    assert ps.infer(ps.complete_graph(n, 1, ps.Correlation(rho * enough)), unit, method=method).variance[0] > 0
    with pytest.raises(ImproperGraphError):
        ps.infer(ps.complete_graph(n, 1, ps.Correlation(rho * (enough + 2e-4))), unit, method=method)


@pytest.mark.parametrize("n", [3, 4, 7, 40])
def test_the_safe_scale_of_a_cycle_in_closed_form(n):
    """Diagonal d and couplings -c around a ring: eigenvalues d - 2 c s cos(2 pi k / n), lowest at k = 0."""
    d, c = 1.0, 0.7
    graph = ps.ring_graph(n, 2, ps.Quadratic(torch.tensor([[0.0, -c], [-c, 0.0]], dtype=torch.float64)))
    with pytest.raises(ImproperGraphError, match="couplings times anything below 0.7142 ") as caught:
        ps.infer(graph, dict.fromkeys(range(n), (0.0, d)))
    assert caught.value.safe_scale == pytest.approx(d / (2 * c), abs=1e-9)
    assert caught.value.smallest_eigenvalue == pytest.approx(d - 2 * c, abs=1e-9)
    assert caught.value.safe_rho is None  # no Correlation here


def test_the_safe_scale_of_a_frustrated_cycle_in_closed_form():
    """One coupling of the other sign: the lowest eigenvalue is d - 2 c s cos(pi / n)."""
    n, d, c = 5, 1.0, 0.8
    sign = {(0, n - 1): 1.0}
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    graph = ps.from_trajectory_graph(
        nx.cycle_graph(n), 1, lambda u, v: ps.Quadratic(sign.get((u, v), -1.0) * c * swap)
    )
    with pytest.raises(ImproperGraphError) as caught:
        ps.infer(graph, dict.fromkeys(range(n), (0.0, d)))
    assert caught.value.safe_scale == pytest.approx(d / (2 * c * math.cos(math.pi / n)), abs=1e-9)


@pytest.mark.parametrize("network", [nx.path_graph(2500), nx.convert_node_labels_to_integers(nx.grid_2d_graph(50, 50))])
def test_the_diagnosis_of_a_large_component_is_close_and_quick(network):
    """Beyond `LARGEST_EXACT`: against the eigenvalues of paths, 2 cos(pi k / (m + 1)), and their sums on grids."""
    n, c = network.number_of_nodes(), 0.9
    graph = ps.from_trajectory_graph(network, 1, ps.Quadratic(torch.tensor([[0.0, c], [c, 0.0]], dtype=torch.float64)))
    reach = 2 * math.cos(math.pi / 2501) if nx.is_forest(network) else 4 * math.cos(math.pi / 51)
    start = time.perf_counter()
    with pytest.raises(ImproperGraphError, match="too strong together") as caught:
        ps.infer(graph, ps.Elements(torch.zeros(n).double(), torch.ones(n).double()))
    assert time.perf_counter() - start < 30
    assert caught.value.smallest_eigenvalue == pytest.approx(1 - c * reach, rel=2e-3)
    assert caught.value.safe_scale == pytest.approx(1 / (c * reach), rel=2e-3)


def test_many_correlations_are_diagnosed_in_seconds():
    """K_120, on paper as K_5 above: rho r < 1 / (n - 2) with evidence of precision 1."""
    n, rho = 120, 0.9
    start = time.perf_counter()
    with pytest.raises(ImproperGraphError) as caught:
        ps.infer(ps.complete_graph(n, 1, ps.Correlation(rho)), dict.fromkeys(range(n), (0.0, 1.0)))
    assert time.perf_counter() - start < 30
    assert caught.value.safe_rho * rho == pytest.approx(1 / (n - 2), abs=1e-5)


@pytest.mark.parametrize(("evidence", "error", "message"), [
    (ps.Elements(torch.zeros(7), 1.0), ShapeError, r"'all elements' has shape \(7,\), .* \(\*batch, 12\)"),
    (ps.Elements(torch.zeros(12), -torch.ones(12)), ParameterError, "precision for 'all elements' is negative"),
    ({"nobody": (0.0, 1.0)}, UnknownNameError, "'nobody', which is not in the graph"),
    ({0: (0.0, -1.0)}, ParameterError, "precision for 0 is negative"),
    ({0: (float("nan"), 1.0)}, NotFiniteError, "evidence mean for 0 has 1 NaN"),
    ({0: (torch.zeros(4), 1.0)}, ShapeError, r"shape \(4,\), which does not broadcast to \(\*batch, 2, 3\)"),
    ({0: torch.zeros(2, 3)}, ParameterError, r"give a pair \(mean, precision\) or a Gaussian"),
    ({0: (torch.zeros(2, 3), 1.0), 1: (torch.zeros(2, 3).double(), 1.0)}, DtypeError, "bring them together"),
    ({0: (torch.zeros(2, 3).int(), 1.0)}, DtypeError, "use float32 or float64"),
    ({(0, 1): (0.0, 1.0)}, UnknownNameError, r"a factor with a Correlation"),
    ({0: ps.Gaussian(torch.eye(3), torch.zeros(3), torch.zeros(()))}, ShapeError, "it has 6"),
    ({0: ps.Gaussian(torch.ones(6, 6).triu(), torch.zeros(6), torch.zeros(()))}, CovarianceError, "not symmetric"),
])  # fmt: skip
def test_bad_evidence(evidence, error, message):
    with pytest.raises(error, match=message):
        ps.infer(ps.chain_graph(2, (2, 3), ps.Correlation(0.5)), evidence)


def test_bad_graphs_and_methods():
    with pytest.raises(EmptyGraphError, match="add_trajectory"):
        ps.infer(ps.FactorGraph())
    with pytest.raises(UnfittedError, match=r"factor \(0, 1\) has a JointGaussian without parameters"):
        ps.infer(ps.chain_graph(2, 1))
    graph = ps.chain_graph(2, (2, 2), ps.Correlation(0.1))
    with pytest.raises(ParameterError, match="method='fast' is not one of"):
        ps.infer(graph, method="fast")
    with pytest.raises(ParameterError, match="'damping' is no option of method='exact'; it has: start"):
        ps.infer(graph, method="exact", damping=0.5)
    graph.add_factor("same", [0, 1], ps.Equality(), maps=[ps.DCT((2, 2), 2), ps.DCT((2, 2), 2)])
    with pytest.raises(UnsupportedError, match="Equality through a DCT"):
        ps.infer(graph, {0: (0.0, 1.0), 1: (0.0, 1.0)})
    loop = ps.chain_graph(2, (2, 2), ps.Equality())
    loop.add_factor("flipped", [0, 1], ps.Equality(), maps=[None, ps.Flip((2, 2))])
    with pytest.raises(GraphStructureError, match="copies of others of its own elements"):
        ps.infer(loop, {0: (0.0, 1.0)})


def test_questions_about_unknown_or_unlike_nodes():
    graph = ps.chain_graph(2, (2,), ps.Correlation(0.5))
    graph.add_trajectory("other", (3,))
    posterior = ps.infer(graph, {0: (0.0, 1.0), 1: (0.0, 1.0), "other": (0.0, 1.0)})
    with pytest.raises(ShapeError, match=r"use posterior.joint\(\[0, 'other'\]\)"):
        posterior.correlation(0, "other")
    with pytest.raises(UnknownNameError, match="no node 'nobody'"):
        posterior.mean["nobody"]
    assert posterior.joint([0, "other"]).covariance.shape == (5, 5)
    assert "elementwise" in posterior.info.reason


def test_batches_may_come_with_the_precision_alone():
    """Matrix evidence whose eta has no batch: one posterior per precision."""
    graph = ps.chain_graph(2, 2, ps.JointGaussian(None, covariance(4, torch.Generator().manual_seed(0))))
    precision = torch.eye(2).double() * torch.tensor([20.0, 40.0]).double()[:, None, None]
    eta, zero = torch.ones(2).double(), torch.zeros(()).double()
    both = ps.infer(graph, {0: ps.Gaussian(precision, eta, zero), 1: (0.0, 20.0)})
    for k in range(2):
        one = ps.infer(graph, {0: ps.Gaussian(precision[k], eta, zero), 1: (0.0, 20.0)}, method="dense")
        close(both.mean[1][k], one.mean[1], 1e-12)
