"""Eq. 17 against numerical integration, the onion method, autograd's Jacobians, Fisher, and rejection sampling."""

from __future__ import annotations

import itertools
import math
import random
import sys

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import init_to_value
from pyro.infer.mcmc.util import initialize_model
from scipy import stats
from scipy.integrate import quad

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    CovarianceError,
    DiagnosticsError,
    MissingPackageError,
    ParameterError,
    UnsupportedError,
)
from pgm_sync.learning import fit_bayesian
from pgm_sync.learning.bayesian.model import model
from pgm_sync.learning.bayesian.parts import divide, statistics
from pgm_sync.learning.bayesian.prior import Prior, log_joint
from pgm_sync.learning.bayesian.prior_draws import evolve
from pgm_sync.learning.bayesian.structures import Forest, Loopy, structure_of
from pgm_sync.learning.problem import features, pose

GRAPHS = {
    "pair": nx.path_graph(2),
    "chain": nx.path_graph(4),
    "star": nx.star_graph(3),
    "complete": nx.complete_graph(4),
    "two triangles": nx.Graph([(0, 1), (1, 2), (0, 2), (1, 3), (2, 3), (3, 4)]),
    "ring": nx.cycle_graph(5),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
}
SMALL = {"warmup": 20, "draws": 50, "strict": False}


def walks(n, count=3, modes=1, seed=0):
    """Joint samples of a chain: each is the one before and news."""
    x = torch.randn(n, count, modes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {k: x.cumsum(1)[:, k] for k in range(count)}


def pair(n, rho, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return {0: x[:, :1], 1: rho * x[:, :1] + math.sqrt(1 - rho**2) * x[:, 1:]}


# ---- correlation matrices of a graph -------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("concentration", [1.0, 2.5])
def test_the_prior_is_lkj_on_the_edge_correlations(graph, concentration):
    """Log density minus autograd's volume element is (concentration - 1) log det R, up to one constant."""
    structure = Loopy(graph)
    edges, constants = len(structure.edges), []
    nothing = torch.zeros(len(graph), len(graph), dtype=torch.float64)
    for _ in range(3):
        free = 0.7 * torch.randn(edges, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(structure.edge_correlations, free)
        law = (1 - concentration) * torch.logdet(structure.precision(free)) + jacobian.det().abs().log()
        constants.append((structure.evaluate(free, nothing, concentration).log_prior - law).item())
    assert np.ptp(constants) < 1e-8


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_every_choice_is_a_correlation_matrix_with_the_zeros_of_the_graph(graph):
    structure = structure_of(graph)
    free = torch.randn(20, len(structure.edges), dtype=torch.float64)
    precision = structure.precision(free)
    covariance = torch.linalg.inv(precision)
    joined = torch.tensor(nx.to_numpy_array(graph, nodelist=range(len(graph)))) + torch.eye(len(graph))
    assert (precision[:, joined == 0] == 0).all()
    assert (torch.linalg.eigvalsh(precision) > 0).all()
    torch.testing.assert_close(
        covariance.diagonal(dim1=-2, dim2=-1), torch.ones(20, len(graph)).double(), rtol=0, atol=1e-7
    )
    i, j = torch.tensor(structure.edges).T
    torch.testing.assert_close(structure.edge_correlations(free), covariance[:, i, j], rtol=0, atol=1e-7)
    torch.testing.assert_close(structure.coordinates(precision), free, rtol=1e-5, atol=1e-6)
    scatter = torch.randn(len(graph), 2 * len(graph), dtype=torch.float64)
    scatter = scatter @ scatter.T
    found = structure.evaluate(free, scatter, 1.0)
    torch.testing.assert_close(found.log_det, -torch.logdet(precision), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.trace, (precision * scatter).sum((1, 2)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("graph", [GRAPHS["chain"], GRAPHS["star"]], ids=["chain", "star"])
def test_the_closed_form_of_forests_is_the_general_law(graph):
    forest, loopy = Forest(graph), Loopy(graph)
    free = torch.randn(4, len(graph) - 1, dtype=torch.float64)
    other = loopy.coordinates(forest.precision(free))
    torch.testing.assert_close(loopy.precision(other), forest.precision(free))
    torch.testing.assert_close(forest.edge_correlations(free), free.tanh())


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_gradients_are_those_of_finite_differences(graph):
    structure = structure_of(graph)
    scatter = 5 * torch.eye(len(graph), dtype=torch.float64)

    def total(at):
        return sum(structure.evaluate(at, scatter, 1.5))

    free = (0.5 * torch.randn(len(structure.edges), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(total, free, atol=1e-6)


def test_draws_of_the_prior_on_a_complete_graph_are_lkj():
    """Marginals and determinant by the onion method [Lewandowski et al. 2009]; torch's own sampler misses both."""
    structure, size, concentration = Loopy(nx.complete_graph(3)), 3, 2.0
    free = evolve(structure, concentration, torch.Generator().manual_seed(0)).flatten(0, 1)
    marginal = stats.beta(concentration - 1 + size / 2, concentration - 1 + size / 2)
    for rho in structure.edge_correlations(free).T:
        assert stats.kstest((rho.numpy() + 1) / 2, marginal.cdf).pvalue > 0.005
    rng, determinant = np.random.default_rng(0), 1.0
    for k in range(1, size):
        determinant = determinant * (1 - rng.beta(k / 2, concentration + (size - 1 - k) / 2, 20_000))
    found = 1 / torch.linalg.det(structure.precision(free))
    assert stats.ks_2samp(found.numpy(), determinant).pvalue > 0.005


def test_draws_of_the_prior_on_a_ring_are_uniform_on_what_can_be_completed():
    """On a cycle correlations can be completed iff their angles obey polygon inequalities [Barrett et al. 1993]."""
    structure = Loopy(nx.cycle_graph(4))
    draws = structure.edge_correlations(evolve(structure, 1.0, torch.Generator().manual_seed(1))).flatten(
        0, 1
    )
    uniform = np.random.default_rng(0).uniform(-1, 1, (20_000, 4))

    def possible(rho):
        angles, good = np.arccos(rho), np.ones(len(rho), bool)
        for count in (1, 3):
            for chosen in itertools.combinations(range(4), count):
                signs = -np.ones(4)
                signs[list(chosen)] = 1
                good &= angles @ signs <= (count - 1) * np.pi
        return good

    assert possible(draws.numpy()).all()
    kept = uniform[possible(uniform)]
    for statistic in (lambda r: r[:, 0], lambda r: r.prod(1), lambda r: abs(r).sum(1)):
        assert stats.ks_2samp(statistic(draws.numpy()), statistic(kept)).pvalue > 0.005


# ---- posteriors ----------------------------------------------------------------------------------------------------


def exact_pair(data, concentration):
    """CDF of rho by integration: Wishart likelihood with unit variances, times the stretched Beta prior."""
    x = torch.cat([data[0], data[1]], 1).numpy()
    n, r = len(x), np.corrcoef(x.T)[0, 1]

    def density(rho):
        exponent = -n * (1 - rho * r) / (1 - rho**2) - 0.5 * (n - 1) * np.log1p(-(rho**2))
        peak = -n - 0.5 * (n - 1) * np.log1p(-(r**2))
        return np.exp(exponent - peak) * (1 - rho**2) ** (concentration - 1)

    total = quad(density, -1, 1, points=[r], epsabs=1e-12)[0]
    mean = quad(lambda rho: rho * density(rho), -1, 1, points=[r], epsabs=1e-12)[0] / total
    return mean, lambda rho: quad(density, -1, rho, points=[min(r, rho - 1e-9)], epsabs=1e-12)[0] / total


@pytest.mark.parametrize("inference", ["nuts", "svi"])
def test_one_pair_against_numerical_integration(inference):
    data = pair(30, 0.6)
    fit = fit_bayesian(
        ps.chain_graph(2, 1), data, inference=inference, scales="fixed", concentration=2.0, draws=300,
        warmup=100, chains=4, steps=300,
    )  # fmt: skip
    rho = fit.edge_correlations(0)[..., 0, 0]
    mean, cdf = exact_pair(data, 2.0)
    size = min(fit.diagnostics.ess_bulk, rho.numel()) if inference == "nuts" else rho.numel()
    # The guide is normal in Fisher's coordinate, which the posterior nearly is: allow it two percent of mass
    slack = 0.0 if inference == "nuts" else 0.02
    assert abs(rho.mean().item() - mean) < 4 * rho.std().item() / math.sqrt(size) + slack * rho.std().item()
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        share = cdf(rho.quantile(level).item())
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / size) + slack


@pytest.mark.slow
def test_scales_against_numerical_integration():
    """The pair again, its two scales integrated out on a grid under their Gamma priors."""
    data = pair(12, 0.5, seed=3)
    x = torch.cat([data[0], data[1]], 1).numpy()
    n, r = len(x), np.corrcoef(x.T)[0, 1]
    rho = np.linspace(-0.995, 0.995, 200)[:, None, None]
    log_s = np.linspace(-1.5, 2.2, 160)
    a, b = np.exp(log_s)[:, None], np.exp(log_s)[None]
    quadratic = n * (1 / a**2 + 1 / b**2 - 2 * rho * r / (a * b)) / (1 - rho**2)
    log = -0.5 * (n - 1) * (np.log1p(-(rho**2)) + 2 * np.log(a * b)) - 0.5 * quadratic
    log = log + stats.gamma(2).logpdf(a) + stats.gamma(2).logpdf(b) + np.log(a * b)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean_rho, mean_a = (weight * rho).sum(), (weight * a).sum()
    fit = fit_bayesian(ps.chain_graph(2, 1), data, draws=200, warmup=60, strict=False)
    draws, scale = fit.edge_correlations(0)[..., 0, 0], fit.draws.values["scale0"][..., 0, 0]
    for found, expected in ((draws, mean_rho), (scale, mean_a)):
        error = found.std().item() / math.sqrt(fit.diagnostics.ess_bulk)
        assert abs(found.mean().item() - expected) < 4 * error


@pytest.fixture(scope="module")
def large():
    data = walks(2000, 4)
    return data, ps.learning.fit_bayesian(ps.ring_graph(4, 1), data, inference="svi", steps=300)


def test_many_samples_agree_with_fisher_and_maximum_likelihood(large):
    data, fit = large
    moments = ps.fit(ps.ring_graph(4, 1), data, heldout=0, shrinkage="none")
    for own, fisher in zip(ps.correlations(fit.graph), ps.correlations(moments), strict=True):
        width = fisher.high - fisher.low
        assert abs(own.rho - fisher.rho) < 0.05 * width
        assert abs(own.low - fisher.low) < 0.1 * width
        assert abs(own.high - fisher.high) < 0.1 * width


def test_draws_are_graphs_with_exact_zeros(large):
    _, fit = large
    for index in (0, 7, len(fit) - 1):
        precision = fit.precision(index)
        assert precision[0, 2] == precision[1, 3] == 0
        graph = fit.draw(index)
        # Shares of the factors sum to the precision less the nodes' own: Eq. 5
        own = torch.linalg.inv(precision).diagonal()
        posterior = ps.infer(
            graph, {k: (graph.potential((0, 1)).mean[:1] * 0, 1 / own[k, None]) for k in range(4)}
        )
        expected = torch.linalg.inv(precision).diagonal()
        found = torch.cat([posterior.variance[k] for k in range(4)])
        torch.testing.assert_close(found, expected)
    with pytest.raises(ParameterError, match="draw 2000 of 2000"):
        fit.draw(2000)


def test_credible_intervals_are_saved_with_the_graph(large, tmp_path):
    _, fit = large
    fit.graph.save(tmp_path / "ring.json")
    again = ps.FactorGraph.load(tmp_path / "ring.json")
    rows = {(row.first, row.second): row for row in fit.correlations()}
    for row in ps.correlations(again):
        assert (row.low, row.high) == (rows[row.first, row.second].low, rows[row.first, row.second].high)
    assert ps.Fit.of(again).details["inference"] == "svi"
    narrow = fit.correlations(0.5)
    assert all(rows[r.first, r.second].low < r.low < r.high < rows[r.first, r.second].high for r in narrow)


def test_the_sampler_sees_the_pyro_model():
    problem = pose(ps.ring_graph(4, 2))
    samples = features(problem, walks(50, 4, 2))
    found = statistics(samples, None, ["?"] * 8)
    parts = divide(problem, found, cross=False)
    for prior in (Prior(), Prior(2.0, "half_normal"), Prior(1.5, "fixed")):
        start = {"free0": 0.3 * torch.randn(3, 2, 4).double()}
        if prior.scales != "fixed":
            start["scale0"] = torch.rand(3, 2, 4).double() + 0.5
        given = (parts, prior, found.freedom, 3)
        initial, potential, *_ = initialize_model(
            model, given, {}, init_strategy=init_to_value(values=start), max_plate_nesting=0
        )
        torch.testing.assert_close(-potential(initial), log_joint(parts, prior, found.freedom, start).sum())


def test_joined_modes_are_learned_with_cross():
    """Mode 0 of one node goes with mode 1 of the other: only `cross` can say so."""
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
    other = 0.6 * x.flip(1) + 0.8 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)).double()
    fit = fit_bayesian(ps.chain_graph(2, 2), {0: x, 1: other}, cross=True, inference="svi", steps=200)
    sample = torch.cat([x, other], 1).T.cov(correction=0)
    found = fit.graph.potential((0, 1)).covariance
    torch.testing.assert_close(found, sample, rtol=0, atol=0.02)
    apart = fit_bayesian(ps.chain_graph(2, 2), {0: x, 1: other}, inference="svi", steps=100, strict=False)
    assert apart.graph.potential((0, 1)).covariance[0, 3] == 0


def test_different_numbers_of_modes_need_cross():
    graph = ps.FactorGraph()
    graph.add_trajectory("a", 2)
    graph.add_trajectory("b", 1)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian())
    x = torch.randn(100, 2).double()
    data = {"a": x, "b": x[:, :1] + torch.randn(100, 1)}
    with pytest.raises(UnsupportedError, match=r"numbers of modes differ: \{'a': 2, 'b': 1\}.*cross=True"):
        fit_bayesian(graph, data)
    fit = fit_bayesian(graph, data, cross=True, inference="svi", steps=200, strict=False)
    (row,) = ps.correlations(fit.graph)
    assert row.mode == "canonical 0"
    assert row.low < row.rho < row.high


def test_a_group_counts_as_one_sample():
    data = walks(40, 2)
    twice = {k: x.repeat_interleave(2, 0) for k, x in data.items()}
    options = {"inference": "svi", "steps": 100, "strict": False}
    once = fit_bayesian(ps.chain_graph(2, 1), data, **options)
    grouped = fit_bayesian(ps.chain_graph(2, 1), twice, groups=torch.arange(80) // 2, **options)
    torch.testing.assert_close(once.edge_correlations(0), grouped.edge_correlations(0))
    assert grouped.record.num_groups == 40
    with pytest.raises(BatchError, match="3 group labels for 80 samples"):
        fit_bayesian(ps.chain_graph(2, 1), twice, groups=[1, 2, 3])


def test_seeds_repeat_and_nothing_else_is_touched():
    data, graph = walks(60, 2), ps.chain_graph(2, 1)

    def states():
        return torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002

    before = states()
    pyro.get_param_store().setdefault("mine", torch.ones(1))
    first = [fit_bayesian(graph, data, inference=m, steps=100, **SMALL) for m in ("nuts", "svi")]
    after = states()
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()
    torch.rand(3)
    again = fit_bayesian(graph, data, **SMALL)
    other = fit_bayesian(graph, data, seed=1, **SMALL)
    assert torch.equal(first[0].draws.values["free0"], again.draws.values["free0"])
    assert not torch.equal(first[0].draws.values["free0"], other.draws.values["free0"])


# ---- checks and diagnostics ----------------------------------------------------------------------------------------


def test_too_few_draws_are_refused_with_what_was_computed():
    with pytest.raises(DiagnosticsError, match=r"effective sample size \d+ < 400.*more draws") as caught:
        ps.fit(ps.chain_graph(2, 1), walks(50, 2), "bayesian", warmup=20, draws=20)
    error = caught.value
    assert error.diagnostics.failures
    assert error.diagnostics.ess_bulk < 400
    assert error.fit.edge_correlations(0).shape == (4, 20, 1, 1)
    assert ps.correlations(error.fit.graph)[0].rho > 0.3


@pytest.mark.parametrize(
    ("graph", "n", "options", "message"),
    [
        (ps.ring_graph(4, 1), 4, {}, r"Pareto k 1\.\d\d > 0\.7"),
        # hardly fitted at all, so that the share does not depend on the rounding of a machine
        (ps.chain_graph(2, 1), 3, {"learning_rate": 1e-4}, r"are worth 0\.\d% of them"),
    ],
    ids=["tail", "weights"],
)
def test_a_guide_that_does_not_fit_is_refused(graph, n, options, message):
    """From three or four samples the posterior is far from normal."""
    data = walks(n, len(graph.trajectories))
    with pytest.raises(DiagnosticsError, match=message + ".*inference='nuts'"):
        ps.fit(graph, data, "bayesian", inference="svi", steps=100, **options)


def test_predictive_checks_find_what_a_gaussian_is_not():
    data = walks(300, 2)
    generator = torch.Generator().manual_seed(5)
    # A scale that both ends share: large numbers come together
    common = (0.8 * torch.randn(300, 1, generator=generator, dtype=torch.float64)).exp()
    options = {"inference": "svi", "steps": 200, "strict": False}
    for x, low, high in ((data, 0.02, 0.98), ({k: v * common for k, v in data.items()}, -1, 0.01)):
        checks = {row.statistic: row for row in fit_bayesian(ps.chain_graph(2, 1), x, **options).check()}
        assert low < checks["cokurtosis"].p < high
        assert 0.1 < checks["correlation"].p < 0.9
    prior = {row.statistic: row for row in fit_bayesian(ps.chain_graph(2, 1), data, **options).check("prior")}
    assert prior["correlation"].low < -0.85
    assert prior["correlation"].high > 0.85
    with pytest.raises(ParameterError, match="which='both'"):
        fit_bayesian(ps.chain_graph(2, 1), data, **options).check("both")


def test_export_to_arviz_has_names_and_numbers():
    fit = fit_bayesian(ps.chain_graph(3, 2), walks(60, 3, 2), **SMALL)
    data = fit.to_arviz(replicates=50)
    assert set(data.groups()) >= {
        "posterior", "prior", "sample_stats", "log_likelihood", "posterior_predictive", "prior_predictive",
        "observed_data",
    }  # fmt: skip
    chosen = data.posterior["rho"].sel(edge="1 - 2", mode="1")
    assert chosen.dims == ("chain", "draw")
    assert np.array_equal(chosen.values, fit.edge_correlations(0)[..., 1, 1].numpy())
    sample = torch.corrcoef(torch.stack([walks(60, 3, 2)[k][:, 1] for k in (1, 2)]))[0, 1]
    observed = data.observed_data["correlation"].sel(edge="1 - 2", mode="1")
    assert float(observed) == pytest.approx(sample.item(), abs=1e-12)
    assert data.posterior_predictive["cokurtosis"].sizes["draw"] == 50
    assert np.isfinite(data.log_likelihood["samples"].values).all()
    assert data.log_likelihood["samples"].shape == (4, 50, 60)


def test_log_likelihood_is_the_density_of_the_draw():
    from pgm_sync.learning.bayesian.export import log_likelihood

    data = walks(500, 2)
    fit = fit_bayesian(ps.chain_graph(2, 1), data, inference="svi", steps=200, strict=False)
    found = log_likelihood(fit)[0].mean(0)  # over draws
    x = torch.cat([data[0], data[1]], 1)
    best = dist.MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x)
    # Five parameters cost 5 / (2 n) nats per sample on average
    assert best.mean().item() - found.mean().item() == pytest.approx(5 / 1000, abs=0.004)


def test_without_arviz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pgm_sync\[bayesian\]'"):
        ps.fit(ps.chain_graph(2, 1), walks(20, 2), "bayesian")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inference": "vi"}, "inference='vi' is not one of nuts, svi"),
        ({"concentration": 0}, "concentration=0.0 must be positive"),
        ({"scales": "wide"}, "scales='wide' is not one of gamma, half_normal, fixed"),
        ({"draws": 2}, "draws=2 is not at least 10"),
        ({"target_accept": 1.0}, "target_accept=1.0 must lie in"),
        ({"shrinkage": 0.1}, "takes no option 'shrinkage'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        ps.fit(ps.chain_graph(2, 1), walks(20, 2), "bayesian", **options)


def test_a_feature_that_does_not_vary_is_named():
    data = walks(20, 2) | {1: torch.full((20, 1), 3.0)}
    with pytest.raises(CovarianceError, match="feature 0 of 1 is the same in all samples"):
        ps.fit(ps.chain_graph(2, 1), data, "bayesian")
