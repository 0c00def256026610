"""Factor graphs on networkx."""

from .builders import (
    chain_graph,
    complete_graph,
    from_trajectory_graph,
    grid_graph,
    ring_graph,
    star_graph,
    wide_canvas,
)
from .factor_graph import FactorGraph

__all__ = [
    "FactorGraph",
    "chain_graph",
    "complete_graph",
    "from_trajectory_graph",
    "grid_graph",
    "ring_graph",
    "star_graph",
    "wide_canvas",
]
