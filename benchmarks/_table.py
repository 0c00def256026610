"""What the benchmark scripts share: arguments, a text table, and where its text goes."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

# Before torch starts its pools: one thread, so that ratios within a run mean the same on every machine.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

T = TypeVar("T")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows, the first of them the head, as aligned text."""
    cells = [[f"{cell}" for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def times_of(call: Callable[[], T], repeats: int) -> tuple[float, T]:
    """Median seconds of a call that has been made once before, and its last result."""
    result, seconds = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def median(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call that has been made once before."""
    return times_of(call, repeats)[0]


def main(name: str, build: Callable[[bool], str]) -> None:
    """Print what ``build(quick)`` returns; with --write, store it where the documentation shows it."""
    parser = argparse.ArgumentParser(description=f"benchmark {name}")
    parser.add_argument("--quick", action="store_true", help="fewer samples, for a look")
    parser.add_argument("--write", action="store_true", help="store the table in docs/results")
    arguments = parser.parse_args()
    start = time.perf_counter()
    text = build(arguments.quick)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("pgm_sync", "torch", "diffusers"))
    text = f"{text}\n\n{versions}; {time.perf_counter() - start:.0f} s, one thread\n"
    print(text)
    if arguments.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.txt").write_text(text)
