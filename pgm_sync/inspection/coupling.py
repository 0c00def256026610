"""How much of the correlation between clean contents acts at a noise level."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..gaussian import canonical_correlations, cholesky
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap, element_index
from ..tables import Table
from .edges import edge_name
from .surrogate import Covariances, Snr, Surrogate, as_ratio

LARGEST_BLOCK = 256  # numbers that a factor sees of an end, up to which its covariances are taken as matrices
WHOLE = "all modes"


class Coupling(NamedTuple):
    """What one factor does between two of its ends at one noise level."""

    factor: Name
    first: Name
    second: Name
    mode: str
    snr: float
    prior: float  # correlation of the clean contents under the joint model: the limit of `posterior` at snr 0
    posterior: float  # correlation of x_0 given the noisy states (Eq. 5)
    noise: float  # correlation of the noise (Eq. 5'): the limit of `posterior` at large snr, 0 for independent noise
    strength: float  # d m_joint_i / d m_j, in standard deviations of the prior: how much of the correlation acts


class CouplingTable(Table[Coupling]):
    """Rows of `coupling`, one noise level after the other."""

    head = ("factor", "ends", "mode", "snr", "prior", "posterior", "strength")

    def cells(self, row: Coupling) -> list[str]:
        """What a row shows."""
        return [
            edge_name(row.factor),
            f"{row.first!r} - {row.second!r}",
            row.mode,
            f"{row.snr:.3g}",
            *("" if math.isnan(value) else f"{value:+.3f}" for value in (row.prior, row.posterior, row.strength)),
        ]


def coupling(
    graph: FactorGraph,
    snrs: float | Iterable[float],
    *,
    factors: Sequence[Name] | None = None,
    modes: bool = False,
    noise_correlation: float = 0.0,
    variance: float | None = None,
) -> CouplingTable:
    """What every factor of `graph` does at signal-to-noise ratios ``alpha^2 / sigma^2``, before any run.

    At small snr all of the correlation acts: ``posterior`` is ``prior``, and so is ``strength`` where the joint model
    has the marginals that its potentials state (trees, and graphs from `fit`). At large snr every
    trajectory knows its own content, and both fade (Eq. 5 and 8 with the surrogate of Eq. 4); where trajectories share
    noise, on a canvas or by Eq. 5', ``posterior`` goes to ``noise`` instead, and ``strength`` is what the potentials
    add to shared noise alone. Correlations are those of the joint model, so paths around a factor count as well.

    Parameters
    ----------
    snrs
        one ratio, or several; 0 is pure noise.
    factors
        those to look at; all that join two nodes if not given.
    modes
        one row per mode (matching modes of both ends, signed) in place of one per factor: the largest canonical
        correlation, and the largest singular value of the map in standard deviations. Factors over more than 256
        numbers per end are compared element by element: the largest, or with `modes` the mean.
    noise_correlation, variance
        c of Eq. 5', and the variance of contents of which no potential states a marginal.

    The strength is nan where an end is a hidden variable, which has no denoiser.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Correlation
    >>> for row in coupling(chain_graph(2, 1, Correlation(0.8)), [0.01, 1.0, 100.0]):
    ...     print(f"{row.posterior:.2f} {row.strength:.2f}")
    0.80 0.79
    0.59 0.48
    0.02 0.02

    Raises UnknownNameError, ParameterError, ImproperGraphError, UnsupportedError.
    """
    model = Surrogate(graph, noise_correlation, variance)
    given = [snrs] if isinstance(snrs, int | float) else list(snrs)
    ratios = [as_ratio(snr, "snrs") for snr in given]
    pairs = pairs_of(model, factors)
    rows: list[Coupling] = []
    if pairs:
        prior = model.posterior(0.0)
        for snr in ratios:
            rows += at_level(model, prior, snr, snr, pairs, modes)
    return CouplingTable(rows)


class Pair(NamedTuple):
    """Two ends of a factor, and what it sees of them."""

    factor: Name
    first: Name
    second: Name
    maps: tuple[LinearMap, LinearMap]  # of the reduced contents
    labels: list[str]


def pairs_of(model: Surrogate, factors: Sequence[Name] | None = None) -> list[Pair]:
    graph, reduced = model.graph, model.reduction.graph
    chosen = reduced.factors if factors is None else [f for f in factors if graph.potential(f) and f in reduced]
    found = []
    for factor in chosen:
        scope, maps, named = reduced.scope(factor), reduced.maps(factor), graph.maps(factor)
        for i, j in combinations(range(len(scope)), 2):
            found.append(Pair(factor, scope[i], scope[j], (maps[i], maps[j]), named[i].labels()))
    return found


def at_level(
    model: Surrogate, prior: Covariances, snr: Snr, shown: float, pairs: Sequence[Pair], modes: bool = False
) -> list[Coupling]:
    """The rows of one noise level."""
    posterior = model.posterior(snr)
    alone = model.noise_alone(snr)
    rows = []
    for pair in pairs:
        sizes = [m.out_size for m in pair.maps]
        if max(sizes) <= LARGEST_BLOCK:
            values = _as_matrices(model, prior, posterior, alone, snr, pair, modes)
        else:
            values = _by_element(model, prior, posterior, snr, pair, modes)
        rows += [Coupling(pair.factor, pair.first, pair.second, mode, shown, *row) for mode, row in values]
    return rows


def _as_matrices(
    model: Surrogate,
    prior: Covariances,
    posterior: Covariances,
    alone: Covariances | None,
    snr: Snr,
    pair: Pair,
    modes: bool,
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Prior, posterior and noise correlation, and strength, from the covariances of what the factor sees."""
    a, b = (m.dense() for m in pair.maps)
    first, second = pair.first, pair.second

    def blocks(of: Covariances) -> tuple[Tensor, Tensor, Tensor]:
        return (
            a @ of(first, first) @ a.T,
            a @ of(first, second) @ b.T,
            b @ of(second, second) @ b.T,
        )

    clean = blocks(prior)
    correlations = [clean, blocks(posterior)]
    strength = None
    if {first, second} <= set(model.names):
        ends = [model.noise_covariance(n, m) for n, m in ((first, first), (first, second), (second, second))]
        correlations.append((a @ ends[0] @ a.T, a @ ends[1] @ b.T, b @ ends[2] @ b.T))
        moved = model.gain(posterior, snr, first, second)
        if alone is not None:
            moved = moved - model.gain(alone, snr, first, second)
        strength = a @ moved @ torch.linalg.pinv(b)
    if modes and a.shape[0] == b.shape[0]:
        scale = [clean[k].diagonal().sqrt() for k in (0, 2)]
        signed = [c[1].diagonal() * (c[0].diagonal() * c[2].diagonal()).rsqrt() for c in correlations]
        acts = (
            torch.full_like(signed[0], math.nan)
            if strength is None
            else strength.diagonal() * scale[1] / scale[0]
        )
        noise = signed[2] if len(signed) > 2 else torch.full_like(signed[0], math.nan)
        columns = torch.stack([signed[0], signed[1], noise, acts], 1).tolist()
        return [(label, tuple(row)) for label, row in zip(pair.labels, columns, strict=True)]
    largest = [_leading(*c) for c in correlations]
    acts = math.nan
    if strength is not None:
        left, right = (cholesky(clean[k], f"the prior covariance of factor {pair.factor!r}") for k in (0, 2))
        acts = torch.linalg.matrix_norm(
            torch.linalg.solve_triangular(left, strength @ right, upper=False), 2
        ).item()
    return [(WHOLE, (largest[0], largest[1], largest[2] if len(largest) > 2 else math.nan, acts))]


def _leading(first: Tensor, cross: Tensor, second: Tensor) -> float:
    """The largest canonical correlation; 0 without any covariance."""
    if not bool(cross.abs().max() > 0):
        return 0.0
    return canonical_correlations(first, cross, second)[0].item()


def _by_element(
    model: Surrogate, prior: Covariances, posterior: Covariances, snr: Snr, pair: Pair, modes: bool
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The same between matching elements, for factors over too many numbers for a matrix."""
    index = [element_index(m) for m in pair.maps]
    elementwise = model.graph.potential(pair.factor).elementwise and all(k is not None for k in index)
    if not elementwise or model.noise is not None:
        raise UnsupportedError(
            f"factor {pair.factor!r} sees {max(m.out_size for m in pair.maps)} numbers of an end, and not by matching "
            f"elements with independent noise; look at factors over up to {LARGEST_BLOCK}, by factors=",
            factor=pair.factor,
        )
    (first, i), (second, j) = zip((pair.first, pair.second), index, strict=True)
    assert i is not None
    assert j is not None
    spread, own = (
        [of.elements(name, k, name, k).sqrt() for name, k in ((first, i), (second, j))] for of in (prior, posterior)
    )
    moved = posterior.elements(first, i, second, j)
    columns = [prior.elements(first, i, second, j) / (spread[0] * spread[1]), moved / (own[0] * own[1])]
    strength = torch.full_like(columns[0], math.nan)
    if {first, second} <= set(model.names):
        precision = model.precision(second, snr)
        if precision.ndim == 1:
            strength = moved * precision[j] * spread[1] / spread[0]
    values = torch.stack([*columns, torch.zeros_like(strength), strength])
    if modes:
        return [("every element", tuple(values.mean(1).tolist()))]
    return [(WHOLE, tuple(values.abs().amax(1).tolist()))]
