"""Bayesian learning of potentials (Eq. 17)."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...errors import DiagnosticsError, ParameterError
from ...graph.factor_graph import FactorGraph, Name
from ..problem import features, pose
from ..record import Fit, fingerprint, versions
from .diagnostics import ADVICE, diagnose
from .extra import arviz
from .parts import divide, statistics
from .posterior import BayesianFit
from .prior import Prior


def fit_bayesian(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    *,
    inference: str = "nuts",
    cross: bool = False,
    concentration: float = 1.0,
    scales: str = "gamma",
    groups: Sequence[int] | Tensor | None = None,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 500,
    target_accept: float = 0.8,
    steps: int = 500,
    learning_rate: float = 0.02,
    strict: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> BayesianFit:
    """The posterior of all correlations of a graph, and of the scales of its features (Eq. 17), by Pyro.

    Parameters
    ----------
    data
        ``{trajectory: (n, *shape)}``, row k of all of them from the same joint sample; or the canvas alone. The
        likelihood sees moments only, so its cost does not depend on n.
    inference
        "nuts": the no-U-turn sampler; "svi": a multivariate normal guide, faster and approximate.
    cross
        False: modes are independent of each other, mode k of a node goes with mode k of its neighbours (as canonical
        and cosine modes nearly do). True: all modes of a node and of its neighbours are joined; for few modes.
    concentration
        of the LKJ prior on the correlations of the graph (`structures`): density ``det(R)^(concentration - 1)``. On
        trees independent Beta distributions of every edge's correlation; 1 is uniform on every graph.
    scales
        prior of standard deviations in units of the sample's: "gamma" (shape 2, rate 1), "half_normal" (scale 2), or
        "fixed" at the sample's.
    groups
        a label per sample: samples of one group (crops of one photograph) are not independent, and count as one.
    chains, warmup, draws, target_accept
        of NUTS; draws are per chain. Its chains run side by side.
    steps, learning_rate
        of SVI, which makes ``chains * draws`` independent draws.
    strict
        raise where diagnostics fail. With False the draws are returned, and the record says what failed.
    seed, progress
        of all draws; whether to show a progress bar.

    Raises as `fit`, DiagnosticsError (which carries the draws), UnsupportedError for modes that do not match or
    factors that see different parts of a trajectory, MissingPackageError without ArviZ.

    Two scalars whose correlation is 0.8; few draws, for speed:

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> left, noise = torch.randn(2, 200, 1, generator=generator)
    >>> data = {0: left, 1: 0.8 * left + 0.6 * noise}
    >>> found = fit_bayesian(ps.chain_graph(2, (1,)), data, inference="svi", steps=100, draws=50, strict=False)
    >>> edge = found.correlations()[0]
    >>> edge.low < 0.8 < edge.high, edge.high - edge.low < 0.2
    (True, True)
    """
    if inference not in ADVICE:
        raise ParameterError(
            f"inference={inference!r} is not one of {', '.join(ADVICE)}", inference=inference
        )
    counts = {"chains": chains, "warmup": warmup, "draws": draws, "steps": steps}
    for name, value in counts.items():
        least = {"chains": 1, "warmup": 10, "draws": 10, "steps": 100}[name]
        if value < least:
            raise ParameterError(f"{name}={value} is not at least {least}", **{name: value})
    for name, number, most in (
        ("target_accept", target_accept, 1.0),
        ("learning_rate", learning_rate, math.inf),
    ):
        if not 0 < number < most:
            raise ParameterError(f"{name}={number} must lie in (0, {most:g})", **{name: number})
    prior = Prior(float(concentration), scales)
    prior.check()
    arviz()  # before any work
    problem = pose(graph)
    problem.require_whole("method='bayesian'")
    samples = features(problem, data)
    maps = problem.reduction.features
    found = statistics(
        samples, groups, [f"{label} of {name!r}" for name in problem.blocks for label in maps[name].labels()]
    )
    parts = divide(problem, found, cross)
    if not any(part.structure.edges for part in parts):
        raise ParameterError("no factor joins two nodes: there is no correlation to learn")
    from .inference import nuts, svi  # Pyro takes a second to import

    if inference == "nuts":
        made = nuts(
            parts, prior, found.freedom, chains=chains, warmup=warmup, draws=draws, target_accept=target_accept,
            seed=seed, progress=progress,
        )  # fmt: skip
        how = {"chains": chains, "warmup": warmup, "draws": draws, "step_size": made.step_size}
    else:
        made = svi(
            parts, prior, found.freedom, steps=steps, draws=chains * draws, learning_rate=learning_rate,
            seed=seed, progress=progress,
        )  # fmt: skip
        how = {"steps": steps, "draws": chains * draws}
    diagnostics = diagnose(made, inference)
    packages = {name: importlib.metadata.version(name) for name in ("pyro-ppl", "arviz")}
    record = Fit(
        method="bayesian",
        num_samples=len(samples),
        features=samples.shape[1],
        data=fingerprint(samples),
        num_groups=None if groups is None else int(found.size),
        objective=made.losses[:: max(1, len(made.losses) // 200)],
        seed=seed,
        versions={**versions(), **packages},
        details={
            "inference": inference,
            "cross": cross,
            "concentration": prior.concentration,
            "scales": prior.scales,
            **how,
            "diagnostics": diagnostics.to_dict(),
        },
    )
    fit = BayesianFit(problem, samples, found, parts, prior, made, diagnostics, record)
    if strict and diagnostics.failures:
        raise DiagnosticsError(
            f"the draws of {inference} cannot be trusted: {'; '.join(diagnostics.failures)}. Try {ADVICE[inference]}; "
            "strict=False returns them as they are (this error's `fit` is the same)",
            diagnostics=diagnostics,
            fit=fit,
        )
    return fit


@functools.wraps(fit_bayesian)
def posterior_mean(graph: FactorGraph, data: Mapping[Name, Any], **options: Any) -> FactorGraph:
    """The graph of `fit_bayesian`."""
    return fit_bayesian(graph, data, **options).graph
