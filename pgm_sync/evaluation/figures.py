"""The figure "no single heuristic does it": the rank of each method on each task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import ShapeError, UnknownNameError, listed
from ..inspection.plots import pyplot
from .comparison import WORSE, rounded
from .scoreboard import Scoreboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGHLIGHT = "#c8501a"
PALE, DARK = 0.06, 0.62  # of the colour map, for the best and the worst place


def draw_ranks(
    board: Scoreboard, highlight: str | None = None, ax: Axes | None = None, methods: Iterable[str] | None = None
) -> Axes:
    """A row per method and a column per task: its rank on the main metric, and the value.

    The darker, the more of the methods on that task are better, by paired intervals; methods that cannot be told apart
    share a rank. Framed are the best, and those tied with it; empty where a method was not run. Rows are in the order
    of their mean share of better methods. `highlight` is the row to point out; `methods` are those to show, by default
    all, ranked among all of the board in any case; `ax` is where to draw, by default new axes.

    >>> import torch
    >>> from pgm_sync.evaluation import Scoreboard, mean
    >>> board, x = Scoreboard(), torch.linspace(0, 1, 30)
    >>> for method, error in {"averaging": x + 0.2, "learned": x}.items():
    ...     board.add("wide", method, "error", mean(error), better="lower")
    >>> axes = draw_ranks(board, highlight="learned")
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['learned', 'averaging']

    Raises MissingPackageError without matplotlib, ShapeError on an empty board, UnknownNameError.
    """
    plt = pyplot()
    tasks = board.tasks()
    if not tasks:
        raise ShapeError("a scoreboard without cells has no ranks to draw")
    table = {task: {row.method: row for row in board.standings(task)} for task in tasks}
    ranked = [name for name in board.methods() if any(name in rows for rows in table.values())]
    chosen = ranked if methods is None else list(methods)
    unknown = [name for name in [*chosen, *([highlight] if highlight else [])] if name not in ranked]
    if unknown:
        raise UnknownNameError(f"the scoreboard ranks no {unknown[0]!r}; it has {listed(ranked, 40)}", name=unknown[0])

    def better(task: str, method: str) -> float:
        """Which share of the others is."""
        return (table[task][method].rank - 1) / max(1, len(table[task]) - 1)

    def mean_share(method: str) -> float:
        own = [better(task, method) for task in tasks if method in table[task]]
        return sum(own) / len(own)

    rows = sorted(chosen, key=mean_share)
    if ax is None:
        size = (1.9 + 1.3 * len(tasks), 0.7 + 0.42 * len(rows))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    colours = plt.get_cmap("Blues")
    for y, method in enumerate(rows):
        for x, task in enumerate(tasks):
            if method not in table[task]:
                continue
            row, share = table[task][method], better(task, method)
            best = row.status != WORSE
            face = colours(PALE + (DARK - PALE) * share)
            ax.add_patch(plt.Rectangle((x - 0.47, y - 0.43), 0.94, 0.86, fc=face, lw=0))
            if best:
                frame = plt.Rectangle((x - 0.455, y - 0.4), 0.91, 0.8, fc="none", ec=HIGHLIGHT, lw=1.8)
                ax.add_patch(frame)
            ink = "white" if share > 0.75 else "#222222"
            number = rounded(board[task, method, board.metrics(task)[0]].estimate).split(" [")[0]
            ax.text(x - 0.25, y, str(row.rank), ha="center", va="center", fontsize=11, color=ink,
                    fontweight="bold" if best else "normal")  # fmt: skip
            ax.text(x + 0.38, y, number, ha="right", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(tasks)), tasks, fontsize=9.5)
    ax.set_yticks(range(len(rows)), rows, fontsize=9.5)
    for label, method in zip(ax.get_yticklabels(), rows, strict=True):
        if method == highlight:
            label.set(color=HIGHLIGHT, fontweight="bold")
    ax.xaxis.tick_top()
    ax.set_xlim(-0.5, len(tasks) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
