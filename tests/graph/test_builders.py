"""Generators of graphs: how many nodes, and what joins what."""

from __future__ import annotations

import re

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import ParameterError, ShapeError
from pgm_sync.potentials import Equality

SHAPE = (1, 4, 4)


@pytest.mark.parametrize(
    ("build", "network"),
    [
        (lambda: ps.chain_graph(5, SHAPE), nx.path_graph(5)),
        (lambda: ps.chain_graph(1, SHAPE), nx.path_graph(1)),
        (lambda: ps.ring_graph(5, SHAPE), nx.cycle_graph(5)),
        (lambda: ps.grid_graph(2, 3, SHAPE), nx.grid_2d_graph(2, 3)),
        (lambda: ps.star_graph(4, SHAPE), nx.star_graph(4)),
        (lambda: ps.complete_graph(4, SHAPE), nx.complete_graph(4)),
        (lambda: ps.from_trajectory_graph(nx.petersen_graph(), SHAPE), nx.petersen_graph()),
    ],
)
def test_trajectories_and_factors_are_nodes_and_edges(build, network):
    graph = build()
    graph.validate()
    assert graph.trajectories == list(network.nodes)
    assert graph.factors == list(network.edges)
    assert [graph.scope(f) for f in graph.factors] == [list(f) for f in graph.factors]
    assert all(graph.shape(t) == SHAPE for t in graph.trajectories)
    assert not any(graph.potential(f).fitted for f in graph.factors)
    assert nx.utils.graphs_equal(nx.Graph(graph.markov_network().edges), nx.Graph(network.edges))


def test_potentials_by_rule_and_features():
    graph = ps.chain_graph(
        3, (3, 4, 4), lambda u, v: ps.Correlation(0.1 * (u + v)), lambda shape: ps.DCT(shape, 2)
    )
    assert [graph.potential(f).rho for f in graph.factors] == pytest.approx([0.1, 0.3])
    assert graph.seen_shapes((0, 1)) == [(3, 2), (3, 2)]


def test_a_node_may_have_a_shape_of_its_own_and_self_loops_are_left_out():
    network = nx.Graph([("a", "b"), ("b", "b")])
    network.nodes["a"]["shape"] = (2,)
    graph = ps.from_trajectory_graph(network, (3,))
    assert (graph.shape("a"), graph.shape("b")) == ((2,), (3,))
    assert graph.factors == [("a", "b")]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ps.chain_graph(0, 1), "a count of 0 must be an integer of at least 1"),
        (lambda: ps.ring_graph(2, 1), "a count of 2 must be an integer of at least 3"),
        (lambda: ps.complete_graph(2.5, 1), "a count of 2.5 must be an integer of at least 1"),
        (lambda: ps.chain_graph(2, 1, 0.5), "factor (0, 1): 0.5 is not a potential"),
        (lambda: ps.chain_graph(2, 1, lambda u, v: None), "factor (0, 1): None is not a potential"),
    ],
)
def test_bad_counts_and_potentials(build, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        build()


def seen_pixels(graph):
    """How many windows see each pixel of the canvas."""
    count = torch.zeros(graph.shape("canvas"))
    for name in graph.trajectories:
        _, view = graph.maps(f"see {name}")
        count += view.adjoint(torch.ones(view.out_shape))
    return count


class TestWideCanvas:
    def test_a_row_of_windows(self):
        graph = ps.wide_canvas((3, 12, 48), window=(12, 12), stride=9)
        graph.validate()
        assert graph.trajectories == ["w0", "w1", "w2", "w3", "w4"]
        assert graph.hidden == ["canvas"]
        assert graph.factors == [f"see w{k}" for k in range(5)]
        assert all(graph.shape(t) == (3, 12, 12) for t in graph.trajectories)
        assert [graph.maps(f)[1].start for f in graph.factors] == [(0, 9 * k) for k in range(5)]

    def test_the_last_window_ends_at_the_border(self):
        graph = ps.wide_canvas((1, 4, 10), window=(4, 4), stride=4)
        assert [graph.maps(f)[1].start[1] for f in graph.factors] == [0, 4, 6]
        assert seen_pixels(graph)[0, 0].tolist() == [1] * 6 + [2, 2] + [1, 1]

    def test_a_grid_of_windows(self):
        graph = ps.wide_canvas((1, 6, 8), window=(4, 4), stride=(2, 4), features=lambda s: ps.DCT(s, 2))
        assert graph.trajectories == ["w0,0", "w0,1", "w1,0", "w1,1"]
        couplings = [f for f in graph.factors if isinstance(f, tuple)]
        assert {frozenset(f) for f in couplings} == {
            frozenset(["w0,0", "w0,1"]), frozenset(["w1,0", "w1,1"]),
            frozenset(["w0,0", "w1,0"]), frozenset(["w0,1", "w1,1"]),
        }  # fmt: skip
        assert graph.seen_shapes(couplings[0]) == [(1, 2), (1, 2)]

    def test_all_pairs(self):
        graph = ps.wide_canvas((1, 4, 16), (4, 4), 4, ps.Correlation(0.1), neighbours="all")
        assert [f for f in graph.factors if isinstance(f, tuple)] == [
            ("w0", "w1"), ("w0", "w2"), ("w0", "w3"), ("w1", "w2"), ("w1", "w3"), ("w2", "w3"),
        ]  # fmt: skip

    def test_a_closed_canvas(self):
        graph = ps.wide_canvas((1, 4, 12), (4, 4), 3, ps.Correlation(0.1), wrap=True)
        assert len(graph.trajectories) == 4
        assert {frozenset(f) for f in graph.factors if isinstance(f, tuple)} == {
            frozenset(p) for p in [("w0", "w1"), ("w1", "w2"), ("w2", "w3"), ("w3", "w0")]
        }
        assert seen_pixels(graph)[0, 0].tolist() == [2, 1, 1] * 4
        x = torch.arange(48.0).reshape(1, 4, 12)
        last = graph.maps("see w3")[1].apply(x)
        assert torch.equal(last, torch.cat([x[..., 9:], x[..., :1]], -1))

    @given(st.integers(1, 6), st.data())
    def test_every_pixel_is_seen(self, window, data):
        height, width = (data.draw(st.integers(window, 20)) for _ in range(2))
        stride = data.draw(st.integers(1, window))
        graph = ps.wide_canvas((1, height, width), (window, window), stride)
        assert (seen_pixels(graph) > 0).all()
        assert all(isinstance(graph.potential(f), Equality) for f in graph.factors)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (
                {"canvas": (3, 8, 8), "window": (9, 4), "stride": 4},
                ShapeError,
                "windows of (9, 4) do not fit a canvas of shape (3, 8, 8)",
            ),
            (
                {"canvas": (8,), "window": (4, 4), "stride": 4},
                ShapeError,
                "do not fit a canvas of shape (8,)",
            ),
            (
                {"canvas": (1, 8, 8), "window": (4, 4), "stride": 5},
                ParameterError,
                "stride 5 must be between 1 and the window size (4, 4), or pixels are missed",
            ),
            (
                {"canvas": (1, 8, 8), "window": (4, 4), "stride": 0},
                ParameterError,
                "stride 0 must be between",
            ),
            (
                {"canvas": (1, 8, 8), "window": (4, 4), "stride": (4, 4, 4)},
                ParameterError,
                "stride (4, 4, 4) must be between",
            ),
            (
                {"canvas": (1, 8, 10), "window": (4, 4), "stride": 4, "wrap": True},
                ParameterError,
                "on a 360 degree canvas the stride 4 must divide the width 10",
            ),
            (
                {"canvas": (1, 8, 8), "window": (4, 4), "stride": 4, "neighbours": "some"},
                ParameterError,
                "neighbours='some' is neither 'adjacent' nor 'all'",
            ),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        with pytest.raises(error, match=re.escape(message)):
            ps.wide_canvas(**arguments)
