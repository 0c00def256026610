"""Measures of every method, with intervals drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from ...metrics import Estimate


class Metric(NamedTuple):
    """One measure of every method, for `report`.

    >>> from pgm_sync.inspection.report import report
    >>> distance = Metric("energy distance", "0 is best", {"learned": Estimate(0.21, 0.18, 0.24, 400)})
    >>> "0.180 to 0.240" in report("Two methods", metrics=[distance])
    True
    """

    name: str  # of the measure
    meaning: str  # one sentence, with what is better
    estimates: Mapping[str, Estimate]  # by method
    reference: str | None = None  # the method that shows what to aim for


def numbers(metrics: Sequence[Metric]) -> str:
    """A table per measure."""
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
    """Three decimals, with a true minus sign."""
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
