"""Where nodes go in a drawing."""

from __future__ import annotations

import math

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgm_sync.errors import EmptyGraphError, PgmSyncError
from pgm_sync.graph import (
    FactorGraph,
    chain_graph,
    complete_graph,
    from_trajectory_graph,
    grid_graph,
    ring_graph,
    star_graph,
    wide_canvas,
)
from pgm_sync.inspection.layout import layout, windows
from pgm_sync.maps import DCT
from pgm_sync.potentials import Correlation, Evidence


def test_windows_stand_where_they_look(canvas):
    placed = layout(canvas).positions
    xs = [placed[f"w{k}"][0] for k in range(4)]
    assert [b - a for a, b in zip(xs, xs[1:], strict=False)] == pytest.approx([1, 1, 1])
    assert len({placed[w][1] for w in canvas.trajectories}) == 1


def test_a_window_moved_back_to_the_border_stands_closer():
    graph = wide_canvas((1, 8, 31), (8, 8), 6)  # starts 0, 6, 12, 18, 23
    placed = layout(graph).positions
    assert placed["w4"][0] - placed["w3"][0] == pytest.approx(5 / 6)
    graph = wide_canvas((1, 8, 27), (8, 8), 6)  # starts 0, 6, 12, 18, 19: their circles would overlap
    placed = layout(graph).positions
    assert placed["w4"][0] - placed["w3"][0] == pytest.approx(0.8)


def test_longer_arcs_are_higher(canvas):
    placed = layout(canvas).positions
    heights = [placed["w0", f"w{k}"][1] for k in (1, 2, 3)]
    assert heights[0] == placed["w0"][1]  # neighbours are joined straight
    assert heights[0] > heights[1] > heights[2]  # y points down


def test_the_canvas_spans_its_windows(canvas):
    places = layout(canvas)
    x, y = places.positions["canvas"]
    w, h = places.boxes["canvas"]
    for window in canvas.trajectories:
        assert x - w / 2 < places.positions[window][0] < x + w / 2
        assert y - h / 2 > places.positions[window][1]


def test_windows_of_a_grid_lie_inside_their_canvas():
    graph = wide_canvas((1, 8, 12), (4, 4), 4, features=lambda shape: DCT(shape, 1), neighbours="all")
    places = layout(graph)
    (x, y), (w, h) = places.positions["canvas"], places.boxes["canvas"]
    for px, py in (places.positions[v] for v in graph.trajectories):
        assert abs(px - x) < w / 2
        assert abs(py - y) < h / 2


def test_a_curve_passes_through_its_factor(canvas):
    places = layout(canvas)
    (ax, ay), (cx, cy), (bx, by) = places.curve(("w0", "w3"), "w0", "w3")
    middle = ((ax + 2 * cx + bx) / 4, (ay + 2 * cy + by) / 4)  # a quadratic Bezier curve at one half
    assert middle == pytest.approx(places.positions["w0", "w3"])


def test_known_shapes_are_recognised():
    chain = layout(chain_graph(5, 1, Correlation(0.5))).positions
    assert [chain[k] for k in range(5)] == [(k, 0.0) for k in range(5)]
    for graph in (ring_graph(6, 1, Correlation(0.5)), complete_graph(6, 1, Correlation(0.1))):
        radii = [math.hypot(*layout(graph).positions[v]) for v in graph.trajectories]
        assert radii == pytest.approx([radii[0]] * 6)
    star = layout(star_graph(5, 1, Correlation(0.5))).positions
    assert star[0] == (0.0, 0.0)
    grid = layout(grid_graph(2, 3, 1, Correlation(0.1))).positions
    assert grid[1, 2] == (2.0, 1.0)


def test_positions_given_take_precedence():
    graph = chain_graph(2, 1, Correlation(0.5))
    placed = layout(graph, {0: (5.0, 5.0), 1: (7.0, 5.0)}).positions
    assert placed[0] == (5.0, 5.0)
    assert placed[0, 1] == (6.0, 5.0)  # the factor follows


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_no_two_nodes_of_any_graph_share_a_place(n, seed):
    graph = from_trajectory_graph(nx.gnp_random_graph(n, 0.3, seed=seed), 1, Correlation(0.1))
    for k in range(2):  # several factors on one end
        graph.add_factor(f"evidence {k}", [0], Evidence(0.0, 1.0))
    places = list(layout(graph).positions.values())
    assert all(math.isfinite(c) for p in places for c in p)
    assert len({(round(x, 6), round(y, 6)) for x, y in places}) == len(places)


def test_twin_factors_are_bent_apart():
    graph = FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, 1)
    for name in ("one", "two", "three"):
        graph.add_factor(name, ["a", "b"], Correlation(0.3))
    placed = layout(graph).positions
    assert len({placed[f] for f in graph.factors}) == 3


def test_windows_are_found_only_on_a_canvas(canvas):
    name, crops = windows(canvas)
    assert name == "canvas"
    assert [tuple(c.start) for c in crops.values()] == [(0, 0), (0, 3), (0, 6), (0, 9)]
    assert windows(chain_graph(3, 1, Correlation(0.5))) is None
    lone = wide_canvas((1, 4, 13), (4, 4), 3)
    lone.add_trajectory("elsewhere", 1)
    assert windows(lone) is None


def test_bad_graphs_are_refused():
    with pytest.raises(EmptyGraphError):
        layout(FactorGraph())
    with pytest.raises(PgmSyncError, match=r"has 399 nodes; drawings are legible up to 250.*subgraph"):
        layout(chain_graph(200, 1, Correlation(0.5)))
