"""The factor graph, with a panel for the details of what is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ...graph import FactorGraph
from ..layout import MOST_NODES
from ..svg import graph_svg
from .parts import legend, slider

DETAILS = '<aside id="details" class="panel details" aria-live="polite" data-script hidden></aside>'


def drawing(graph: FactorGraph, table: Sequence[Any] | None, levels: int = 0) -> str:
    """The drawing; a slider for the noise level where there are that many `levels`."""
    if len(graph) > MOST_NODES:
        return (
            f"<p>{escape(repr(graph))}: too many nodes for a legible drawing. The table below has its "
            f"strongest edges.</p>{DETAILS}"
        )
    caption = (
        f"{graph!r}. Circles are trajectories, dashed shapes hidden variables, squares factors; "
        "point at one for its shape or parameters, choose it for its details."
    )
    colours = ""
    if table:
        caption += (
            " Colour and sign: correlation of the mode that carries most information. "
            "Width: grows with the mutual information of all modes."
        )
        colours = legend()
    control = ""
    if levels:
        caption += (
            " The slider shows what is left of both given noisy states: at the left the states are noise and the "
            "potentials speak alone, at the right the states say nearly everything themselves."
        )
        given = slider("level", "noise level", 0, levels - 1, 1, 0)
        control = f'<div class="controls" data-script hidden>{given}</div>'
    return (
        '<div class="beside"><figure class="panel">'
        '<div class="scroll" tabindex="0" role="region" aria-label="drawing of the graph">'
        f"{graph_svg(graph, table, interactive=True)}</div>{colours}{control}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        f"{DETAILS}</div>"
    )


def curves() -> str:
    """Places for the curves by noise level and their controls."""
    kinds = {
        "movement": "movement if cut",
        "rho": "posterior correlation",
        "information": "mutual information",
    }
    buttons = "".join(
        f'<label><input type="radio" name="curve" value="{key}"{" checked" if key == "movement" else ""}>'
        f"<span>{label}</span></label>"
        for key, label in kinds.items()
    )
    return (
        f'<figure class="panel"><fieldset class="switch"><legend>quantity</legend>{buttons}</fieldset>'
        '<div id="curves" class="chart"></div><ul id="curves-key" class="key"></ul>'
        "<figcaption>The noisiest states are at the left, as sampling runs. <b>Movement if cut</b>: how far the joint "
        "denoised means of all trajectories move, on average over noisy states, if the factor were not there, in units "
        "of the spread of its ends. <b>Posterior correlation</b> and <b>mutual information</b>: what is left between "
        "the ends given all noisy states (Eq. 5 with surrogate covariances).</figcaption></figure>"
    )
