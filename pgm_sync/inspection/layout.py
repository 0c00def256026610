"""Where the nodes of a factor graph go in a drawing: plain numbers, for matplotlib and SVG alike."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import networkx as nx

from ..errors import PgmSyncError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..maps import Crop
from ..potentials import Equality

Point = tuple[float, float]
CLOSEST = 0.8  # of two windows, so that their circles do not touch
MOST_NODES = 250  # beyond, a drawing shows a ball of wool, and placing the nodes takes minutes


class Layout(NamedTuple):
    """Positions in units of one node distance, y downwards.

    >>> import pgm_sync as ps
    >>> placed = layout(ps.chain_graph(2, (1,)))
    >>> placed.positions[0], placed.positions[1], placed.positions[0, 1]  # the factor stands between its ends
    ((0.0, 0.0), (1.0, 0.0), (0.5, 0.0))
    """

    positions: dict[Name, Point]  # of trajectories, variables and factors
    boxes: dict[Name, Point]  # width and height of variables that are drawn as a box: canvases

    def anchor(self, name: Name, towards: Point) -> Point:
        """Where an edge from `towards` meets the node `name`: its position, or the nearest point of its box."""
        x, y = self.positions[name]
        if name not in self.boxes:
            return x, y
        w, h = self.boxes[name]
        return min(max(towards[0], x - w / 2), x + w / 2), min(max(towards[1], y - h / 2), y + h / 2)

    def curve(self, factor: Name, a: Name, b: Name) -> tuple[Point, Point, Point]:
        """The quadratic Bezier curve (start, control, end) from `a` to `b` whose middle is the factor."""
        x, y = self.positions[factor]
        (ax, ay), (bx, by) = self.anchor(a, (x, y)), self.anchor(b, (x, y))
        return (ax, ay), (2 * x - (ax + bx) / 2, 2 * y - (ay + by) / 2), (bx, by)


def layout(graph: FactorGraph, positions: Mapping[Name, Point] | None = None) -> Layout:
    """A layout of a `graph` that shows what it is.

    Windows of a canvas stand where they look at it; names ``(row, column)`` on a grid; a chain on a line, a
    ring or a complete graph on a circle; anything else by Kamada and Kawai's springs. `positions` of
    trajectories and variables, where given, take precedence; factors stand between their ends.

    >>> import pgm_sync as ps
    >>> placed = layout(ps.grid_graph(2, 2, (1,)))
    >>> placed.positions[0, 0], placed.positions[1, 1]
    ((0.0, 0.0), (1.0, 1.0))

    Raises PgmSyncError if the graph has more than 250 nodes, EmptyGraphError, GraphStructureError.
    """
    graph.validate()
    if len(graph) > MOST_NODES:
        raise PgmSyncError(
            f"the graph has {len(graph)} nodes; drawings are legible up to {MOST_NODES}. "
            "Draw a part: graph.subgraph([...])",
            nodes=len(graph),
        )
    placed, boxes = _on_canvas(graph) or (_by_name(graph) or _by_shape(graph), {})
    placed.update(positions or {})
    placed.update(_factors(graph, placed, boxes))
    return Layout(placed, boxes)


def windows(graph: FactorGraph) -> tuple[Name, dict[Name, Crop]] | None:
    """The canvas of a `graph` and the crop that each trajectory sees of it, or None.

    Only where there is one canvas and every trajectory sees it through one crop.

    >>> import pgm_sync as ps
    >>> canvas, crops = windows(ps.wide_canvas((3, 12, 48), window=(12, 12), stride=9))
    >>> canvas, crops["w1"].start[-1]
    ('canvas', 9)
    """
    if len(graph.hidden) != 1:
        return None
    (canvas,) = graph.hidden
    crops: dict[Name, Crop] = {}
    for factor in graph.adj[canvas]:
        scope, maps = graph.scope(factor), graph.maps(factor)
        if not isinstance(graph.potential(factor), Equality) or len(scope) != 2:
            continue
        view = maps[scope.index(canvas)]
        if isinstance(view, Crop):
            crops[scope[1 - scope.index(canvas)]] = view
    return (canvas, crops) if crops and set(crops) == set(graph.trajectories) else None


def _on_canvas(graph: FactorGraph) -> tuple[dict[Name, Point], dict[Name, Point]] | None:
    """Windows at their places; the canvas below a single row of them, or around several rows."""
    found = windows(graph)
    if found is None or any(len(crop.start) != 2 for crop in found[1].values()):
        return None
    canvas, crops = found
    centres = {name: (c.start[1] + c.size[1] / 2, c.start[0] + c.size[0] / 2) for name, c in crops.items()}
    columns, rows = (_spread(sorted({p[k] for p in centres.values()})) for k in (0, 1))
    placed = {name: (columns[x], rows[y]) for name, (x, y) in centres.items()}
    xs, ys = zip(*placed.values(), strict=True)
    middle = (min(xs) + max(xs)) / 2
    if len(rows) == 1:
        box = (canvas, (middle, ys[0] + 0.95), (max(xs) - min(xs) + 0.8, 0.34))
    elif len(columns) == 1:
        return None  # a single column: the springs do better
    else:
        box = (canvas, (middle, (min(ys) + max(ys)) / 2), (max(xs) - min(xs) + 1, max(ys) - min(ys) + 1.3))
    placed[canvas] = box[1]
    return placed, {canvas: box[2]}


def _spread(values: list[float]) -> dict[float, float]:
    """Places of ascending values: the usual step becomes 1, no step less than CLOSEST."""
    steps = [b - a for a, b in zip(values, values[1:], strict=False)]
    usual = Counter(steps).most_common(1)[0][0] if steps else 1.0
    places = accumulate((max(s / usual, CLOSEST) for s in steps), initial=0.0)
    return dict(zip(values, places, strict=True))


def _by_name(graph: FactorGraph) -> dict[Name, Point] | None:
    """Names that are pairs of numbers are rows and columns."""
    placed: dict[Name, Point] = {}
    for name in graph.variables:
        if not (isinstance(name, tuple) and len(name) == 2 and all(isinstance(k, int) for k in name)):
            return None
        placed[name] = (float(name[1]), float(name[0]))
    return placed if len(placed) > 1 else None


def _by_shape(graph: FactorGraph) -> dict[Name, Point]:
    network = graph.markov_network()
    n, degrees = len(network), Counter(d for _, d in network.degree)
    if n == 1:
        return dict.fromkeys(network, (0.0, 0.0))
    if nx.is_connected(network):
        if degrees[1] == 2 and degrees[2] == n - 2:  # a chain
            first = next(v for v, d in network.degree if d == 1)
            return {v: (float(k), 0.0) for k, v in enumerate(nx.dfs_preorder_nodes(network, first))}
        if n > 2 and degrees[2] == n:  # a ring
            return _circle(list(nx.dfs_preorder_nodes(network, next(iter(network)))))
        if n > 3 and degrees[n - 1] == n:
            return _circle(list(network))
        if n > 3 and degrees[n - 1] == 1 and degrees[1] == n - 1:  # a star
            hub = next(v for v, d in network.degree if d == n - 1)
            return {hub: (0.0, 0.0), **_circle([v for v in network if v != hub])}
    return _springs(network)


def _circle(names: list[Name]) -> dict[Name, Point]:
    radius = max(0.75, len(names) / (2 * math.pi))
    angles = [2 * math.pi * k / len(names) - math.pi / 2 for k in range(len(names))]
    return {v: (radius * math.cos(a), radius * math.sin(a)) for v, a in zip(names, angles, strict=True)}


def _springs(network: nx.Graph) -> dict[Name, Point]:
    """Each connected part by springs, the parts side by side."""
    placed: dict[Name, Point] = {}
    left = 0.0
    for part in nx.connected_components(network):
        names = [v for v in network if v in part]
        springs = nx.kamada_kawai_layout(network.subgraph(names), scale=0.55 * math.sqrt(len(names)))
        low = min(x for x, _ in springs.values())
        placed.update({v: (left + float(springs[v][0]) - float(low), float(springs[v][1])) for v in names})
        left = max(placed[v][0] for v in names) + 1
    return placed


def _factors(graph: FactorGraph, placed: dict[Name, Point], boxes: dict[Name, Point]) -> dict[Name, Point]:
    factors: dict[Name, Point] = {}
    row = boxes and len({placed[v][1] for v in graph.trajectories}) == 1
    beside: dict[frozenset, int] = defaultdict(int)  # factors placed on the same ends so far
    for factor in graph.factors:
        ends = graph.scope(factor)
        twin = beside[frozenset(ends)]
        beside[frozenset(ends)] += 1
        points = [placed[end] for end in ends]
        x, y = (sum(p[k] for p in points) / len(points) for k in (0, 1))
        box = next((end for end in ends if end in boxes), None)
        if len(ends) == 1:
            x, y = x + 0.42 * math.sin(0.8 * twin + 0.6), y - 0.42 * math.cos(0.8 * twin + 0.6)
        elif box is not None:  # a window and its canvas: below the window, beside the edge to the next row
            others = [placed[end] for end in ends if end != box]
            x = sum(p[0] for p in others) / len(others) + (0 if row else 0.24)
            y = sum(p[1] for p in others) / len(others) + (0.48 if row else 0.27)
        elif len(ends) == 2:
            (ax, ay), (bx, by) = points
            length = math.hypot(bx - ax, by - ay) or 1.0
            bend = 0.3 * ((twin + 1) // 2) * (-1) ** twin
            if row and length > 1.01:  # arcs over the windows between: longer ones higher
                y -= 0.42 * length**0.85 + 0.3 * twin
            else:
                x, y = x - bend * (by - ay) / length, y + bend * (bx - ax) / length
            if not row and _hits(factors.values(), (x, y)):  # crossing edges of a grid with every pair joined
                x, y = x + 0.16 * (bx - ax) / length, y + 0.16 * (by - ay) / length
        factors[factor] = (x, y)
    return factors


def _hits(points: object, where: Point) -> bool:
    return any(math.hypot(where[0] - x, where[1] - y) < 0.1 for x, y in points)  # type: ignore[attr-defined]
