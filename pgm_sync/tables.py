"""Rows of results that print as a table, in notebooks too; and the way to what notebooks show of anything else."""

from __future__ import annotations

import abc
import html
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

from .extras import optional

Row = TypeVar("Row", bound=tuple)
MOST_ROWS = 100  # that a notebook shows


def in_notebook(kind: str, shown: Any) -> str:
    """HTML of what is `shown`, by the function of `inspection.notebook` that is named `kind`.

    That module stands above all that it shows, so it is looked up when a notebook asks, and not imported.

    >>> import pgm_sync as ps
    >>> in_notebook("graph", ps.chain_graph(2, 1)).startswith("<style>")
    True
    """
    return getattr(import_module("pgm_sync.inspection.notebook"), kind)(shown)


def frame(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> Any:
    """A pandas DataFrame of one dictionary per row.

    Parameters
    ----------
    rows
        dictionaries by column; values that a row lacks are NaN.
    columns
        their order, and what a table without rows has; by default as the rows have them.

    >>> frame([{"edge": "0 - 1", "rho": 0.8}, {"edge": "1 - 2", "rho": 0.5}])
        edge  rho
    0  0 - 1  0.8
    1  1 - 2  0.5

    Raises MissingPackageError without pandas.
    """
    return optional("pandas", "a data frame needs", "inspection").DataFrame(list(rows), columns=columns)


class Table(Sequence[Row], Generic[Row], abc.ABC):
    """A list of NamedTuples; a subclass says how one is shown: `head`, and `cells` of a row as texts.

    It prints as a table, in notebooks too; `rows` are its elements.

    >>> from typing import NamedTuple
    >>> class Pair(NamedTuple):
    ...     name: str
    ...     rho: float
    >>> class Pairs(Table[Pair]):
    ...     head = ("pair", "rho")
    ...     def cells(self, row):
    ...         return row.name, f"{row.rho:+.2f}"
    >>> Pairs([Pair("left - right", 0.8)])
    pair          rho
    left - right  +0.80
    """

    head: ClassVar[tuple[str, ...]]

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)

    @abc.abstractmethod
    def cells(self, row: Row) -> Sequence[str]:
        """What a row shows, a text per entry of `head`."""

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row, for pandas.DataFrame or JSON."""
        return [row._asdict() for row in self.rows]  # type: ignore[attr-defined]

    def to_frame(self) -> Any:
        """A pandas DataFrame, one column per field of a row. Raises MissingPackageError without pandas."""
        return frame(self.to_dicts(), list(self.rows[0]._fields) if self.rows else None)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        shown = [self.head, *map(self.cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line(self.cells(row), "td") for row in self.rows[:MOST_ROWS])
        more = f"<small>and {len(self) - MOST_ROWS} more rows</small>" if len(self) > MOST_ROWS else ""
        return f"<table>{line(self.head, 'th')}{body}</table>{more}"
