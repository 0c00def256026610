"""Eq. 19 against log densities and optima known in closed form or by numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2, energy_distance

import pgm_sync as ps
from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError, UnknownNameError
from pgm_sync.learning import denoiser_elbo, scaled_couplings, scheduler_levels, tune, weighted_views
from pgm_sync.learning.tuning import energy_distances

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE, ZERO = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
STANDARD = ps.GaussianDenoiser(ZERO, ONE)
EXACT = {"dtype": torch.float64, "posterior_covariance": 1.0}


def ddim():
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def pair(potential):
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, 1)
    graph.add_factor("pull", ["a", "b"], potential)
    return graph


def shared(count=2):
    """Views of one and the same number."""
    graph = ps.FactorGraph()
    graph.add_variable("z", 1)
    for name in "abcd"[:count]:
        graph.add_trajectory(name, 1)
        graph.add_factor(f"see {name}", [name, "z"], ps.Equality())
    return graph


# ---- the bound --------------------------------------------------------------------------------------


def many(denoiser, x, copies, **options):
    """Mean over noise of the bound at one point, and its standard error."""
    values = denoiser_elbo(denoiser, x.expand(copies, *x.shape), **options)
    return values.mean().item(), values.std().item() / math.sqrt(copies)


def test_a_gaussian_s_bound_is_its_log_density():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    mean, covariance = torch.tensor([2.0, -1.0, 0.5]).double(), root @ root.T + 0.1 * torch.eye(3)
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    denoiser = ps.GaussianDenoiser(mean, covariance)
    for x in (mean, mean + torch.tensor([1.0, 2.0, -1.0])):
        value, error = many(denoiser, x, 2000)
        assert error < 0.04
        assert abs(value - exact.log_prob(x).item()) < 4 * error


def test_the_quadrature_is_exact_for_the_gaussian_compared_with_whatever_the_noise():
    x = torch.tensor([[0.3], [-2.0]]).double()
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    torch.testing.assert_close(denoiser_elbo(STANDARD, x, scale=1.0), exact, atol=1e-12, rtol=0)


def test_the_bound_of_a_mixture_is_its_log_density():
    weights, means, spreads = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0]), torch.tensor([0.2, 0.3])
    denoiser = ps.MixtureDenoiser(
        weights.double(), means[:, None].double(), spreads.double().square()[:, None, None]
    )

    def density(x):
        return (
            (weights * torch.distributions.Normal(means, spreads).log_prob(torch.tensor(x)).exp())
            .sum()
            .item()
        )

    assert quad(density, -4, 4)[0] == pytest.approx(1, abs=1e-5)
    for x in (-1.0, 0.1, 1.5):
        value, error = many(denoiser, torch.tensor([x]).double(), 2000)
        assert error < 0.035
        assert abs(value - math.log(density(x))) < 4 * error
    # Normalised: the integral of exp(bound) over a grid, the noise averaged first
    grid = torch.linspace(-2.5, 2.5, 61).double()
    bound = denoiser_elbo(denoiser, grid[:, None], num_noises=30)
    assert torch.trapezoid(bound.exp(), grid).item() == pytest.approx(1, abs=0.05)


def test_the_value_does_not_depend_on_the_gaussian_compared_with():
    x = torch.tensor([0.7]).double()
    denoiser = ps.GaussianDenoiser(ZERO + 0.5, 0.3 * ONE)
    first, e1 = many(denoiser, x, 2000, scale=0.5)
    second, e2 = many(denoiser, x, 2000, scale=3.0, seed=1)
    assert abs(first - second) < 4 * math.hypot(e1, e2)


def test_levels_of_a_scheduler():
    scheduler = ddim()
    before = dict(vars(scheduler))
    levels = scheduler_levels(scheduler, 30)
    assert vars(scheduler)["num_inference_steps"] == before["num_inference_steps"]
    assert len(levels) == 30
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in levels)
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    error = denoiser_elbo(STANDARD, x, levels[::-1], scale=2.0, num_noises=20) - exact
    assert abs(error.mean().item()) < 0.02


def test_what_has_no_bound_is_refused():
    with pytest.raises(ShapeError, match=r"give \(n, \*shape\)"):
        denoiser_elbo(STANDARD, torch.zeros(3, 2))
    with pytest.raises(NotFiniteError, match="samples with NaN"):
        denoiser_elbo(STANDARD, torch.full((1, 1), math.nan))
    broken = ps.FunctionDenoiser(lambda x, alpha, sigma: x / 0, (1,))
    with pytest.raises(NotFiniteError, match="returned NaN or infinite numbers at snr"):
        denoiser_elbo(broken, torch.ones(2, 1))
    with pytest.raises(ParameterError, match="no place in the integral"):
        denoiser_elbo(STANDARD, torch.ones(2, 1), [ps.NoiseLevel(1.0, 0.5), ps.NoiseLevel(0.0, 1.0)])
    with pytest.raises(ParameterError, match="at least 2 levels"):
        denoiser_elbo(STANDARD, torch.ones(2, 1), [ps.NoiseLevel(1.0, 0.5)])


# ---- the rules --------------------------------------------------------------------------------------


def test_the_strongest_attraction_is_where_the_marginal_has_shrunk_by_the_tolerance():
    """Variance (1 + k) / (1 + 2 k), so E log p is k / (1 + 2 k) / 2 too high, in units of sqrt(1/2)."""
    graph = pair(ps.Attraction(2.0))
    fitted = ps.fit(
        graph, None, "elbo", denoisers=STANDARD, scheduler=ddim(), sampling=EXACT, num_samples=1000, num_noises=2,
        num_inference_steps=20, bounds=(0.01, 10.0), grid=5, tolerance=0.2,
    )  # fmt: skip
    record = ps.Fit.of(fitted)
    found = 2 * record.details["strength"]
    assert fitted.potential("pull").precision == pytest.approx(found)
    exact = brentq(lambda k: k / (1 + 2 * k) / math.sqrt(2) - 0.2, 0.01, 20)
    # The whole interval has to be within, so the answer is on the near side
    margin = 2 * 1.96 * max(record.details["gap_errors"])
    least = brentq(lambda k: k / (1 + 2 * k) / math.sqrt(2) - 0.2 + margin, 0.001, 20)
    assert least < found < 1.1 * exact
    assert record.method == "elbo"
    assert record.details["rule"] == "strongest"
    assert not record.details["at_bound"]
    assert len(record.objective) == len(record.details["standard_errors"]) == len(record.details["trials"])
    assert min(record.details["standard_errors"]) > 0


def test_correlation_leaves_gaussian_marginals_alone_so_the_bound_is_reached():
    found = tune(
        lambda at: scaled_couplings(pair(ps.Correlation(0.5)), at["s"]), {"s": (0.2, 3.0)}, STANDARD, ddim(),
        rule="strongest", num_samples=1500, num_inference_steps=20, grid=3, sampling={"dtype": torch.float64},
        tolerance=0.15,
    )  # fmt: skip
    assert found.at_bound
    assert found.scalars["s"] == pytest.approx(3.0)


def corrected(at):
    """An attraction of precision 1, and a field on both that may undo the shrinkage."""
    return pair(ps.Quadratic(torch.tensor([[1 + at["field"], -1.0], [-1.0, 1 + at["field"]]]).double()))


def test_match_finds_the_field_that_restores_the_marginal():
    """(2 + f) / ((1 + f) (3 + f)) = 1 at f = (sqrt(5) - 3) / 2."""
    found = tune(
        corrected, {"field": (-0.7, 0.7)}, STANDARD, ddim(), num_samples=400, num_inference_steps=12, grid=5,
        refinements=7, sampling=EXACT,
    )  # fmt: skip
    assert found.scalars["field"] == pytest.approx((math.sqrt(5) - 3) / 2, abs=0.06)
    assert found.best.distances.max() < 0.01


def test_eq_19_to_the_letter_collapses():
    """The expected log density rises with the field without end: it is the least entropy that wins."""

    def run():
        return tune(
            corrected, {"field": (-0.5, 5.0)}, STANDARD, ddim(), rule="elbo", num_samples=64, num_inference_steps=10,
            grid=3, refinements=0, sampling=EXACT,
        )  # fmt: skip

    found = run()
    assert found.at_bound
    assert found.scalars["field"] == pytest.approx(5.0)
    assert found.best.gaps.min() > 0.3
    assert [t.objective for t in run().trials] == [t.objective for t in found.trials]  # deterministic


def test_match_finds_the_canvas_weights():
    """Pooling N(0, 4) and N(0, 1) by w and 1 - w at all levels gives N(0, 4^w): the flow divides by
    ``prod (v_i + sigma^2)^(w_i / 2)``. The distance of the two log densities is an integral over chi^2."""

    def distance(ratio):
        points = [1e-3, 0.1, 1, 5]
        area = quad(
            lambda x: (chi2.cdf(x / ratio, 1) - chi2.cdf(x, 1)) ** 2, 0, 100, limit=300, points=points
        )[0]
        return 2 * area * 0.5 / math.sqrt(0.5)

    def mean_distance(w):
        return (distance(4 ** (w - 1)) + distance(4**w)) / 2

    exact = minimize_scalar(mean_distance, bounds=(0, 1), method="bounded")
    views = {"a": ps.GaussianDenoiser(ZERO, 4 * ONE), "b": STANDARD}
    fitted = ps.fit(
        shared(), None, "elbo", parameters="weights", denoisers=views, scheduler=ddim(), num_samples=1000,
        num_inference_steps=15, num_noises=2, grid=4, refinements=4, sampling={"dtype": torch.float64},
    )  # fmt: skip
    record = ps.Fit.of(fitted)
    weight = fitted.potential("see a").weight.item()
    # Flat at the optimum: the answer is good if its exact distance is, and it is not that of equal weights
    assert mean_distance(weight) < exact.fun + 0.1 * (mean_distance(0.5) - exact.fun)
    assert abs(weight - exact.x) < 0.1
    assert min(record.objective) == pytest.approx(exact.fun, abs=4 * record.details["standard_errors"][-1])


def test_several_scalars_and_options_of_sample():
    """A field for either end: both marginals are restored by the same one."""

    def make(at):
        precision = torch.tensor([[1 + at["left"], -1.0], [-1.0, 1 + at["right"]]]).double()
        return pair(ps.Quadratic(precision)), {"noise_correlation": 0.0}

    found = tune(
        make, {"left": (-0.7, 0.7), "right": (-0.7, 0.7)}, STANDARD, ddim(), num_samples=200, num_inference_steps=8,
        grid=5, refinements=6, sampling=EXACT,
    )  # fmt: skip
    assert list(found.scalars.values()) == pytest.approx([(math.sqrt(5) - 3) / 2] * 2, abs=0.15)
    assert found.options == {"noise_correlation": 0.0}


def test_energy_distances():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 40)), generator.normal(0.3, 2, size=(2, 3, 40))
    expected = [
        [energy_distance(x, y) ** 2 for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(energy_distances(a, b), expected, rtol=1e-10)


# ---- ready forms ------------------------------------------------------------------------------------


def test_scaled_couplings():
    graph = pair(ps.Correlation(0.6, (1.0, 4.0)))
    assert scaled_couplings(graph, 1.0).potential("pull").rho == pytest.approx(0.6)
    assert scaled_couplings(graph, 2.0).potential("pull").rho == pytest.approx(1.2 / 1.36)  # tanh(2 x)
    assert scaled_couplings(graph, 1e6).potential("pull").rho < 1
    assert graph.potential("pull").rho == 0.6
    pulled = scaled_couplings(pair(ps.Attraction(torch.tensor([3.0]))), 2.0)
    assert pulled.potential("pull").precision.tolist() == [6.0]
    with pytest.raises(ParameterError, match="no Attraction or Correlation"):
        scaled_couplings(shared(), 1.0)
    with pytest.raises(ParameterError, match="must be positive"):
        scaled_couplings(graph, 0.0)


def test_weighted_views_are_a_partition_of_unity():
    canvas = ps.wide_canvas((1, 1, 10), (1, 4), 3)
    importance = {"w0": 1.0, "w1": 3.0, "w2": 0.5}
    graph = weighted_views(canvas, importance)
    assert graph.potential("see w0").weight.flatten().tolist() == pytest.approx([1, 1, 1, 0.25])
    assert graph.potential("see w1").weight.flatten().tolist() == pytest.approx([0.75, 1, 1, 6 / 7])
    ps.JointDenoiser(graph)  # checks the sum
    # Weights that are there count on
    twice = weighted_views(graph, dict.fromkeys(importance, 1.0))
    torch.testing.assert_close(twice.potential("see w1").weight, graph.potential("see w1").weight)
    with pytest.raises(UnknownNameError, match="the views are"):
        weighted_views(canvas, {"w0": 1.0})
    with pytest.raises(ParameterError, match="no canvas"):
        weighted_views(pair(ps.Attraction(1.0)), {"a": 1.0, "b": 1.0})


def test_a_tuned_graph_is_saved_with_its_record(tmp_path):
    fitted = ps.fit(
        shared(3), None, "elbo", parameters="weights", denoisers=STANDARD, scheduler=ddim(), num_samples=16,
        num_inference_steps=3, grid=2, refinements=1, sampling={"dtype": torch.float64},
    )  # fmt: skip
    fitted.save(tmp_path / "graph.json")
    loaded = ps.FactorGraph.load(tmp_path / "graph.json")
    assert ps.Fit.of(loaded).to_dict() == ps.Fit.of(fitted).to_dict()
    assert "weight of 'b'" in str(ps.Fit.of(loaded))


def test_what_cannot_be_tuned_is_named():
    graph, given = pair(ps.Attraction(1.0)), {"denoisers": STANDARD, "scheduler": ddim()}
    small = {**given, "sampling": EXACT, "num_samples": 16, "num_inference_steps": 3, "grid": 2}
    with pytest.raises(ParameterError, match="takes no data"):
        ps.fit(graph, {"a": torch.zeros(3, 1)}, "elbo", **given)
    with pytest.raises(ParameterError, match="needs denoisers"):
        ps.fit(graph, None, "elbo")
    with pytest.raises(ParameterError, match="is not one of strength, weights"):
        ps.fit(graph, None, "elbo", parameters="rho", **given)
    with pytest.raises(ParameterError, match="is not one of match"):
        ps.fit(graph, None, "elbo", rule="best", **given)
    with pytest.raises(ParameterError, match="even at"):
        ps.fit(graph, None, "elbo", bounds=(50.0, 100.0), **small)
    with pytest.raises(ParameterError, match="must rise and be positive"):
        ps.fit(graph, None, "elbo", bounds=(0.0, 1.0), **given)
    with pytest.raises(ParameterError, match="for one scalar"):
        tune(corrected, {"a": (0, 1), "b": (0, 1)}, STANDARD, ddim(), rule="strongest")
    with pytest.raises(ParameterError, match="give a FactorGraph"):
        tune(lambda at: None, {"a": (0, 1)}, STANDARD, ddim())
    point = ps.GaussianDenoiser(ONE[0], 0 * ONE)  # all samples alike
    with pytest.raises(ParameterError, match="do not stand out"):
        ps.fit(graph, None, "elbo", **{**small, "denoisers": point, "num_samples": 64})


def test_improper_graphs_are_trials_that_failed():
    found = tune(
        corrected, {"field": (-6.0, 3.0)}, STANDARD, ddim(), num_samples=32, num_inference_steps=5, grid=4,
        refinements=3, sampling=EXACT,
    )  # fmt: skip
    assert any(math.isinf(t.objective) for t in found.trials)
    assert np.isfinite(found.best.objective)
    assert found.scalars["field"] > -1.5
    with pytest.raises(ParameterError, match="no graph within the bounds"):
        tune(
            corrected, {"field": (-9.0, -6.0)}, STANDARD, ddim(), num_samples=32, num_inference_steps=5, grid=2,
            refinements=1, sampling=EXACT,
        )  # fmt: skip
