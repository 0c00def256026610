"""Figures with matplotlib, which is imported when a figure is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ShapeError
from ..extras import optional
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from .difference import DifferenceTable
from .edges import by_edge, edge_name, modes, widths
from .layout import Point, layout
from .noise_levels import LevelTable
from .recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def pyplot() -> Any:
    """`matplotlib.pyplot`, imported when first needed.

    >>> pyplot().__name__
    'matplotlib.pyplot'

    Raises MissingPackageError without matplotlib.
    """
    return optional("matplotlib.pyplot", "figures need", "plots", "matplotlib")


def correlation_colours() -> Any:
    """The diverging colour map of all figures: blue for -1, grey for 0, orange for 1.

    >>> red, _, blue, _ = correlation_colours()(0.0)  # the colour of -1
    >>> bool(blue > red)
    True

    Raises MissingPackageError without matplotlib.
    """
    pyplot()
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#2166ac", "#8fb7d9", "#e9e9e6", "#eda878", "#c8501a"]
    return LinearSegmentedColormap.from_list("correlation", stops)


def draw_graph(
    graph: FactorGraph,
    table: Iterable[Any] | None = None,
    ax: Axes | None = None,
    positions: Mapping[Name, Point] | None = None,
    labels: bool = True,
) -> Axes:
    """Draw a factor graph.

    Trajectories are circles, hidden variables dashed double circles (canvases dashed boxes), factors small
    squares. With a correlation `table`, ``ps.correlations(fitted)``, an edge has the colour of its leading
    mode's correlation, and its width grows with the mutual information of all its modes. `positions` of
    trajectories and variables, in node distances, y downwards, override the layout. `ax` is where to draw, by default
    new axes; `labels` writes names.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, (1,), ps.Correlation(0.8))
    >>> axes = draw_graph(graph, ps.correlations(graph))
    >>> sorted({text.get_text() for text in axes.texts} & {"0", "1", "2"})
    ['0', '1', '2']

    Raises MissingPackageError without matplotlib, PgmSyncError on more than 250 nodes.
    """
    plt = pyplot()
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    places = layout(graph, positions)
    edges = by_edge(table) if table is not None else {}
    wide = widths(edges, 6.0)
    colours, colour_of = correlation_colours(), {}
    if ax is None:
        xs, ys = zip(*places.positions.values(), strict=True)
        size = (max(4.0, max(xs) - min(xs) + 1.5), max(1.8, max(ys) - min(ys) + 1.2))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    for factor in sorted(graph.factors, key=lambda f: edges[f].information if f in edges else -1.0):
        scope, edge = graph.scope(factor), edges.get(factor)
        colour = colour_of[factor] = "#9a9a96" if edge is None else colours((edge.leading.rho + 1) / 2)
        width = wide.get(factor, 1.0)
        if len(scope) == 2:
            paths = [Path(places.curve(factor, *scope), [Path.MOVETO, Path.CURVE3, Path.CURVE3])]
        else:
            at = places.positions[factor]
            paths = [Path([at, places.anchor(end, at)]) for end in scope]
        for path in paths:
            ax.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=width, zorder=1))
    for name, (w, h) in places.boxes.items():
        x, y = places.positions[name]
        box = FancyBboxPatch(
            (x - w / 2 + 0.08, y - h / 2 + 0.08),
            w - 0.16,
            h - 0.16,
            boxstyle="round,pad=0.08",
            facecolor="none",
            edgecolor="#6d6d69",
            linestyle="--",
            zorder=1,
        )
        ax.add_patch(box)
        if labels:
            at, where = ((x, y), "center") if h < 1 else ((x, y + h / 2), "bottom")
            ax.annotate(str(name), at, ha="center", va=where, fontsize=8)
    for factor, colour in colour_of.items():
        ax.plot(*places.positions[factor], "s", ms=7, mfc=colour, mec="#3c3c3a", mew=0.8, zorder=3)
    for name in graph.variables:
        if name in places.boxes:
            continue
        hidden = graph.nodes[name]["kind"] == "variable"
        style: dict[str, Any] = {"mfc": "white", "mec": "#3c3c3a", "zorder": 3}
        ax.plot(*places.positions[name], "o", ms=26, mew=1.2, **style)
        if hidden:
            ax.plot(*places.positions[name], "o", ms=20, mew=0.8, **style)
        if labels:
            ax.annotate(str(name), places.positions[name], ha="center", va="center", fontsize=8, zorder=4)
    if edges:
        scale = ScalarMappable(cmap=colours)
        scale.set_clim(-1, 1)
        ax.figure.colorbar(scale, ax=ax, label="correlation of the leading mode", shrink=0.8, pad=0.01)
    ax.set_aspect("equal")
    ax.margins(0.08, 0.15)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.axis("off")
    return ax


def draw_correlations(table: Iterable[Any], ax: Axes | None = None, numbers: bool | None = None) -> Axes:
    """A heat map of a correlation `table`: one row per edge, one column per mode.

    `numbers` writes each correlation into its cell (default: up to 150 cells). `ax` is where to draw, by default new
    axes.

    >>> import pgm_sync as ps
    >>> axes = draw_correlations(ps.correlations(ps.chain_graph(3, (1,), ps.Correlation(0.8))))
    >>> [text.get_text() for text in axes.texts]
    ['0.80', '0.80']

    Raises MissingPackageError without matplotlib, ShapeError on an empty table.
    """
    plt = pyplot()
    edges = by_edge(table)
    if not edges:
        raise ShapeError("the correlation table has no row to draw")
    columns = modes(edges.values())
    values = torch.full((len(edges), len(columns)), float("nan"), dtype=torch.float64)
    for i, edge in enumerate(edges.values()):
        for label, row in edge.rows.items():
            values[i, columns.index(label)] = float(row.rho)
    if ax is None:
        size = (2.2 + 0.55 * len(columns), 1.2 + 0.32 * len(edges))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    shown = ax.imshow(values.numpy(), cmap=correlation_colours(), vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(len(edges)), [edge_name(f) for f in edges], fontsize=8)
    if values.numel() <= 150 if numbers is None else numbers:
        for i, j in torch.isfinite(values).nonzero().tolist():
            ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=7, color="#1c1c1a")
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(shown, ax=ax, label="correlation", shrink=0.8)
    return ax


def draw_images(pictures: Mapping[str, Tensor], columns: int = 2) -> Figure:
    """Named image batches ``(n, C, H, W)`` with values in [0, 1], each sheet under its name, `columns` in a row.

    >>> import torch
    >>> figure = draw_images({"averaging": torch.zeros(2, 3, 8, 8), "learned": torch.ones(2, 3, 8, 8)})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['averaging', 'learned']

    Raises MissingPackageError without matplotlib, ShapeError without `pictures`, NotFiniteError.
    """
    plt = pyplot()
    from .images import sheet

    if not pictures:
        raise ShapeError("there is no picture to draw")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheets = {name: sheet(images, scale=4, gap=4) for name, images in pictures.items()}
    w, h = next(iter(sheets.values())).size
    size = (4.5 * columns, (4.5 * h / w + 0.35) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, made) in zip(axes.flat, sheets.items(), strict=False):
        ax.imshow(made, interpolation="nearest")
        ax.set_title(name, fontsize=10, loc="left")
    return figure


def draw_noise_levels(table: LevelTable, most: int = 6) -> Figure:
    """Curves over the noise level: movement if a factor were cut, and posterior correlation of its leading mode.

    The `most` factors of the `table` that move most have colours and names, the others are thin.

    >>> import pgm_sync as ps
    >>> figure = draw_noise_levels(ps.inspect(ps.chain_graph(3, 1, ps.Correlation(0.8))).levels)
    >>> len(figure.axes)
    2

    Raises MissingPackageError without matplotlib, ShapeError on an empty table.
    """
    plt = pyplot()
    if not len(table):
        raise ShapeError("the table of noise levels has no row to draw")
    rows = {factor: table.of(factor) for factor in table.modes}
    reach = {f: max((r.movement for r in own if math.isfinite(r.movement)), default=0.0) for f, own in rows.items()}
    leading = sorted(reach, key=lambda f: -reach[f])[:most]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for factor in sorted(rows, key=lambda f: f in leading):
        style: dict[str, Any] = {"color": "#b5b5b0", "linewidth": 0.7}
        if factor in leading:
            style = {"color": f"C{leading.index(factor)}", "linewidth": 1.6, "label": edge_name(factor)}
        for ax, what in zip(axes, ("movement", "rho"), strict=True):
            ax.plot(table.log_snr, [getattr(row, what) for row in rows[factor]], **style)
    for ax, what in zip(axes, ("movement of the joint means if cut", "posterior correlation"), strict=True):
        ax.axhline(0, color="#9a9a96", linewidth=0.6, zorder=0)
        ax.set(xlabel="log signal-to-noise ratio", title=what)
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def draw_steps(recording: Recording) -> Figure:
    """Correction of every trajectory, and pull of every factor, root mean squares step by step of a `recording`.

    >>> import pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Correlation(0.8)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> recorder = ps.Recorder(graph)
    >>> _ = [recorder(state) for state in ps.sampling_steps(graph, denoiser, DDIMScheduler(clip_sample=False), 5)]
    >>> len(draw_steps(recorder.recording).axes)
    2

    Raises MissingPackageError without matplotlib, ShapeError on an empty recording.
    """
    plt = pyplot()
    if not recording.records:
        raise ShapeError("the recording has no step to draw")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, values in recording.correction.items():
        axes[0].plot(recording.step, values, label=str(name) if len(recording.correction) <= 8 else None)
    pulls: dict[Any, list[Any]] = {}
    for (factor, _), values in recording.flow.items():
        pulls.setdefault(factor, []).append(values)
    for factor, ends in pulls.items():
        label = edge_name(factor) if len(pulls) <= 8 else None
        axes[1].plot(recording.step, torch.tensor(np.stack(ends)).square().mean(0).sqrt(), label=label)
    for ax, title in zip(axes, ("correction of trajectories", "pull of factors"), strict=True):
        ax.set(xlabel="step", title=title)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=8)
    return figure


def draw_difference(
    table: DifferenceTable, names: tuple[str, str] = ("this", "other"), most: int = 30, ax: Axes | None = None
) -> Axes:
    """The largest differences between two correlation tables, with their 95 % intervals where known.

    `table` is a `DifferenceTable`; `names` are those of the two; `most` rows are drawn, on `ax`, by default new axes.

    >>> import pgm_sync as ps
    >>> seen = ps.inspect(*(ps.chain_graph(2, 1, ps.Correlation(rho)) for rho in (0.8, 0.5)))
    >>> draw_difference(seen.difference).get_xlabel()
    'correlation in this minus other'

    Raises MissingPackageError without matplotlib, ShapeError where the tables share no row.
    """
    plt = pyplot()
    rows = sorted((r for r in table if math.isfinite(r.difference)), key=lambda r: -abs(r.difference))[:most]
    if not rows:
        raise ShapeError("the two tables share no factor and mode")
    if ax is None:
        ax = plt.subplots(figsize=(6, 1 + 0.24 * len(rows)), layout="constrained")[1]
    colours = correlation_colours()
    for k, row in enumerate(rows):
        if math.isfinite(row.low):
            ax.plot([row.low, row.high], [k, k], color="#6d6d69", linewidth=1.2)
        colour = colours((max(-1.0, min(1.0, row.difference)) + 1) / 2)
        ax.plot(row.difference, k, "o", color=colour, mec="#3c3c3a", mew=0.6)
    ax.axvline(0, color="#9a9a96", linewidth=0.8, linestyle="--", zorder=0)
    ax.set_yticks(range(len(rows)), [f"{edge_name(r.factor)}  {r.mode}" for r in rows], fontsize=8)
    ax.set_xlabel(f"correlation in {names[0]} minus {names[1]}")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    return ax
