"""Scalars that no data inform, tuned by how likely joint samples look to each view's own denoiser (Eq. 19).

The expected log density that Eq. 19 maximises is largest for samples at the modes, whatever the views look like by
themselves: E_q log p = -H(q) - KL(q, p) rewards a q of low entropy. What a view's own samples score is the value to
reach, not to pass. So joint samples are compared with own ones, both seen through their log densities: the two
distributions should agree ("match"), or the coupling be the strongest that leaves them alone ("strongest").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from tqdm.auto import tqdm

from ..denoisers import Denoiser
from ..errors import CovarianceError, ImproperGraphError, ParameterError, UnknownNameError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..maps import element_index
from ..metrics import Z95
from ..potentials import Attraction, Correlation, Equality, Potential
from ..sampling import sample
from ..score import find_carriers
from .likelihood import denoiser_elbo, scheduler_levels
from .record import Fit, fingerprint

RULES = ("match", "strongest", "elbo")
PARAMETERS = ("strength", "weights")
REPLICATES = 64  # of the bootstrap behind standard errors of energy distances
OWN = (
    "couple",
    "noise_correlation",
    "posterior_covariance",
)  # of sample: what uncoupled views have no use for

Make = Callable[[dict[str, float]], "FactorGraph | tuple[FactorGraph, Mapping[str, Any]]"]


class Trial(NamedTuple):
    """One setting of the scalars, and how its samples look to the denoisers; arrays by view."""

    scalars: dict[str, float]
    objective: float  # minimised; inf where the graph is improper
    standard_error: float  # of the objective, for new seeds
    gaps: (
        np.ndarray
    )  # (views,) mean log density of joint samples less that of own ones, in own standard deviations
    gap_errors: np.ndarray  # (views,) their standard errors
    distances: (
        np.ndarray
    )  # (views,) energy distance of the two distributions of log densities, in the same unit


@dataclass(frozen=True)
class Tuned:
    """What `tune` found."""

    scalars: dict[str, float]  # the values found
    graph: FactorGraph  # what `make` makes of them
    options: dict[str, Any]  # of `sample`, where `make` gives any
    best: Trial  # the one with these scalars
    trials: list[Trial]  # in the order in which they were made
    rule: str  # by which they were chosen
    at_bound: bool  # whether a bound stopped the search
    own: dict[Name, Tensor]  # (n, *shape) every view's samples by itself
    own_elbo: np.ndarray  # (views, n) nats


def tune(
    make: Make,
    bounds: Mapping[str, tuple[float, float]],
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    *,
    rule: str = "match",
    tolerance: float = 0.1,
    num_samples: int = 256,
    num_inference_steps: int = 30,
    grid: int = 7,
    refinements: int = 6,
    spacing: str = "linear",
    levels: Sequence[NoiseLevel] | None = None,
    num_noises: int = 1,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tuned:
    """Scalars for which joint samples look as likely to each view's denoiser as the view's own samples (Eq. 19).

    Parameters
    ----------
    make
        ``{name: value}`` to a graph, or to a graph and options of `sample` (``{"noise_correlation": c}``).
    bounds
        ``{name: (low, high)}``, the scalars and where to look for them.
    rule
        "match": least energy distance between the log densities of joint and of own samples, mean over views; for
        scalars that have no better direction, such as canvas weights.
        "strongest": one scalar, the larger the more coupling: the largest value up to which every view's mean log
        density stays within `tolerance` of its own samples', with the whole 95 % interval.
        "elbo": the largest mean log density, Eq. 19 to the letter; it prefers samples at the modes.
    tolerance
        in standard deviations of a view's own log densities.
    num_samples, num_inference_steps, sampling, scheduler, denoisers
        joint samples per trial, as for `sample`; `sampling` holds its further options. The same seeds every time.
    grid, refinements, spacing
        trials on a grid of one scalar ("linear" or "log"), and trials after that: bounded scalar search around the best
        point, bisection for "strongest". Several scalars: Powell's method from the
        middle, ``grid * refinements`` trials.
    levels, num_noises
        as for `denoiser_elbo`; by default the scheduler's levels.
    progress
        whether to show a progress bar.

    Deterministic under `seed`. Graphs that are improper are trials that failed. Raises ParameterError on options, on
    bounds at none of which the graph is proper, and where not even the lowest value is within the tolerance;
    UnknownNameError where trials differ in trajectories; whatever `sample` raises.

    The strongest attraction under which each node still looks like N(0, 1) to its own denoiser:

    >>> import pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> found = tune(
    ...     lambda scalars: ps.chain_graph(2, (1,), ps.Attraction(scalars["strength"])),
    ...     {"strength": (0.01, 10.0)}, ps.GaussianDenoiser([0.0], [[1.0]]), DDIMScheduler(clip_sample=False),
    ...     rule="strongest", num_samples=128, num_inference_steps=15, grid=4, refinements=2, spacing="log",
    ...     tolerance=0.2, sampling={"posterior_covariance": 1.0})
    >>> 0.01 <= found.scalars["strength"] < 10.0, len(found.trials)
    (True, 5)
    """
    low, high = _check(rule, bounds, tolerance, num_samples, grid, spacing)
    names = list(bounds)
    search = _Trials(
        make, names, denoisers, scheduler, rule, tolerance, num_samples, num_inference_steps, levels, num_noises,
        dict(sampling or {}), seed,
    )  # fmt: skip
    forward, back = (np.log, np.exp) if spacing == "log" else (np.asarray, np.asarray)
    low, high = forward(low), forward(high)
    with tqdm(disable=not progress, desc="tuning", leave=False) as bar:

        def trial(at: Any) -> float:
            bar.update()
            return search(np.clip(np.atleast_1d(at), low, high), back)

        if rule == "strongest":
            best = _strongest(trial, search, np.linspace(low[0], high[0], grid), refinements, tolerance)
        elif len(names) == 1:
            best = _scalar(trial, search, np.linspace(low[0], high[0], grid), refinements)
        else:
            limit = {"maxfev": grid * max(refinements, 1), "xtol": 1e-2, "ftol": 1e-3}
            box = list(zip(low, high, strict=True))
            minimize(trial, (low + high) / 2, method="Powell", bounds=box, options=limit)
            best = min(search.trials, key=lambda t: t.objective)
    if not math.isfinite(best.objective):
        raise ParameterError(
            f"no graph within the bounds {dict(bounds)} is proper; look for weaker couplings"
        )
    graph, options = _made(make, best.scalars)
    span = [h - v for v, h in zip(low, high, strict=True)]
    place = forward(np.array(list(best.scalars.values())))
    edges = [
        min(p - v, h - p) < 1e-3 * s for p, v, h, s in zip(place, low, high, span, strict=True)
    ]  # fmt: skip
    return Tuned(
        best.scalars, graph, options, best, search.trials, rule, any(edges), search.own, search.own_elbo
    )


def fit_elbo(
    graph: FactorGraph,
    data: None = None,
    *,
    denoisers: Denoiser | Mapping[Name, Denoiser] | None = None,
    scheduler: Any = None,
    parameters: str = "strength",
    bounds: tuple[float, float] | None = None,
    rule: str | None = None,
    tolerance: float = 0.1,
    num_samples: int = 256,
    num_inference_steps: int = 30,
    grid: int = 7,
    refinements: int = 6,
    levels: Sequence[NoiseLevel] | None = None,
    num_noises: int = 1,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FactorGraph:
    """Strengths or canvas weights without any data, by per-view denoiser likelihood (Eq. 19); see `tune`.

    Parameters
    ----------
    data
        None: there are none.
    parameters
        "strength": one multiplier of all Attraction and Correlation factors (`scaled_couplings`), by rule "strongest";
        "weights": how much each view counts on its canvas beside the first (`weighted_views`), by rule "match".
    bounds
        of the multiplier, by default 0.01 to 100; or of a view's weight as a multiple of the first view's, by default
        0.05 to 20. Searched in their logarithms.
    rule, tolerance, grid, refinements, levels, num_noises
        as for `tune`.
    denoisers, scheduler, num_samples, num_inference_steps, sampling, seed, progress
        likewise.

    Raises ParameterError on data, options, or a graph without such factors; what `tune` raises.

    An Attraction narrows nodes that are N(0, 1) by themselves. The strongest that their denoisers do not notice:
    >>> import pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Attraction(1.0)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> fitted = fit_elbo(
    ...     graph, denoisers=denoiser, scheduler=DDIMScheduler(clip_sample=False), num_samples=64,
    ...     num_inference_steps=8, grid=3, refinements=1, sampling={"posterior_covariance": 1.0})
    >>> 0 < fitted.potential((0, 1)).precision < 1
    True
    """
    if data is not None:
        raise ParameterError(
            "method='elbo' takes no data (None): it tunes by samples; method='moments' learns from joint data"
        )
    if denoisers is None or scheduler is None:
        raise ParameterError(
            "method='elbo' needs denoisers={trajectory: denoiser} and a scheduler to sample with"
        )
    if parameters not in PARAMETERS:
        raise ParameterError(f"parameters={parameters!r} is not one of {', '.join(PARAMETERS)}")
    make: Make
    if parameters == "strength":
        span = bounds or (1e-2, 1e2)
        scalars = {"strength": span}

        def make(at: dict[str, float]) -> FactorGraph:
            return scaled_couplings(graph, at["strength"])
    else:
        views = _views(graph)
        span = bounds or (0.05, 20.0)
        scalars = {f"weight of {view!r}": span for view in views[1:]}

        def make(at: dict[str, float]) -> FactorGraph:
            return weighted_views(graph, dict(zip(views, [1.0, *at.values()], strict=True)))

    chosen = rule or ("strongest" if parameters == "strength" else "match")
    found = tune(
        make, scalars, denoisers, scheduler, rule=chosen, tolerance=tolerance, num_samples=num_samples,
        num_inference_steps=num_inference_steps, grid=grid, refinements=refinements, spacing="log", levels=levels,
        num_noises=num_noises, sampling=sampling, seed=seed, progress=progress,
    )  # fmt: skip
    fitted = found.graph
    fitted.graph["fit"] = _record(found, parameters, tolerance, num_samples, seed).to_dict()
    return fitted


def scaled_couplings(graph: FactorGraph, strength: float) -> FactorGraph:
    """The graph with all Attraction and Correlation factors `strength` times as strong (Eq. 19).

    An Attraction's precision is multiplied, a Correlation's rho on Fisher's scale, ``tanh(strength * atanh(rho))``,
    where it stays a correlation.

    >>> import pgm_sync as ps
    >>> graph = scaled_couplings(ps.chain_graph(2, (1,), ps.Correlation(0.5)), strength=2.0)
    >>> round(graph.potential((0, 1)).rho, 4)  # 2 rho / (1 + rho^2)
    0.8

    Raises ParameterError for a strength that is not positive, or a graph without such factors.
    """
    if not 0 < strength < math.inf:
        raise ParameterError(f"strength={strength} must be positive and finite", strength=strength)
    changed: dict[Name, Potential] = {}
    for factor in graph.factors:
        potential = graph.potential(factor)
        if isinstance(potential, Attraction):
            changed[factor] = Attraction(potential.precision * strength)
        elif isinstance(potential, Correlation):
            rho = torch.atanh(torch.as_tensor(potential.rho, dtype=torch.float64)).mul(strength).tanh()
            # tanh rounds to 1 from 19 on
            rho = rho.clamp(-1 + 1e-12, 1 - 1e-12)
            changed[factor] = Correlation(rho if rho.ndim else rho.item(), potential.variance, potential.mean)
    if not changed:
        raise ParameterError(
            f"{graph!r} has no Attraction or Correlation factor whose strength could be tuned"
        )
    return graph.with_potentials(changed)


def weighted_views(graph: FactorGraph, importance: Mapping[Name, float]) -> FactorGraph:
    """The graph with canvas weights ``a_i v_i / sum_j a_j v_j`` (Eq. 10), v the weights it has, a the `importance`.

    `importance` is one positive number per view, of which only ratios count.

    >>> import pgm_sync as ps
    >>> graph = ps.wide_canvas((1, 1, 3), window=(1, 2), stride=1)
    >>> weighted = weighted_views(graph, {"w0": 3.0, "w1": 1.0})
    >>> weighted.potential("see w0").weight.flatten().tolist()  # alone, and beside the other window
    [1.0, 0.75]

    Raises ParameterError, UnknownNameError, and what `find_carriers` raises.
    """
    views = _views(graph)
    wrong = [*(v for v in views if v not in importance), *(v for v in importance if v not in views)]
    if wrong:
        raise UnknownNameError(
            f"importance is given for {list(importance)}, but the views are {views}", name=wrong[0]
        )
    for name, value in importance.items():
        if not 0 < value < math.inf:
            raise ParameterError(f"the importance {value} of {name!r} must be positive and finite", name=name)
    carriers = find_carriers(graph)
    raised = {}
    totals = [torch.zeros(math.prod(c.shape), dtype=torch.float64) for c in carriers.carriers]
    for name in views:
        view = carriers.views[name]
        assert view.index is not None
        assert view.weight is not None
        raised[name] = importance[name] * view.weight.double()
        totals[view.carrier].index_add_(0, view.index, raised[name])
    changed: dict[Name, Potential] = {}
    for factor in graph.factors:
        name = graph.scope(factor)[0]
        if isinstance(graph.potential(factor), Equality) and name in raised:
            shown = graph.maps(factor)[0]
            view = carriers.views[name]
            weight = raised[name] / totals[view.carrier][view.index]
            changed[factor] = Equality(weight[element_index(shown)].reshape(shown.out_shape))
    return graph.with_potentials(changed)


class _Trials:
    """Samples at given scalars, against every view's own samples; remembers what it has done."""

    def __init__(
        self, make: Make, names: list[str], denoisers: Any, scheduler: Any, rule: str, tolerance: float,
        num_samples: int, steps: int, levels: Sequence[NoiseLevel] | None, num_noises: int, sampling: dict[str, Any],
        seed: int,
    ):  # fmt: skip
        self.make, self.names, self.rule, self.tolerance = make, names, rule, tolerance
        self.denoisers, self.scheduler, self.steps = denoisers, scheduler, steps
        self.n, self.num_noises, self.sampling, self.seed = num_samples, num_noises, sampling, seed
        self.levels = scheduler_levels(scheduler, steps) if levels is None else list(levels)
        self.trials: list[Trial] = []
        self.done: dict[tuple[float, ...], Trial] = {}
        self.own: dict[Name, Tensor] = {}
        self.own_elbo = np.empty((0, num_samples))
        # Rows are independent, views within a row are not
        self.rows = np.random.default_rng(seed).integers(0, self.n, (REPLICATES, self.n))

    def __call__(self, at: np.ndarray, back: Callable[[Any], Any]) -> float:
        scalars = dict(zip(self.names, map(float, back(at)), strict=True))
        key = tuple(scalars.values())
        if key not in self.done:
            self.done[key] = self.run(scalars)
            self.trials.append(self.done[key])
        return self.done[key].objective

    def run(self, scalars: dict[str, float]) -> Trial:
        graph, options = _made(self.make, scalars)
        if not self.own:
            self.draw_own(graph)
        if list(graph.trajectories) != list(self.own):
            raise UnknownNameError(
                f"the graph at {scalars} has trajectories {graph.trajectories}, another had {list(self.own)}"
            )
        try:
            drawn = self.draw(graph, {**self.sampling, **options})
        except (ImproperGraphError, CovarianceError):
            nothing = np.full(len(self.own), np.nan)
            return Trial(scalars, math.inf, math.nan, nothing, nothing, nothing)
        return self.judge(scalars, self.elbo(drawn))

    def draw(self, graph: FactorGraph, options: Mapping[str, Any]) -> dict[Name, Tensor]:
        result = sample(
            graph, self.denoisers, self.scheduler, self.steps, self.n, self.seed, progress=False, **options
        )
        return {name: result.samples[name] for name in graph.trajectories}

    def draw_own(self, graph: FactorGraph) -> None:
        """Every view by itself, from the same seeds; their log densities, and the scale these are compared on."""
        apart = FactorGraph()
        for name in graph.trajectories:
            apart.add_trajectory(name, graph.shape(name))
        self.own = self.draw(apart, {k: v for k, v in self.sampling.items() if k not in OWN})
        self.scale = {name: float(x.double().square().mean()) or 1.0 for name, x in self.own.items()}
        self.own_elbo = self.elbo(self.own)
        # Two evaluations share the samples and not the noise: their covariance is the variance without noise
        pairs = zip(self.own_elbo, self.elbo(self.own, seed=self.seed + len(self.own)), strict=True)
        moments = [np.cov(np.stack(pair)) for pair in pairs]
        variances = np.array([m[0, 1] for m in moments])
        unclear = [m[0, 1] <= 2 * m[0, 0] / math.sqrt(self.n) for m in moments]
        if any(unclear):
            view = list(self.own)[unclear.index(True)]
            raise ParameterError(
                f"the log densities of own samples of {view!r} do not stand out of their Monte Carlo error: either all "
                "are equally likely, and there is nothing to compare, or num_noises and num_samples are to be raised",
                name=view,
            )
        self.spread = np.sqrt(variances)

    def elbo(self, samples: Mapping[Name, Tensor], seed: int | None = None) -> np.ndarray:  # (views, n)
        conditions = self.sampling.get("conditions")
        rows = []
        for k, (name, x) in enumerate(samples.items()):
            own = self.denoisers[name] if isinstance(self.denoisers, Mapping) else self.denoisers
            condition = conditions.get(name) if isinstance(conditions, Mapping) else conditions
            rows.append(
                denoiser_elbo(
                    own, x, self.levels, num_noises=self.num_noises, condition=condition, scale=self.scale[name],
                    seed=(self.seed if seed is None else seed) + k,
                ).cpu().numpy()
            )  # fmt: skip
        return np.stack(rows)

    def judge(self, scalars: dict[str, float], elbo: np.ndarray) -> Trial:
        unit = self.spread[:, None]
        own, joint = self.own_elbo / unit, elbo / unit
        differences = joint - own
        gaps, errors = differences.mean(1), differences.std(1, ddof=1) / math.sqrt(self.n)
        distances = energy_distances(joint, own)
        if self.rule == "match":
            objective = float(distances.mean())
            again = energy_distances(joint[:, self.rows], own[:, self.rows]).mean(0)
            standard_error = float(np.std(again, ddof=1))
        elif self.rule == "strongest":
            limits = np.abs(gaps) + Z95 * errors
            objective, standard_error = float(limits.max()), float(errors[limits.argmax()])
        else:
            objective = -float(elbo.sum(0).mean())
            standard_error = float(elbo.sum(0).std(ddof=1)) / math.sqrt(self.n)
        return Trial(scalars, objective, standard_error, gaps, errors, distances)


def energy_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # (..., n) each -> (...)
    """Energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|`` of numbers along the last axis: ``2 int (F - G)^2``.

    Biased upwards, the same for all, as fits a minimisation; `scipy.stats.energy_distance` is its square root.
    """
    n = a.shape[-1]
    both = np.concatenate([a, b], -1)
    order = np.argsort(both, -1)
    gaps = np.diff(np.take_along_axis(both, order, -1), axis=-1)
    difference = np.cumsum(np.where(order < n, 1, -1), -1)[..., :-1] / n
    return 2 * (difference**2 * gaps).sum(-1)


def _strongest(
    trial: Callable[[Any], float], search: _Trials, points: np.ndarray, refinements: int, tolerance: float
) -> Trial:
    """The last point of a rising search below which all pass, then bisection towards the first that fails."""
    passed, failed = None, None
    for point in points:
        if trial(point) > tolerance:
            failed = point
            break
        passed, best = point, search.trials[-1]
    if passed is None:
        first = search.trials[0]
        raise ParameterError(
            f"even at {first.scalars} a view's log density may differ from its own samples' by {first.objective:.3g} "
            f"standard deviations (95 % limit), more than tolerance={tolerance}; lower the bound, raise num_samples "
            "where the standard error is large, or raise the tolerance",
            trial=first,
        )
    for _ in range(refinements if failed is not None else 0):
        middle = (passed + failed) / 2
        if trial(middle) > tolerance:
            failed = middle
        else:
            passed, best = middle, search.trials[-1]
    return best


def _scalar(trial: Callable[[Any], float], search: _Trials, points: np.ndarray, refinements: int) -> Trial:
    values = [trial(point) for point in points]
    k = int(np.argmin(values))
    around = points[max(k - 1, 0)], points[min(k + 1, len(points) - 1)]
    if refinements and around[0] < around[1]:
        minimize_scalar(trial, bounds=around, method="bounded", options={"maxiter": refinements})
    return min(search.trials, key=lambda t: t.objective)


def _made(make: Make, scalars: dict[str, float]) -> tuple[FactorGraph, dict[str, Any]]:
    made = make(dict(scalars))
    graph, options = made if isinstance(made, tuple) else (made, {})
    if not isinstance(graph, FactorGraph):
        raise ParameterError(
            f"make({scalars}) is a {type(graph).__name__}; give a FactorGraph, or one and options of sample"
        )
    return graph, dict(options)


def _views(graph: FactorGraph) -> list[Name]:
    """The trajectories that show a canvas."""
    carriers = find_carriers(graph)
    views = [name for name in graph.trajectories if carriers.views[name].index is not None]
    if len(views) < 2:
        raise ParameterError(f"{graph!r} has no canvas that several trajectories show, so no weights to tune")
    return views


def _check(
    rule: str,
    bounds: Mapping[str, tuple[float, float]],
    tolerance: float,
    num_samples: int,
    grid: int,
    spacing: str,
) -> tuple[np.ndarray, np.ndarray]:
    if rule not in RULES:
        raise ParameterError(f"rule={rule!r} is not one of {', '.join(RULES)}", rule=rule)
    if spacing not in ("linear", "log"):
        raise ParameterError(f"spacing={spacing!r} is neither 'linear' nor 'log'", spacing=spacing)
    if not bounds:
        raise ParameterError("bounds names no scalar to tune")
    if rule == "strongest" and len(bounds) > 1:
        raise ParameterError(
            f"rule='strongest' is for one scalar, not {len(bounds)}: 'match' takes several", bounds=bounds
        )
    if not tolerance > 0 or num_samples < 8 or grid < 2:
        raise ParameterError(
            f"tolerance={tolerance}, num_samples={num_samples}, grid={grid}: need > 0, at least 8 and at least 2"
        )
    for name, (low, high) in bounds.items():
        if not -math.inf < low < high < math.inf or (spacing == "log" and low <= 0):
            raise ParameterError(
                f"bounds ({low}, {high}) of {name!r} must rise"
                + (" and be positive" if spacing == "log" else ""),
                name=name,
            )
    low, high = np.array(list(bounds.values()), dtype=float).T
    return low, high


def _record(found: Tuned, parameters: str, tolerance: float, num_samples: int, seed: int) -> Fit:
    best = found.best
    return Fit(
        method="elbo",
        num_samples=num_samples,
        features=sum(x[0].numel() for x in found.own.values()),
        data=fingerprint(found.own),
        objective=[t.objective for t in found.trials if math.isfinite(t.objective)],
        seed=seed,
        details={
            "parameters": parameters,
            "rule": found.rule,
            "tolerance": tolerance,
            "at_bound": found.at_bound,
            **found.scalars,
            "standard_errors": [t.standard_error for t in found.trials if math.isfinite(t.objective)],
            "trials": [t.scalars for t in found.trials if math.isfinite(t.objective)],
            "gaps": best.gaps.tolist(),
            "gap_errors": best.gap_errors.tolist(),
            "own_elbo": found.own_elbo.mean(1).tolist(),
        },
    )
