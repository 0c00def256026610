"""A factor graph as an inline SVG drawing, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ..graph import FactorGraph
from ..graph.factor_graph import Name
from .edges import Edge, by_edge, edge_name, widths
from .layout import Layout, Point, layout

UNIT = 96  # pixels per node distance
RADIUS = 21
SQUARE = 6.5
MOST_WIDTH = 7.0


def shade(rho: float) -> str:
    """The CSS colour of a correlation `rho`: from --negative over --neutral to --positive.

    >>> shade(-0.25)
    'color-mix(in oklab,var(--negative) 25%,var(--neutral))'
    """
    share = round(100 * min(abs(rho), 1.0))
    return f"color-mix(in oklab,var(--{'positive' if rho > 0 else 'negative'}) {share}%,var(--neutral))"


def graph_svg(
    graph: FactorGraph,
    table: Iterable[Any] | None = None,
    positions: Mapping[Name, Point] | None = None,
    interactive: bool = False,
) -> str:
    """The graph as an ``<svg>`` element.

    Trajectories are circles, hidden variables dashed double circles (canvases dashed boxes), factors small
    squares. With a correlation `table` an edge has the colour of its leading mode's correlation, its square the sign,
    and its width grows with the mutual information of all its modes. Shapes and parameters are hover titles.
    Colours are the CSS variables ``--positive``, ``--negative``, ``--neutral``, ``--ink``, ``--muted``,
    ``--surface``, which the page defines. `positions` as of `layout`. `interactive` marks nodes and factors by their
    places among ``graph.variables`` and ``graph.factors`` (``data-node``, ``data-edge``) and lets the keyboard reach
    them.

    >>> import pgm_sync as ps
    >>> drawn = graph_svg(ps.chain_graph(3, (1,), ps.Correlation(0.8)))
    >>> drawn[:4], drawn.count("<circle")
    ('<svg', 3)

    Raises what `layout` raises.
    """
    places = layout(graph, positions)
    edges = by_edge(table) if table is not None else {}
    weak_first = sorted(graph.factors, key=lambda f: edges[f].information if f in edges else -1.0)
    wide = widths(edges, MOST_WIDTH)
    mark = _Mark(graph, interactive)
    body = [_factor_lines(graph, places, f, edges.get(f), wide.get(f, 1.0), mark) for f in weak_first]
    body += [_box(graph, places, v, mark) for v in places.boxes]
    body += [_factor_square(graph, places, f, edges.get(f), mark) for f in graph.factors]
    body += [_circle(graph, places, v, mark) for v in graph.variables if v not in places.boxes]
    x, y, w, h = _view(graph, places)
    label = escape(repr(graph), quote=True)
    role = "group" if interactive else "img"
    return (
        f'<svg class="graph" role="{role}" aria-label="{label}" viewBox="{x:.1f} {y:.1f} {w:.1f} {h:.1f}" '
        f'style="max-width:{w:.0f}px;min-width:{min(w, 480):.0f}px" xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


class _Mark:
    """What makes an element of an interactive drawing one that can be chosen."""

    def __init__(self, graph: FactorGraph, interactive: bool):
        self.nodes = {name: k for k, name in enumerate(graph.variables)} if interactive else {}
        self.factors = {name: k for k, name in enumerate(graph.factors)} if interactive else {}

    def node(self, name: Name) -> str:
        label = escape(f"trajectory or variable {name}", quote=True)
        return f' data-node="{self.nodes[name]}" {_BUTTON} aria-label="{label}"' if self.nodes else ""

    def factor(self, name: Name, edge: Edge | None) -> str:
        if not self.factors:
            return ""
        rho = "" if edge is None else f", correlation {edge.leading.rho:.2f}"
        return f' data-edge="{self.factors[name]}" {_BUTTON} aria-label="{escape(edge_name(name) + rho, quote=True)}"'

    def line(self, name: Name) -> str:
        return f' data-edge="{self.factors[name]}"' if self.factors else ""


_BUTTON = 'tabindex="0" role="button"'


def _view(graph: FactorGraph, places: Layout) -> tuple[float, float, float, float]:
    xs, ys = [], []
    for name, (x, y) in places.positions.items():
        w, h = places.boxes.get(name, (0.0, 0.0))
        xs += [x - w / 2, x + w / 2]
        ys += [y - h / 2, y + h / 2]
        if name in graph and graph.nodes[name]["kind"] != "factor" and name not in places.boxes:
            reach = _reach(str(name)) / UNIT
            xs += [x - reach, x + reach]
    pad = RADIUS + 6
    x, y = min(xs) * UNIT - pad, min(ys) * UNIT - pad
    return x, y, max(xs) * UNIT + pad - x, max(ys) * UNIT + pad - y


def _reach(label: str) -> float:
    """Half the width of a label that does not fit its circle."""
    return max(0.0, 3.6 * len(label) - RADIUS)


def _xy(point: Point) -> str:
    return f"{point[0] * UNIT:.1f} {point[1] * UNIT:.1f}"


def _factor_lines(
    graph: FactorGraph, places: Layout, factor: Name, edge: Edge | None, width: float, mark: _Mark
) -> str:
    scope = graph.scope(factor)
    style, plain = "", " plain"
    if edge is not None:
        style = f' style="stroke:{shade(edge.leading.rho)};stroke-width:{width:.2f}"'
        plain = ""
    if len(scope) == 2:
        start, control, end = places.curve(factor, *scope)
        paths = f"M{_xy(start)}Q{_xy(control)} {_xy(end)}"
    else:
        at = places.positions[factor]
        paths = "".join(f"M{_xy(at)}L{_xy(places.anchor(end, at))}" for end in scope)
    title = _factor_title(graph, factor, edge)
    wide = f'<path class="reach" d="{paths}"{mark.line(factor)}/>' if mark.factors else ""  # easier to hit
    return f'{wide}<path class="edge{plain}" d="{paths}"{style}{mark.line(factor)}><title>{title}</title></path>'


def _factor_square(graph: FactorGraph, places: Layout, factor: Name, edge: Edge | None, mark: _Mark) -> str:
    x, y = (UNIT * c for c in places.positions[factor])
    style = f' style="fill:{shade(edge.leading.rho)}"' if edge is not None else ""
    sign = "" if edge is None else f'<path class="sign" d="{sign_path(edge.leading.rho)}"/>'
    return (
        f'<g class="square" transform="translate({x:.1f} {y:.1f})"{mark.factor(factor, edge)}>'
        f'<rect class="factor" x="{-SQUARE}" y="{-SQUARE}" width="{2 * SQUARE}" '
        f'height="{2 * SQUARE}" rx="2"{style}/>{sign}<title>{_factor_title(graph, factor, edge)}</title></g>'
    )


def sign_path(rho: float) -> str:
    """A plus or a minus for a correlation `rho`, so that the sign does not rest on colour alone.

    >>> sign_path(-0.5)
    'M-3.5 0H3.5'
    """
    return "M-3.5 0H3.5" + ("M0 -3.5V3.5" if rho > 0 else "")


def _circle(graph: FactorGraph, places: Layout, name: Name, mark: _Mark) -> str:
    x, y = (UNIT * c for c in places.positions[name])
    hidden = graph.nodes[name]["kind"] == "variable"
    rings = f'<circle class="node{" hidden" if hidden else ""}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
    if hidden:
        rings += f'<circle class="node hidden" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS - 4}"/>'
    return f"<g{mark.node(name)}>{rings}{_label(str(name), x, y)}<title>{_variable_title(graph, name)}</title></g>"


def _box(graph: FactorGraph, places: Layout, name: Name, mark: _Mark) -> str:
    (x, y), (w, h) = ((UNIT * a, UNIT * b) for a, b in (places.positions[name], places.boxes[name]))
    text = f"{name}  {'×'.join(map(str, graph.shape(name)))}"
    at = y if h < UNIT else y + h / 2 - 13
    frames = "".join(
        f'<rect class="node hidden around" x="{x - w / 2 + d:.1f}" y="{y - h / 2 + d:.1f}" '
        f'width="{w - 2 * d:.1f}" height="{h - 2 * d:.1f}" rx="{8 - d}"/>'
        for d in (0, 4)
    )
    return f"<g{mark.node(name)}>{frames}{_label(text, x, at)}<title>{_variable_title(graph, name)}</title></g>"


def _label(text: str, x: float, y: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" dy=".35em">{escape(text)}</text>'


def _variable_title(graph: FactorGraph, name: Name) -> str:
    kind = {"trajectory": "trajectory", "variable": "hidden variable"}[graph.nodes[name]["kind"]]
    return escape(f"{name}: {kind} of shape {'×'.join(map(str, graph.shape(name)))}")


def _factor_title(graph: FactorGraph, factor: Name, edge: Edge | None) -> str:
    potential = graph.potential(factor)
    seen = " and ".join(
        f"{end} ({type(m).__name__}, {'×'.join(map(str, m.out_shape))})"
        for end, m in zip(graph.scope(factor), graph.maps(factor), strict=True)
    )
    lines = [f"{edge_name(factor)}: {repr(potential) if potential.fitted else 'not fitted'}", f"joins {seen}"]
    if edge is not None:
        row = edge.leading
        lines.append(f"strongest mode {row.mode}: correlation {row.rho:.2f}{interval(row)}")
        lines.append(f"mutual information of {len(edge.rows)} modes: {edge.information:.2f} nats")
    return escape("\n".join(lines))


def interval(row: Any) -> str:
    """`` [low, high]`` where the `row` has an interval, else nothing.

    >>> from types import SimpleNamespace
    >>> interval(SimpleNamespace(low=0.751, high=0.842))
    ' [0.75, 0.84]'
    """
    bounds = (getattr(row, "low", None), getattr(row, "high", None))
    known = all(b is not None and math.isfinite(b) for b in bounds)
    return f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if known else ""
