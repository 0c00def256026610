"""Pieces that several sections use."""

from __future__ import annotations

from html import escape

from ..svg import shade


def section(title: str, body: str, lead: str = "", hidden: bool = False) -> str:
    """A section under its heading; one that only a script can fill is `hidden` until it runs."""
    key = title.lower().replace(" ", "-")
    about = f'<p class="about">{lead}</p>' if lead else ""
    return (
        f'<section aria-labelledby="{key}"{" data-script hidden" if hidden else ""}>\n'
        f'<h2 id="{key}">{title}</h2>\n{about}{body}\n</section>'
    )


def panel(label: str, body: str, legend: str, caption: str) -> str:
    """A figure that scrolls sideways where it must."""
    return (
        f'<figure class="panel"><div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"{body}</div>{legend}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def legend(what: str = "correlation") -> str:
    """The colours from -1 to 1."""
    stops = ",".join(shade(k / 4) for k in range(-4, 5))
    return (
        '<div class="legend" aria-hidden="true"><span>−1</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>+1 {what}</span></div>'
    )


def slider(key: str, label: str, low: float, high: float, step: float, value: float) -> str:
    """A range input with its value written beside it; the script fills the value in."""
    return (
        f'<label class="slider" for="{key}"><span>{label}</span>'
        f'<input type="range" id="{key}" min="{low:g}" max="{high:g}" step="{step:g}" value="{value:g}">'
        f'<output for="{key}" id="{key}-value"></output></label>'
    )


def choice(key: str, label: str, options: list[str]) -> str:
    """A drop-down list by position."""
    entries = "".join(f'<option value="{k}">{escape(o)}</option>' for k, o in enumerate(options))
    return (
        f'<label class="choice" for="{key}"><span>{label}</span><select id="{key}">{entries}</select></label>'
    )
