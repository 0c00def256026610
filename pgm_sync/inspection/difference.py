"""Two correlation tables side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..graph.factor_graph import Name
from ..tables import Table
from .edges import edge_name


class Difference(NamedTuple):
    """One mode of one factor in two tables; an interval that excludes 0 is a difference beyond chance.

    >>> import pgm_sync as ps
    >>> tables = [ps.correlations(ps.chain_graph(2, 1, ps.Correlation(rho))) for rho in (0.8, 0.5)]
    >>> round(difference(*tables)[0].difference, 3)
    0.3
    """

    factor: Name  # of the graph
    first: Name  # one end
    second: Name  # the other
    mode: str  # as the maps label it
    rho: float  # in the first table; nan where it has no such row
    other: float  # in the second
    difference: float  # rho - other
    low: float  # 95 % interval of the difference; nan where an interval is missing
    high: float  # its upper end


class DifferenceTable(Table[Difference]):
    """`rows` of `difference`; `only_first` and `only_second` name factors that one table has.

    >>> import pgm_sync as ps
    >>> tables = [ps.correlations(ps.chain_graph(n, 1, ps.Correlation(0.8))) for n in (3, 2)]
    >>> difference(*tables).only_first
    [(1, 2)]
    """

    head = ("factor", "ends", "mode", "rho", "other", "difference", "95 % interval")

    def __init__(self, rows: list[Difference], only_first: list[Name], only_second: list[Name]):
        super().__init__(rows)
        self.only_first, self.only_second = only_first, only_second

    def cells(self, row: Difference) -> list[str]:
        """What a row shows."""

        def shown(value: float) -> str:
            return "" if math.isnan(value) else f"{value:+.3f}"

        between = "" if math.isnan(row.low) else f"[{row.low:+.3f}, {row.high:+.3f}]"
        ends = f"{row.first} - {row.second}"
        return [
            edge_name(row.factor),
            ends,
            row.mode,
            *map(shown, (row.rho, row.other, row.difference)),
            between,
        ]


def difference(first: Iterable[Any], second: Iterable[Any]) -> DifferenceTable:
    """Rows of the same factor, ends and mode of two correlation tables, and what only one of them has.

    `first` and `second` are what `correlations` returns of two graphs.
    The interval of a difference follows from the two intervals by the method of variance estimates recovery (Zou,
    2007), which takes the two tables as independent.

    >>> import pgm_sync as ps
    >>> tables = [ps.correlations(ps.chain_graph(2, 1, ps.Correlation(rho))) for rho in (0.8, 0.5)]
    >>> difference(*tables)
    factor  ends   mode           rho     other   difference  95 % interval
    0 – 1   0 - 1  every element  +0.800  +0.500  +0.300

    References
    ----------
    G. Y. Zou, "Toward using confidence intervals to compare correlations", Psychological Methods 12, 2007.
    """
    left, right = ({_key(row): row for row in table} for table in (first, second))
    rows = []
    for key in [*left, *(k for k in right if k not in left)]:
        a, b = left.get(key), right.get(key)
        rho, other = (math.nan if row is None else float(row.rho) for row in (a, b))
        low = high = math.nan
        if a is not None and b is not None:
            low = rho - other - math.hypot(rho - a.low, b.high - other)
            high = rho - other + math.hypot(a.high - rho, other - b.low)
        rows.append(Difference(*key, rho, other, rho - other, low, high))
    factors = [list(dict.fromkeys(key[0] for key in keys)) for keys in (left, right)]
    only_first, only_second = (
        [f for f in own if f not in others] for own, others in (factors, factors[::-1])
    )
    return DifferenceTable(rows, only_first, only_second)


def _key(row: Any) -> tuple[Name, Name, Name, str]:
    return row.factor, row.first, row.second, row.mode
