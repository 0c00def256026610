"""Which factors act at which noise level: correlations that are left given the noisy states (Eq. 5 and 8)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ..gaussian import canonical_correlations
from ..graph.factor_graph import Name
from ..tables import Table
from .edges import edge_name
from .joint_model import LARGEST_REFIT, JointModel, Term

LOG_SNR = [0.4 * k - 8 for k in range(41)]  # from states that are noise to states that are nearly clean


class LevelRow(NamedTuple):
    """One factor at one noise level.

    >>> import pgm_sync as ps
    >>> levels = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).levels
    >>> noisiest = levels.of((0, 1))[0]
    >>> round(noisiest.rho, 1)  # with noise alone, the correlation of the contents
    0.8
    """

    factor: Name  # of the graph
    log_snr: float  # natural logarithm of alpha^2 / sigma^2
    rho: float  # posterior correlation of the mode that carries most information in the prior
    mutual_information: float  # nats between its ends given the noisy states, all modes
    movement: float  # root mean square change of the joint denoised means if the factor were cut, see `noise_levels`


class LevelTable(Table[LevelRow]):
    """`rows` of `noise_levels` at every `log_snr`; ``modes[factor]`` is ``(levels, modes)``, correlations mode by mode.

    >>> import pgm_sync as ps
    >>> levels = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).levels
    >>> levels.modes[0, 1].shape == (len(levels.log_snr), 1)
    True
    """

    head = ("factor", "log snr", "rho", "nats", "movement")

    def __init__(self, rows: Sequence[LevelRow], log_snr: Sequence[float], modes: dict[Name, Tensor]):
        super().__init__(rows)
        self.log_snr, self.modes = list(log_snr), modes

    def cells(self, row: LevelRow) -> list[str]:
        """What a row shows."""
        moved = "" if math.isnan(row.movement) else f"{row.movement:.4f}"
        numbers = [f"{row.log_snr:+.1f}", f"{row.rho:+.3f}", f"{row.mutual_information:.4f}", moved]
        return [edge_name(row.factor), *numbers]

    def of(self, factor: Name) -> list[LevelRow]:
        """The rows of one factor, noisiest first."""
        return [row for row in self.rows if row.factor == factor]


def noise_levels(model: JointModel, log_snr: Iterable[float] | None = None) -> LevelTable:
    """What is inferred between the ends of every factor, by noise level.

    Correlation and mutual information are those of the joint posterior given all noisy states, whose covariance is
    ``Lambda(snr)^{-1}`` (Eq. 5). `movement` is the root mean square, over the model's own noisy states, of how far the
    joint denoised means (Eq. 6) of all trajectories move if the factor is cut, over the root mean square deviation of
    the contents of its ends. It fades at both ends: with much noise the means know nothing to pass on, with little
    noise nobody needs it. NaN where Eq. 5 is improper without the factor.

    `model` is `Inspection.model`; `log_snr` are natural logarithms of the signal-to-noise ratio (None: a range that
    covers what happens).

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).model
    >>> [round(row.rho, 3) for row in noise_levels(model, log_snr=[-9.0, 0.0])]  # 0.8 / (snr (1 - 0.8**2) + 1)
    [0.8, 0.588]
    """
    levels = LOG_SNR if log_snr is None else list(log_snr)
    prior = _inverse(model.prior())
    white = torch.diag(model.visible) + model.excess
    precision = torch.linalg.inv(prior)
    leading = {factor: _leading(term, prior) for factor, term in model.terms.items()}
    rows: dict[Name, list[LevelRow]] = {factor: [] for factor in model.terms}
    modes: dict[Name, list[Tensor]] = {factor: [] for factor in model.terms}
    for level in levels:
        lam = precision + math.exp(level) * white
        posterior = _inverse(lam)
        spread = (posterior * model.visible) @ posterior
        for factor, term in model.terms.items():
            covariance = term.seen(posterior)
            own = mode_correlations(term, covariance)
            modes[factor].append(own)
            if term.rule == "interaction" and model.size <= LARGEST_REFIT:
                moved = _refitted_movement(model, factor, lam, prior - posterior, term.seen(prior))
            else:
                moved = _movement(term, covariance, term.seen(prior), term.seen(spread))
            rows[factor].append(
                LevelRow(factor, level, own[leading[factor]].item(), information(term, covariance), moved)
            )
    stacked = {factor: torch.stack(values) for factor, values in modes.items()}
    return LevelTable([row for own in rows.values() for row in own], levels, stacked)


def mode_correlations(term: Term, covariance: Tensor) -> Tensor:  # (b, b) -> (pairs * modes,)
    """Correlation of matching modes between every pair of ends, in the order of `correlations`."""
    found = []
    scale = covariance.diagonal().rsqrt()
    for a, b in combinations(term.spans, 2):
        if a.stop - a.start == b.stop - b.start:
            found.append(covariance[a, b].diagonal() * scale[a] * scale[b])
        else:
            found.append(canonical_correlations(covariance[a, a], covariance[a, b], covariance[b, b]))
    return torch.cat(found)


def information(term: Term, covariance: Tensor) -> float:
    """Mutual information between the ends of a factor in nats, from the covariance ``(b, b)`` of what it sees."""
    own = sum(torch.logdet(covariance[a, a]) for a in term.spans)
    return 0.5 * (own - torch.logdet(covariance)).item()


def _leading(term: Term, prior: Tensor) -> int:
    return int(mode_correlations(term, term.seen(prior)).abs().argmax())


def _movement(term: Term, posterior: Tensor, prior: Tensor, spread: Tensor) -> float:
    """Without the factor, ``Lambda - B' P B``, the means move by ``Lambda^{-1} B' (I - P S)^{-1} P B u``.

    S is ``B Lambda^{-1} B'``.
    The posterior means u vary by prior minus posterior covariance; ``spread = B Lambda^{-1} Lambda^{-1} B'`` over
    trajectories.
    """
    precision, _ = term.information()
    inverse, failed = torch.linalg.inv_ex(posterior)
    without = inverse - precision
    if bool(failed) or bool(torch.linalg.cholesky_ex((without + without.T) / 2)[1]):
        return math.nan
    gain = inverse @ torch.linalg.solve(without, precision)
    moved = torch.trace(gain @ (prior - posterior) @ gain.T @ spread)
    return math.sqrt(max(moved.item(), 0.0) / torch.trace(prior).item())


def _refitted_movement(model: JointModel, factor: Name, lam: Tensor, spread: Tensor, own: Tensor) -> float:
    """With ``Lambda + D`` for Lambda the means move by ``-(Lambda + D)^{-1} D u``, u with covariance `spread`."""
    change, _ = model.cut(factor)
    factored, failed = torch.linalg.cholesky_ex(lam + change)
    if bool(failed):
        return math.nan
    gain = model.visible[:, None] * torch.cholesky_solve(change, factored)
    moved = ((gain @ spread) * gain).sum()
    return math.sqrt(max(moved.item(), 0.0) / torch.trace(own).item())


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
