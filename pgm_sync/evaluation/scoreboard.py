"""The scoreboard: one cell per task, method and metric, in a file that grows cell by cell."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    DuplicateNameError,
    NotFiniteError,
    ParameterError,
    SavedFileError,
    UnknownNameError,
    listed,
)
from ..graph.serialization import write_atomically
from ..metrics import Estimate, Measurement
from .comparison import BEST, TIED, Better, Standings, rounded, standings
from .cost import Cost

FORMAT = "pgm_sync.scoreboard"
VERSION = 1
AIM = "aim"  # status of a row that takes no part
ARROWS = {"lower": "↓", "higher": "↑"}
COLUMNS = (
    "task", "method", "metric", "better", "value", "low", "high", "n", "rank", "status",
    "behind", "behind_low", "behind_high", "pairing",
    "evaluations", "seconds", "peak_memory", "device", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One measured number of one method on one task.

    >>> from pgm_sync.evaluation import mean
    >>> cell = Cell("wide", "averaging", "error", mean(torch.tensor([1.0, 2.0, 3.0])), better="lower")
    >>> cell.key, cell.estimate.value
    (('wide', 'averaging', 'error'), 2.0)
    """

    task: str  # row of the table of ranks
    method: str  # who did it
    metric: str  # what was measured
    estimate: Estimate  # a Measurement where it can be paired
    better: Better  # "higher" or "lower"
    cost: Cost | None = None  # of the run that was measured
    note: str = ""  # shown beside the number

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, method and metric: what is unique on a board."""
        return self.task, self.method, self.metric


class Scoreboard:
    """Cells by task, method and metric, in the order in which they came.

    With a `path` (.json), cells that are there already are read, and every `add` writes the whole file anew,
    atomically: a run that was interrupted skips what ``(task, method, metric) in board``. The first metric of a task
    is its main one, unless `main` names another. `aims` names rows that show what to aim for, such as real samples:
    they take no part in ranks.

    >>> from pgm_sync.evaluation import mean
    >>> board, hard = Scoreboard(), torch.linspace(0, 1, 30)
    >>> board.add("wide", "averaging", "error", mean(hard + 0.2), better="lower")
    >>> board.add("wide", "learned", "error", mean(hard), better="lower")
    >>> board.ranks()
    {'wide': {'averaging': 2, 'learned': 1}}

    Raises SavedFileError where `path` holds something else.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        main: Mapping[str, str] | None = None,
        aims: Iterable[str] = (),
    ):
        self.path = None if path is None else Path(path)
        self.main, self.aims = dict(main or {}), list(aims)
        self.cells: dict[tuple[str, str, str], Cell] = {}
        if self.path is not None and self.path.exists():
            found = Scoreboard.read(self.path)
            self.cells, self.main = found.cells, {**found.main, **self.main}
            self.aims = list(dict.fromkeys([*found.aims, *self.aims]))

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())

    def __contains__(self, key: object) -> bool:
        return key in self.cells

    def __getitem__(self, key: tuple[str, str, str]) -> Cell:
        if key not in self.cells:
            raise UnknownNameError(
                f"the scoreboard has no cell {key}; it has {listed(self.cells, 4)}", name=key
            )
        return self.cells[key]

    def add(
        self,
        task: str,
        method: str,
        metric: str,
        estimate: Estimate,
        better: Better,
        cost: Cost | None = None,
        note: str = "",
        replace: bool = False,
    ) -> None:
        """Add a cell, and write the file.

        `task`, `method`, `metric`, `estimate`, `better`, `cost` and `note` as of `Cell`. Raises DuplicateNameError
        where there is one already, unless `replace`; NotFiniteError on a value that is NaN or infinite; ParameterError
        on a direction that is none, or differs from the metric's in this task.
        """
        cell = Cell(task, method, metric, estimate, better, cost, note)
        if cell.key in self.cells and not replace:
            raise DuplicateNameError(
                f"there is a cell {cell.key} already; replace=True overwrites it", name=cell.key
            )
        if not math.isfinite(estimate.value):
            raise NotFiniteError(
                f"{metric} of {method!r} on {task!r} is {estimate.value}; a cell needs a number"
            )
        if better not in ARROWS and not (isinstance(better, int | float) and math.isfinite(better)):
            raise ParameterError(
                f"better={better!r} must be 'lower', 'higher' or a finite number", better=better
            )
        for other in self:
            if (
                (other.task, other.metric) == (task, metric)
                and other.better != better
                and other.key != cell.key
            ):
                raise ParameterError(
                    f"better={better!r} for {metric!r} on {task!r}, but {other.method!r} has {other.better!r} there"
                )
        self.cells[cell.key] = cell
        if self.path is not None:
            write_atomically(self.path, self.to_json().encode())

    def update(self, other: Scoreboard, replace: bool = False) -> None:
        """Add the cells of another board, its main metrics and its aims: boards of several runs become one.

        >>> from pgm_sync.evaluation import mean
        >>> board, other = Scoreboard(), Scoreboard(aims=["real"])
        >>> other.add("wide", "real", "error", mean(torch.zeros(3)), better="lower")
        >>> board.update(other)
        >>> len(board), board.aims
        (1, ['real'])

        Where both have a main metric for a task, this board's stays. Raises DuplicateNameError, before anything is
        added, where both have a cell, unless `replace`; else as `add`.
        """
        twice = [key for key in other.cells if key in self.cells]
        if twice and not replace:
            raise DuplicateNameError(f"both have a cell {twice[0]}; replace=True overwrites it", name=twice[0])
        self.main = {**other.main, **self.main}
        self.aims = list(dict.fromkeys([*self.aims, *other.aims]))
        for cell in other:
            self.add(
                cell.task, cell.method, cell.metric, cell.estimate, cell.better, cell.cost, cell.note, replace=replace
            )

    def tasks(self) -> list[str]:
        """Names of the tasks, in the order in which they came."""
        return list(dict.fromkeys(cell.task for cell in self))

    def methods(self, task: str | None = None) -> list[str]:
        """Names of the methods of one task, or of all, in the order in which they came."""
        return list(dict.fromkeys(cell.method for cell in self if task in (None, cell.task)))

    def metrics(self, task: str) -> list[str]:
        """Of a task, the main one first. Raises UnknownNameError on an unknown task or main metric."""
        found = list(dict.fromkeys(cell.metric for cell in self if cell.task == task))
        if not found:
            raise UnknownNameError(
                f"the scoreboard has no task {task!r}; it has {listed(self.tasks())}", name=task
            )
        main = self.main.get(task, found[0])
        if main not in found:
            raise UnknownNameError(
                f"{main!r}, the main metric of {task!r}, is none of {listed(found)}", name=main
            )
        return [main, *(metric for metric in found if metric != main)]

    def standings(self, task: str, metric: str | None = None) -> Standings:
        """Methods from best to worst on a metric, by default the main one. Raises UnknownNameError."""
        metric = self.metrics(task)[0] if metric is None else metric
        cells = [cell for cell in self if (cell.task, cell.metric) == (task, metric) and cell.method not in self.aims]
        if not cells and not any((cell.task, cell.metric) == (task, metric) for cell in self):
            raise UnknownNameError(
                f"{task!r} has no metric {metric!r}; it has {listed(self.metrics(task))}", name=metric
            )
        return standings({cell.method: cell.estimate for cell in cells}, cells[0].better) if cells else Standings([])

    def ranks(self) -> dict[str, dict[str, int]]:
        """Rank of each method by task, on its main metric; 1 + how many are better by an interval that leaves out 0."""
        found = {}
        for task in self.tasks():
            ranked = {row.method: row.rank for row in self.standings(task)}
            found[task] = {method: ranked[method] for method in self.methods() if method in ranked}
        return found

    def write(self, folder: str | Path, name: str = "scoreboard") -> list[Path]:
        """Write ``name.md``, ``name.csv``, ``name.json`` into `folder`, each whole or not at all; returns the paths."""
        made = {".md": self.to_markdown(), ".csv": self.to_csv(), ".json": self.to_json()}
        paths = [Path(folder) / f"{name}{suffix}" for suffix in made]
        for path, text in zip(paths, made.values(), strict=True):
            write_atomically(path, text.encode())
        return paths

    def to_markdown(self) -> str:
        """A table per task, one row per method, and one of ranks."""
        parts = []
        for task in self.tasks():
            metrics = self.metrics(task)
            status = {(row.method, m): row.status for m in metrics for row in self.standings(task, m)}
            heads = [
                f"{m} {_arrow(next(c.better for c in self if (c.task, c.metric) == (task, m)))}"
                for m in metrics
            ]
            rows = [["method", *heads, "n", "evaluations", "s / sample", "peak MiB"]]
            for method in self.methods(task):
                cells = [self.cells.get((task, method, m)) for m in metrics]
                shown = ["" if c is None else _marked(c.estimate, status.get((method, c.metric), "")) for c in cells]
                rows.append([f"*{method}*" if method in self.aims else method, *shown, _counts(cells), *_costs(cells)])
            parts.append(f"## {_plain(task)}\n\n{_markdown(rows)}")
        if parts:
            ranks = self.ranks()
            rows = [["method", *ranks, "mean", "worst"]]
            for method in (name for name in self.methods() if name not in self.aims):
                own = [ranks[task].get(method) for task in ranks]
                known = [rank for rank in own if rank is not None]
                summary = [f"{sum(known) / len(known):.2f}", str(max(known))] if known else ["", ""]
                rows.append([method, *("" if rank is None else str(rank) for rank in own), *summary])
            legend = (
                "**bold**: best; ≈: its 95 % interval of the paired difference to the best holds 0; ↓, ↑, →: lower, "
                "higher, close to the number is better. *Slanted*: what to aim for, not ranked. Rank: 1 + the number "
                "of methods that are better by an interval that leaves out 0, on the first metric of each task."
            )
            parts += [f"## Ranks\n\n{_markdown(rows)}", legend]
        return "\n\n".join(parts) + "\n"

    def to_csv(self) -> str:
        """A line per cell; seconds and evaluations per joint sample, memory in bytes."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        keys = dict.fromkeys((cell.task, cell.metric) for cell in self)
        placed = {key: self.standings(*key) for key in keys}
        for cell in self:
            row: dict[str, Any] = {
                "task": cell.task, "method": cell.method, "metric": cell.metric, "better": cell.better,
                "status": AIM, "note": cell.note,
                **dict(zip(("value", "low", "high", "n"), cell.estimate, strict=True)),
            }  # fmt: skip
            if cell.cost is not None:
                row |= {k: v for k, v in cell.cost.to_dict().items() if k in COLUMNS}
            if cell.method not in self.aims:
                standing = placed[cell.task, cell.metric][cell.method]
                row |= {"rank": standing.rank, "status": standing.status}
                if standing.status != BEST:
                    gap = standing.difference
                    row |= {"behind": gap.value, "behind_low": gap.low, "behind_high": gap.high, "pairing": gap.pairing}
            writer.writerow(row)
        return text.getvalue()

    def to_json(self) -> str:
        """Everything, for `read`."""
        cells = [
            {
                "task": cell.task,
                "method": cell.method,
                "metric": cell.metric,
                "better": cell.better,
                "estimate": _to_data(cell.estimate),
                "cost": None if cell.cost is None else cell.cost.to_dict(),
                "note": cell.note,
            }
            for cell in self
        ]
        data = {"format": FORMAT, "version": VERSION, "main": self.main, "aims": self.aims, "cells": cells}
        return json.dumps(data, allow_nan=False)

    @staticmethod
    def read(path: str | Path) -> Scoreboard:
        """What was written. Raises SavedFileError on a file that is corrupted or of another format or version."""
        path = Path(path)
        try:
            data = json.loads(path.read_text())
            kind = (data.get("format"), data.get("version"))
            if kind != (FORMAT, VERSION):
                raise SavedFileError(
                    f"{path.name!r} is {kind}, not a {FORMAT} of version {VERSION}", path=str(path)
                )
            board = Scoreboard(main=data["main"], aims=data["aims"])
            for entry in data["cells"]:
                cost = None if entry["cost"] is None else Cost(**entry["cost"])
                estimate = _from_data(entry["estimate"])
                names = (entry["task"], entry["method"], entry["metric"])
                board.add(*names, estimate, entry["better"], cost, entry["note"])
            return board
        except (FileNotFoundError, SavedFileError):
            raise
        except Exception as error:
            raise SavedFileError(
                f"{path.name!r} is not a readable scoreboard: {error}", path=str(path)
            ) from error


def _to_data(estimate: Estimate) -> dict[str, Any]:
    data: dict[str, Any] = {key: _number(value) for key, value in estimate._asdict().items()}
    if isinstance(estimate, Measurement):
        data["values"] = None if estimate.values is None else _short(estimate.values)
        data["draws"] = None if estimate.draws is None else _short(estimate.draws)
        data["resampling"] = estimate.resampling
    return data


def _from_data(data: dict[str, Any]) -> Estimate:
    numbers = (float(data["value"]), float(data["low"]), float(data["high"]), int(data["samples"]))
    if "resampling" not in data:
        return Estimate(*numbers)
    kept = [
        None if data[k] is None else torch.tensor(data[k], dtype=torch.float64) for k in ("values", "draws")
    ]
    return Measurement(*numbers, kept[0], kept[1], data["resampling"])


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: their names instead, which float() reads."""
    return value if math.isfinite(value) else str(value)


def _short(values: Tensor) -> list[float]:
    return [float(f"{x:.9g}") for x in values.tolist()]


def _arrow(better: Better) -> str:
    return ARROWS[better] if isinstance(better, str) else f"→ {better:.4g}"


def _marked(estimate: Estimate, status: str) -> str:
    text = rounded(estimate)
    return f"**{text}**" if status == BEST else f"≈ {text}" if status == TIED else text


def _counts(cells: list[Cell | None]) -> str:
    counts = sorted({cell.estimate.samples for cell in cells if cell is not None})
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _costs(cells: list[Cell | None]) -> list[str]:
    """Evaluations, seconds, MiB: of the first cell that has a cost."""
    cost = next((cell.cost for cell in cells if cell is not None and cell.cost is not None), None)
    if cost is None:
        return ["", "", ""]
    evaluations = "" if cost.evaluations is None else f"{cost.evaluations:g}"
    return [
        evaluations,
        f"{cost.seconds:.3g}",
        "" if cost.peak_memory is None else f"{cost.peak_memory / 2**20:.0f}",
    ]


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
