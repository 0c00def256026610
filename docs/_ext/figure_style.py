"""One look for every figure of the documentation and the gallery."""

from __future__ import annotations

from typing import Any

# Blue and orange are the ends of `pgm_sync.inspection.plots.correlation_colours`.
BLUE, ORANGE, GREEN, GREY = "#2166ac", "#c8501a", "#3b7d4f", "#77777a"

STYLE = {
    "axes.prop_cycle": f"cycler('color', ['{BLUE}', '{ORANGE}', '{GREEN}', '{GREY}'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 9,
    "image.cmap": "gray",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.bbox": "tight",
    "savefig.dpi": 110,
}


def apply(gallery_conf: dict[str, Any], name: str) -> None:
    """For sphinx-gallery's ``reset_modules``: called before every example."""
    import matplotlib as mpl

    mpl.rcParams.update(STYLE)
