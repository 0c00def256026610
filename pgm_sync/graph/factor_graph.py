"""The factor graph: a networkx graph whose nodes are trajectories, hidden variables and factors."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from ..errors import (
    DuplicateNameError,
    EmptyGraphError,
    GraphStructureError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    listed,
)
from ..maps import Identity, LinearMap, Shape, as_shape
from ..potentials import Potential
from ..tables import in_notebook
from . import separation

Name = Hashable


class FactorGraph(nx.Graph):
    """A bipartite networkx graph: trajectories (and hidden variables) on one side, factors on the other.

    Names are any hashable; insertion order is kept and fixes the order of everything computed. Node
    attributes: ``kind`` ("trajectory", "variable" or "factor"), ``bipartite`` (0 or 1), ``shape`` or
    ``potential`` and ``maps``; edge attribute: ``position`` in the factor's scope. All of networkx works on
    it.

    >>> import pgm_sync as ps
    >>> graph = ps.FactorGraph()
    >>> graph.add_trajectory("left", shape=(1, 4, 4))
    >>> graph.add_trajectory("right", shape=(1, 4, 4))
    >>> graph.add_factor("seam", ["left", "right"], ps.Correlation(0.8))
    >>> graph
    FactorGraph(2 trajectories, 1 factor)
    """

    # ---- building ------------------------------------------------------------------------------------

    def add_trajectory(self, name: Name, shape: Sequence[int] | int) -> None:
        """Add a diffusion trajectory `name` with clean content of the given event `shape`, a tuple or one number.

        >>> graph = FactorGraph()
        >>> graph.add_trajectory("left", shape=(3, 24, 24))
        >>> graph.shape("left")
        (3, 24, 24)

        Raises DuplicateNameError, ShapeError.
        """
        self._add_variable(name, shape, "trajectory")

    def add_variable(self, name: Name, shape: Sequence[int] | int) -> None:
        """Add a hidden variable `name` of a `shape`, which no denoiser knows: a canvas, a texture atlas, a style code.

        >>> graph = FactorGraph()
        >>> graph.add_variable("canvas", shape=(3, 24, 96))
        >>> graph.hidden, graph.trajectories
        (['canvas'], [])

        Raises DuplicateNameError, ShapeError.
        """
        self._add_variable(name, shape, "variable")

    def _add_variable(self, name: Name, shape: Sequence[int] | int, kind: str) -> None:
        self._check_new(name)
        shape = as_shape(shape, f"shape of {kind} {name!r}:")
        self.add_node(name, kind=kind, bipartite=0, shape=shape)

    def add_factor(
        self,
        name: Name,
        scope: Sequence[Name],
        potential: Potential,
        maps: Sequence[LinearMap | None] | None = None,
    ) -> None:
        """Add a factor `name` with a `potential` over `scope`, an ordered list of trajectories or variables.

        `maps` gives one linear map per end, what the factor sees of it (None: the whole content).

        >>> import pgm_sync as ps
        >>> graph = ps.FactorGraph()
        >>> for name in ("left", "right"):
        ...     graph.add_trajectory(name, shape=(1, 2, 3))
        >>> column = ps.Crop((1, 2, 3), start=(0, 0), size=(2, 1)), ps.Crop((1, 2, 3), start=(0, 2), size=(2, 1))
        >>> graph.add_factor("seam", ["right", "left"], ps.Correlation(0.9), maps=column)  # first and last columns
        >>> graph.scope("seam"), graph.seen_shapes("seam")
        (['right', 'left'], [(1, 2, 1), (1, 2, 1)])

        Raises UnknownNameError, DuplicateNameError, GraphStructureError (empty or repeated scope), ShapeError
        (a map that does not fit its end, ends that the potential cannot join), ParameterError.
        """
        self._check_new(name)
        scope = self._as_scope(name, scope)
        if not scope:
            raise GraphStructureError(f"factor {name!r} has an empty scope", factor=name)
        for end in scope:
            if end not in self or self.nodes[end].get("kind") not in ("trajectory", "variable"):
                raise UnknownNameError(
                    f"factor {name!r} names {end!r}, which is not a trajectory or variable of this graph; "
                    f"it has {listed(self.variables)}",
                    factor=name,
                    name=end,
                )
        if len(set(scope)) < len(scope):
            raise GraphStructureError(
                f"factor {name!r} names an end twice: {scope}", factor=name, scope=scope
            )
        _require_potential(name, potential)
        given = list(maps) if maps is not None else [None] * len(scope)
        if len(given) != len(scope):
            raise ShapeError(f"factor {name!r} has {len(scope)} ends and {len(given)} maps", factor=name)
        potential.check(name, _seen_shapes(name, scope, [self.shape(end) for end in scope], given))
        self.add_node(name, kind="factor", bipartite=1, potential=potential, maps=tuple(given))
        for position, end in enumerate(scope):
            self.add_edge(name, end, position=position)

    def with_potentials(self, potentials: Mapping[Name, Potential]) -> FactorGraph:
        """A copy of the graph in which the factors in `potentials` ``{factor: potential}`` have other ones.

        >>> import pgm_sync as ps
        >>> graph = ps.chain_graph(2, (1,), ps.Correlation(0.5))
        >>> graph.with_potentials({(0, 1): ps.Correlation(0.9)}).potential((0, 1)).rho, graph.potential((0, 1)).rho
        (0.9, 0.5)

        Raises UnknownNameError, ParameterError, ShapeError.
        """
        copy = self.copy()
        for factor, potential in potentials.items():
            _require_potential(factor, potential)
            potential.check(factor, self.seen_shapes(factor))
            copy.nodes[factor]["potential"] = potential
        return copy

    def _check_new(self, name: Name) -> None:
        if name is None:
            raise GraphStructureError("None cannot name a node", name=None)
        if not isinstance(name, Hashable):
            raise GraphStructureError(
                f"{name!r} cannot name a node: a {type(name).__name__} is not hashable", name=name
            )
        if name in self:
            raise DuplicateNameError(
                f"the graph already has a {self.nodes[name].get('kind', 'node')} {name!r}", name=name
            )

    def _as_scope(self, factor: Name, scope: Any) -> list[Name]:
        if not isinstance(scope, list) and scope in self:
            return [scope]
        if not isinstance(scope, Iterable):
            raise UnknownNameError(
                f"factor {factor!r} names {scope!r}, which is neither a list of trajectories and variables nor one of "
                f"this graph; it has {listed(self.variables)}",
                factor=factor,
                name=scope,
            )
        return list(scope)

    # ---- reading -------------------------------------------------------------------------------------

    def _of_kind(self, *kinds: str) -> list[Name]:
        return [n for n, data in self.nodes(data=True) if data.get("kind") in kinds]

    @property
    def trajectories(self) -> list[Name]:
        """Names of the trajectories, in insertion order."""
        return self._of_kind("trajectory")

    @property
    def hidden(self) -> list[Name]:
        """Names of the hidden variables, in insertion order."""
        return self._of_kind("variable")

    @property
    def variables(self) -> list[Name]:
        """Names of trajectories and hidden variables together, in insertion order."""
        return self._of_kind("trajectory", "variable")

    @property
    def factors(self) -> list[Name]:
        """Names of the factors, in insertion order."""
        return self._of_kind("factor")

    def _data(self, name: Name, *kinds: str) -> dict[str, Any]:
        if name not in self or self.nodes[name].get("kind") not in kinds:
            wanted = "factor" if kinds == ("factor",) else "trajectory or variable"
            have = self._of_kind(*kinds)
            raise UnknownNameError(f"the graph has no {wanted} {name!r}; it has {listed(have)}", name=name)
        return self.nodes[name]

    def shape(self, name: Name) -> Shape:
        """Event shape of the trajectory or variable `name`. Raises UnknownNameError."""
        return self._data(name, "trajectory", "variable")["shape"]

    def potential(self, factor: Name) -> Potential:
        """The potential of a factor. Raises UnknownNameError."""
        return self._data(factor, "factor")["potential"]

    def maps(self, factor: Name) -> list[LinearMap]:
        """One map per end of a factor, the identity where none was given. Raises UnknownNameError."""
        maps = self._data(factor, "factor")["maps"]
        return [
            Identity(self.shape(end)) if m is None else m
            for end, m in zip(self.scope(factor), maps, strict=True)
        ]

    def scope(self, factor: Name) -> list[Name]:
        """The ends of a factor, in the order given. Raises UnknownNameError."""
        self._data(factor, "factor")
        return sorted(self.adj[factor], key=lambda end: self.adj[factor][end]["position"])

    def seen_shapes(self, factor: Name) -> list[Shape]:
        """The shape a factor sees of each of its ends."""
        return [m.out_shape for m in self.maps(factor)]

    def validate(self) -> None:
        """Check what networkx calls may have changed since the nodes were added.

        Raises EmptyGraphError, GraphStructureError; ShapeError and ParameterError as `add_factor`.
        """
        if not self.variables:
            raise EmptyGraphError(
                "the graph has no trajectory or variable; call add_trajectory(name, shape) first", graph=self
            )
        for node, data in self.nodes(data=True):
            if data.get("kind") not in ("trajectory", "variable", "factor"):
                raise GraphStructureError(
                    f"node {node!r} was not added by add_trajectory, add_variable or add_factor", name=node
                )
            for key in ("potential", "maps") if data["kind"] == "factor" else ("shape",):
                if key not in data:
                    raise GraphStructureError(f"{data['kind']} {node!r} has no {key}", name=node)
            if data["kind"] != "factor" and as_shape(data["shape"], f"shape of {node!r}:") != data["shape"]:
                raise ShapeError(f"shape of {node!r}: {data['shape']!r} is not a tuple", name=node)
        for a, b in self.edges:
            if (self.nodes[a]["kind"] == "factor") == (self.nodes[b]["kind"] == "factor"):
                raise GraphStructureError(
                    f"edge {a!r} - {b!r} does not join a factor with a variable", edge=(a, b)
                )
        checked: set[tuple] = set()  # many factors of a large graph share one potential and see the same shapes
        for factor in self.factors:
            positions = sorted(d.get("position", -1) for d in self.adj[factor].values())
            maps = self.nodes[factor]["maps"]
            if not isinstance(maps, tuple) or positions != list(range(len(maps))):
                raise GraphStructureError(
                    f"the edges of factor {factor!r} have changed since it was added", factor=factor
                )
            self._check_ends(factor, checked)

    def _check_ends(self, factor: Name, checked: set[tuple]) -> None:
        """What `add_factor` checked, once more: attributes of nodes can be written to."""
        potential, maps = self.nodes[factor]["potential"], self.nodes[factor]["maps"]
        _require_potential(factor, potential)
        scope = self.scope(factor)
        seen = _seen_shapes(factor, scope, [self.nodes[end]["shape"] for end in scope], maps)
        key = (id(potential), *seen)
        if key not in checked:
            potential.check(factor, seen)
            checked.add(key)

    def markov_network(self) -> nx.Graph:
        """Trajectories and variables, joined where a factor has both in its scope.

        Its edges list these ``factors``.

        >>> import networkx as nx, pgm_sync as ps
        >>> nx.is_tree(ps.chain_graph(4, (1,)).markov_network()), nx.is_tree(ps.ring_graph(4, (1,)).markov_network())
        (True, False)
        """
        network = nx.Graph()
        network.add_nodes_from((v, dict(self.nodes[v])) for v in self.variables)
        for factor in self.factors:
            scope = self.scope(factor)
            for k, a in enumerate(scope):
                for b in scope[k + 1 :]:
                    if not network.has_edge(a, b):
                        network.add_edge(a, b, factors=[])
                    network.edges[a, b]["factors"].append(factor)
        return network

    # ---- saving --------------------------------------------------------------------------------------

    def markov_blanket(self, name: Name) -> set[Name]:
        """The nodes that share a factor with `name`: given them, it is independent of all others.

        >>> import pgm_sync as ps
        >>> sorted(ps.chain_graph(4, (1,)).markov_blanket(1))
        [0, 2]

        Raises UnknownNameError.
        """
        return separation.markov_blanket(self, name)

    def separated(self, a: Any, b: Any, given: Any = ()) -> bool:
        """Whether every path from `a` to `b` passes `given`, so that they are independent given it.

        Each is a name or a collection of names; `connecting_path` says why not.

        >>> import pgm_sync as ps
        >>> chain = ps.chain_graph(3, (1,))
        >>> chain.separated(0, 2), chain.separated(0, 2, given=1)
        (False, True)

        Raises UnknownNameError, ParameterError (an empty side), GraphStructureError (sets that overlap).
        """
        return separation.separated(self, a, b, given)

    def connecting_path(self, a: Any, b: Any, given: Any = ()) -> list[Name] | None:
        """A shortest path of nodes and factors from `a` to `b` around `given`, None where they are separated.

        >>> import pgm_sync as ps
        >>> ps.ring_graph(4, (1,)).connecting_path(0, 2, given=1)
        [0, (0, 3), 3, (2, 3), 2]

        Raises as `separated`.
        """
        return separation.connecting_path(self, a, b, given)

    def save(self, path: str | Path) -> None:
        """Write the graph with its potentials to one file at `path`, ``.safetensors`` or ``.json`` (atomically).

        >>> import tempfile, pgm_sync as ps
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ps.chain_graph(2, (1,), ps.Correlation(0.5)).save(f"{folder}/pair.json")
        ...     ps.FactorGraph.load(f"{folder}/pair.json").potential((0, 1)).rho
        0.5
        """
        from .serialization import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> FactorGraph:
        """Read a graph written by `save` at `path`.

        Raises SavedFileError on a corrupted file or another format version.
        """
        from .serialization import load

        return load(path)

    # ---- showing -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        parts = [
            f"{len(names)} {word if len(names) == 1 else plural}"
            for names, word, plural in [
                (self.trajectories, "trajectory", "trajectories"),
                (self.hidden, "hidden variable", "hidden variables"),
                (self.factors, "factor", "factors"),
            ]
            if names
        ]
        return f"FactorGraph({', '.join(parts) or 'empty'})"

    def __str__(self) -> str:
        from .display import text

        return text(self)

    def _repr_html_(self) -> str:
        return in_notebook("graph", self)


def _require_potential(factor: Name, potential: Any) -> None:
    if not isinstance(potential, Potential):
        raise ParameterError(
            f"factor {factor!r}: {potential!r} is not a potential (Correlation(0.8), JointGaussian(), ...)",
            factor=factor,
        )


def _seen_shapes(
    factor: Name, scope: Sequence[Name], shapes: Sequence[Shape], maps: Sequence[LinearMap | None]
) -> list[Shape]:
    """What the maps show of their ends. Raises ParameterError for what is no map, ShapeError for one that misfits."""
    seen = []
    for end, shape, m in zip(scope, shapes, maps, strict=True):
        if m is not None and not isinstance(m, LinearMap):
            raise ParameterError(
                f"factor {factor!r}: {m!r} on {end!r} is not a map (Crop(...), DCT(...), ..., or None)",
                factor=factor,
                name=end,
            )
        if m is not None and m.in_shape != shape:
            raise ShapeError(
                f"factor {factor!r}: the map on {end!r} takes shape {m.in_shape}, but {end!r} has shape {shape}",
                factor=factor,
                name=end,
                expected=m.in_shape,
                got=shape,
            )
        seen.append(shape if m is None else m.out_shape)
    return seen
