"""What a graph says before any number is known: which nodes are independent given which others."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..errors import GraphStructureError, ParameterError, UnknownNameError

if TYPE_CHECKING:
    from .factor_graph import FactorGraph, Name


def markov_blanket(graph: FactorGraph, name: Name) -> set[Name]:
    """The nodes that share a factor with `name`: given them, `name` is independent of all others.

    Raises UnknownNameError.
    """
    graph.shape(name)
    return {end for factor in graph.adj[name] for end in graph.adj[factor]} - {name}


def separated(graph: FactorGraph, a: Any, b: Any, given: Any = ()) -> bool:
    """Whether every path from `a` to `b` passes `given`, so that they are independent given it.

    Each of the three is a name or a collection of names. This is separation in the Markov network (Lauritzen,
    Graphical Models, 1996, section 3.2), whatever the numbers in the potentials and the evidence are. The converse
    needs the numbers: nodes that are joined may still be independent, for example through a correlation of 0.

    >>> from pgm_sync.graph import chain_graph
    >>> separated(chain_graph(3, 1), 0, 2), separated(chain_graph(3, 1), 0, 2, given=1)
    (False, True)

    Raises UnknownNameError, ParameterError (an empty `a` or `b`), GraphStructureError (sets that overlap).
    """
    return connecting_path(graph, a, b, given) is None


def connecting_path(graph: FactorGraph, a: Any, b: Any, given: Any = ()) -> list[Name] | None:
    """A shortest path that connects `a` with `b` around `given`, or None where they are separated.

    The path alternates between nodes and the factors that join them, from a node of `a` to one of `b`: the reason
    why `separated` says no. Raises as `separated`.

    >>> from pgm_sync.graph import chain_graph
    >>> connecting_path(chain_graph(3, 1), 0, 2)
    [0, (0, 1), 1, (1, 2), 2]
    """
    first, second, known = (
        names_of(graph, a, "a"),
        names_of(graph, b, "b"),
        names_of(graph, given, "given", empty=True),
    )
    require_disjoint({"a": first, "b": second, "given": known})
    source, target = object(), object()
    blocked = set(known)
    network = nx.Graph()
    network.add_edges_from((u, v) for u, v in graph.edges if u not in blocked and v not in blocked)
    network.add_edges_from((source, name) for name in first)
    network.add_edges_from((name, target) for name in second)
    try:
        return nx.bidirectional_shortest_path(network, source, target)[1:-1]
    except nx.NetworkXNoPath:
        return None


def names_of(graph: FactorGraph, names: Any, what: str = "names", empty: bool = False) -> list[Name]:
    """A name, or a collection of names, as a list without repetitions.

    What the graph has as a node is one name, also where it is a tuple; a tuple of nodes is a collection, also where a
    factor is called so. Raises UnknownNameError; ParameterError where there is no name and `empty` does not allow it.
    """
    if isinstance(names, str | bytes) or _is_node(graph, names) or not isinstance(names, Iterable):
        names = [names]
    elif _has(graph, names) and not all(_is_node(graph, name) for name in names):
        names = [names]  # a factor with a tuple for a name
    listed = list(dict.fromkeys(names))
    for name in listed:
        if _has(graph, name) and graph.nodes[name].get("kind") == "factor":
            raise UnknownNameError(
                f"{what}: {name!r} is a factor; name the trajectories or variables it joins, {graph.scope(name)}",
                name=name,
            )
        graph.shape(name)
    if not listed and not empty:
        raise ParameterError(f"{what} is empty; name at least one trajectory or variable", what=what)
    return listed


def require_disjoint(sets: dict[str, list[Name]]) -> None:
    """GraphStructureError where two of the sets, by what they are called, have a name in common."""
    for (one, first), (other, second) in combinations(sets.items(), 2):
        both = [name for name in first if name in set(second)]
        if both:
            raise GraphStructureError(
                f"{both[0]!r} is both in {one} and in {other}; the sets must not overlap", names=both
            )


def _is_node(graph: FactorGraph, name: Any) -> bool:
    return _has(graph, name) and graph.nodes[name].get("kind") in ("trajectory", "variable")


def _has(graph: FactorGraph, name: Any) -> bool:
    try:
        return name in graph
    except TypeError:  # a tuple that holds something unhashable
        return False
