"""Where the time went, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

PARTS = ("denoiser", "engine", "scheduler", "fit", "other")  # of the time, in this order where present


def seconds(timing: Mapping[str, Mapping[str, float]]) -> str:
    """A bar per row, in parts."""
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


def parameters(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Groups of names and values."""
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
