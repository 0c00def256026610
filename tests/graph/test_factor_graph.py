"""The factor graph: what it accepts and refuses, and that it is a networkx graph."""

from __future__ import annotations

import re

import networkx as nx
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    CovarianceError,
    DuplicateNameError,
    EmptyGraphError,
    GraphStructureError,
    ParameterError,
    PgmSyncError,
    ShapeError,
    UnknownNameError,
)
from pgm_sync.graph.marginals import node_marginal


@pytest.fixture
def graph():
    """Two views of four pixels each, joined at a column, and a style behind both."""
    graph = ps.FactorGraph()
    graph.add_trajectory("left", shape=(2, 2))
    graph.add_trajectory("right", (2, 2))
    graph.add_variable(("style", 0), shape=3)
    columns = [ps.Crop((2, 2), (0, 1), (2, 1)), ps.Crop((2, 2), (0, 0), (2, 1))]
    graph.add_factor("seam", ["left", "right"], ps.Correlation(0.8), maps=columns)
    graph.add_factor("taste", [("style", 0), "left"], ps.JointGaussian())
    graph.add_factor("prior", ("style", 0), ps.Evidence(0.0))
    return graph


class TestReading:
    def test_names_keep_their_order(self, graph):
        assert graph.trajectories == ["left", "right"]
        assert graph.hidden == [("style", 0)]
        assert graph.variables == ["left", "right", ("style", 0)]
        assert graph.factors == ["seam", "taste", "prior"]

    def test_shapes(self, graph):
        assert graph.shape("left") == (2, 2)
        assert graph.shape(("style", 0)) == (3,)
        assert graph.seen_shapes("seam") == [(2, 1), (2, 1)]
        assert graph.seen_shapes("taste") == [(3,), (2, 2)]

    def test_scope_keeps_the_order_given(self, graph):
        assert graph.scope("taste") == [("style", 0), "left"]
        assert graph.scope("prior") == [("style", 0)]

    def test_no_map_means_the_identity(self, graph):
        assert repr(graph.maps("taste")) == "[Identity(in_shape=(3,)), Identity(in_shape=(2, 2))]"

    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (
                lambda g: g.shape("middle"),
                "the graph has no trajectory or variable 'middle'; it has 'left', 'right', ('style', 0)",
            ),
            (lambda g: g.shape("seam"), "no trajectory or variable 'seam'"),
            (
                lambda g: g.potential("left"),
                "the graph has no factor 'left'; it has 'seam', 'taste', 'prior'",
            ),
            (lambda g: g.maps("left"), "no factor 'left'"),
            (lambda g: g.scope("left"), "no factor 'left'"),
            (lambda g: g.with_potentials({"sem": ps.Correlation(0.1)}), "no factor 'sem'"),
            (lambda g: node_marginal(g, "middle"), "no trajectory or variable 'middle'"),
        ],
    )
    def test_unknown_names(self, graph, ask, message):
        with pytest.raises(UnknownNameError, match=re.escape(message)):
            ask(graph)

    def test_a_long_list_of_names_is_cut(self):
        graph = ps.chain_graph(12, 1)
        with pytest.raises(UnknownNameError, match=r"it has 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"):
            graph.shape("x")

    def test_with_potentials_leaves_the_graph_alone(self, graph):
        fitted = ps.JointGaussian(torch.zeros(7), torch.eye(7))
        other = graph.with_potentials({"taste": fitted})
        assert other.potential("taste") is fitted
        assert not graph.potential("taste").fitted
        with pytest.raises(ShapeError, match="factor 'taste': JointGaussian is over 6 elements"):
            graph.with_potentials({"taste": ps.JointGaussian(torch.zeros(6), torch.eye(6))})


class TestBuilding:
    @pytest.mark.parametrize(
        ("add", "error", "message"),
        [
            (
                lambda g: g.add_trajectory("left", 2),
                DuplicateNameError,
                "the graph already has a trajectory 'left'",
            ),
            (
                lambda g: g.add_variable("seam", 2),
                DuplicateNameError,
                "the graph already has a factor 'seam'",
            ),
            (lambda g: g.add_trajectory(None, 2), GraphStructureError, "None cannot name a node"),
            (
                lambda g: g.add_trajectory("new", (2, -1)),
                ShapeError,
                "shape of trajectory 'new': (2, -1) is not a tuple of positive integers",
            ),
            (
                lambda g: g.add_factor("f", ["left", "middle"], ps.Correlation(0.5)),
                UnknownNameError,
                "factor 'f' names 'middle', which is not a trajectory or variable of this graph; it has",
            ),
            (
                lambda g: g.add_factor("f", ["left", "seam"], ps.Correlation(0.5)),
                UnknownNameError,
                "factor 'f' names 'seam', which is not a trajectory or variable",
            ),
            (
                lambda g: g.add_factor("f", [], ps.Correlation(0.5)),
                GraphStructureError,
                "factor 'f' has an empty scope",
            ),
            (
                lambda g: g.add_factor("f", ["left", "left"], ps.Correlation(0.5)),
                GraphStructureError,
                "factor 'f' names an end twice: ['left', 'left']",
            ),
            (
                lambda g: g.add_factor("f", ["left", "right"], 0.5),
                ParameterError,
                "factor 'f': 0.5 is not a potential (Correlation(0.8), JointGaussian(), ...)",
            ),
            (
                lambda g: g.add_factor("f", ["left", "right"], ps.Correlation(0.5), maps=[None]),
                ShapeError,
                "factor 'f' has 2 ends and 1 maps",
            ),
            (
                lambda g: g.add_factor("f", ["left", "right"], ps.Correlation(0.5), maps=[None, "crop"]),
                ParameterError,
                "factor 'f': 'crop' on 'right' is not a map (Crop(...), DCT(...), ..., or None)",
            ),
            (
                lambda g: g.add_factor("f", ["left", "right"], ps.Correlation(0.5), [None, ps.Flip((3, 2))]),
                ShapeError,
                "factor 'f': the map on 'right' takes shape (3, 2), but 'right' has shape (2, 2)",
            ),
            (
                lambda g: g.add_factor("f", ["left", ("style", 0)], ps.Correlation(0.5)),
                ShapeError,
                "factor 'f': Correlation joins matching elements, but its ends see shapes (2, 2), (3,)",
            ),
            (
                lambda g: g.add_factor("f", ["left", "right"], ps.Equality(torch.ones(3))),
                ShapeError,
                "factor 'f': Equality.weight has shape (3,), its ends see (2, 2)",
            ),
        ],
    )
    def test_bad_input_is_named_and_leaves_the_graph_as_it_was(self, graph, add, error, message):
        before = list(graph.nodes), list(graph.edges)
        with pytest.raises(error, match=re.escape(message)) as caught:
            add(graph)
        assert isinstance(caught.value, PgmSyncError)
        assert (list(graph.nodes), list(graph.edges)) == before

    def test_errors_carry_their_data(self, graph):
        with pytest.raises(ShapeError) as caught:
            graph.add_factor("f", ["left", "right"], ps.Correlation(0.5), [None, ps.Flip((3, 2))])
        error = caught.value
        assert (error.factor, error.name, error.expected, error.got) == ("f", "right", (3, 2), (2, 2))


class TestValidate:
    def test_it_accepts_what_was_built(self, graph):
        graph.validate()

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda g: g.clear(), EmptyGraphError, "the graph has no trajectory or variable; call add_traj"),
            (
                lambda g: g.add_node("stray"),
                GraphStructureError,
                "node 'stray' was not added by add_trajectory, add_variable or add_factor",
            ),
            (
                lambda g: g.add_edge("left", "right"),
                GraphStructureError,
                "edge 'left' - 'right' does not join a factor with a variable",
            ),
            (
                lambda g: g.add_edge("seam", "taste"),
                GraphStructureError,
                "edge 'seam' - 'taste' does not join a factor with a variable",
            ),
            (
                lambda g: g.remove_node("right"),
                GraphStructureError,
                "the edges of factor 'seam' have changed since it was added",
            ),
            (
                lambda g: g.add_edge("prior", "right"),
                GraphStructureError,
                "the edges of factor 'prior' have changed since it was added",
            ),
        ],
    )
    def test_it_finds_what_networkx_calls_broke(self, graph, change, error, message):
        change(graph)
        with pytest.raises(error, match=re.escape(message)):
            graph.validate()

    def test_a_factor_on_a_stray_node_is_refused(self, graph):
        graph.add_node("stray")
        with pytest.raises(UnknownNameError, match="factor 'f' names 'stray'"):
            graph.add_factor("f", ["left", "stray"], ps.Correlation(0.5))


class TestNetworkx:
    def test_algorithms_work(self, graph):
        assert nx.is_bipartite(graph)
        assert nx.is_forest(graph)
        assert nx.is_connected(graph)
        assert nx.shortest_path(graph, "right", ("style", 0)) == [
            "right",
            "seam",
            "left",
            "taste",
            ("style", 0),
        ]
        assert nx.diameter(graph) == 5
        top = {n for n, b in graph.nodes(data="bipartite") if b == 0}
        assert top == set(graph.variables)
        assert nx.bipartite.is_bipartite_node_set(graph, top)

    def test_copy_is_a_factor_graph_of_its_own(self, graph):
        copy = graph.copy()
        assert type(copy) is ps.FactorGraph
        assert copy.scope("taste") == graph.scope("taste")
        copy.remove_node("seam")
        copy.add_trajectory("new", 2)
        assert "seam" in graph
        assert "new" not in graph
        graph.validate()

    def test_subgraph_keeps_the_factors_it_is_given(self, graph):
        part = graph.subgraph(["left", "right", "seam"])
        assert type(part) is ps.FactorGraph
        part.validate()
        assert part.scope("seam") == ["left", "right"]
        with pytest.raises(GraphStructureError, match="factor 'seam'"):
            graph.subgraph(["left", "seam"]).validate()

    def test_components(self):
        graph = ps.chain_graph(4, 1, ps.Correlation(0.5))
        graph.remove_node((1, 2))
        parts = [graph.subgraph(c).copy() for c in nx.connected_components(graph)]
        assert [p.trajectories for p in parts] == [[0, 1], [2, 3]]
        assert [p.factors for p in parts] == [[(0, 1)], [(2, 3)]]

    def test_layouts_place_every_node(self, graph):
        for layout in (nx.spring_layout, nx.bipartite_layout, nx.circular_layout):
            arguments = {"nodes": graph.variables} if layout is nx.bipartite_layout else {}
            assert set(layout(graph, **arguments)) == set(graph)

    def test_drawing_works(self, graph):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        nx.draw_networkx(graph, pos=nx.circular_layout(graph), ax=axes)
        assert {text.get_text() for text in axes.texts} == set(map(str, graph.nodes))
        plt.close(figure)

    def test_the_markov_network_joins_what_shares_a_factor(self, graph):
        graph.add_factor("again", ["left", "right"], ps.Attraction(1.0))
        network = graph.markov_network()
        assert type(network) is nx.Graph
        assert list(network.nodes) == graph.variables
        assert {frozenset(e): d["factors"] for *e, d in network.edges(data=True)} == {
            frozenset(["left", "right"]): ["seam", "again"],
            frozenset(["left", ("style", 0)]): ["taste"],
        }
        assert network.nodes["left"]["shape"] == (2, 2)

    def test_a_factor_of_three_is_a_clique(self):
        graph = ps.FactorGraph()
        for k in range(3):
            graph.add_trajectory(k, 1)
        graph.add_factor("all", [0, 1, 2], ps.JointGaussian())
        assert nx.density(graph.markov_network()) == 1


class TestShowing:
    def test_repr_counts(self, graph):
        assert repr(graph) == "FactorGraph(2 trajectories, 1 hidden variable, 3 factors)"
        assert repr(ps.FactorGraph()) == "FactorGraph(empty)"

    def test_str_has_a_line_for_every_node(self, graph):
        lines = str(graph).splitlines()
        assert lines[0] == repr(graph)
        assert [line.split()[0] for line in lines[1:]] == [
            "trajectory", "trajectory", "variable", "factor", "factor", "factor",
        ]  # fmt: skip
        assert lines[1].endswith("2x2")
        assert "Crop('left'), Crop('right'): Correlation(rho=0.8" in lines[4]
        assert lines[5].endswith("('style', 0), 'left': JointGaussian, not fitted")

    def test_str_of_a_large_graph_is_cut(self):
        lines = str(ps.chain_graph(50, 1)).splitlines()
        assert len(lines) == 42
        assert lines[-1].split() == ["...", "59", "more"]

    def test_str_of_an_empty_graph(self):
        assert str(ps.FactorGraph()) == "FactorGraph(empty)"

    def test_html_escapes_names(self):
        graph = ps.FactorGraph()
        graph.add_trajectory("<script>alert('&')</script>", 1)
        page = graph._repr_html_()
        assert "<script>" not in page
        assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
        assert page.count("<tr>") == 2


class TestNodeMarginal:
    def pair(self, left, right):
        graph = ps.FactorGraph()
        for name in "abc":
            graph.add_trajectory(name, 2)
        graph.add_factor("ab", ["a", "b"], left)
        graph.add_factor("bc", ["b", "c"], right)
        return graph

    def test_what_the_factors_state(self):
        graph = self.pair(ps.Correlation(0.5, variance=2.0, mean=1.0), ps.Correlation(0.1, 2.0, 1.0))
        stated = node_marginal(graph, "b")
        assert stated.factor == "ab"
        assert stated.marginal.mean.tolist() == [1.0, 1.0]
        assert stated.marginal.covariance.tolist() == [2.0, 2.0]

    def test_attractions_state_nothing(self):
        assert node_marginal(self.pair(ps.Attraction(1.0), ps.Attraction(1.0)), "b") is None

    @pytest.mark.parametrize(
        "right",
        [ps.Correlation(0.1, variance=2.5), ps.JointGaussian(covariance=2.5 * torch.eye(4))],
    )
    def test_disagreement_is_named(self, right):
        graph = self.pair(ps.Correlation(0.5), right)
        with pytest.raises(
            CovarianceError,
            match=r"factors 'ab' and 'bc' disagree about the covariance of 'b' \(by up to 1.5\)",
        ):
            node_marginal(graph, "b")

    def test_different_views_may_have_different_marginals(self):
        graph = ps.FactorGraph()
        for name in "abc":
            graph.add_trajectory(name, 4)
        half = [ps.Crop((4,), (0,), (2,)), ps.Crop((4,), (2,), (2,))]
        graph.add_factor("ab", ["a", "b"], ps.Correlation(0.5, mean=0.0), maps=[half[1], half[0]])
        graph.add_factor("bc", ["b", "c"], ps.Correlation(0.5, mean=3.0), maps=[half[1], half[0]])
        assert node_marginal(graph, "b").factor == "ab"
