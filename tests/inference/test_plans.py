"""Every exact plan, forced, against the dense solve; and the orders, the sparse maps and the shared matrices."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import ImproperGraphError, UnsupportedError
from pgm_sync.inference import dense_joint, elimination, plans
from pgm_sync.inference.exact import eliminate
from pgm_sync.inference.ordering import ORDERS, ScalarScheme, eliminate_in
from pgm_sync.inference.problem import pose
from pgm_sync.maps import SparseMap, sparse_entries

from .strategies import covariance, graphs_with_evidence, networks
from .test_infer import close

ELEMENTWISE = ["correlation", "attraction", "permuted", "masked", "sparse", "equality"]


def forced(name):
    """A `group_solver` that takes one plan wherever it can."""

    def choose(group, problem):
        if name == "rounds":
            scheme = plans.scalar_scheme(group.scheme.n, group.scheme.edges, "odd-even")
            return plans.RoundElimination(group, problem, scheme)
        shared = plans.shared_matrices(group, problem) if name == "shared" else None
        return shared or plans.LaneElimination(group, problem)

    return choose


@pytest.mark.parametrize("name", ["lanes", "rounds", "shared"])
@given(case=graphs_with_evidence(kinds=ELEMENTWISE))
def test_every_plan_equals_the_dense_solve(name, case):
    graph, evidence = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgm_sync.inference.exact.group_solver", forced(name))
        exact = ps.infer(graph, evidence, method="exact")
        dense = ps.infer(graph, evidence, method="dense")
        close(exact.log_evidence, dense.log_evidence)
        for node in graph.variables:
            close(exact.mean[node], dense.mean[node])
            close(exact.variance[node], dense.variance[node])
        for a, b in itertools.combinations(graph.variables, 2):
            close(exact.covariance(a, b), dense.covariance(a, b))


@pytest.mark.parametrize("name", ["lanes", "rounds", "shared", "blocks"])
def test_the_root_gives_the_covariance(name, monkeypatch):
    """W W' = Lambda^{-1}, column by column, for every plan."""
    graph = ps.ring_graph(5, (2,), ps.Correlation(0.4))
    evidence = dict.fromkeys(range(5), (0.0, 1.5))
    if name == "blocks":
        evidence[0] = ps.Gaussian(
            1.5 * torch.eye(2).double(), torch.zeros(2).double(), torch.zeros(()).double()
        )
    else:
        monkeypatch.setattr("pgm_sync.inference.exact.group_solver", forced(name))
    solution = eliminate(pose(graph, evidence))
    half = solution.root(torch.eye(10).double())  # rows are W e_k
    covariance = torch.linalg.inv(dense_joint(graph, evidence).precision)
    close(half.T @ half, covariance, 1e-12)
    close(solution.solve(torch.eye(10).double()), covariance, 1e-12)


@given(case=networks(), order=st.sampled_from(ORDERS))
def test_orders_are_perfect_elimination_schemes_of_a_chordal_graph(case, order):
    """With the fill added, networkx must find the graph chordal; and fill is what `later` says and no more."""
    network, _ = case
    found = eliminate_in(len(network), list(network.edges), order)
    assert sorted(found.order) == list(range(len(network)))
    filled = nx.Graph(network)
    filled.remove_edges_from(nx.selfloop_edges(network))
    filled.add_edges_from((v, u) for v, later in zip(found.order, found.later, strict=True) for u in later)
    assert nx.is_chordal(filled)
    place = {v: k for k, v in enumerate(found.order)}
    for v, later in zip(found.order, found.later, strict=True):
        assert set(later) == {u for u in filled[v] if place[u] > place[v]}


def test_a_chain_takes_logarithmically_many_rounds():
    scheme = ScalarScheme(1024, tuple((k, k + 1) for k in range(1023)), "odd-even")
    assert len(scheme.rounds) <= 12
    assert scheme.width == 2


@pytest.mark.parametrize(("network", "width"), [
    (nx.path_graph(9), 1), (nx.cycle_graph(9), 2), (nx.complete_graph(6), 5), (nx.balanced_tree(3, 3), 1),
    (nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4)), 4),
], ids=["chain", "cycle", "K6", "tree", "grid"])  # fmt: skip
def test_widths_are_the_treewidths_known_in_closed_form(network, width):
    assert ScalarScheme(len(network), tuple(network.edges)).width == width


def blend(rows, columns, generator):
    """A random map with two entries per row, one row with an entry listed twice."""
    index = torch.randint(0, columns, (2, rows), generator=generator)
    i = torch.arange(rows).repeat(2)
    return SparseMap(
        (columns,), (rows,), torch.stack([i, index.flatten()]), torch.rand(2 * rows, generator=generator)
    )


def test_sparse_maps_and_their_compositions_list_their_entries():
    generator = torch.Generator().manual_seed(0)
    outer, inner = blend(4, 6, generator), blend(6, 5, generator)
    for m in (outer, outer @ inner, outer @ ps.Permutation((6,), torch.randperm(6, generator=generator))):
        rows, columns, values = sparse_entries(m)
        dense = scipy.sparse.coo_array(
            (values.numpy(), (rows.numpy(), columns.numpy())), shape=(m.out_size, m.in_size)
        )
        assert np.allclose(dense.toarray(), m.dense().numpy(), atol=1e-7)
    with pytest.raises(UnsupportedError, match="no index or sparse map"):
        sparse_entries(ps.DCT((4,), 2))


def test_views_of_a_texture_through_sparse_maps():
    """A hidden canvas seen by three warped views: no block, and the dense answer."""
    generator = torch.Generator().manual_seed(0)
    graph = ps.FactorGraph()
    graph.add_variable("texture", (12,))
    evidence = {}
    for k in range(3):
        graph.add_trajectory(k, (10,))
        graph.add_factor(f"view {k}", ["texture", k], ps.Attraction(2.0), [blend(10, 12, generator), None])
        evidence[k] = (torch.randn(2, 10, generator=generator).double(), 1.0)
    graph.add_factor("prior", ["texture"], ps.Evidence(0.0, 0.1))
    exact, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    assert exact.info.blocks == 0
    close(exact.mean["texture"], dense.mean["texture"], 1e-12)
    close(exact.variance[1], dense.variance[1], 1e-12)
    close(exact.log_evidence, dense.log_evidence, 1e-12)


def test_a_shared_matrix_is_used_where_all_elements_agree_and_only_there():
    graph = ps.complete_graph(4, (64,), ps.Correlation(0.2))
    plan = ps.compile(graph)
    mean = torch.randn(5, 64).double()
    same = ps.infer(plan, dict.fromkeys(range(4), (mean, 2.0)))
    assert "1 dense matrix that all elements share" in same.info.plan
    levels = torch.linspace(0.5, 3, 5).double()[:, None]
    batched = ps.infer(plan, {k: (mean, levels + k) for k in range(4)})
    assert "share" in batched.info.plan
    different = ps.infer(plan, {k: (mean, 1 + torch.rand(64).double()) for k in range(4)})
    assert "share" not in different.info.plan
    dense = ps.infer(plan, {k: (mean, levels + k) for k in range(4)}, method="dense")
    close(batched.mean[1], dense.mean[1], 1e-12)
    close(batched.variance[3], dense.variance[3], 1e-12)


def test_one_matrix_per_mask_signature(monkeypatch):
    monkeypatch.setattr("pgm_sync.inference.exact.group_solver", forced("shared"))
    mask = torch.zeros(200, dtype=torch.bool)
    mask[:90] = True
    graph = ps.chain_graph(2, (200,), ps.Correlation(0.5))
    graph.add_trajectory(2, (90,))
    # element k < 90 of node 1 meets element k of node 2, so the components are of two patterns; a strength that
    # differs by element makes two signatures in one of them
    graph.add_factor(
        "masked",
        [1, 2],
        ps.Attraction(torch.where(torch.arange(90) < 40, 1.0, 3.0)),
        [ps.Mask((200,), mask), None],
    )
    evidence = {0: (torch.randn(200).double(), 1.5), 1: (0.0, 1.0), 2: (1.0, 1.0)}
    exact, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    assert (
        exact.info.plan == "1 dense matrix that all elements share; 2 dense matrices that all elements share"
    )
    for node in range(3):
        close(exact.mean[node], dense.mean[node], 1e-12)
        close(exact.variance[node], dense.variance[node], 1e-12)
    close(exact.log_evidence, dense.log_evidence, 1e-12)


def test_factors_are_reused_when_only_eta_changes():
    graph = ps.grid_graph(3, 3, (4,), ps.Attraction(1.0))
    plan = ps.compile(graph)
    precision = {name: 1 + torch.rand(4).double() for name in graph.trajectories}
    first = ps.infer(plan, {n: (torch.randn(4).double(), p) for n, p in precision.items()})
    evidence = {n: (torch.randn(4).double(), p) for n, p in precision.items()}
    second = ps.infer(plan, evidence, start=first)
    assert second.info.plan.endswith("factors reused")
    name = graph.trajectories[4]
    assert torch.equal(second.mean[name], ps.infer(plan, evidence).mean[name])
    evidence[name] = (evidence[name][0], 9.0)
    third = ps.infer(plan, evidence, start=second)
    assert not third.info.plan.endswith("factors reused")
    close(third.mean[name], ps.infer(graph, evidence, method="dense").mean[name], 1e-12)


def test_half_precision_evidence_is_solved_in_the_dtype_of_the_plan():
    graph = ps.grid_graph(3, 3, (8,), ps.Correlation(0.3))
    means = {n: torch.randn(2, 8, dtype=torch.float16) for n in graph.trajectories}
    plan = ps.compile(graph, dtype=torch.float32)
    single = ps.infer(plan, {n: (m, 1.5) for n, m in means.items()})
    exact = ps.infer(graph, {n: (m.double(), 1.5) for n, m in means.items()})
    for name in graph.trajectories:
        assert single.mean[name].dtype == torch.float32
        close(single.mean[name].double(), exact.mean[name], 1e-6)


def test_the_lanes_trace_without_a_break():
    """torch.compile with fullgraph refuses any data-dependent control flow."""
    scheme = ScalarScheme(4, ((0, 1), (1, 2), (2, 3), (0, 3)))
    scheme.pivots, scheme.edge_slots  # noqa: B018  # the symbolic part is not to be traced

    def marginals(diagonal, edges, eta):
        factor = elimination.factorise(scheme, list(diagonal), list(edges))
        inverse = elimination.selected_inverse(scheme, factor)
        return elimination.solve(scheme, factor, list(eta)) + [inverse[k] for k in range(4)]

    diagonal, edges, eta = 4 + torch.rand(4, 7), -torch.rand(4, 7), torch.randn(4, 7)
    compiled = torch.compile(marginals, backend="eager", fullgraph=True)
    for ours, traced in zip(marginals(diagonal, edges, eta), compiled(diagonal, edges, eta), strict=True):
        close(ours, traced, 1e-6)


@pytest.mark.parametrize("name", ["lanes", "rounds", "auto"])
def test_gradients_of_every_plan(name, monkeypatch):
    graph = ps.ring_graph(4, (2,), ps.Attraction(1.0))
    if name != "auto":
        monkeypatch.setattr("pgm_sync.inference.exact.group_solver", forced(name))
    names = graph.trajectories

    def quantities(mean, precision):
        posterior = ps.infer(graph, {n: (mean * (k + 1), precision + 1) for k, n in enumerate(names)})
        return posterior.mean[0], posterior.variance[1], posterior.covariance(0, 2), posterior.log_evidence

    mean = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantities, (mean, precision))


def test_gradients_reach_the_potentials():
    def mean_and_evidence(strength):
        graph = ps.chain_graph(3, (2,), ps.Attraction(strength))
        posterior = ps.infer(graph, {0: (1.0, 1.0), 1: (0.0, 0.5), 2: (-2.0, 1.0)})
        return posterior.mean[1], posterior.variance[1], posterior.log_evidence

    strength = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_and_evidence, (strength,))


def vector_graph(network, size, generator):
    graph = ps.from_trajectory_graph(network, size, ps.JointGaussian(None, covariance(2 * size, generator)))
    evidence = {
        name: (
            torch.randn(3, size, generator=generator).double(),
            60 + torch.rand(3, size, generator=generator).double(),
        )
        for name in graph.trajectories
    }
    return graph, evidence


@pytest.mark.parametrize("network", [
    nx.path_graph(11), nx.cycle_graph(9), nx.balanced_tree(2, 2),
    nx.relabel_nodes(nx.path_graph(8), lambda k: (5 * k) % 8),
], ids=["chain", "ring", "tree", "shuffled chain"])  # fmt: skip
def test_blocks_in_rounds_equal_the_dense_solve(network, monkeypatch):
    def rounds(problem):
        blocks = problem.structure.blocks
        return plans.BlockRounds(problem, plans.scalar_scheme(len(blocks.sites), blocks.edges, "odd-even"))

    monkeypatch.setattr("pgm_sync.inference.exact.block_solver", rounds)
    graph, evidence = vector_graph(network, 3, torch.Generator().manual_seed(0))
    ours, dense = ps.infer(graph, evidence), ps.infer(graph, evidence, method="dense")
    assert "rounds of independent blocks" in ours.info.plan
    close(ours.log_evidence, dense.log_evidence, 1e-11)
    names = graph.trajectories
    close(ours.cross_covariance(names, names), dense.cross_covariance(names, names), 1e-10)
    for name in names:
        close(ours.mean[name], dense.mean[name], 1e-11)
        close(ours.variance[name], dense.variance[name], 1e-11)
    half = ours._solution.root(torch.eye(ours._sites.size).double()[:, None])
    close(half.permute(1, 2, 0) @ half.movedim(1, 0), dense.cross_covariance(names, names), 1e-10)


def test_long_vector_chains_take_rounds_and_gradients_pass_through():
    graph, _ = vector_graph(nx.path_graph(40), 2, torch.Generator().manual_seed(0))

    def quantities(mean, precision):
        posterior = ps.infer(graph, {k: (mean * (1 + k % 3), precision + 60) for k in range(40)})
        assert "rounds of independent blocks" in posterior.info.plan
        return posterior.mean[7], posterior.variance[20], posterior.log_evidence, posterior.covariance(3, 30)

    mean = torch.randn(2, dtype=torch.float64, requires_grad=True)
    precision = torch.rand(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantities, (mean, precision))


def test_blocks_in_rounds_name_an_improper_component():
    graph = ps.ring_graph(
        9,
        2,
        ps.JointGaussian(
            None, torch.tensor([[1.0, 0, 0.9, 0], [0, 1, 0, 0.1], [0.9, 0, 1, 0], [0, 0.1, 0, 1]])
        ),
    )
    with pytest.raises(ImproperGraphError, match="component of 0, 1"):
        ps.infer(graph, dict.fromkeys(range(9), (0.0, 0.1)))


# Singular as they are: the rounding of all rows adds up in the last pivot, so these are the sizes where it shows.
def through_features(network, size=2, strength=1.0):
    """Nodes coupled through all of their features: one block each."""
    generator = torch.Generator().manual_seed(0)
    everything = ps.Features.orthonormalise(torch.randn(size, size, generator=generator, dtype=torch.float64))
    graph = ps.FactorGraph()
    for node in network:
        graph.add_trajectory(node, size)
    for a, b in network.edges:
        graph.add_factor((a, b), [a, b], ps.Attraction(strength), [everything, everything])
    return graph


def all_to_all(nodes, size):
    """A chain of blocks whose only free direction is the same shift of every element."""
    own, across = size * torch.eye(size, dtype=torch.float64), -torch.ones(size, size, dtype=torch.float64)
    laplacian = torch.cat([torch.cat([own, across], 1), torch.cat([across, own], 1)])
    potential = ps.JointGaussian(None, torch.eye(2 * size, dtype=torch.float64), laplacian)
    return ps.chain_graph(nodes, size, potential)


def in_rounds(problem):
    blocks = problem.structure.blocks
    return plans.BlockRounds(problem, plans.scalar_scheme(len(blocks.sites), blocks.edges, "odd-even"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("solver", [plans.BlockElimination, in_rounds], ids=["blocks", "rounds"])
@pytest.mark.parametrize(
    "graph",
    [
        through_features(nx.path_graph(100)),
        through_features(nx.path_graph(400)),
        through_features(nx.convert_node_labels_to_integers(nx.grid_2d_graph(12, 12))),
        all_to_all(8, 48),
        all_to_all(60, 16),
    ],
    ids=["chain", "long chain", "grid", "large blocks", "many blocks"],
)
def test_large_singular_blocks_are_refused(graph, solver, dtype):
    problem = pose(ps.compile(graph, dtype=dtype))
    assert solver(problem).failed() is not None
    assert solver(pose(graph, {0: (0.0, 1.0)})).failed() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("side", [8, 14, 16, 18, 20, 22])
def test_large_singular_grids_are_refused_as_one_matrix(side, dtype):
    plan = ps.compile(ps.grid_graph(side, side, 1, ps.Attraction(1.0)), dtype=dtype)
    with pytest.raises(ImproperGraphError, match=f"and {side * side - 8} more"):
        ps.infer(plan, method="dense")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cancelled", [False, True], ids=["eigenvalues", "cholesky"])
@pytest.mark.parametrize(
    "graph", [ps.grid_graph(16, 16, 64, ps.Attraction(0.37)), ps.complete_graph(60, 64, ps.Attraction(1.0))],
    ids=["grid", "complete"],
)  # fmt: skip
def test_large_singular_groups_are_refused_by_shared_matrices(graph, cancelled, dtype):
    """Also where evidence, another number per node, only cancels what the graph takes away."""
    evidence, graph = {}, graph.copy()
    if cancelled:
        for k, name in enumerate(graph.variables):
            amount = 0.5 + k % 3
            graph.add_factor(("less", name), [name], ps.Quadratic(torch.tensor([[-amount]])))
            evidence[name] = (0.0, amount)
    problem = pose(ps.compile(graph, dtype=dtype), evidence)
    (group,) = problem.structure.groups
    assert plans.shared_matrices(group, problem).failed() is not None


def test_a_weak_precision_that_float64_holds_is_named():
    """Proper, and no rounding of it singular, but below what rounding may add up to in float32."""
    graph, evidence = all_to_all(40, 16), {0: (0.0, 2e-4)}
    with pytest.raises(ImproperGraphError, match="too close to improper for torch.float32.*use float64") as caught:
        ps.infer(ps.compile(graph, dtype=torch.float32), evidence)
    assert caught.value.smallest_eigenvalue > 0
    assert bool((ps.infer(graph, evidence).element_variance > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "network",
    [nx.star_graph(20), nx.star_graph(150), nx.complete_graph(60), nx.complete_bipartite_graph(30, 30)],
    ids=["star", "large star", "complete", "bipartite"],
)
def test_singular_hubs_and_cliques_are_refused(network, dtype):
    """What the last pivot holds is the rounding of all the others: a hub goes last, and wide messages round alike."""
    for strength in (1.0, 0.37, 0.1, 3.3):
        plan = ps.compile(ps.from_trajectory_graph(network, (1,), ps.Attraction(strength)), dtype=dtype)
        problem = pose(plan)
        (group,) = problem.structure.groups
        for solver in (plans.LaneElimination(group, problem), plans.RoundElimination(group, problem, group.scheme)):
            assert solver.failed() is not None


def uneven(network, seed, spread=100.0, features=False):
    """Attractions between 1/spread and spread, another one on every edge."""
    generator = torch.Generator().manual_seed(seed)
    exponents = 2 * torch.rand(network.number_of_edges(), generator=generator, dtype=torch.float64) - 1
    graph = ps.FactorGraph()
    for node in network:
        graph.add_trajectory(node, 2)
    both = [ps.Features(torch.eye(2, dtype=torch.float64))] * 2 if features else None
    for (a, b), exponent in zip(network.edges, exponents.tolist(), strict=True):
        graph.add_factor((a, b), [a, b], ps.Attraction(spread**exponent), both)
    return graph


UNEVEN = {
    "three": nx.path_graph(3), "chain": nx.path_graph(50), "ring": nx.cycle_graph(50),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", [*UNEVEN])
@pytest.mark.parametrize("plan", ["auto", "lanes", "rounds", "shared", "blocks", "dense"])
def test_singular_graphs_of_uneven_couplings_are_refused(name, plan, monkeypatch):
    """Their last pivot may be a large part of its own diagonal, and is still nothing beside the largest entries."""
    if plan in ("lanes", "rounds", "shared"):
        monkeypatch.setattr("pgm_sync.inference.exact.group_solver", forced(plan))
    for seed in range(6):
        graph = uneven(UNEVEN[name], seed, features=plan == "blocks")
        for dtype in (torch.float32, torch.float64):
            with pytest.raises(ImproperGraphError):
                ps.infer(ps.compile(graph, dtype=dtype), method="dense" if plan == "dense" else "exact")


@pytest.mark.parametrize("features", [False, True], ids=["elements", "blocks"])
@pytest.mark.parametrize(("dtype", "known", "error"), [(torch.float64, 1e-6, 1e-6), (torch.float32, 1.0, 1e-2)])
def test_uneven_couplings_with_little_evidence_are_solved(dtype, known, error, features):
    """Evidence on the first node of a chain only: variances add up along it, 1 / known + sum 1 / strength."""
    for seed in range(6):
        graph = uneven(nx.path_graph(20), seed, features=features)
        expected, found = 1 / known, ps.infer(ps.compile(graph, dtype=dtype), {0: (3.0, known)})
        for k in range(20):
            if k:
                expected += 1 / float(graph.potential((k - 1, k)).precision)
            assert abs(found.variance[k] / expected - 1).max() < error
            assert abs(found.mean[k] - 3).max() < 3 * error
