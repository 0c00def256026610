"""Questions to a graph, against dense linear algebra, networkx and the joint denoiser itself."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import ImproperGraphError, ParameterError, UnknownNameError, UnsupportedError
from pgm_sync.levels import variance_preserving


def random_covariance(size: int, seed: int) -> torch.Tensor:
    a = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / size


def tree() -> tuple[ps.FactorGraph, torch.Tensor, torch.Tensor]:
    """Three vector nodes a (2) - b (3) - c (2); the joint mean and covariance, by conditioning on b."""
    mean = torch.tensor([0.5, -1.0, 0.2, 0.0, 2.0, 1.0, -0.3], dtype=torch.float64)
    left, right = random_covariance(5, 1), random_covariance(5, 2)
    own = left[2:, 2:]  # b, the same for both
    root = torch.linalg.cholesky(own) @ torch.linalg.inv(torch.linalg.cholesky(right[:3, :3]))
    lift = torch.block_diag(root, torch.eye(2, dtype=torch.float64))
    right = lift @ right @ lift.T
    graph = ps.FactorGraph()
    for name, size in (("a", 2), ("b", 3), ("c", 2)):
        graph.add_trajectory(name, size)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(mean[:5], left))
    graph.add_factor("bc", ["b", "c"], ps.JointGaussian(mean[2:], right))
    covariance = torch.zeros(7, 7, dtype=torch.float64)
    covariance[:5, :5], covariance[2:, 2:] = left, right
    cross = left[:2, 2:] @ torch.linalg.inv(own) @ right[:3, 3:]
    covariance[:2, 5:], covariance[5:, :2] = cross, cross.T
    return graph, mean, covariance


PLACES = {"a": slice(0, 2), "b": slice(2, 5), "c": slice(5, 7)}


def information(covariance: torch.Tensor, i: slice, j: slice) -> float:
    both = torch.cat([torch.arange(7)[i], torch.arange(7)[j]])
    parts = covariance[i, i], covariance[j, j], covariance[both[:, None], both]
    a, b, c = (torch.logdet(part) for part in parts)
    return (0.5 * (a + b - c)).item()


@pytest.mark.parametrize("snr", [0.0, 0.4, 5.0])
def test_influence_against_a_dense_solve(snr):
    graph, _, covariance = tree()
    eye = torch.eye(7, dtype=torch.float64)
    posterior = torch.linalg.inv(torch.linalg.inv(covariance) + snr * eye)
    own = torch.block_diag(*(torch.linalg.inv(covariance[p, p]) for p in PLACES.values()))
    moved = posterior @ (own + snr * eye)
    rows = {row.name: row for row in ps.influence(graph, "a", snr)}
    i = PLACES["a"]
    for name in ("b", "c"):
        j = PLACES[name]
        left, right = (np.linalg.cholesky(covariance[p, p].numpy()) for p in (i, j))
        white = np.linalg.solve(left, moved[i, j].numpy() @ right)
        assert rows[name].strength == pytest.approx(np.linalg.svd(white)[1][0])
        assert rows[name].mutual_information == pytest.approx(information(posterior, i, j))
        assert rows[name].prior_information == pytest.approx(information(covariance, i, j))
    assert (rows["b"].factors, rows["c"].factors) == (1, 2)


def test_influence_is_the_derivative_of_the_joint_denoiser():
    graph, _, covariance = tree()
    joint, level = ps.JointDenoiser(graph), variance_preserving(0.4)
    noisy = {name: torch.zeros(1, graph.shape(name)[0], dtype=torch.float64) for name in graph.trajectories}

    def mean_of_a(c: torch.Tensor) -> torch.Tensor:
        return joint(noisy, {**noisy, "c": c[None]}, level).mean["a"][0]

    jacobian = torch.autograd.functional.jacobian(mean_of_a, torch.zeros(2, dtype=torch.float64))
    left, right = (torch.linalg.cholesky(covariance[PLACES[n], PLACES[n]]) for n in ("a", "c"))
    expected = torch.linalg.svdvals(torch.linalg.solve(left, jacobian @ right))[0].item()
    found = {row.name: row.strength for row in ps.influence(graph, "a", 0.4)}
    assert found["c"] == pytest.approx(expected)


def test_nodes_without_a_path_have_no_influence():
    graph, _, _ = tree()
    graph.add_trajectory("alone", 4)
    rows = {row.name: row for row in ps.influence(graph, "a", 1.0)}
    assert rows["alone"] == ("alone", 0.0, 0.0, 0.0, None)
    assert all(row.strength == 0 for row in ps.influence(graph, "alone", 1.0))
    with pytest.raises(UnknownNameError, match="'z'"):
        ps.influence(graph, "z")
    with pytest.raises(UnsupportedError, match="4000 coupled features"):
        ps.influence(ps.chain_graph(2, 2000, ps.Correlation(0.5)), 0)


def test_views_of_a_canvas_share_more_than_potentials_say():
    plain = ps.wide_canvas((1, 4, 10), (4, 4), 3)
    assert [row.name for row in ps.influence(plain, "w0")] == ["w1", "w2"]  # the canvas is what they show
    assert all(np.isnan(row.strength) for row in ps.influence(plain, "w0"))
    assert np.isnan(ps.separation(plain, "w0", "w1").information)
    assert "nats" not in str(ps.separation(plain, "w0", "w1"))
    rows = {row.name: row for row in ps.influence(fitted_canvas(), "w0", 1.0)}
    assert rows["w1"].strength > rows["w2"].strength > 0


def test_hidden_variables_carry_influence():
    graph = ps.FactorGraph()
    graph.add_variable("style", 1)
    for name in ("a", "b"):
        graph.add_trajectory(name, 1)
        graph.add_factor(f"{name}s", [name, "style"], ps.Correlation(0.6))
    rows = {row.name: row for row in ps.influence(graph, "a", 0.0)}
    assert rows["b"].strength == pytest.approx(0.36)
    assert np.isnan(rows["style"].strength)
    assert rows["style"].mutual_information == pytest.approx(-0.5 * np.log(1 - 0.36))


@given(st.integers(4, 8), st.integers(0, 200))
def test_separation_against_networkx(n, seed):
    network = nx.gnp_random_graph(n, 0.35, seed=seed)
    graph = ps.from_trajectory_graph(network, 1, ps.Correlation(0.1))
    given_nodes = [k for k in range(2, n) if (seed + k) % 3 == 0]
    found = ps.separation(graph, 0, 1, given_nodes)
    left = network.copy()
    left.remove_nodes_from(given_nodes)
    assert bool(found) == (not nx.has_path(left, 0, 1))
    if found:
        assert found.information == pytest.approx(0, abs=1e-9)
        smaller = [[k for k in found.blocking if k != out] for out in found.blocking]
        assert graph.separated(0, 1, found.blocking)
        assert not any(graph.separated(0, 1, rest) for rest in smaller)
    elif network.has_edge(0, 1):
        assert found.cut is None
    else:
        assert len(found.cut) == len(nx.minimum_node_cut(left, 0, 1))
        assert graph.separated(0, 1, [*given_nodes, *found.cut])


def test_separation_in_words():
    chain = ps.chain_graph(4, 1, ps.Correlation(0.5))
    assert "every path passes 2" in str(ps.separation(chain, 0, 3, [2]))
    assert "1 would separate" in str(ps.separation(chain, 0, 2))
    assert "nothing separates" in str(ps.separation(chain, 0, 1))
    assert "nats" not in str(ps.separation(ps.chain_graph(3, 1), 0, 2))  # not fitted
    apart = ps.FactorGraph()
    for name in "ab":
        apart.add_trajectory(name, 1)
    assert "no path joins them" in str(ps.separation(apart, "a", "b"))


def test_separation_information_is_conditional():
    graph, _, covariance = tree()
    found = ps.separation(graph, "a", "c")
    assert found.information == pytest.approx(information(covariance, PLACES["a"], PLACES["c"]))
    assert ps.separation(graph, "a", "c", "b").information == pytest.approx(0, abs=1e-9)


def test_without_leaves_the_graph_alone():
    graph, _, _ = tree()
    assert ps.without(graph, "ab").factors == ["bc"]
    assert graph.factors == ["ab", "bc"]
    with pytest.raises(UnknownNameError, match="no factor 'ac'"):
        ps.without(graph, "ac")


def test_removal_between_two_priors():
    graph, mean, covariance = tree()
    cut = covariance.clone()
    cut[:2, 2:], cut[2:, :2] = 0, 0
    with_it, without = (torch.distributions.MultivariateNormal(mean, c) for c in (covariance, cut))
    found = ps.removal(graph, "ab")
    assert found.kl == pytest.approx(torch.distributions.kl_divergence(with_it, without).item())
    assert all(change == pytest.approx(0, abs=1e-6) for change in found.mean_change.values())
    rows = {(row.first, row.second): row for row in found.correlations}
    assert [rows["a", other].after for other in "bc"] == pytest.approx([0, 0], abs=1e-9)
    assert rows["b", "c"].before == pytest.approx(rows["b", "c"].after)


def test_removal_at_a_noise_level_against_the_joint_denoiser():
    graph, mean, covariance = tree()
    snr, n = 0.8, 200_000
    level = variance_preserving(snr)
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(2, n, 7, generator=generator, dtype=torch.float64)
    clean = mean + white[0] @ torch.linalg.cholesky(covariance).T
    state = level.alpha * clean + level.sigma * white[1]
    noisy = {name: state[:, place] for name, place in PLACES.items()}
    denoised = {}
    for name, place in PLACES.items():
        denoised[name] = ps.GaussianDenoiser(mean[place], covariance[place, place]).denoise(
            noisy[name], level
        )
    found = ps.removal(graph, "bc", snr)
    before = ps.JointDenoiser(graph)(noisy, denoised, level).mean
    # c has no factor left, so its own mean stays
    after = {**denoised, **ps.JointDenoiser(found.graph)(noisy, denoised, level).mean}
    changes = []
    for name, place in PLACES.items():
        change = before[name] - after[name]
        changes.append(change)
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance[place, place]), change.T, upper=False
        )
        assert found.mean_change[name] == pytest.approx(white.square().mean().sqrt().item(), rel=0.02)
    eye = snr * torch.eye(7, dtype=torch.float64)
    kept = torch.linalg.inv(covariance) + eye
    cut = covariance.clone()
    cut[5:, :5], cut[:5, 5:] = 0, 0
    left = torch.linalg.inv(cut) + eye
    d = torch.cat(changes, 1)
    kl = torch.trace(left @ torch.linalg.inv(kept)) - 7 + torch.logdet(kept) - torch.logdet(left)
    kl = 0.5 * (kl + (d @ left * d).sum(1).mean())
    assert found.kl == pytest.approx(kl.item(), rel=0.02)


def fitted_canvas() -> ps.FactorGraph:
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda shape: ps.DCT(shape, 2), neighbours="all")
    data = torch.randn(200, 1, 4, 10, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    return ps.fit(graph, {"canvas": data})


def test_removal_with_a_refit_against_conditional_information():
    """Of a complete graph, the nearest model without an edge is nats away as the edge says given all others."""
    graph = fitted_canvas()
    with pytest.raises(ImproperGraphError, match="refit=True"):
        ps.removal(graph, ("w0", "w2"))
    found = ps.removal(graph, ("w0", "w2"), refit=True)
    assert found.kl == pytest.approx(given_information(graph, "w0", "w2", "w1"))
    rows = {(row.first, row.second): row for row in found.correlations}
    for pair in (("w0", "w1"), ("w1", "w2")):  # kept edges keep their correlations
        assert rows[pair].after == pytest.approx(rows[pair].before, abs=1e-6)
    assert rows["w0", "w2"].after < rows["w0", "w2"].before


def given_information(graph: ps.FactorGraph, a: str, b: str, c: str) -> float:
    """I(a; b | c) of the features, from the covariances that the fitted factors state."""
    names = ["w0", "w1", "w2"]
    covariance = torch.eye(6, dtype=torch.float64)
    for i, j in itertools.combinations(range(3), 2):
        stated = graph.potential((names[i], names[j])).covariance
        rows = [2 * i, 2 * i + 1, 2 * j, 2 * j + 1]
        covariance[torch.tensor(rows)[:, None], torch.tensor(rows)] = stated

    def entropy(*which: str) -> float:
        rows = torch.tensor([2 * names.index(n) + k for n in which for k in range(2)])
        return 0.5 * torch.logdet(covariance[rows[:, None], rows]).item()

    return entropy(a, c) + entropy(b, c) - entropy(c) - entropy(a, b, c)


def test_removal_on_a_canvas_with_shared_noise():
    graph = fitted_canvas()
    far, near = (ps.removal(graph, ("w0", "w2"), snr, refit=True) for snr in (1e-4, 1e4))
    assert far.kl > near.kl > 0
    with pytest.raises(UnknownNameError, match="no density of its own"):
        ps.removal(graph, "see w0")


def test_culprits_of_a_proper_graph():
    found = ps.culprits(ps.chain_graph(3, 1, ps.Correlation(0.8)))
    chain = torch.tensor([[1, 0.8, 0.64], [0.8, 1, 0.8], [0.64, 0.8, 1]], dtype=torch.float64)
    assert found.proper
    assert found.factors == []
    assert found.eigenvalue == pytest.approx(1 / torch.linalg.eigvalsh(chain)[-1].item())


@pytest.mark.parametrize("seed", range(6))
def test_culprits_are_minimal(seed):
    network = nx.gnp_random_graph(7, 0.7, seed=seed)
    generator = np.random.default_rng(seed)
    strengths = {edge: generator.uniform(0.5, 0.9) for edge in network.edges}
    graph = ps.from_trajectory_graph(network, 2, lambda u, v: ps.Correlation(strengths[u, v]))
    prior = dict.fromkeys(graph.trajectories, (0.0, 1.0))
    with pytest.raises(ImproperGraphError) as caught:
        ps.infer(graph, prior)
    found = ps.culprits(graph)
    assert not found.proper
    assert found.eigenvalue == pytest.approx(caught.value.smallest_eigenvalue)

    def smallest(removed: list) -> float:
        matrix = np.eye(7)
        for (u, v), rho in strengths.items():
            if (u, v) not in removed:
                matrix[[u, v], [u, v]] += rho**2 / (1 - rho**2)
                matrix[[u, v], [v, u]] -= rho / (1 - rho**2)
        return np.linalg.eigvalsh(matrix)[0]

    assert smallest(found.factors) == pytest.approx(found.after)
    assert found.after > 0
    for kept in found.factors:
        assert smallest([f for f in found.factors if f != kept]) <= 1e-9
    ps.infer(ps.without(graph, *found.factors), prior)  # proper: no error


def test_culprits_are_few_on_small_graphs():
    """Against all subsets: the minimal set is also a smallest one here."""
    graph = ps.complete_graph(4, 1, ps.Correlation(0.9))
    found = ps.culprits(graph)

    def proper(removed: tuple) -> bool:
        return ps.culprits(ps.without(graph, *removed)).proper

    assert not any(proper((factor,)) for factor in graph.factors)
    assert len(found.factors) == 2
    assert any(proper(pair) for pair in itertools.combinations(graph.factors, 2))


def test_no_factor_is_to_blame_where_nothing_fixes_a_direction():
    graph = ps.FactorGraph()
    graph.add_trajectory("a", 1)
    graph.add_variable("u", 1)
    graph.add_variable("v", 1)
    graph.add_trajectory("b", 1)
    graph.add_factor("ab", ["a", "b"], ps.Correlation(0.5))
    graph.add_factor("uv", ["u", "v"], ps.Attraction(precision=1.0))
    found = ps.culprits(graph)
    assert not found.curable
    assert found.factors == []
    assert set(list(found.nodes)[:2]) == {"u", "v"}
    assert "give evidence or a prior" in str(found)


def test_attractions_need_a_variance():
    graph = ps.chain_graph(3, 1, ps.Attraction(precision=2.0))
    with pytest.raises(ParameterError, match="pass variance="):
        ps.culprits(graph)
    assert ps.culprits(graph, variance=1.0).proper
    assert ps.influence(graph, 0, variance=1.0)[0].strength > 0


def test_removal_from_an_improper_graph():
    graph = ps.complete_graph(4, 1, ps.Correlation(0.9))
    with pytest.raises(ImproperGraphError, match="ps.culprits"):
        ps.removal(graph, (0, 1))


def test_removal_says_when_the_rest_is_improper():
    graph = fitted_canvas()
    with pytest.raises(ImproperGraphError, match="without factor") as caught:
        ps.removal(graph, ("w0", "w2"))
    assert caught.value.smallest_eigenvalue < 0
    assert ps.removal(graph, ("w0", "w2"), snr=1e4).kl > 0  # own evidence makes up for it
