"""Two graphs side by side."""

from __future__ import annotations

import math
from html import escape

from ...graph.factor_graph import Name
from ..difference import Difference, DifferenceTable
from ..edges import edge_name
from ..svg import shade
from .parts import legend, panel

MOST_ROWS = 400


def comparison(table: DifferenceTable, names: tuple[str, str], drawings: str = "") -> str:
    """Largest differences first, in units of their intervals where these are known; then edges of one side only."""
    shared = [row for row in table if not math.isnan(row.difference)]
    shared.sort(key=_surprise, reverse=True)
    note = f" The {MOST_ROWS} clearest of {len(shared)} are shown." if len(shared) > MOST_ROWS else ""
    beyond = sum(row.low > 0 or row.high < 0 for row in shared)
    known = sum(not math.isnan(row.low) for row in shared)
    summary = f"{len(shared)} modes in both" + (
        f", {beyond} of {known} differ beyond their interval" if known else ""
    )
    lists = "".join(
        _only(name, factors)
        for name, factors in zip(names, (table.only_first, table.only_second), strict=True)
    )
    body = "".join(_row(row) for row in shared[:MOST_ROWS])
    heads = ("edge", "mode", escape(names[0]), escape(names[1]), "difference", "95 % interval")
    head = "".join(f'<th scope="col" data-sort>{h}</th>' for h in heads) + '<th scope="col">drawn</th>'
    drawn = f'<table class="heat compare"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    caption = (
        "Correlations of the same mode in both, the clearest differences first. Bold: the interval of the difference "
        f"excludes zero.{note}"
    )
    return f'<p class="about">{summary}.</p>{drawings}{lists}' + (
        panel("table of differences", drawn, legend(), caption) if shared else ""
    )


def two_drawings(first: str, second: str, names: tuple[str, str]) -> str:
    """Two SVG drawings beside each other."""
    figures = ""
    for name, drawn in zip(map(escape, names), (first, second), strict=True):
        scroll = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="drawing of {name}">{drawn}</div>'
        )
        figures += f'<figure class="panel"><figcaption><b>{name}</b></figcaption>{scroll}</figure>'
    return f'<div class="pair">{figures}</div>'


def _surprise(row: Difference) -> float:
    if math.isnan(row.low):
        return abs(row.difference) * 1e-3
    return abs(row.difference) / max(row.high - row.low, 1e-12)


def _only(name: str, factors: list[Name]) -> str:
    if not factors:
        return ""
    shown = ", ".join(escape(edge_name(f)) for f in factors[:60]) + ("…" if len(factors) > 60 else "")
    return f"<p><b>Only in {escape(name)}</b>, {len(factors)}: {shown}</p>"


def _row(row: Difference) -> str:
    def cell(value: float) -> str:
        shown = f"{value:.2f}".replace("-", "−")
        return f'<td style="background:{shade(value)}" data-value="{value:.6g}">{shown}</td>'

    known = not math.isnan(row.low)
    sure = ' class="sure"' if known and (row.low > 0 or row.high < 0) else ""
    interval = f"{row.low:+.2f} to {row.high:+.2f}".replace("-", "−") if known else ""
    clipped = max(-1.0, min(1.0, row.difference))
    moved = f"{row.difference:+.3f}".replace("-", "−")
    return (
        f'<tr><th scope="row">{escape(edge_name(row.factor))}</th><td class="text">{escape(row.mode)}</td>'
        f"{cell(row.rho)}{cell(row.other)}"
        f'<td{sure} style="background:{shade(clipped)}" data-value="{row.difference:.6g}">{moved}</td>'
        f'<td class="text">{interval}</td><td class="plot">{_drawn(row) if known else ""}</td></tr>'
    )


def _drawn(row: Difference) -> str:
    def x(value: float) -> float:
        return 60 + 60 * max(-1.0, min(1.0, value))

    return (
        '<svg viewBox="0 0 120 14" aria-hidden="true"><path class="zero" d="M60 0V14"/>'
        f'<path class="range" d="M{x(row.low):.1f} 7H{x(row.high):.1f}"/>'
        f'<circle class="dot" cx="{x(row.difference):.1f}" cy="7" r="3"/></svg>'
    )
