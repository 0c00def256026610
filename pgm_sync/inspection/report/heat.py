"""The table of correlations as a heat map, one row per edge and one column per mode."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ...graph import FactorGraph
from ...graph.factor_graph import Name
from ..edges import Edge, edge_name, modes
from ..svg import interval, shade
from .modes import glyphs
from .parts import legend, panel

MOST_EDGES, MOST_MODES = 120, 48  # of the heat map; the strongest are shown and the rest counted


def heat_map(edges: Mapping[Name, Edge], graph: FactorGraph | None) -> str:
    """Sortable by any column once the page's script runs."""
    named = [(name, pair) for edge in edges.values() for name, pair in _pairs(edge).items()]
    rows = [pair for _, pair in named]
    columns = modes(rows)
    note = ""
    if len(rows) > MOST_EDGES:
        strongest = {id(e) for e in sorted(rows, key=lambda e: -e.information)[:MOST_EDGES]}
        note += f" The {MOST_EDGES} most informative of {len(rows)} edges are shown."
        named = [(name, e) for name, e in named if id(e) in strongest]
        rows = [e for _, e in named]
    if len(columns) > MOST_MODES:
        total = {c: sum(e.rows[c].mutual_information for e in rows if c in e.rows) for c in columns}
        kept = set(sorted(columns, key=lambda c: -total[c])[:MOST_MODES])
        note += f" The {MOST_MODES} most informative of {len(columns)} modes are shown."
        columns = [c for c in columns if c in kept]
    shown = glyphs(graph, rows[0].factor) if graph is not None else {}
    images = {c: f'<img src="{uri}" alt="" width="12" height="12">' for c, uri in shown.items()}
    head = "".join(
        f'<th scope="col" data-sort>{images.get(c, "")}<span>{escape(c)}</span></th>' for c in columns
    )
    most = max((e.information for e in rows), default=0.0) or 1.0
    places = {factor: k for k, factor in enumerate(graph.factors)} if graph is not None else {}
    body = "".join(
        f'<tr{_place(places, e.factor)}><th scope="row">{escape(name)}</th>'
        + "".join(_cell(e.rows.get(c)) for c in columns)
        + f'<td class="nats" data-value="{e.information:.6g}"><i style="--share:{100 * e.information / most:.0f}%"></i>'
        + f"{e.information:.2f}</td></tr>"
        for name, e in named
    )
    drawn = (
        f'<table class="heat"><thead><tr><th scope="col" data-sort>edge</th>{head}'
        f'<th scope="col" data-sort><span>information, nats</span></th></tr></thead><tbody>{body}</tbody></table>'
    )
    caption = (
        "Correlation between the two ends of an edge, mode by mode; point at a cell for its 95 % interval. "
        f"Bold: the interval excludes zero.{note}"
    )
    return panel("table of correlations", drawn, legend(), caption)


def _pairs(edge: Edge) -> dict[str, Edge]:
    """By what they are called: a potential over three ends or more has a row per pair of them."""
    found: dict[Any, dict[str, Any]] = {}
    for row in edge.rows.values():
        found.setdefault((row.first, row.second), {})[row.mode] = row
    name = edge_name(edge.factor)
    if len(found) < 2:
        return {name: edge}
    return {
        f"{name}: {first} – {second}": Edge(edge.factor, own, sum(row.mutual_information for row in own.values()))
        for (first, second), own in found.items()
    }


def _place(places: Mapping[Name, int], factor: Name) -> str:
    return f' data-edge="{places[factor]}"' if factor in places else ""


def _cell(row: Any) -> str:
    if row is None:
        return "<td></td>"
    title = f"{row.mode}: {row.rho:.3f}{interval(row)}, {row.mutual_information:.3f} nats"
    low, high = getattr(row, "low", None), getattr(row, "high", None)
    sure = ' class="sure"' if low is not None and high is not None and (low > 0 or high < 0) else ""
    shown = f"{row.rho:.2f}".replace("-", "−")
    style = f'style="background:{shade(row.rho)}" data-value="{row.rho:.6g}"'
    return f'<td{sure} title="{escape(title)}" {style}>{shown}</td>'
