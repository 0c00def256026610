"""What joint denoising would do if a factor were weaker, stronger or not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import PgmSyncError, UnsupportedError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..potentials import Attraction, Correlation, JointGaussian, Potential, Quadratic
from ..potentials.base import StructuralPotential, sizes
from ..tables import Table
from .edges import edge_name
from .joint_model import JointModel, between_scaled, joint_model

STRONGEST = 1.2  # strength that is offered where it is proper
TOLERANCE = 1e-3


def rescaled(graph: FactorGraph, strengths: Mapping[Name, float]) -> FactorGraph:
    """A copy of the `graph` with factors weaker or stronger: `strengths` by factor, 1 as it is, 0 cut.

    The correlation between the ends of a `Correlation` or `JointGaussian` is multiplied, every end's own marginal
    stays. `Attraction` and `Quadratic` are multiplied as they are. Factors that were fitted together on a graph with
    loops (Eq. 14) become one: without one of them it is the maximum-likelihood model of what the others say, see
    `JointModel.cut`.

    >>> import pgm_sync as ps
    >>> rescaled(ps.chain_graph(2, 1, ps.Correlation(0.8)), {(0, 1): 0.5}).potential((0, 1)).rho
    0.4

    Raises UnknownNameError; ParameterError or CovarianceError where a strength makes a factor improper;
    UnsupportedError for potentials that only state what is shared, and for ones of other kinds.
    """
    changed: dict[Name, Potential] = {}
    gone: list[Name] = []
    together: dict[Name, float] = {}
    for factor, strength in strengths.items():
        potential = graph.potential(factor)
        if isinstance(potential, Correlation):
            changed[factor] = replace(potential, rho=strength * potential.rho)
        elif isinstance(potential, JointGaussian) and potential.interaction is not None:
            together[factor] = strength
        elif isinstance(potential, JointGaussian) and potential.covariance is not None:
            blocks = sizes(graph.seen_shapes(factor))
            changed[factor] = replace(
                potential, covariance=between_scaled(potential.covariance, blocks, strength)
            )
        elif strength == 0 and not isinstance(potential, StructuralPotential):
            gone.append(factor)
        elif isinstance(potential, Attraction):
            changed[factor] = Attraction(strength * potential.precision)
        elif isinstance(potential, Quadratic):
            eta = None if potential.eta is None else strength * potential.eta
            changed[factor] = Quadratic(strength * potential.precision, eta)
        else:
            raise UnsupportedError(
                f"factor {factor!r}: {type(potential).__name__} has no strength to change", factor=factor
            )
    copy = graph.with_potentials(changed)
    copy.remove_nodes_from(gone)
    return _joined(copy, together) if together else copy


def _joined(graph: FactorGraph, strengths: Mapping[Name, float]) -> FactorGraph:
    """All factors with an interaction of their own as one, with the strengths given."""
    model = joint_model(graph)
    inside = [f for f, term in model.terms.items() if term.rule == "interaction"]
    precision, eta = model.coupling(strengths)
    for factor, term in model.terms.items():
        if factor not in inside:
            model.add(term, precision, eta, sign=-1)
    ends = [name for name in model.features if any(name in model.terms[f].ends for f in inside)]
    here = torch.cat([torch.arange(model.slices[n].start, model.slices[n].stop) for n in ends])
    covariance = torch.linalg.inv(model.prior())[here[:, None], here]
    mean = torch.linalg.solve(model.prior(), model.own_eta + model.coupling()[1])[here]
    copy = graph.copy()
    copy.remove_nodes_from(inside)
    interaction = precision[here[:, None], here]
    joined = JointGaussian(mean, (covariance + covariance.T) / 2, (interaction + interaction.T) / 2)
    copy.add_factor(tuple(inside), ends, joined, [model.features[name] for name in ends])
    return copy


def strength_range(model: JointModel, factor: Name) -> tuple[float, float]:
    """The smallest and the largest strength in [0, 1.2] with which the joint prior is proper, to 0.001.

    The smallest is 0 unless a factor is what keeps others proper, such as one that takes back what another claims.
    """

    def proper(strength: float) -> bool:
        try:
            return not bool(torch.linalg.cholesky_ex(model.prior({factor: strength}))[1])
        except PgmSyncError:
            return False

    def furthest(end: float) -> float:
        if proper(end):
            return end
        inside, outside = 1.0, end
        while abs(outside - inside) > TOLERANCE:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if proper(middle) else (inside, middle)
        return inside

    low, high = furthest(0.0), furthest(STRONGEST)
    return math.ceil(low / TOLERANCE) * TOLERANCE, math.floor(high / TOLERANCE + 1e-9) * TOLERANCE


class Change(NamedTuple):
    """How one trajectory's joint denoised mean moves when a factor's strength changes.

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).model
    >>> row = changes(model, drawn_states(model, snr=1.0), {(0, 1): 0.0})[0]
    >>> row.factor, row.strength, abs(row.change - row.correction) < 1e-6  # the only factor, cut: nothing is corrected
    ((0, 1), 0.0, True)
    """

    factor: Name  # of the graph
    strength: float  # 1 as it is, 0 cut
    log_snr: float  # natural logarithm of alpha^2 / sigma^2
    trajectory: Name  # whose mean moves
    change: float  # length of the change in feature space, content units
    correction: float  # length of the correction that joint denoising makes with all factors as they are


class ChangeTable(Table[Change]):
    """Rows of `changes`; prints as a table.

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(3, 1, ps.Correlation(0.8))).model
    >>> len(changes(model, drawn_states(model, snr=1.0), {(0, 1): 0.5}))  # a row per trajectory
    3
    """

    head = ("factor", "strength", "log snr", "trajectory", "change", "correction")

    def cells(self, row: Change) -> list[str]:
        """What a row shows."""
        numbers = [f"{row.strength:g}", f"{row.log_snr:+.1f}"]
        return [
            edge_name(row.factor),
            *numbers,
            str(row.trajectory),
            f"{row.change:.4f}",
            f"{row.correction:.4f}",
        ]


class States(NamedTuple):
    """Own means and noisy states in features at one noise level."""

    snr: float
    own: Tensor  # (P,)
    noisy: Tensor  # (P,) x_t / alpha


def drawn_states(model: JointModel, snr: float, seed: int = 0) -> States:
    """Noisy states of one draw of the `model` itself, and each trajectory's own Gaussian mean given its own.

    At a signal-to-noise ratio `snr` > 0, from `seed`.

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).model
    >>> drawn = drawn_states(model, snr=1.0)
    >>> bool((2 * drawn.own - drawn.noisy).abs().max() < 1e-9)  # of N(0, 1) and noise of variance 1, half of the state
    True
    """
    content, noise = model.draw(torch.Generator().manual_seed(seed))
    noisy = (content + noise / math.sqrt(snr)) * model.visible
    return States(snr, model.own_means(snr, noisy), noisy)


def changes(model: JointModel, states: States, strengths: Mapping[Name, float]) -> ChangeTable:
    """Each factor's strength changed by itself: how far every trajectory's joint mean moves (Eq. 6).

    `model` is `Inspection.model`, `states` what `drawn_states` gives, `strengths` are ``{factor: strength}``, 0 cuts
    it.

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).model
    >>> table = changes(model, drawn_states(model, snr=1.0), {(0, 1): 1.0})
    >>> [round(row.change, 6) for row in table]  # a strength of 1 is what it has
    [0.0, 0.0]
    """
    full = model.solve(*states)
    rows = []
    for factor, strength in strengths.items():
        moved = model.solve(*states, {factor: strength}) - full
        for name in model.features:
            here = model.slices[name]
            rows.append(
                Change(
                    factor, strength, math.log(states.snr), name, moved[here].norm().item(),
                    (full - states.own)[here].norm().item(),
                )
            )  # fmt: skip
    return ChangeTable(rows)
