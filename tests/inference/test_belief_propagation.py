"""Belief propagation against dense solves, closed forms and the theory of walk sums."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import (
    CavityError,
    ConvergenceError,
    LoopError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.inference import belief_propagation as bp
from pgm_sync.inference import dense_joint
from pgm_sync.inference.belief_propagation import schedules
from pgm_sync.inference.belief_propagation.schedules import Sweep, sweep

from .strategies import covariance, graphs_with_evidence

SCHEDULES = ["flooding", "sequential", "residual"]


def ring(n, strength=1.0, shape=(3,), batch=(), dtype=torch.float64, seed=0):
    """A ring of attractions with random evidence."""
    generator = torch.Generator().manual_seed(seed)
    graph = ps.ring_graph(n, shape, ps.Attraction(strength))
    means = {k: torch.randn(*batch, *shape, generator=generator, dtype=dtype) for k in range(n)}
    return graph, {k: (m, torch.tensor(1.0, dtype=dtype)) for k, m in means.items()}


def truth(graph, evidence):
    """Mean and variance per name, by torch.linalg on the dense joint precision."""
    joint = dense_joint(graph, evidence)
    covariance = torch.linalg.inv(joint.precision)
    mean = torch.linalg.solve(joint.precision.expand(*joint.eta.shape, -1), joint.eta)
    sites = ps.compile(graph).sites
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return {n: (sites.gather(mean, n), sites.gather(variance, n)) for n in graph.variables}


def close(a, b, tolerance):
    a, b = torch.broadcast_tensors(a, b)
    assert (a - b).abs().max().item() <= tolerance * max(b.abs().max().item(), 1e-3)


def walk_radius(graph, evidence):
    """rho(|R|) of [Malioutov2006]_, by numpy."""
    precision = dense_joint(graph, evidence).precision.numpy()
    scale = 1 / np.sqrt(precision.diagonal())
    return np.abs(
        np.linalg.eigvalsh(np.abs(np.eye(len(precision)) - scale[:, None] * precision * scale))
    ).max()


@given(graphs_with_evidence(margins=[150.0]), st.sampled_from(SCHEDULES))
def test_means_are_exact_wherever_it_converges(case, schedule):
    """Trees, loops, blocks, masks, shared elements: evidence of 150 makes most of these walk-summable."""
    graph, evidence = case
    net = bp.network(graph, evidence)
    result = bp.run(net, schedule, tolerance=1e-11)
    for name, (mean, variance) in truth(graph, evidence).items():
        close(result.mean[name], mean, 1e-9)
        if net.forest:
            close(result.variance[name], variance, 1e-9)
    assert result.variances_exact == net.forest
    joint = dense_joint(graph, evidence)
    left = (joint.precision @ result.site_mean.unsqueeze(-1)).squeeze(-1) - joint.eta
    assert result.residual == pytest.approx(
        (left.norm(dim=-1) / joint.eta.norm(dim=-1)).max().item(), abs=1e-13
    )


@given(graphs_with_evidence(margins=[150.0]))
def test_two_sweeps_are_exact_on_forests_and_name_a_loop_elsewhere(case):
    graph, evidence = case
    net = bp.network(graph, evidence)
    if net.forest:
        result = bp.run(net, "tree", tolerance=1e-12)
        assert result.iterations == (1 if net.edges else 0)
        for name, (mean, variance) in truth(graph, evidence).items():
            close(result.mean[name], mean, 1e-9)
            close(result.variance[name], variance, 1e-9)
    else:
        with pytest.raises(LoopError, match="two sweeps are exact on forests only") as caught:
            bp.run(net, "tree")
        cycle = caught.value.cycle
        assert all((a, b) in net.edges for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True))


@given(st.integers(1, 40), st.integers(0, 10**6), st.booleans())
def test_sweeps_are_breadth_first_trees_or_a_cycle(n, seed, loop):
    network = nx.random_labeled_tree(n, seed=seed)
    network = nx.disjoint_union(network, nx.random_labeled_tree(3, seed=seed))
    missing = list(nx.non_edges(network.subgraph(range(n))))
    if loop and missing:
        network.add_edge(*missing[seed % len(missing)])
    ends = np.array(network.edges).reshape(-1, 2)
    found = sweep(n + 3, *ends.T)
    if loop and missing:
        assert not isinstance(found, Sweep)
        assert len(set(found)) == len(found) >= 3
        assert all(network.has_edge(a, b) for a, b in zip(found, found[1:] + found[:1], strict=True))
        return
    assert isinstance(found, Sweep)
    assert sorted(found.order.tolist()) == list(range(n + 3))
    edges = {
        frozenset((int(v), int(found.order[p])))
        for v, p in zip(found.order, found.parent, strict=True)
        if p >= 0
    }
    assert edges == {frozenset(edge) for edge in network.edges}
    deepest = max(nx.radius(network.subgraph(c)) for c in nx.connected_components(network))
    assert len(found.bounds) - 2 == deepest  # rooted in the middle


def test_messages_of_a_pair_on_paper():
    """Lambda = [[4, -3], [-3, 8]], eta = [2, 0]: -9/4 and 3 * 2 / 4 to the right, -9/8 and 0 to the left."""
    net = bp.network(ps.chain_graph(2, 1, ps.Attraction(3.0)), {0: (2.0, 1.0), 1: (0.0, 5.0)})
    start = bp.init(net)
    once = bp.step(net, start, (0, 1))
    right, left = bp.message(net, once, 0, 1), bp.message(net, once, 1, 0)
    assert (right.precision.item(), right.eta.item()) == (-9 / 4, 6 / 4)
    assert (left.precision.item(), left.eta.item()) == (0, 0)
    both = bp.step(net, once, [(1, 0)])
    assert bp.message(net, both, 1, 0).precision.item() == -9 / 8
    found = bp.beliefs(net, both)
    assert found.mean[0].item() == pytest.approx(16 / 23)  # Cramer
    assert found.variance[0].item() == pytest.approx(8 / 23)
    assert bp.beliefs(net, start).mean[0].item() == 2 / 4
    assert bp.message(net, start, 0, 1).eta.item() == 0, "step must not write into what it was given"


def test_all_edges_at_once_use_the_old_messages():
    graph, evidence = ring(5)
    net = bp.network(graph, evidence)
    start = bp.step(net, bp.init(net))
    at_once = bp.step(net, start, net.edges)
    for part in zip(*at_once, *bp.step(net, start), strict=True):
        assert torch.equal(part[0], part[2])
        assert torch.equal(part[1], part[3])
    for edge in net.edges:
        one = bp.message(net, bp.step(net, start, edge), *edge)
        close(one.precision, bp.message(net, at_once, *edge).precision, 1e-14)
        close(one.eta, bp.message(net, at_once, *edge).eta, 1e-14)
    in_turn = start
    for edge in net.edges:
        in_turn = bp.step(net, in_turn, edge)
    run = next(schedules.sequential(net, state := _state(start), schedules.Mixing(net)))
    assert run.messages == 10
    close(state.eta[0], in_turn.eta[0], 1e-14)


def _state(messages):
    return schedules.State(bp.Messages(*(tuple(v.clone() for v in part) for part in messages)))


def test_damping_is_the_weight_of_the_old_message():
    graph, evidence = ring(4)
    net = bp.network(graph, evidence)
    old = bp.step(net, bp.init(net))
    new = bp.step(net, old)
    half = bp.step(net, old, damping=0.25)
    close(half.eta[0], 0.25 * old.eta[0] + 0.75 * new.eta[0], 1e-14)
    close(half.precision[0], 0.25 * old.precision[0] + 0.75 * new.precision[0], 1e-14)
    one = bp.step(net, old, damping={(0, 1): 0.9})
    for edge in net.edges:
        weight = 0.9 if edge == (0, 1) else 0.0
        expected = weight * bp.message(net, old, *edge).eta + (1 - weight) * bp.message(net, new, *edge).eta
        close(bp.message(net, one, *edge).eta, expected, 1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_damping_keeps_the_fixed_point(schedule):
    graph, evidence = ring(5)
    net = bp.network(graph, evidence)
    plain = bp.run(net, schedule, tolerance=1e-12)
    damped = bp.run(
        net, schedule, damping={edge: 0.3 + 0.05 * k for k, edge in enumerate(net.edges)}, tolerance=1e-12
    )
    for name in graph.variables:
        close(damped.mean[name], plain.mean[name], 1e-10)
        close(damped.variance[name], plain.variance[name], 1e-10)
    assert damped.iterations > plain.iterations


@pytest.mark.parametrize("schedule", [*SCHEDULES, "tree"])
def test_frozen_edges_carry_nothing_or_what_they_had(schedule):
    """A chain whose last link says nothing in one direction is, for the nodes before it, the shorter chain."""
    graph = ps.chain_graph(4, (2,), ps.Attraction(1.0))
    evidence = {k: (torch.randn(2).double(), 1.0) for k in range(4)}
    net = bp.network(graph, evidence)
    result = bp.run(net, schedule, frozen=[(3, 2)], tolerance=1e-12)
    assert not result.messages.precision[0].isnan().any()
    assert bp.message(net, result.messages, 3, 2).eta.abs().max() == 0
    shorter = dense_joint(graph, evidence).precision.reshape(4, 2, 4, 2)[:3, 0, :3, 0]
    eta = torch.stack([evidence[k][0] for k in range(3)])
    close(torch.stack([result.mean[k] for k in range(3)]), torch.linalg.solve(shorter, eta), 1e-10)
    assert not result.variances_exact
    again = bp.run(
        net, schedule, messages=bp.run(net, tolerance=1e-12).messages, frozen=net.edges[:3], tolerance=1e-12
    )
    close(again.mean[3], truth(graph, evidence)[3][0], 1e-10)


@pytest.mark.parametrize("blocks", [False, True], ids=["elements", "blocks"])
def test_damped_sweeps_arrive_too(blocks):
    sigma = covariance(4, torch.Generator().manual_seed(1))
    potential = ps.JointGaussian(None, sigma) if blocks else ps.Attraction(2.0)
    graph = ps.star_graph(3, (2,), potential)
    evidence = {k: (torch.randn(5, 2).double(), 20.0) for k in range(4)}
    net = bp.network(graph, evidence)
    result = bp.run(net, "tree", damping=0.5, tolerance=1e-10)
    assert result.iterations > 10
    for name, (mean, variance) in truth(graph, evidence).items():
        close(result.mean[name], mean, 1e-9)
        close(result.variance[name], variance, 1e-9)


@given(graphs_with_evidence(margins=[150.0], kinds=["correlation", "attraction", "joint", "features"]))
def test_schedules_agree_where_they_end(case):
    graph, evidence = case
    net = bp.network(graph, evidence)
    first, *others = (bp.run(net, schedule, tolerance=1e-13) for schedule in SCHEDULES)
    for other in others:
        close(other.site_mean, first.site_mean, 1e-9)
        close(other.site_variance, first.site_variance, 1e-9)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_variances_on_a_ring_in_closed_form(n):
    """All messages are equal there: P = -k^2 / (a + P), J = a + 2 P; the truth is a sum over Fourier modes."""
    k, a = 1.0, 3.0  # an attraction of 1 and evidence of precision 1
    graph, evidence = ring(n, k)
    result = bp.run(bp.network(graph, evidence), tolerance=1e-12)
    p = (-a + math.sqrt(a * a - 4 * k * k)) / 2
    exact = sum(1 / (a - 2 * k * math.cos(2 * math.pi * m / n)) for m in range(n)) / n
    assert result.variance[0].tolist() == pytest.approx([1 / (a + 2 * p)] * 3, rel=1e-9)
    row = bp.compare_with_exact(result)[0]
    assert row.variance_ratio == pytest.approx(1 / (a + 2 * p) / exact, rel=1e-9)
    assert row.variance_ratio < 1, "attractive: overconfident"
    assert row.mean_error < 1e-9
    assert not result.variances_exact


@given(st.integers(0, 10**6), st.floats(0.05, 0.97))
def test_every_walk_summable_model_converges(seed, radius):
    """Random symmetric R with rho(|R|) given; signs at random, so frustrated loops as well [Malioutov2006]_."""
    generator = torch.Generator().manual_seed(seed)
    n = 6
    off = torch.randn(n, n, generator=generator, dtype=torch.float64).triu(1)
    off = off + off.T
    off = off * radius / torch.linalg.eigvalsh(off.abs()).abs().max()
    precision, eta = torch.eye(n).double() - off, torch.randn(n, generator=generator, dtype=torch.float64)
    graph, evidence = matrix_graph(precision, eta)
    assert walk_radius(graph, evidence) == pytest.approx(radius, abs=1e-8)
    result = bp.run(bp.network(graph, evidence), tolerance=1e-9, max_iterations=3000)
    mean = torch.cat([result.mean[k] for k in range(n)])
    close(mean, torch.linalg.solve(precision, eta), 1e-9 * 2 / (1 - radius) * 10)


def matrix_graph(precision, eta):
    """A graph of scalars with the given joint precision: attractions where they pull, correlations where they push."""
    n = len(eta)
    graph = ps.FactorGraph()
    for k in range(n):
        graph.add_trajectory(k, 1)
    left = precision.diagonal().clone()
    for a in range(n):
        for b in range(a + 1, n):
            value = precision[a, b].item()
            if value == 0:
                continue
            # Correlation(rho): -rho / (1 - rho^2) off the diagonal and rho^2 / (1 - rho^2) on it (Eq. 2)
            rho = 2 * -value / (1 + math.sqrt(1 + 4 * value * value))
            graph.add_factor((a, b), [a, b], ps.Correlation(rho))
            for end in (a, b):
                left[end] -= rho * rho / (1 - rho * rho)
    assert (left >= 0).all(), "evidence has to supply the rest of the diagonal"
    return graph, {k: (eta[k : k + 1] / left[k], left[k]) for k in range(n)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_not_walk_summable_is_a_named_error(schedule, damping):
    """[Malioutov2006]_, Fig. 3: the 4-cycle with a chord, all partial correlations .39 but one -.39: rho(|R|) = 1.0017;
    here .45, where the matrix is still positive definite and belief propagation is not well-posed."""
    r = 0.45
    off = torch.tensor([[0, -r, r, r], [-r, 0, r, 0], [r, r, 0, r], [r, 0, r, 0]]).double()
    precision = torch.eye(4).double() - off
    assert torch.linalg.eigvalsh(precision).min() > 0
    graph, evidence = matrix_graph(3 * precision, torch.ones(4).double())
    assert walk_radius(graph, evidence) > 1
    net = bp.network(graph, evidence)
    with pytest.raises((CavityError, ConvergenceError)) as caught:
        bp.run(net, schedule, damping=damping, max_iterations=500)
    if isinstance(caught.value, CavityError):
        assert caught.value.precision <= 0 or math.isclose(caught.value.precision, 0, abs_tol=1e-12)
        assert caught.value.source in range(4)
        assert caught.value.iteration >= 1
        assert f"at iteration {caught.value.iteration}" in str(caught.value)
    else:
        assert all(not part.isnan().any() for side in caught.value.messages for part in side)
        assert len(caught.value.trace) > 2


def complete(n, b, eta):
    """Precision 1 everywhere, every pair coupled by b."""
    precision = (1 - b) * torch.eye(n).double() + b * torch.ones(n, n).double()
    return precision, *matrix_graph(0.5 * precision, 0.5 * torch.tensor(eta, dtype=torch.float64))


def test_a_cavity_without_precision_names_the_message():
    """Repulsions of .4 in K5 are proper, but P = -b^2 / (1 + 3 P) has no fixed point for b^2 > 1 / 12."""
    precision, graph, evidence = complete(5, 0.4, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert torch.linalg.eigvalsh(precision).min() > 0
    with pytest.raises(
        CavityError, match=r"message 0 -> 1 at iteration \d+: without 1, 0 has precision -"
    ) as caught:
        bp.run(bp.network(graph, evidence))
    a, b, p, iteration = 0.5, 0.2, 0.0, 0
    while a + 3 * p > 0:  # the same recursion, by hand
        p, iteration = -b * b / (a + 3 * p), iteration + 1
    assert caught.value.iteration == iteration + 1
    assert caught.value.precision == pytest.approx(a + 3 * p)
    assert (caught.value.source, caught.value.target) == (0, 1)
    with pytest.raises(CavityError, match="method='exact', which also says whether the graph is improper"):
        ps.infer(graph, evidence, method="gbp", damping=0.2)


@pytest.mark.parametrize("eta", [[0.0] * 5, [1.0, -1.0, 0.0, 0.0, 0.0]], ids=["zero", "across"])
def test_settling_for_one_eta_is_not_taken_for_a_posterior(eta):
    """K5 with attractions of .28: not positive definite along (1, ..., 1), which an eta across it never meets."""
    precision, graph, evidence = complete(5, -0.28, eta)
    assert torch.linalg.eigvalsh(precision).min() < 0
    assert bp.run(bp.network(graph, evidence)).residual < 1e-6
    with pytest.raises(ConvergenceError, match="not for a random one under the same precision"):
        ps.infer(graph, evidence, method="gbp")
    with pytest.raises(ps.errors.ImproperGraphError):
        ps.infer(graph, evidence)


def test_a_diverging_mean_is_caught_with_its_messages():
    """Precisions settle and means grow: K4 with repulsions of .35 is proper, walk radius 1.05."""
    precision, graph, evidence = complete(4, 0.35, [1.0, -2.0, 0.5, 1.0])
    assert torch.linalg.eigvalsh(precision).min() > 0
    assert walk_radius(graph, evidence) == pytest.approx(1.05)
    with pytest.raises(
        ConvergenceError, match=r"diverges: .*it grows: the graph is not walk-summable"
    ) as caught:
        bp.run(bp.network(graph, evidence), max_iterations=20_000)
    assert 1e8 < caught.value.residual < 1e10
    assert all(part.isfinite().all() for side in caught.value.messages for part in side)


def test_an_interrupted_run_goes_on():
    graph, evidence = ring(8, 20.0)
    net = bp.network(graph, evidence)
    with pytest.raises(ConvergenceError, match="did not reach 1e-10 in 5 iterations") as caught:
        bp.run(net, tolerance=1e-10, max_iterations=5)
    error = caught.value
    assert [row.number for row in error.trace] == list(range(6))
    assert error.residual == error.trace[-1].residual > 1e-10
    whole = bp.run(net, tolerance=1e-10)
    rest = bp.run(net, tolerance=1e-10, messages=error.messages)
    assert rest.iterations == whole.iterations - 5
    close(rest.site_mean, whole.site_mean, 1e-13)


def test_warm_starts_take_fewer_iterations():
    graph, evidence = ring(8, 5.0, batch=(2,))
    cold = bp.run(bp.network(graph, evidence), tolerance=1e-10)
    near = {k: (m + 1e-4 * torch.randn_like(m), p) for k, (m, p) in evidence.items()}
    warm = bp.run(bp.network(graph, near), tolerance=1e-10, messages=cold.messages)
    assert warm.iterations < 0.7 * cold.iterations
    for name, (mean, _) in truth(graph, near).items():
        close(warm.mean[name], mean, 1e-8)
    same = bp.run(bp.network(graph, evidence), tolerance=1e-8, messages=cold.messages)
    assert same.iterations <= 1


def test_only_means_are_sent_again_for_another_eta():
    graph, evidence = ring(6, 3.0)
    net = bp.network(graph, evidence)
    first = bp.run(net, tolerance=1e-12)
    other = torch.randn_like(net.problem.system.eta)
    again = bp.run(bp.with_eta(net, other), tolerance=1e-12, messages=first.messages, means_only=True)
    close(again.site_mean, torch.linalg.solve(dense_joint(graph, evidence).precision, other), 1e-10)
    assert torch.equal(again.messages.precision[0], first.messages.precision[0])
    close(first.solve(other), again.site_mean, 1e-10)


def test_zero_eta_does_not_stop_before_the_variances_have_arrived():
    graph, _ = ring(6, 3.0)
    zero = bp.run(bp.network(graph, dict.fromkeys(range(6), (0.0, 1.0))), tolerance=1e-9)
    close(zero.variance[0], bp.run(bp.network(*ring(6, 3.0)), tolerance=1e-12).variance[0], 1e-8)
    assert zero.mean[0].abs().max() == 0


def test_batches_are_loops():
    graph, evidence = ring(4, batch=(2, 3))
    evidence = {k: (m, 1 + torch.rand(3, 3).double()) for k, (m, _) in evidence.items()}
    together = bp.run(bp.network(graph, evidence), tolerance=1e-12)
    for i in range(2):
        for j in range(3):
            alone = bp.run(
                bp.network(graph, {k: (m[i, j], p[j]) for k, (m, p) in evidence.items()}), tolerance=1e-12
            )
            close(together.mean[1][i, j], alone.mean[1], 1e-10)
            close(together.variance[1][i, j], alone.variance[1], 1e-10)


def test_the_residual_is_of_the_worst_sample():
    graph, evidence = ring(8, 20.0)
    large = {k: (torch.stack([m, 1e6 * torch.ones(3).double()]), p) for k, (m, p) in evidence.items()}
    result = bp.run(bp.network(graph, large), tolerance=1e-8)
    close(result.mean[0][0], truth(graph, evidence)[0][0], 1e-6)


@pytest.mark.parametrize("schedule", [*SCHEDULES, "tree"])
def test_single_precision(schedule):
    graph = ps.chain_graph(6, (40,), ps.Attraction(3.0)) if schedule == "tree" else ring(6, 3.0, (40,))[0]
    evidence = {k: (torch.randn(40), torch.tensor(1.0)) for k in range(6)}
    result = bp.run(bp.network(graph, evidence), schedule)
    for name, (mean, _) in truth(graph, {k: (m.double(), 1.0) for k, (m, _) in evidence.items()}).items():
        assert result.mean[name].dtype == torch.float32
        close(result.mean[name].double(), mean, 1e-5)


def test_single_precision_ends_at_its_own_rounding():
    """Attractions of 1e4 beside evidence of 1: no residual of 1e-6 in float32, and no thousand iterations either."""
    graph = ps.chain_graph(8, (16,), ps.Attraction(1e4))
    net = bp.network(graph, {k: (torch.randn(16), torch.tensor(1.0)) for k in range(8)})
    result = bp.run(net, "tree", tolerance=1e-7)
    assert result.reason == "rounding"
    assert result.iterations == 1
    with pytest.raises(ConvergenceError):  # but never where it could go on
        bp.run(bp.network(*ring(8, 1e3)), max_iterations=100)


SIGMA = covariance(4, torch.Generator().manual_seed(3))
GRAPHS = {
    "chain": lambda: ps.chain_graph(3, (2,), ps.Correlation(0.5)),
    "ring": lambda: ps.ring_graph(4, (2,), ps.Attraction(1.0)),
    "block ring": lambda: ps.ring_graph(3, (2,), ps.JointGaussian(None, SIGMA)),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_gradients_of_means(graph):
    """Finite differences of converged means; once more differentiated, too."""
    graph = GRAPHS[graph]()
    names = graph.trajectories
    schedule = "tree" if bp.network(graph, dict.fromkeys(names, (0.0, 20.0))).forest else "flooding"

    def means(mean, precision):
        evidence = {n: (mean * (k + 1), precision + 20) for k, n in enumerate(names)}
        result = bp.run(bp.network(graph, evidence), schedule, tolerance=1e-13)
        return result.mean[names[0]], result.mean[names[2]]

    mean = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(means, (mean, precision))
    assert torch.autograd.gradgradcheck(means, (mean, precision))


@pytest.mark.parametrize("graph", GRAPHS)
def test_gradients_of_variances(graph):
    graph = GRAPHS[graph]()
    names = graph.trajectories

    def variances(precision):
        evidence = {n: (float(k), precision * (k + 1) + 20) for k, n in enumerate(names)}
        result = bp.run(bp.network(graph, evidence), tolerance=1e-13)
        return result.variance[names[0]], result.variance[names[2]]

    precision = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(variances, (precision,))


def test_gradients_equal_those_of_the_exact_solution():
    graph, evidence = ring(5, 2.0, batch=(3,))
    mean = evidence[0][0].clone().requires_grad_()
    precision = torch.tensor([1.0, 2.0, 3.0]).double().requires_grad_()
    changed = {**evidence, 0: (mean, precision)}
    weights = torch.randn(3, 3).double()
    result = bp.run(bp.network(graph, changed), tolerance=1e-12)
    own = torch.autograd.grad((weights * result.mean[2]).sum(), (mean, precision))
    exact = torch.autograd.grad(
        (weights * ps.infer(graph, changed, method="dense").mean[2]).sum(), (mean, precision)
    )
    for a, b in zip(own, exact, strict=True):
        close(a, b, 1e-9)
    with pytest.raises(UnsupportedError, match="with frozen edges"):
        bp.run(bp.network(graph, changed), frozen=[(0, 1)]).mean[0].sum().backward()


def test_steps_are_differentiable():
    graph, evidence = ring(3, shape=(1,))

    def twice(mean):
        net = bp.network(graph, {**evidence, 0: (mean, 1.0)})
        return bp.beliefs(net, bp.step(net, bp.step(net, bp.init(net), (0, 1)), (1, 2))).mean[2]

    assert torch.autograd.gradcheck(twice, (torch.randn(1, dtype=torch.float64, requires_grad=True),))


def long_chain(half):
    """Elements a_0 b_0 a_1 b_1 ... in one chain: two nodes, one element at a time."""
    graph = ps.FactorGraph()
    graph.add_trajectory("a", (half,))
    graph.add_trajectory("b", (half,))
    graph.add_factor("here", ["a", "b"], ps.Attraction(1.0))
    graph.add_factor("on", ["b", "a"], ps.Attraction(1.0), maps=[ps.Crop((half,), (0,), (half - 1,)),
                                                                 ps.Crop((half,), (1,), (half - 1,))])  # fmt: skip
    return graph


def test_a_chain_of_100_000_elements_does_not_recurse():
    half = 50_000
    graph = long_chain(half)
    seen = torch.zeros(half).double()
    seen[0] = 1.0
    net = bp.network(graph, {"a": (seen, 1.0), "b": (torch.zeros(half).double(), 1.0)})
    assert net.forest
    assert set(net.edges) == {("a", "b"), ("b", "a")}
    result = bp.run(net, "tree")
    # The difference equation 3 x_k = x_{k-1} + x_{k+1} with 2 x_0 = 1 + x_1 at the end: x_k = x_0 q^k.
    q = (3 - math.sqrt(5)) / 2
    chain = torch.stack([result.mean["a"], result.mean["b"]], 1).flatten()
    close(chain[:20], torch.tensor([q**k / (2 - q) for k in range(20)], dtype=torch.float64), 1e-12)
    assert result.iterations == 1


@pytest.mark.slow
def test_a_chain_of_100_000_nodes_does_not_recurse():
    n = 100_000
    graph = ps.chain_graph(n, (1,), ps.Correlation(0.9))
    net = bp.network(graph, {0: (1.0, 1e6), **dict.fromkeys(range(1, n), (0.0, 1.0))})
    result = bp.run(net, "tree")
    assert result.mean[2].item() == pytest.approx(0.81, abs=1e-5)
    assert len(net.edges) == 2 * (n - 1)


def test_a_message_between_nodes_is_over_the_elements_of_the_receiver():
    """Half of a node is coupled by elements, and a permutation brings the message into the receiver's order."""
    graph = ps.FactorGraph()
    graph.add_trajectory("a", (4,))
    graph.add_trajectory("b", (2, 2))
    half = torch.tensor([True, True, False, False])
    order = torch.tensor([2, 3, 0, 1])
    graph.add_factor("f", ["a", "b"], ps.Attraction(2.0), maps=[
        ps.Mask((4,), half), ps.Mask((2, 2), half[order].reshape(2, 2)),
    ])  # fmt: skip
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    net = bp.network(graph, {"a": (value, 1.0), "b": (torch.zeros(2, 2).double(), 1.0)})
    found = bp.message(net, bp.step(net, bp.init(net)), "a", "b")
    # 2 / (1 + 2) of what a has seen
    close(found.eta, torch.tensor([[0, 0], [2 / 3, 4 / 3]], dtype=torch.float64), 1e-12)
    close(found.precision, torch.tensor([[0, 0], [-4 / 3, -4 / 3]], dtype=torch.float64), 1e-12)


def test_a_message_between_blocks_is_a_matrix():
    sigma = covariance(4, torch.Generator().manual_seed(5))
    graph = ps.chain_graph(2, (2,), ps.JointGaussian(None, sigma))
    net = bp.network(graph, {0: (torch.randn(3, 2).double(), 20.0), 1: (0.0, 20.0)})
    precision = dense_joint(
        graph, {0: (torch.zeros(2).double(), 20.0), 1: (torch.zeros(2).double(), 20.0)}
    ).precision
    found = bp.message(net, bp.step(net, bp.init(net), (0, 1)), 0, 1)
    close(
        found.precision, -precision[2:, :2] @ torch.linalg.inv(precision[:2, :2]) @ precision[:2, 2:], 1e-12
    )
    assert found.eta.shape == (3, 2)


def test_the_trace_counts_messages():
    graph, evidence = ring(5)
    net = bp.network(graph, evidence)
    for schedule in SCHEDULES:
        rows = bp.run(net, schedule).trace
        assert [row.number for row in rows] == list(range(len(rows)))
        assert (rows[0].messages, rows[0].change) == (0, 0.0)
        assert all(row.messages == 10 for row in rows[1:])
        assert rows[-1].residual <= 1e-6 < rows[1].residual
        assert rows[-1].change < rows[1].change
    frozen = bp.run(net, frozen=[(0, 1)]).trace
    assert all(row.messages == 9 for row in frozen[1:])


def test_largest_change_first_sends_where_something_happens():
    """News at one end of a long chain: after one iteration only the nodes near it have moved, in that order."""
    graph = ps.chain_graph(30, (1,), ps.Attraction(0.1))
    evidence = {0: (1.0, 1.0), **dict.fromkeys(range(1, 30), (0.0, 1.0))}
    net = bp.network(graph, evidence)
    arrived = bp.run(net, tolerance=1e-12).messages
    news = bp.network(graph, {**evidence, 0: (2.0, 1.0)})
    needed = {s: bp.run(news, s, messages=arrived, tolerance=1e-8).iterations for s in SCHEDULES}
    assert needed["residual"] <= needed["sequential"] <= needed["flooding"]
    assert needed["residual"] == 1 < needed["flooding"]


def test_the_front_door():
    graph = ps.chain_graph(4, (2,), ps.Correlation(0.6))
    evidence = {k: (torch.randn(3, 2).double(), 1.0 + k) for k in range(4)}
    found, exact = ps.infer(graph, evidence, method="gbp"), ps.infer(graph, evidence, method="dense")
    assert found.info.method == "gbp"
    assert found.info.variances_exact
    assert found.info.residual < 1e-12
    assert "tree, 1 iterations" in found.info.plan
    close(found.log_evidence, exact.log_evidence, 1e-10)
    close(found.correlation(0, 3), exact.correlation(0, 3), 1e-9)
    close(found.joint([0, 2]).covariance, exact.joint([0, 2]).covariance, 1e-9)
    loops = ps.infer(*ring(4), method="gbp", schedule="sequential", tolerance=1e-11)
    assert not loops.info.variances_exact
    assert "sequential" in loops.info.plan
    close(loops.mean[1], truth(*ring(4))[1][0], 1e-9)
    for ask in (lambda: loops.log_evidence, lambda: loops.correlation(0, 1)):
        with pytest.raises(UnsupportedError, match="on loops; method='exact' has"):
            ask()
    with pytest.raises(ParameterError, match="'speed' is no option of method='gbp'; it has: damping, frozen"):
        ps.infer(*ring(4), method="gbp", speed=2)
    warm = ps.infer(*ring(4), method="gbp", tolerance=1e-11, start=loops)
    assert len(warm.trace) < len(loops.trace)


@pytest.mark.parametrize("blocks", [False, True], ids=["elements", "blocks"])
def test_log_evidence_and_its_gradient_on_forests(blocks):
    sigma = covariance(4, torch.Generator().manual_seed(1))
    potential = ps.JointGaussian(None, sigma) if blocks else ps.Correlation(0.5)
    graph = ps.star_graph(3, (2,), potential)

    def log_evidence(mean, precision):
        evidence = {k: (mean[k], precision[k] + 20) for k in range(4)}
        found = ps.infer(graph, evidence, method="gbp", tolerance=1e-12)
        close(found.log_evidence, ps.infer(graph, evidence, method="dense").log_evidence, 1e-10)
        return found.log_evidence

    mean = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_evidence, (mean, precision))


def test_the_bethe_determinant_on_a_ring_in_closed_form():
    n, k, a = 5, 1.0, 3.0
    net = bp.network(*ring(n, k, (1,)))
    p = (-a + math.sqrt(a * a - 4 * k * k)) / 2
    j = a + 2 * p
    expected = n * math.log(j) + n * math.log(((a + p) ** 2 - k * k) / j**2)
    found = bp.log_determinant(net, bp.run(net, tolerance=1e-12).messages)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_comparison_prints_as_a_table():
    table = bp.compare_with_exact(bp.run(bp.network(*ring(4))))
    assert str(table).splitlines()[0].split() == [
        "node",
        "mean",
        "error",
        "/",
        "sd",
        "variance",
        "ratio",
        "from",
        "to",
    ]
    assert len(str(table).splitlines()) == 5
    assert table._repr_html_().count("<tr>") == 5
    assert table.to_dicts()[0]["node"] == 0


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"schedule": "random"}, ParameterError, "schedule='random' is not one of flooding, sequential, residual, tree"),
    ({"damping": 1.0}, ParameterError, r"damping=1.0 is not in \[0, 1\): it is the weight of the old message"),
    ({"damping": -0.1}, ParameterError, "not in"),
    ({"damping": {(0, 2): 0.5}}, UnknownNameError, r"no edge \(0, 2\); it has \(0, 1\)"),
    ({"frozen": [(0, 9)]}, UnknownNameError, r"no edge \(0, 9\)"),
    ({"tolerance": 0.0}, ParameterError, "tolerance=0.0 is not positive"),
    ({"max_iterations": 0}, ParameterError, "not at least 1"),
    ({"means_only": True}, ParameterError, "give some"),
])  # fmt: skip
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        bp.run(bp.network(*ring(4)), **options)


def test_bad_messages_and_edges():
    net = bp.network(*ring(4))
    with pytest.raises(ShapeError, match="they come from another graph"):
        bp.init(net, bp.init(bp.network(*ring(5))))
    with pytest.raises(ShapeError, match="larger batch"):
        bp.init(net, bp.init(bp.network(*ring(4, batch=(2,)))))
    with pytest.raises(UnknownNameError, match="no edge 'here'"):
        bp.step(net, bp.init(net), ["here"])
    with pytest.raises(UnknownNameError, match=r"no edge \(0, 2\)"):
        bp.message(net, bp.init(net), 0, 2)
    lonely = ps.FactorGraph()
    lonely.add_trajectory("a", 2)
    net = bp.network(lonely, {"a": (1.0, 2.0)})
    assert net.edges == ()
    assert bp.run(net, "tree").mean["a"].tolist() == [1.0, 1.0]
    assert bp.run(net).variance["a"].tolist() == [0.5, 0.5]


def test_no_evidence_is_a_named_error_and_not_a_number():
    """Attractions alone have a direction without precision: 0 = 1 - 1 in the last belief."""
    net = bp.network(ps.chain_graph(3, 1, ps.Attraction(1.0)))
    for schedule in [*SCHEDULES, "tree"]:
        with pytest.raises((CavityError, ConvergenceError)):
            bp.run(net, schedule, max_iterations=50)


@pytest.mark.gpu
def test_on_a_gpu():
    for schedule in [*SCHEDULES, "tree"]:
        graph = ps.chain_graph(6, (40,), ps.Attraction(3.0))
        evidence = {k: (torch.randn(40, device="cuda"), torch.tensor(1.0, device="cuda")) for k in range(6)}
        result = bp.run(bp.network(graph, evidence), schedule)
        expected = truth(graph, {k: (m.double().cpu(), 1.0) for k, (m, _) in evidence.items()})
        close(result.mean[3].double().cpu(), expected[3][0], 1e-5)
