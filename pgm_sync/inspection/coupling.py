"""How much of the correlation between clean contents acts at a noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
    """What one factor does between two of its ends at one noise level.

    >>> import pgm_sync as ps
    >>> pure_noise, noisy = ps.coupling(ps.chain_graph(2, 1, ps.Correlation(0.8)), [0.0, 1.0])
    >>> round(pure_noise.posterior, 3), round(pure_noise.strength, 3)  # all of the correlation acts
    (0.8, 0.8)
    >>> round(noisy.prior, 3), round(noisy.posterior, 3)  # 0.8 / (snr (1 - 0.8**2) + 1)
    (0.8, 0.588)
    """

    factor: Name  # of the graph
    first: Name  # one end
    second: Name  # another
    mode: str  # its label, or "all modes" together
    snr: float  # ``alpha^2 / sigma^2``
    prior: float  # correlation of the clean contents under the joint model: the limit of `posterior` at snr 0
    posterior: float  # correlation of x_0 given the noisy states (Eq. 5)
    noise: float  # correlation of the noise (Eq. 5'): the limit of `posterior` at large snr, 0 for independent noise
    strength: float  # d m_joint_i / d m_j, in standard deviations of the prior: how much of the correlation acts


class CouplingTable(Table[Coupling]):
    """Rows of `coupling`, one noise level after the other; prints as a table.

    >>> import pgm_sync as ps
    >>> ps.coupling(ps.chain_graph(3, 1, ps.Correlation(0.8)), [0.0, 1.0])
    factor  ends   mode       snr  prior   posterior  strength
    0 – 1   0 - 1  all modes  0    +0.800  +0.800     +0.800
    1 – 2   1 - 2  all modes  0    +0.800  +0.800     +0.800
    0 – 1   0 - 1  all modes  1    +0.800  +0.555     +0.400
    1 – 2   1 - 2  all modes  1    +0.800  +0.555     +0.400
    """

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

    >>> import pgm_sync as ps
    >>> for row in ps.coupling(ps.chain_graph(2, 1, ps.Correlation(0.8)), [0.01, 1.0, 100.0]):
    ...     print(f"{row.posterior:.2f} {row.strength:.2f}")
    0.80 0.79
    0.59 0.48
    0.02 0.02

    Raises UnknownNameError, ParameterError, ImproperGraphError, UnsupportedError.
    """
    model = Surrogate(graph, noise_correlation, variance)
    given = [snrs] if isinstance(snrs, int | float) else list(snrs)
    ratios = [as_ratio(snr, "snrs") for snr in given]
    rows: list[Coupling] = []
    if model.names:
        prior = model.posterior(0.0)
        pairs = pairs_of(model, prior, factors)
        for snr in ratios if pairs else ():
            rows += at_level(model, prior, snr, snr, pairs, modes)
    return CouplingTable(rows)


Blocks = tuple[Tensor, Tensor, Tensor]  # covariances of what a factor sees of two ends: own, cross, own


class Pair(NamedTuple):
    """Two ends of a factor, what it sees of them, and what does not depend on the noise level."""

    factor: Name
    first: Name
    second: Name
    maps: tuple[LinearMap, LinearMap]  # of the reduced contents
    labels: list[str]
    rows: tuple[Tensor, Tensor] | None = None  # the maps as matrices; None for factors over too many numbers
    clean: Blocks | None = None  # under the joint prior
    noise: Blocks | None = None  # of the noise; None where an end is hidden

    def seen(self, of: Callable[[Name, Name], Tensor]) -> Blocks:
        """What the factor sees of covariances between nodes."""
        assert self.rows is not None
        (a, b), i, j = self.rows, self.first, self.second
        return a @ of(i, i) @ a.T, a @ of(i, j) @ b.T, b @ of(j, j) @ b.T


def pairs_of(model: Surrogate, prior: Covariances | None = None, factors: Sequence[Name] | None = None) -> list[Pair]:
    """All pairs of ends of the factors; with a `prior`, ready for `at_level`."""
    graph, reduced = model.graph, model.reduction.graph
    chosen = reduced.factors if factors is None else [f for f in factors if graph.potential(f) and f in reduced]
    found = []
    for factor in chosen:
        scope, maps, named = reduced.scope(factor), reduced.maps(factor), graph.maps(factor)
        for i, j in combinations(range(len(scope)), 2):
            pair = Pair(factor, scope[i], scope[j], (maps[i], maps[j]), named[i].labels())
            if prior is not None and max(maps[i].out_size, maps[j].out_size) <= LARGEST_BLOCK:
                pair = pair._replace(rows=(maps[i].dense(), maps[j].dense()))
                pair = pair._replace(clean=pair.seen(prior))
                if {pair.first, pair.second} <= set(model.names):
                    pair = pair._replace(noise=pair.seen(model.noise_covariance))
            found.append(pair)
    return found


def at_level(
    model: Surrogate, prior: Covariances, snr: Snr, shown: float, pairs: Sequence[Pair], modes: bool = False
) -> list[Coupling]:
    """The rows of one noise level, of `pairs_of` this prior."""
    posterior, alone = model.posterior(snr), model.noise_alone(snr)
    rows = []
    for pair in pairs:
        if pair.rows is None:
            values = _by_element(model, prior, posterior, snr, pair, modes)
        else:
            strength = None
            if pair.noise is not None:
                moved = model.gain(posterior, snr, pair.first, pair.second)
                if alone is not None:
                    moved = moved - model.gain(alone, snr, pair.first, pair.second)
                strength = pair.rows[0] @ moved @ torch.linalg.pinv(pair.rows[1])
            show = _by_mode if modes and len(pair.rows[0]) == len(pair.rows[1]) else _together
            values = show(pair, pair.seen(posterior), strength)
        rows += [Coupling(pair.factor, pair.first, pair.second, mode, shown, *row) for mode, row in values]
    return rows


Values = list[tuple[str, tuple[float, float, float, float]]]  # per mode: prior, posterior, noise, strength


def _by_mode(pair: Pair, posterior: Blocks, strength: Tensor | None) -> Values:
    """Signed, between matching modes."""
    assert pair.clean is not None
    prior, after = _signed(pair.clean), _signed(posterior)
    none = torch.full_like(prior, math.nan)
    noise = none if pair.noise is None else _signed(pair.noise)
    acts = none
    if strength is not None:
        acts = strength.diagonal() * (pair.clean[2].diagonal() / pair.clean[0].diagonal()).sqrt()
    columns = torch.stack([prior, after, noise, acts], 1).tolist()
    return [(label, tuple(row)) for label, row in zip(pair.labels, columns, strict=True)]


def _together(pair: Pair, posterior: Blocks, strength: Tensor | None) -> Values:
    """The largest over all directions."""
    assert pair.clean is not None
    acts = math.nan
    if strength is not None:
        left, right = (cholesky(pair.clean[k], f"the prior covariance of factor {pair.factor!r}") for k in (0, 2))
        white = torch.linalg.solve_triangular(left, strength @ right, upper=False)
        acts = torch.linalg.matrix_norm(white, 2).item()
    noise = math.nan if pair.noise is None else leading(*pair.noise)
    return [(WHOLE, (leading(*pair.clean), leading(*posterior), noise, acts))]


def _signed(blocks: Blocks) -> Tensor:
    first, cross, second = (block.diagonal() for block in blocks)
    return cross * (first * second).rsqrt()


def leading(first: Tensor, cross: Tensor, second: Tensor) -> float:
    """The largest canonical correlation; 0 without any covariance."""
    if not bool(cross.any()):
        return 0.0
    return canonical_correlations(first, cross, second)[0].item()


def _by_element(
    model: Surrogate, prior: Covariances, posterior: Covariances, snr: Snr, pair: Pair, modes: bool
) -> Values:
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
