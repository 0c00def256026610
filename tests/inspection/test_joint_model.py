"""The dense model against the engine, and its adjustable factors against graphs that were changed."""

from __future__ import annotations

import math

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import UnknownNameError, UnsupportedError
from pgm_sync.inspection.counterfactual import changes, drawn_states, rescaled, strength_range
from pgm_sync.inspection.joint_model import joint_model
from pgm_sync.inspection.noise_levels import noise_levels
from pgm_sync.levels import variance_preserving
from pgm_sync.potentials import Attraction, Correlation, Evidence, JointGaussian, Quadratic


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(size: int, seed: int = 0) -> torch.Tensor:
    root = normal(size, 2 * size, seed=seed)
    return root @ root.T / (2 * size) + 0.3 * torch.eye(size, dtype=torch.float64)


def chain() -> ps.FactorGraph:
    rho = torch.tensor([0.7, -0.4, 0.2, 0.5], dtype=torch.float64)
    return ps.chain_graph(3, (4,), Correlation(rho, variance=2.0, mean=0.3))


def loop() -> ps.FactorGraph:
    graph = ps.ring_graph(3, (1, 4, 4), JointGaussian(), lambda shape: ps.DCT(shape, 2))
    root = normal(16, 16, seed=3)
    data = {name: normal(400, 1, 4, 4, seed=k) + (normal(400, 16, seed=9) @ root * 0.2).reshape(400, 1, 4, 4)
            for k, name in enumerate(graph.trajectories)}  # fmt: skip
    return ps.fit(graph, data)


def canvas() -> ps.FactorGraph:
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda shape: ps.DCT(shape, 3))
    return ps.fit(graph, {"canvas": normal(300, 1, 4, 10) + normal(300, 1, 1, 1, seed=1)})


def star() -> ps.FactorGraph:
    graph = ps.FactorGraph()
    graph.add_variable("style", 2)
    for k in range(3):
        graph.add_trajectory(k, 3)
        graph.add_factor(("tie", k), [k, "style"], JointGaussian(covariance=_tied(k)))
    return graph


def _tied(seed: int) -> torch.Tensor:
    whole = covariance(5, seed)
    whole[3:, 3:] = torch.eye(2)
    whole[:3, 3:] *= 0.5
    whole[3:, :3] *= 0.5
    return whole


GRAPHS = {"chain": chain, "loop": loop, "canvas": canvas, "star": star}


def states(graph: ps.FactorGraph, joint: ps.JointDenoiser) -> tuple[dict, dict]:
    carried = [normal(2, *c.shape, seed=k) for k, c in enumerate(joint.carriers.carriers)]
    noisy = {name: joint.carriers.view(carried, name) for name in graph.trajectories}
    own = {name: normal(2, *graph.shape(name), seed=10 + k) for k, name in enumerate(graph.trajectories)}
    return noisy, own


def engine(graph: ps.FactorGraph, snr: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Own means, ``x_t / alpha`` and the engine's joint means, ``(2, P)`` each over features of trajectories."""
    joint, level = ps.JointDenoiser(graph), variance_preserving(snr)
    noisy, own = states(graph, joint)
    moved, *_ = joint._correct(noisy, own, dict.fromkeys(noisy, level), {}, {})  # before views are averaged
    features = joint.reduction.features
    parts = [
        torch.cat([f.apply(values[name]).flatten(1) for name, f in features.items()], 1)
        for values in (own, noisy, {name: own[name] + moved[name] for name in features})
    ]
    return parts[0], parts[1] / level.alpha, parts[2]


@pytest.mark.parametrize("snr", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_solves_what_the_engine_solves(name, snr):
    graph = GRAPHS[name]()
    model = joint_model(graph)
    own, noisy, expected = engine(graph, snr)
    hidden = own.new_zeros(2, model.size - own.shape[1])
    found = model.solve(snr, torch.cat([own, hidden], 1), torch.cat([noisy, hidden], 1))
    torch.testing.assert_close(found[:, : own.shape[1]], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_strength_is_a_graph_with_another_factor(name, strength):
    graph = GRAPHS[name]()
    factor = list(joint_model(graph).terms)[0]
    changed = rescaled(graph, {factor: strength})
    own, noisy, expected = engine(changed, 0.7)
    model = joint_model(graph)
    hidden = own.new_zeros(2, model.size - own.shape[1])
    found = model.solve(0.7, torch.cat([own, hidden], 1), torch.cat([noisy, hidden], 1), {factor: strength})
    torch.testing.assert_close(found[:, : own.shape[1]], expected, rtol=1e-9, atol=1e-9)


def test_strength_multiplies_the_correlation():
    graph = rescaled(chain(), {(0, 1): 0.5})
    torch.testing.assert_close(graph.potential((0, 1)).rho, torch.tensor([0.35, -0.2, 0.1, 0.25]).double())
    torch.testing.assert_close(graph.potential((1, 2)).rho, torch.tensor([0.7, -0.4, 0.2, 0.5]).double())


def test_springs_are_multiplied_and_cut():
    graph = ps.chain_graph(3, (2,), Attraction(4.0))
    assert rescaled(graph, {(0, 1): 0.5}).potential((0, 1)).precision == 2.0
    assert (0, 1) not in rescaled(graph, {(0, 1): 0})
    pair = Quadratic(torch.eye(2), torch.ones(2))
    graph = graph.with_potentials({(0, 1): pair})
    torch.testing.assert_close(
        rescaled(graph, {(0, 1): 0.5}).potential((0, 1)).eta, torch.full((2,), 0.5).double()
    )


def test_what_has_no_strength_is_refused():
    graph = canvas()
    seen = next(f for f in graph.factors if "canvas" in graph.scope(f))
    with pytest.raises(UnsupportedError, match="Equality has no strength to change"):
        rescaled(graph, {seen: 0.0})
    with pytest.raises(UnknownNameError):
        rescaled(graph, {"none": 0.0})


def test_the_strength_range_is_where_the_prior_stops_being_proper():
    graph = ps.chain_graph(2, (1,), Correlation(0.9))
    model = joint_model(graph)
    assert strength_range(model, (0, 1)) == pytest.approx((0, 1 / 0.9), abs=2e-3)
    assert strength_range(joint_model(ps.chain_graph(2, (1,), Correlation(0.5))), (0, 1)) == (0, 1.2)


def test_a_factor_that_keeps_the_others_proper_cannot_be_cut():
    """A precision that is only proper because a third factor takes back what the first two claim."""
    spring = Quadratic(torch.tensor([[-0.6, -0.3], [-0.3, -0.6]]))
    graph = ps.chain_graph(2, (1,), Correlation(0.2))
    graph.add_factor("claim", [0, 1], spring)
    graph.add_factor("back", [0, 1], Quadratic(-spring.precision))
    model = joint_model(graph)
    low, high = strength_range(model, "back")
    # own precision 1/(1 - .04) of the pair, minus .6 (1 - s) and .3 (1 - s) off the diagonal
    whole = torch.linalg.eigvalsh(model.prior())
    assert 0 <= low < 1
    claimed = model.prior({"back": low})
    assert torch.linalg.eigvalsh(claimed).min() >= 0
    assert high == 1.2
    assert whole.min() > 0


def test_one_element_stands_for_all_where_potentials_treat_them_alike():
    graph = ps.chain_graph(3, (3, 64, 64), Correlation(0.8))
    graph.add_factor("seen", [0], Evidence(0.5, 2.0))
    model = joint_model(graph)
    assert model.one_for_all
    assert model.size == 3
    assert not joint_model(chain()).one_for_all


def test_graphs_without_a_model_say_why():
    with pytest.raises(UnsupportedError, match="no potential around 0 states its variance"):
        joint_model(ps.chain_graph(2, (1,), Attraction(1.0)))
    assert joint_model(ps.chain_graph(2, (1,), Attraction(1.0)), 2.0).own[0, 0] == 0.5
    with pytest.raises(UnsupportedError, match="no potential couples"):
        joint_model(ps.chain_graph(1, (1,), Attraction(1.0)))
    big = ps.chain_graph(3, (600,), Correlation(torch.full((600,), 0.5)))
    with pytest.raises(UnsupportedError, match="1800 coupled features are more than 1024"):
        joint_model(big)


def test_correlation_of_a_pair_by_noise_level_is_the_closed_form():
    rho = 0.8
    model = joint_model(ps.chain_graph(2, (1,), Correlation(rho)))
    for row in noise_levels(model, [-3.0, 0.0, 2.0]):
        snr = math.exp(row.log_snr)
        # (Sigma^{-1} + snr)^{-1} of a pair with unit variances, eigenvalues 1 + rho and 1 - rho
        plus, minus = (1 / (1 / (1 + s * rho) + snr) for s in (1, -1))
        posterior = (plus - minus) / (plus + minus)
        assert row.rho == pytest.approx(posterior, rel=1e-9)
        assert row.mutual_information == pytest.approx(-0.5 * math.log1p(-(posterior**2)), rel=1e-9)


@pytest.mark.parametrize("name", ["chain", "loop", "star"])
def test_movement_is_what_cutting_does_to_draws_of_the_model(name):
    model, snr, n = joint_model(GRAPHS[name]()), 0.6, 20000
    prior = torch.linalg.inv(model.prior())
    mean = prior @ (model.own_eta + model.coupling()[1])
    content = mean + normal(n, model.size) @ torch.linalg.cholesky(prior).T
    noisy = (content + normal(n, model.size, seed=1) / math.sqrt(snr)) * model.visible
    own = model.own_means(snr, noisy)
    factor, term = list(model.terms.items())[0]
    moved = (model.solve(snr, own, noisy, {factor: 0.0}) - model.solve(snr, own, noisy)) * model.visible
    measured = math.sqrt(moved.square().sum(1).mean() / term.seen(prior).trace())
    stated = noise_levels(model, [math.log(snr)]).of(factor)[0].movement
    assert stated == pytest.approx(measured, rel=0.03)


def test_changes_are_zero_for_the_graph_as_it_is():
    model = joint_model(loop())
    table = changes(model, drawn_states(model, 1.0), dict.fromkeys(model.terms, 1.0))
    assert len(table) == 9
    assert all(row.change < 1e-12 < row.correction for row in table)
    cut = changes(model, drawn_states(model, 1.0), {next(iter(model.terms)): 0.0})
    assert all(row.change > 1e-6 for row in cut)


def test_own_means_are_the_exact_gaussian_posteriors():
    model = joint_model(chain())
    drawn = drawn_states(model, 3.0, seed=4)
    # one element, mean .3, variance 2: (x 3 + .3 / 2) / (3 + 1 / 2)
    torch.testing.assert_close(drawn.own, (3 * drawn.noisy + 0.15) / 3.5)
