"""The figure "no single heuristic does it": the rank of each method on each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..inspection.plots import pyplot
from .comparison import WORSE
from .scoreboard import Scoreboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ["#2166ac", "#4d9a6b", "#8e6bb0", "#b8860b", "#5b8f9e", "#a3527a", "#6d6d69", "#94a33a"]
HIGHLIGHT = "#c8501a"


def draw_ranks(board: Scoreboard, highlight: str | None = None, ax: Axes | None = None) -> Axes:
    """Methods by place on the main metric of every task, best on top; one line per method, named at its end.

    Full markers are best or tied with it, by paired intervals; the number in a marker is the rank, which methods that
    cannot be told apart share. A method that was not run on a task has a gap there. `highlight` is drawn on top.
    `ax` is where to draw; by default new axes.

    >>> import torch
    >>> from pgm_sync.evaluation import Scoreboard, mean
    >>> board, x = Scoreboard(), torch.linspace(0, 1, 30)
    >>> for method, error in {"averaging": x + 0.2, "learned": x}.items():
    ...     board.add("wide", method, "error", mean(error), better="lower")
    >>> axes = draw_ranks(board, highlight="learned")
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['wide']

    Raises MissingPackageError without matplotlib, ShapeError on an empty board.
    """
    plt = pyplot()
    tasks, methods = board.tasks(), [name for name in board.methods() if name not in board.aims]
    if not tasks:
        raise ShapeError("a scoreboard without cells has no ranks to draw")
    table = {task: board.standings(task) for task in tasks}
    places = {task: {row.method: k + 1 for k, row in enumerate(rows)} for task, rows in table.items()}
    most = max(len(rows) for rows in table.values())
    if ax is None:
        size = (2.6 + 1.25 * len(tasks), 1.0 + 0.42 * most)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    plain = [method for method in methods if method != highlight]
    colours = {method: COLOURS[k % len(COLOURS)] for k, method in enumerate(plain)}
    for method in [*plain, *([highlight] if highlight in methods else [])]:
        assert method is not None  # highlight is one of the methods
        first = method == highlight
        colour = HIGHLIGHT if first else colours[method]
        order = 4 if first else 2
        ys = [places[task].get(method, float("nan")) for task in tasks]
        ax.plot(
            range(len(tasks)),
            ys,
            color=colour,
            lw=2.6 if first else 1.3,
            alpha=1 if first else 0.75,
            zorder=order,
        )
        for x, task in enumerate(tasks):
            if method not in places[task]:
                continue
            row = table[task][method]
            full = row.status != WORSE
            face, ink = (colour, "white") if full else ("white", colour)
            ax.plot(x, places[task][method], "o", ms=14, mfc=face, mec=colour, mew=1.4, zorder=order + 0.1)
            at = (x, places[task][method])
            ax.annotate(
                str(row.rank),
                at,
                ha="center",
                va="center_baseline",
                fontsize=8,
                color=ink,
                zorder=order + 0.2,
            )
        last = max(x for x, task in enumerate(tasks) if method in places[task])
        at = (last, places[tasks[last]][method])
        beside: dict[str, Any] = {"xytext": (11, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(method, at, **beside, fontsize=9, color=colour, fontweight="bold" if first else "normal")
    ax.set_xticks(range(len(tasks)), tasks, fontsize=9)
    ax.set_xlim(-0.35, len(tasks) - 1 + 0.35)
    ax.set_ylim(most + 0.6, 0.4)
    ax.set_yticks([])
    ax.set_ylabel("better →", loc="top", fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
