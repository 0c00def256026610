"""What notebooks show of graphs, correlations, fits, posteriors and samples: HTML, small whatever it shows.

Colours follow the page: text is ``currentColor``, surfaces those of JupyterLab, VS Code or Sphinx where they say so.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import PgmSyncError
from ..graph import FactorGraph
from ..graph.display import rows as graph_rows
from .images import picture, png
from .svg import graph_svg, shade

if TYPE_CHECKING:
    from ..inference import Posterior
    from ..learning import Fit
    from ..learning.bayesian.posterior import BayesianFit
    from ..sampling import SampleResult
    from .correlations import CorrelationTable

MOST_DRAWN = 60  # nodes of a drawing
MOST_ROWS = 40  # of a table
MOST_NODES = 8  # of samples, each with pictures
MOST_PICTURES = 8  # in a strip
PIXELS = 72  # height of a picture
MOST_ELEMENTS = 20_000  # of a posterior whose variances are worth computing to be looked at
KNOWN = ("seeds", "capped_per_step", "capped_by_node")  # of a result's info: long, or shown elsewhere

CSS = """
.pgm-sync {
  --surface: var(--jp-layout-color0, var(--vscode-editor-background, var(--color-background-primary, Canvas)));
  --ink: currentColor; --muted: color-mix(in srgb, currentColor 62%, transparent);
  --line: color-mix(in srgb, currentColor 18%, transparent);
  --positive: #d9722e; --negative: #4387c6; --neutral: color-mix(in oklab, currentColor 10%, var(--surface));
  max-width: 60rem; overflow-x: auto; font: .84rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
.pgm-sync b { font-weight: 600; } .pgm-sync small, .pgm-sync .muted { color: var(--muted); font-size: .92em; }
.pgm-sync table { margin: .5em 0; border-collapse: collapse; font-size: 1em; }
.pgm-sync th, .pgm-sync td {
  padding: .16em 1.1em .16em 0; border: 0; border-bottom: 1px solid var(--line); background: none;
  text-align: left !important; white-space: nowrap;
}
.pgm-sync th { color: var(--muted); font-weight: 500; }
.pgm-sync td.number, .pgm-sync td.cell { text-align: right !important; }
.pgm-sync td.cell { padding: .16em .6em; } .pgm-sync td.cell + td { padding-left: .8em; }
.pgm-sync details > summary { cursor: pointer; color: var(--muted); }
.pgm-sync svg { display: block; height: auto; }
.pgm-sync .graph { width: 100%; } .pgm-sync .graph .edge { fill: none; stroke-linecap: round; }
.pgm-sync .graph .plain { stroke: var(--muted); opacity: .7; }
.pgm-sync .graph .factor { fill: var(--surface); stroke: var(--ink); }
.pgm-sync .graph .node { fill: var(--surface); stroke: var(--ink); stroke-width: 1.3; }
.pgm-sync .graph .hidden { stroke: var(--muted); stroke-dasharray: 4 3; } .pgm-sync .graph .around { fill: none; }
.pgm-sync .graph text { fill: var(--ink); font: 12px system-ui, sans-serif; text-anchor: middle; }
.pgm-sync .strip { display: flex; gap: 4px; margin: .15em 0 .6em; }
.pgm-sync .strip img { flex: none; margin: 0; border-radius: 2px; image-rendering: pixelated; max-width: none; }
.pgm-sync .bar { display: inline-block; height: .62em; border-radius: 2px; background: var(--negative); }
""".strip()


def graph(shown: FactorGraph) -> str:
    """A drawing with the correlations that its potentials state, and the nodes in a table to unfold."""
    from .correlations import correlations

    drawing = ""
    if 0 < len(shown) <= MOST_DRAWN:
        try:
            drawing = graph_svg(shown, correlations(shown) if _states_correlations(shown) else None)
        except PgmSyncError:  # half a graph can be looked at too
            drawing = ""
    table = _table(
        ("kind", "name", "shape, or what it joins"), [list(map(escape, row)) for row in graph_rows(shown)]
    )
    opened = "" if drawing else " open"
    return _page(
        f"<b>{escape(repr(shown))}</b>{drawing}<details{opened}><summary>nodes</summary>{table}</details>"
    )


def correlation_table(shown: CorrelationTable) -> str:
    """The table with shaded correlations, their intervals drawn on a scale from -1 to 1."""
    head = ("factor", "ends", "mode", "rho", "", "95 % interval", "nats")
    lines = []
    for row in shown.rows[:MOST_ROWS]:
        cells = [escape(cell) for cell in shown.cells(row)]
        cells.insert(4, _interval(row.rho, row.low, row.high))
        lines.append(cells)
    shades = [shade(row.rho) for row in shown.rows[:MOST_ROWS]]
    return _page(
        _table(head, lines, numbers={6}, shaded=(3, shades)) + _more(len(shown) - len(lines), "correlations")
    )


def fit(shown: Fit) -> str:
    """How potentials were learned: settings, the score on samples kept back, and what was minimised."""
    title = f"<b>{escape(shown.method)} fit</b> of {shown.features} features from {shown.num_samples} samples"
    if shown.num_groups is not None:
        title += f" in {shown.num_groups} groups"
    left_out = {
        "method",
        "features",
        "num_samples",
        "num_groups",
        "heldout",
        "heldout_samples",
        "heldout_independent",
    }
    settings = {key: value for key, value in shown.settings().items() if key not in left_out}
    body = ""
    if shown.heldout is not None:
        body += f"<div>on {shown.heldout_samples} samples kept back: <b>{shown.heldout:.5g}</b>"
        alone = shown.details.get("heldout_independent")
        body += f" <small>without edges {alone:.5g}</small></div>" if isinstance(alone, float) else "</div>"
    lines = [
        [escape(key.replace("_", " ")), escape(_short(value))]
        for key, value in list(settings.items())[:MOST_ROWS]
    ]
    body += _table(("setting", ""), lines) + _more(len(settings) - len(lines), "settings")
    if len(shown.objective) > 1:
        first, last = shown.objective[0], shown.objective[-1]
        body += f"<small>objective, {len(shown.objective)} steps: {first:.5g} to {last:.5g}</small>"
        body += _curves([shown.objective])
    return _page(title + body)


def posterior(shown: Posterior) -> str:
    """Means and standard deviations of every node, over its elements and the batch, and how they were computed."""
    names, lines = list(shown.mean), []
    spread = shown.element_mean.shape[-1] <= MOST_ELEMENTS
    for name in names[:MOST_ROWS]:
        mean = shown.mean[name].detach()
        deviation = ""
        if spread:
            try:
                deviation = _span(shown.variance[name].detach().sqrt())
            except PgmSyncError:  # a plan without variances
                spread = False
        lines.append([escape(repr(name)), _shape(shown.graph.shape(name)), _span(mean), deviation])
    info = shown.info
    how = f"{info.method}: {info.plan}" + ("" if info.variances_exact else "; variances are not exact")
    head = ("node", "shape", "mean", "standard deviation" if spread else "")
    title = f"<b>{escape(repr(shown))}</b><div class='muted'>{escape(how)}</div>"
    return _page(title + _table(head, lines, numbers={2, 3}) + _more(len(names) - len(lines), "nodes"))


def bayesian_fit(shown: BayesianFit) -> str:
    """Posterior means and 95 % credible intervals of every edge and mode, and the diagnostics of the draws."""
    rows = shown.correlations()
    lines = [
        [escape(repr(r.factor)), escape(f"{r.first!r} - {r.second!r}"), escape(r.mode), f"{r.mean:+.3f}",
         _interval(r.mean, r.low, r.high), f"[{r.low:+.3f}, {r.high:+.3f}]"]
        for r in rows[:MOST_ROWS]
    ]  # fmt: skip
    head = ("factor", "ends", "mode", "mean", "", "95 % credible")
    shades = [shade(row.mean) for row in rows[:MOST_ROWS]]
    title = f"<b>{len(shown)} draws</b> <span class='muted'>{escape(str(shown.diagnostics))}</span>"
    return _page(
        title + _table(head, lines, shaded=(3, shades)) + _more(len(rows) - len(lines), "correlations")
    )


def samples(shown: SampleResult) -> str:
    """Strips of pictures, or curves, of the first samples of every node; where the time went, and the settings."""
    body = f"<b>{escape(repr(shown))}</b>"
    names = list(shown.samples)
    for name in names[:MOST_NODES]:
        x = shown.samples[name].detach().float().cpu()
        body += f"<div>{escape(repr(name))} <small>{_shape(x.shape[1:])}, {len(x)} samples</small></div>{_content(x)}"
    body += _more(len(names) - MOST_NODES, "nodes")
    total = shown.timing.get("total", 0.0)
    times = [
        [
            escape(part),
            f"{seconds:.2f} s",
            f'<i class="bar" style="width:{9 * min(seconds / total, 1):.2f}em"></i>',
        ]
        for part, seconds in shown.timing.items()
        if total > 0
    ]
    settings = [
        [escape(key.replace("_", " ")), escape(_short(value))]
        for key, value in shown.info.items()
        if key not in KNOWN and value is not None
    ]
    body += _table(("time", "", ""), times, numbers={1})
    return _page(
        f"{body}<details><summary>settings</summary>{_table(('setting', ''), settings[:MOST_ROWS])}</details>"
    )


def _page(body: str) -> str:
    return f'<style>{CSS}</style><div class="pgm-sync">{body}</div>'


def _table(
    head: Sequence[str],
    lines: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    shaded: tuple[int, Sequence[str]] | None = None,
) -> str:
    """Lines of escaped cells; `shaded` gives one column backgrounds."""
    right, body = set(numbers), ""
    for k, line in enumerate(lines):
        body += "<tr>"
        for column, cell in enumerate(line):
            if shaded is not None and column == shaded[0]:
                body += f'<td class="cell" style="background:{shaded[1][k]}">{cell}</td>'
            else:
                body += f'<td class="number">{cell}</td>' if column in right else f"<td>{cell}</td>"
        body += "</tr>"
    return (
        f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{body}</table>"
        if body
        else ""
    )


def _more(count: int, what: str) -> str:
    return f"<small>and {count} more {what}</small>" if count > 0 else ""


def _states_correlations(shown: FactorGraph) -> bool:
    """Whether there is something to colour edges by, and all of it is finite."""
    return any(shown.potential(factor).fitted for factor in shown.factors)


def _interval(rho: float, low: float, high: float) -> str:
    """A correlation on a scale from -1 to 1, with its interval where it is known."""
    bar = ""
    if math.isfinite(low) and math.isfinite(high):
        ends = f'x1="{60 + 58 * low:.1f}" x2="{60 + 58 * high:.1f}" y1="7" y2="7"'
        bar = f'<line {ends} stroke="currentColor" stroke-width="2"/>'
    return (
        '<svg width="120" height="14" viewBox="0 0 120 14" role="img" aria-hidden="true" style="color:inherit">'
        '<line x1="2" x2="118" y1="7" y2="7" stroke="currentColor" opacity=".2"/>'
        f'<line x1="60" x2="60" y1="2" y2="12" stroke="currentColor" opacity=".35"/>{bar}'
        f'<circle cx="{60 + 58 * rho:.1f}" cy="7" r="3.2" fill="currentColor"/></svg>'
    )


def _content(x: Tensor) -> str:
    """Pictures where contents ``(n, *shape)`` are pictures, curves where they are rows of numbers, else their range."""
    shape = x.shape[1:]
    if not bool(x.isfinite().all()):
        return '<div class="strip">not finite</div>'
    if len(shape) in (2, 3) and (len(shape) == 2 or shape[0] in (1, 3)) and min(shape[-2:]) > 1:
        reach = max(1.0, float(x[:MOST_PICTURES].abs().max()) if float(x.abs().max()) > 1.5 else 1.0)
        return f'<div class="strip">{"".join(_image(one / reach) for one in x[:MOST_PICTURES])}</div>'
    if x[0].numel() > 1 and max(shape) == x[0].numel():
        return _curves([one.flatten()[:: max(1, one.numel() // 400)].tolist() for one in x[:MOST_PICTURES]])
    return f'<div class="strip muted">{_span(x)}</div>'


def _image(one: Tensor) -> str:
    """A picture with values in [-1, 1] as an ``<img>``: large ones are made smaller first."""
    height, width = one.shape[-2:]
    if height > 2 * PIXELS:
        size = (2 * PIXELS, max(1, round(2 * PIXELS * width / height)))
        one = torch.nn.functional.interpolate(one.reshape(1, -1, height, width), size=size, mode="area")[0]
    code = base64.b64encode(png(picture(one / 2 + 0.5))).decode()
    return f'<img alt="" height="{PIXELS}" width="{PIXELS * width / height:.0f}" src="data:image/png;base64,{code}"/>'


def _curves(curves: Sequence[Sequence[float]]) -> str:
    """Lines over their index, all on one scale."""
    values = [v for curve in curves for v in curve if math.isfinite(v)]
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    body = ""
    for curve in curves:
        step = 300 / max(len(curve) - 1, 1)
        points = " ".join(
            f"{k * step:.1f},{2 + 44 * (high - v) / reach:.1f}"
            for k, v in enumerate(curve)
            if math.isfinite(v)
        )
        body += (
            f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.2" opacity=".7"/>'
        )
    return f'<svg width="300" height="48" viewBox="0 0 300 48" role="img" aria-hidden="true">{body}</svg>'


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _span(x: Tensor) -> str:
    """The value, or the smallest and the largest."""
    low, high = x.min().item(), x.max().item()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _short(value: Any) -> str:
    """A setting on one line."""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 90 else f"{text[:87]}..."


__all__ = ["bayesian_fit", "correlation_table", "fit", "graph", "posterior", "samples"]
