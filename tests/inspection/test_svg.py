"""The inline drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from pgm_sync.graph import FactorGraph
from pgm_sync.inspection.svg import graph_svg, shade
from pgm_sync.potentials import Attraction, Correlation, Evidence, JointGaussian

SVG = "{http://www.w3.org/2000/svg}"


def parsed(graph, table=None):
    return ET.fromstring(graph_svg(graph, table))


def titles(root):
    return [t.text for t in root.iter(SVG + "title")]


def test_every_node_is_drawn_and_says_what_it_is(canvas, table):
    root = parsed(canvas, table)
    squares = [r for r in root.iter(SVG + "rect") if r.get("class") == "factor"]
    assert len(squares) == len(canvas.factors)
    assert len(list(root.iter(SVG + "circle"))) == len(canvas.trajectories)
    assert "w2: trajectory of shape 1×4×4" in titles(root)
    assert "canvas: hidden variable of shape 1×4×13" in titles(root)
    (edge, _) = (t for t in titles(root) if t.startswith("w0 – w1"))  # its line and its square
    assert "strongest mode dct0,0: correlation 0.80 [0.70, 0.90]" in edge
    assert "mutual information of 2 modes: 0.51 nats" in edge


def test_everything_lies_inside_the_view(canvas, table):
    root = parsed(canvas, table)
    x, y, w, h = map(float, root.get("viewBox").split())
    for circle in root.iter(SVG + "circle"):
        assert x <= float(circle.get("cx")) - 21 <= float(circle.get("cx")) + 21 <= x + w
    for rect in root.iter(SVG + "rect"):
        assert y <= float(rect.get("y")) <= float(rect.get("y")) + float(rect.get("height")) <= y + h


def test_stronger_edges_are_wider_and_signs_differ(canvas, table):
    strong, *rest = table
    table = [strong, *(r._replace(rho=-0.1, mutual_information=0.005) for r in rest)]
    styles = {}
    for path in parsed(canvas, table).iter(SVG + "path"):
        if path.get("class") == "sign":
            continue
        styles[path.find(SVG + "title").text.split(":")[0]] = path.get("style")
    assert "--positive" in styles["w0 – w1"]
    assert "--negative" in styles["w1 – w2"]
    width = {k: float(s.split("stroke-width:")[1]) for k, s in styles.items() if s}
    assert width["w0 – w1"] > width["w1 – w2"]
    assert styles["see w0"] is None


def test_names_are_escaped():
    graph = FactorGraph()
    graph.add_trajectory("<a & b>", 2)
    graph.add_trajectory('"c"', 2)
    graph.add_factor("<f>", ["<a & b>", '"c"'], Correlation(0.5))
    root = parsed(graph)
    assert "<a & b>" in [t.text for t in root.iter(SVG + "text")]


def test_factors_with_one_and_three_ends_and_hidden_variables():
    graph = FactorGraph()
    for name in "abc":
        graph.add_trajectory(name, 2)
    graph.add_variable("style", 2)
    graph.add_factor("all", ["a", "b", "c"], JointGaussian())
    graph.add_factor("seen", ["a"], Evidence(0.0, 1.0))
    graph.add_factor("tie", ["a", "style"], Attraction(1.0))
    root = parsed(graph)
    assert len(list(root.iter(SVG + "circle"))) == 5  # the hidden one has two
    assert any(t.startswith("all: not fitted") for t in titles(root))


def test_colours_run_from_negative_to_positive():
    assert shade(0.25) == "color-mix(in oklab,var(--positive) 25%,var(--neutral))"
    assert shade(-1.0) == "color-mix(in oklab,var(--negative) 100%,var(--neutral))"
