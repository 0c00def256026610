"""A report as one self-contained HTML file: no script, no external resource, light and dark."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..maps import FeatureMap
from ..metrics import Estimate
from .edges import Edge, by_edge, edge_name, modes
from .images import picture, png
from .layout import MOST_NODES
from .style import CSS
from .svg import graph_svg, interval, shade

PARTS = ("denoiser", "engine", "scheduler", "fit", "other")  # of the time, in this order where present
MOST_EDGES, MOST_MODES = 120, 48  # of the heat map; the strongest are shown and the rest counted


class Sheet(NamedTuple):
    """Pictures of one method, for `report`.

    >>> import torch
    >>> page = report("Title", sheets=[Sheet("learned", torch.zeros(1, 3, 8, 8), caption="two windows")])
    >>> "two windows" in page
    True
    """

    name: str  # of the method
    images: Tensor  # (n, C, H, W), values in [0, 1]
    caption: str = ""  # under the pictures
    windows: Sequence[tuple[float, float]] = ()  # left and right end of each window, as shares of the width


class Metric(NamedTuple):
    """One measure of every method, for `report`.

    >>> from pgm_sync.metrics import Estimate
    >>> metric = Metric("energy distance", "0 is best", {"learned": Estimate(0.21, 0.18, 0.24, 400)})
    >>> "energy distance" in report("Title", metrics=[metric])
    True
    """

    name: str  # of the measure
    meaning: str  # one sentence, with what is better
    estimates: Mapping[str, Estimate]  # by method
    reference: str | None = None  # the method that shows what to aim for


def report(
    title: str,
    lead: str = "",
    sheets: Sequence[Sheet] = (),
    metrics: Sequence[Metric] = (),
    graph: FactorGraph | None = None,
    table: Sequence[Any] | None = None,
    timing: Mapping[str, Mapping[str, float]] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    command: str = "",
) -> str:
    """The page, as one self-contained HTML text. Parts that are not given are left out.

    `title` and `lead` head it; `sheets` and `metrics` show and measure methods; `graph` is drawn;
    `table` is what ``ps.correlations(fitted)`` returns; `timing` gives seconds by row and part; `parameters`
    groups of names and values; `command` how to make the same page again.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, (1,), ps.Correlation(0.8))
    >>> page = report("Three windows", graph=graph, table=ps.correlations(graph))
    >>> page.startswith("<!doctype html>"), "<svg" in page, "http" in page.replace("http://www.w3.org", "")
    (True, True, False)

    Raises NotFiniteError, ShapeError on pictures that are none.
    """
    edges = by_edge(table) if table is not None else {}
    parts = [
        _section("Pictures", _sheets(sheets)) if sheets else "",
        _section("Numbers", _metrics(metrics)) if metrics else "",
        _section("Graph", _graph(graph, table)) if graph is not None else "",
        _section("Learned correlations", _heat_map(edges, graph)) if edges else "",
        _section("Time", _timing(timing)) if timing else "",
        _section("Parameters", _parameters(parameters)) if parameters else "",
        _section("Make it again", f"<pre><code>{escape(command)}</code></pre>") if command else "",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="kicker">pgm_sync</p><h1>{escape(title)}</h1>'
        + (f'<p class="lead">{escape(lead)}</p>' if lead else "")
        + "</header>\n"
        + "\n".join(p for p in parts if p)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, body: str) -> str:
    key = title.lower().replace(" ", "-")
    return f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n{body}\n</section>'


# ---- pictures --------------------------------------------------------------------------------------------


def data_uri(image: Tensor) -> str:
    """An `image` ``(C, H, W)`` in [0, 1] as a PNG in a ``data:`` address.

    >>> import torch
    >>> data_uri(torch.zeros(3, 4, 4))[:22]
    'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(picture(image))).decode()


def _sheets(sheets: Sequence[Sheet]) -> str:
    figures = []
    for s in sheets:
        height, width = s.images.shape[-2:]
        rows = "".join(
            f'<img src="{data_uri(image)}" width="{width}" height="{height}" '
            f'alt="{escape(s.name)}, sample {k + 1}">'
            for k, image in enumerate(s.images)
        )
        figures.append(
            f'<figure class="sheet"><figcaption><b>{escape(s.name)}</b> {escape(s.caption)}</figcaption>'
            f'{_ruler(s.windows)}<div class="pictures">{rows}</div></figure>'
        )
    return f'<div class="sheets">{"".join(figures)}</div>'


def _ruler(windows: Sequence[tuple[float, float]]) -> str:
    """Where the windows lie, as brackets over the pictures, overlapping ones at two heights."""
    lines = "".join(
        f'<path d="M{1000 * a + 3:.0f} {7 - 4 * (k % 2)}v-2H{1000 * b - 3:.0f}v2"/>'
        for k, (a, b) in enumerate(windows)
    )
    box = 'viewBox="0 0 1000 8" preserveAspectRatio="none"'
    return f'<svg class="ruler" {box} aria-hidden="true">{lines}</svg>'


# ---- numbers ---------------------------------------------------------------------------------------------


def _metrics(metrics: Sequence[Metric]) -> str:
    return f'<div class="metrics">{"".join(_metric(m) for m in metrics)}</div>'


def _metric(metric: Metric) -> str:
    known = [e for e in metric.estimates.values() if math.isfinite(e.value)]
    ends = [v for e in known for v in (e.low, e.high, e.value) if math.isfinite(v)] + [0.0]
    low, high = min(ends), max(ends)
    pad = 0.04 * ((high - low) or 1.0)
    low, high = low - pad, high + pad
    target = metric.estimates.get(metric.reference) if metric.reference else None
    rows = "".join(
        f'<tr{" class=reference" if name == metric.reference else ""}><th scope="row">{escape(name)}</th>'
        f'<td class="number">{number(e.value)}</td><td class="interval">{_interval(e)}</td>'
        f'<td class="plot">{_dot(e, target, low, high)}</td><td class="count">n = {e.samples}</td></tr>'
        for name, e in metric.estimates.items()
    )
    titles = ("method", "value", "95 % interval", "drawn", "samples")
    head = "<thead><tr>" + "".join(f'<th scope="col">{t}</th>' for t in titles) + "</tr></thead>"
    return (
        f'<div class="metric"><div><h3>{escape(metric.name)}</h3><p>{escape(metric.meaning)}</p></div>'
        f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div></div>'
    )


def number(value: float) -> str:
    """A `value` with three decimals and a true minus sign.

    >>> number(-0.12345), number(float("nan"))
    ('−0.123', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # + 0.0: no negative zero


def _interval(e: Estimate) -> str:
    return f"{number(e.low)} to {number(e.high)}" if math.isfinite(e.low) and math.isfinite(e.high) else ""


def _dot(e: Estimate, target: Estimate | None, low: float, high: float) -> str:
    def x(value: float) -> float:
        return 400 * (value - low) / (high - low)

    marks = f'<path class="zero" d="M{x(0):.1f} 0V20"/>'
    if target is not None and math.isfinite(target.value):
        if math.isfinite(target.low) and math.isfinite(target.high):
            a, b = x(target.low), x(target.high)
            marks += f'<rect class="band" x="{a:.1f}" y="0" width="{b - a:.1f}" height="20"/>'
        marks += f'<path class="target" d="M{x(target.value):.1f} 0V20"/>'
    if math.isfinite(e.low) and math.isfinite(e.high):
        marks += f'<path class="range" d="M{x(e.low):.1f} 10H{x(e.high):.1f}"/>'
    if math.isfinite(e.value):
        marks += f'<circle class="dot" cx="{x(e.value):.1f}" cy="10" r="4"/>'
    return f'<svg viewBox="0 0 400 20" aria-hidden="true">{marks}</svg>'


# ---- graph -----------------------------------------------------------------------------------------------


def _graph(graph: FactorGraph, table: Sequence[Any] | None) -> str:
    caption = (
        f"{graph!r}. Circles are trajectories, dashed shapes hidden variables, squares factors; "
        "point at one for its shape or parameters."
    )
    legend = ""
    if table:
        caption += (
            " Colour: correlation of the mode that carries most information. "
            "Width: grows with the mutual information of all modes."
        )
        legend = _legend()
    if len(graph) > MOST_NODES:
        return f"<p>{escape(repr(graph))}: too many nodes for a legible drawing.</p>"
    return _panel("drawing of the graph", graph_svg(graph, table), legend, caption)


def _panel(label: str, body: str, legend: str, caption: str) -> str:
    return (
        f'<figure class="panel"><div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"{body}</div>{legend}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _legend() -> str:
    stops = ",".join(shade(k / 4) for k in range(-4, 5))
    return (
        '<div class="legend" aria-hidden="true"><span>−1</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>+1 correlation</span></div>'
    )


# ---- correlations ----------------------------------------------------------------------------------------


def _heat_map(edges: Mapping[Name, Edge], graph: FactorGraph | None) -> str:
    columns = modes(edges.values())
    rows = list(edges.values())
    note = ""
    if len(rows) > MOST_EDGES:
        strongest = {id(e) for e in sorted(rows, key=lambda e: -e.information)[:MOST_EDGES]}
        note += f" The {MOST_EDGES} most informative of {len(rows)} edges are shown."
        rows = [e for e in rows if id(e) in strongest]
    if len(columns) > MOST_MODES:
        total = {c: sum(e.rows[c].mutual_information for e in rows if c in e.rows) for c in columns}
        kept = set(sorted(columns, key=lambda c: -total[c])[:MOST_MODES])
        note += f" The {MOST_MODES} most informative of {len(columns)} modes are shown."
        columns = [c for c in columns if c in kept]
    glyphs = _glyphs(graph, rows[0], columns) if graph is not None else {}
    head = "".join(f'<th scope="col">{glyphs.get(c, "")}<span>{escape(c)}</span></th>' for c in columns)
    most = max((e.information for e in rows), default=0.0) or 1.0
    body = "".join(
        f'<tr><th scope="row">{escape(edge_name(e.factor))}</th>'
        + "".join(_cell(e.rows.get(c)) for c in columns)
        + f'<td class="nats"><i style="--share:{100 * e.information / most:.0f}%"></i>'
        + f"{e.information:.2f}</td></tr>"
        for e in rows
    )
    drawn = (
        f'<table class="heat"><thead><tr><th scope="col">edge</th>{head}'
        f'<th scope="col"><span>information, nats</span></th></tr></thead><tbody>{body}</tbody></table>'
    )
    caption = (
        "Correlation between the two ends of an edge, mode by mode; point at a cell for its 95 % interval. "
        f"Bold: the interval excludes zero.{note}"
    )
    return _panel("table of correlations", drawn, _legend(), caption)


def _cell(row: Any) -> str:
    if row is None:
        return "<td></td>"
    title = f"{row.mode}: {row.rho:.3f}{interval(row)}, {row.mutual_information:.3f} nats"
    low, high = getattr(row, "low", None), getattr(row, "high", None)
    sure = ' class="sure"' if low is not None and high is not None and (low > 0 or high < 0) else ""
    shown = f"{row.rho:.2f}".replace("-", "−")
    return f'<td{sure} title="{escape(title)}" style="background:{shade(row.rho)}">{shown}</td>'


def _glyphs(graph: FactorGraph, edge: Edge, columns: Sequence[str]) -> dict[str, str]:
    """What each mode looks like, for factors that see pictures through feature maps."""
    if edge.factor not in graph:
        return {}
    feature = graph.maps(edge.factor)[0]
    if not isinstance(feature, FeatureMap) or len(feature.in_shape) not in (2, 3):
        return {}
    patterns = feature.rows.reshape(feature.out_size, -1, *feature.in_shape[-2:]).sum(1)  # (modes, H, W)
    made = {}
    for label, pattern in zip(feature.labels(), patterns, strict=True):
        if label in columns:
            shown = 0.5 + 0.5 * pattern / pattern.abs().max().clamp_min(1e-12)
            made[label] = f'<img src="{data_uri(shown.to(torch.float32))}" alt="" width="12" height="12">'
    return made


# ---- time and parameters ---------------------------------------------------------------------------------


def _timing(timing: Mapping[str, Mapping[str, float]]) -> str:
    parts = list(dict.fromkeys([*PARTS, *(part for row in timing.values() for part in row)]))
    parts = [p for p in parts if any(p in row for row in timing.values())]
    longest = max(sum(row.values()) for row in timing.values()) or 1.0
    key = "".join(f'<li><i class="part{parts.index(p) % 5}"></i>{escape(p)}</li>' for p in parts)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="bar"><div>'
        + "".join(
            f'<i class="part{parts.index(p) % 5}" style="width:{100 * s / longest:.2f}%" '
            f'title="{escape(p)}: {s:.2f} s"></i>'
            for p, s in row.items()
        )
        + f'</div></td><td class="number">{sum(row.values()):.2f} s</td><td class="split">'
        + ", ".join(f"{escape(p)} {s:.2f}" for p, s in row.items())
        + "</td></tr>"
        for name, row in timing.items()
    )
    return (
        f'<div class="panel"><ul class="key" aria-hidden="true">{key}</ul>'
        f'<div class="scroll"><table class="time"><tbody>{rows}</tbody></table></div></div>'
    )


def _parameters(groups: Mapping[str, Mapping[str, Any]]) -> str:
    return (
        '<div class="groups">'
        + "".join(
            f"<div><h3>{escape(name)}</h3><dl>"
            + "".join(
                f"<div><dt>{escape(str(k))}</dt><dd>{escape(_shown(v))}</dd></div>" for k, v in values.items()
            )
            + "</dl></div>"
            for name, values in groups.items()
        )
        + "</div>"
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
