"""The correlations that the potentials of a graph state, as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ..gaussian import canonical_correlations
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap
from ..metrics import Z95
from ..potentials import Correlation, JointGaussian
from ..potentials.base import diagonal_blocks, sizes
from ..tables import Table, in_notebook


class ModeCorrelation(NamedTuple):
    """Correlation of one mode between two ends of a factor.

    >>> import pgm_sync as ps
    >>> row = ps.correlations(ps.chain_graph(2, (1,), ps.Correlation(0.8)))[0]
    >>> row.rho, round(row.mutual_information, 4)  # -log(1 - 0.64) / 2
    (0.8, 0.5108)
    """

    factor: Name  # of the graph
    first: Name  # one end
    second: Name  # the other
    mode: str  # as the maps label it
    rho: float  # in (-1, 1)
    low: float  # 95 % interval (Fisher, or credible); nan where the number of samples is not known
    high: float  # its upper end
    mutual_information: float  # nats, -log(1 - rho^2) / 2 (Eq. 3)


class CorrelationTable(Table[ModeCorrelation]):
    """`rows` of `correlations`; prints as a table, in notebooks too.

    ``mutual_information[factor]``: nats between the ends of a factor over all modes together, cross terms included.

    >>> import pgm_sync as ps
    >>> ps.correlations(ps.chain_graph(3, (1,), lambda a, b: ps.Correlation(0.8 if a == 0 else -0.3)))
    factor  ends   mode           rho     95 % interval  nats
    (0, 1)  0 - 1  every element  +0.800                 0.5108
    (1, 2)  1 - 2  every element  -0.300                 0.0472
    """

    head = ("factor", "ends", "mode", "rho", "95 % interval", "nats")

    def __init__(self, rows: Sequence[ModeCorrelation], mutual_information: dict[Name, float]):
        super().__init__(rows)
        self.mutual_information = mutual_information

    def cells(self, row: ModeCorrelation) -> list[str]:
        """What a row shows."""
        return [
            repr(row.factor),
            f"{row.first!r} - {row.second!r}",
            row.mode,
            f"{row.rho:+.3f}",
            "" if math.isnan(row.low) else f"[{row.low:+.3f}, {row.high:+.3f}]",
            f"{row.mutual_information:.4f}",
        ]

    def _repr_html_(self) -> str:
        return in_notebook("correlation_table", self)


def correlations(graph: FactorGraph) -> CorrelationTable:
    """Correlation of matching modes between the ends of a `graph`'s fitted `JointGaussian` and `Correlation` factors.

    Modes match by position; ends with different numbers of modes are compared in canonical correlations (largest
    first). Elementwise `Correlation` factors give one row, the mean over their elements. Intervals are Fisher's for
    the sample count recorded by `ps.fit` (the number of groups, where it was given groups: samples of one group are
    not independent), and take samples as Gaussian; credible ones after ``method="bayesian"``.

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(2000, 2, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)  # correlation sqrt(1/2)
    >>> row = ps.correlations(ps.fit(ps.chain_graph(2, (1,)), {0: x[:, 0], 1: x[:, 1]}))[0]
    >>> row.low < 0.5**0.5 < row.high
    True
    """
    record = graph.graph.get("fit") or {}
    n = record.get("num_groups") or record.get("num_samples")
    rows: list[ModeCorrelation] = []
    total: dict[Name, float] = {}
    for factor in graph.factors:
        potential = graph.potential(factor)
        if not potential.fitted or not isinstance(potential, JointGaussian | Correlation):
            continue
        scope, maps = graph.scope(factor), graph.maps(factor)
        if isinstance(potential, Correlation):
            rho = torch.as_tensor(potential.rho, dtype=torch.float64).expand(maps[0].out_shape)
            information = -0.5 * torch.log1p(-(rho**2))
            total[factor] = information.sum().item()
            rows.append(
                ModeCorrelation(
                    factor,
                    scope[0],
                    scope[1],
                    "every element",
                    rho.mean().item(),
                    math.nan,
                    math.nan,
                    information.mean().item(),
                )
            )
            continue
        assert potential.covariance is not None
        total[factor] = _total_information(potential.covariance, sizes(graph.seen_shapes(factor)))
        own: list[ModeCorrelation] = []
        for i, j in combinations(range(len(scope)), 2):
            own += _pair_rows(factor, potential.covariance, maps, scope, i, j, n)
        credible = record.get("details", {}).get("intervals", {}).get(repr(factor), [])
        if len(credible) == len(own):
            own = [
                row._replace(low=low, high=high) for row, (low, high) in zip(own, credible, strict=True)
            ]
        rows += own
    return CorrelationTable(rows, total)


def _pair_rows(
    factor: Name,
    covariance: Tensor,
    maps: Sequence[LinearMap],
    scope: Sequence[Name],
    i: int,
    j: int,
    n: int | None,
) -> list[ModeCorrelation]:
    edges = [0, *torch.tensor([m.out_size for m in maps]).cumsum(0).tolist()]
    a, b = slice(edges[i], edges[i + 1]), slice(edges[j], edges[j + 1])
    if maps[i].out_size == maps[j].out_size:
        scale = covariance.diagonal().rsqrt()
        rho = (covariance[a, b].diagonal() * scale[a] * scale[b]).tolist()
        labels = maps[i].labels()
    else:
        rho = canonical_correlations(covariance[a, a], covariance[a, b], covariance[b, b]).tolist()
        labels = [f"canonical {k}" for k in range(len(rho))]
    return [
        ModeCorrelation(factor, scope[i], scope[j], label, r, *interval(r, n), -0.5 * math.log1p(-(r**2)))
        for label, r in zip(labels, rho, strict=True)
    ]


def interval(rho: float, n: int | None) -> tuple[float, float]:
    """Fisher's 95 % interval of a correlation `rho` from `n` independent samples; nan for unknown or too small n.

    >>> [round(end, 3) for end in interval(0.8, n=100)]
    [0.716, 0.861]
    """
    if n is None or n < 4:
        return math.nan, math.nan
    center, half = math.atanh(rho), Z95 / math.sqrt(n - 3)
    return math.tanh(center - half), math.tanh(center + half)


def _total_information(covariance: Tensor, blocks: Sequence[int]) -> float:
    own = sum(torch.logdet(block) for block in diagonal_blocks(covariance, blocks))
    return (0.5 * (own - torch.logdet(covariance))).item()
