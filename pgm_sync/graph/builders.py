"""Graphs people start from, in the manner of networkx generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import networkx as nx

from ..errors import GraphStructureError, ParameterError, ShapeError
from ..maps import Crop, LinearMap, Shape, as_integers, as_shape
from ..potentials import Equality, JointGaussian, Potential
from .factor_graph import FactorGraph, Name

PotentialRule = Potential | Callable[[Name, Name], Potential]
FeatureRule = Callable[[Shape], LinearMap]


def from_trajectory_graph(
    network: nx.Graph,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """One trajectory of `shape` per node of `network`, one pairwise factor, named ``(u, v)``, per edge.

    `potential` is one potential for all edges, or a function of the two ends (default: an unfitted
    `JointGaussian`); `features`, a function of the shape, gives the map of every end, for example
    ``lambda shape: DCT(shape, modes=4)``. A node's own ``shape`` attribute takes precedence over `shape`.

    Two rooms that look alike, and one that looks the opposite:

    >>> import networkx as nx, pgm_sync as ps
    >>> rooms = nx.Graph([("kitchen", "hall"), ("hall", "cellar")])
    >>> rule = lambda first, second: ps.Correlation(-0.5 if "cellar" in (first, second) else 0.8)
    >>> graph = ps.from_trajectory_graph(rooms, (1, 8, 8), potential=rule)
    >>> graph.potential(("hall", "cellar")).rho
    -0.5

    Edges from a node to itself are left out. Raises ParameterError (not a networkx graph), GraphStructureError
    (directed, or with parallel edges), and as `FactorGraph`.
    """
    if not isinstance(network, nx.Graph):
        raise ParameterError(f"network is a {type(network).__name__}; give a networkx.Graph", value=network)
    if network.is_directed() or network.is_multigraph():
        raise GraphStructureError(
            f"network is a {type(network).__name__}: a pair of trajectories has one factor without direction; "
            "networkx.Graph(network) forgets directions and parallel edges",
            network=network,
        )
    graph = FactorGraph()
    for node, data in network.nodes(data=True):
        graph.add_trajectory(node, data.get("shape", shape))
    for u, v in network.edges:
        if u == v:
            continue
        couple(graph, (u, v), u, v, potential, features)
    return graph


def couple(
    graph: FactorGraph,
    factor: Name,
    u: Name,
    v: Name,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> None:
    """Add a pairwise factor between `u` and `v` under the rules of `from_trajectory_graph`."""
    if potential is None:
        potential = JointGaussian()
    chosen = potential(u, v) if callable(potential) else potential
    maps = None if features is None else [features(graph.shape(u)), features(graph.shape(v))]
    graph.add_factor(factor, [u, v], chosen, maps=maps)


def chain_graph(
    n: int,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """Trajectories 0 .. n-1 of `shape`, each joined to the next; `potential` and `features` as `from_trajectory_graph`.

    >>> import pgm_sync as ps
    >>> ps.chain_graph(3, (1, 8, 8), ps.Correlation(0.5))
    FactorGraph(3 trajectories, 2 factors)

    Correlations along a chain multiply:

    >>> posterior = ps.infer(ps.chain_graph(3, (1,), ps.Correlation(0.5)), {k: (0.0, 1.0) for k in range(3)})
    >>> round(posterior.correlation(0, 2).item(), 4)
    0.25
    """
    return from_trajectory_graph(nx.path_graph(_count(n)), shape, potential, features)


def ring_graph(
    n: int,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """A chain of n trajectories of `shape` whose last is joined to the first (n >= 3).

    `potential` and `features` as `from_trajectory_graph`, whose errors it raises; ParameterError for n < 3.

    >>> import pgm_sync as ps
    >>> ps.ring_graph(5, (1, 8, 8), ps.Correlation(0.2))
    FactorGraph(5 trajectories, 5 factors)
    """
    return from_trajectory_graph(nx.cycle_graph(_count(n, 3)), shape, potential, features)


def grid_graph(
    rows: int,
    columns: int,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """Trajectories ``(row, column)`` of `shape`, joined to their neighbours below and to the right.

    `rows` and `columns` count them. `potential` and `features` as `from_trajectory_graph`, whose errors it raises.

    >>> import pgm_sync as ps
    >>> graph = ps.grid_graph(2, 3, (1, 8, 8), ps.Correlation(0.2))
    >>> graph, graph.trajectories[0], graph.factors[0]
    (FactorGraph(6 trajectories, 7 factors), (0, 0), ((0, 0), (1, 0)))
    """
    return from_trajectory_graph(nx.grid_2d_graph(_count(rows), _count(columns)), shape, potential, features)


def star_graph(
    leaves: int,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """Trajectory 0 joined to trajectories 1 .. `leaves`, all of `shape`.

    `potential` and `features` as `from_trajectory_graph`, whose errors it raises.

    Leaves correlate through the middle only, 0.8 * 0.8:

    >>> import pgm_sync as ps
    >>> graph = ps.star_graph(3, (1,), ps.Correlation(0.8))
    >>> posterior = ps.infer(graph, {k: (0.0, 1.0) for k in range(4)})
    >>> round(posterior.correlation(1, 2).item(), 4)
    0.64
    """
    return from_trajectory_graph(nx.star_graph(_count(leaves)), shape, potential, features)


def complete_graph(
    n: int,
    shape: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
) -> FactorGraph:
    """Trajectories 0 .. n-1 of `shape`, every two of them joined.

    `potential` and `features` as `from_trajectory_graph`, whose errors it raises; ParameterError for n < 1.

    >>> import pgm_sync as ps
    >>> ps.complete_graph(4, (1, 8, 8), ps.Attraction(1.0))
    FactorGraph(4 trajectories, 6 factors)
    """
    return from_trajectory_graph(nx.complete_graph(_count(n)), shape, potential, features)


def wide_canvas(
    canvas: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int] | int,
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
    neighbours: str = "adjacent",
    wrap: bool = False,
) -> FactorGraph:
    """Overlapping windows over one canvas, with learned potentials between them.

    `canvas` is the shape of the whole, ``(..., H, W)``; `window` the height and width of a window; `stride`
    the step between windows, one number or (vertical, horizontal). The last window is moved back to end at
    the border. With ``wrap=True`` the canvas closes horizontally (360 degrees) and the stride must divide its
    width.

    The graph has a hidden variable ``"canvas"``, a trajectory ``"w0"``, ``"w1"``, ... (or ``"w0,0"``, row and
    column, for a grid) per window, an `Equality` factor ``"see w0"`` each, and, unless ``features`` is None,
    a factor ``("w0", "w1")`` with those features and the `potential` between windows that are ``neighbours``
    ("adjacent", or "all" for every pair).

    >>> import pgm_sync as ps
    >>> ps.wide_canvas((3, 12, 48), window=(12, 12), stride=9, features=lambda shape: ps.DCT(shape, 4))
    FactorGraph(5 trajectories, 1 hidden variable, 9 factors)

    Raises ShapeError, ParameterError.
    """
    canvas = as_shape(canvas, "canvas shape")
    window = as_shape(window, "window")
    strides = as_integers(stride if isinstance(stride, Iterable) else (stride, stride), "stride")
    if len(canvas) < 2 or len(window) != 2 or window[0] > canvas[-2] or window[1] > canvas[-1]:
        raise ShapeError(
            f"windows of {window} do not fit a canvas of shape {canvas}", canvas=canvas, window=window
        )
    sizes = list(zip(strides, window, canvas[-2:], strict=True)) if len(strides) == 2 else []
    if not sizes or not all(0 < s and (s <= w or w == whole) for s, w, whole in sizes):
        raise ParameterError(
            f"stride {stride!r} must be between 1 and the window size {window}, or pixels are missed",
            stride=stride,
            window=window,
        )
    tops = _starts(canvas[-2], window[0], strides[0])
    if wrap:
        if canvas[-1] % strides[1]:
            raise ParameterError(
                f"on a 360 degree canvas the stride {strides[1]} must divide the width {canvas[-1]}",
                stride=strides[1],
                width=canvas[-1],
            )
        lefts = list(range(0, canvas[-1], strides[1]))
    else:
        lefts = _starts(canvas[-1], window[1], strides[1])
    if neighbours not in ("adjacent", "all"):
        raise ParameterError(f"neighbours={neighbours!r} is neither 'adjacent' nor 'all'", neighbours=neighbours)

    graph = FactorGraph()
    graph.add_variable("canvas", canvas)
    names = {}
    for r, top in enumerate(tops):
        for c, left in enumerate(lefts):
            name = names[r, c] = f"w{c}" if len(tops) == 1 else f"w{r},{c}"
            view = Crop(canvas, start=(top, left), size=window, wrap=wrap)
            graph.add_trajectory(name, view.out_shape)
            graph.add_factor(f"see {name}", [name, "canvas"], Equality(), maps=[None, view])
    if features is not None or potential is not None:
        cells = nx.grid_2d_graph(len(tops), len(lefts), periodic=(False, wrap and len(lefts) > 2))
        if neighbours == "all":
            cells = nx.complete_graph(cells)
        for a, b in cells.edges:
            couple(graph, (names[a], names[b]), names[a], names[b], potential, features)
    return graph


def _starts(length: int, window: int, stride: int) -> list[int]:
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _count(n: int, least: int = 1) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < least:
        raise ParameterError(f"a count of {n!r} must be an integer of at least {least}", value=n, least=least)
    return n
