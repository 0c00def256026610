"""What trajectories show of shared content, and how their values are brought onto it and back.

The canonical space of SyncTweedies is a canvas here, an instance a trajectory: ``onto`` is its inverse mapping with the
aggregation, ``seen`` its forward mapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from scipy.sparse import coo_array, eye_array
from torch import Tensor

from ..errors import ParameterError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..maps import LinearMap, Shape, element_index, is_sparse, sparse_entries
from ..potentials import Attraction, Equality
from ..score.carriers import find_carriers
from ..score.weights import window_profile

RULES = ("average", "last", "first", "nearest")
SQUARE = 1e-6  # of rows whose products may differ from an orthonormal set by so much


class Canvas(NamedTuple):
    """Shared content."""

    name: Name | None  # None: no single node shows it whole
    shape: Shape


@dataclass(frozen=True, eq=False)
class Sight:
    """Some elements of a trajectory are a linear image of a canvas: ``x[place] = A z``."""

    canvas: int
    place: Tensor | None  # (P,) flat elements of the trajectory; None: all, in order
    view: Tensor | LinearMap  # A: (P,) flat elements of the canvas, or a map from the canvas
    weight: Tensor | None  # (P,) how much each counts on the canvas; None: as much as any other

    def take(self, value: Tensor) -> Tensor:
        """``x[place]``: (n, *shape) -> (n, P)."""
        flat = value.flatten(1)
        return flat if self.place is None else flat.index_select(1, self.place.to(value.device))

    def weighed(self, value: Tensor) -> Tensor:
        """``W x[place]``."""
        seen = self.take(value)
        return seen if self.weight is None else seen * self.weight.to(seen)

    def put(self, seen: Tensor, value: Tensor) -> Tensor:
        """`value` ``(n, *shape)`` with `seen` ``(n, P)`` in its place."""
        if self.place is None:
            return seen.reshape(value.shape)
        return (
            value.flatten(1).index_copy(1, self.place.to(value.device), seen.to(value)).reshape(value.shape)
        )

    def apply(self, canvas: Tensor) -> Tensor:
        """``A z``: (n, *canvas shape) -> (n, P)."""
        if isinstance(self.view, Tensor):
            return canvas.flatten(1).index_select(1, self.view.to(canvas.device))
        return self.view.apply(canvas).flatten(1)

    def add(self, total: Tensor, seen: Tensor, signed: bool = True) -> Tensor:
        """``total + A' x``, flat: (n, S), (n, P) -> (n, S); with the sizes of A's entries if not `signed`."""
        if isinstance(self.view, Tensor):
            return total.index_add(1, self.view.to(total.device), seen)
        if signed:
            return total + self.view.adjoint(seen.reshape(len(seen), *self.view.out_shape)).flatten(1)
        rows, columns, share = (part.to(total.device) for part in self.shares)
        return total.index_add(1, columns, seen[:, rows] * share.to(seen))

    def counts(self, size: int) -> Tensor:
        """What `add` makes of the weights, were A without signs, ``(S,)`` float64: what to divide by."""
        weight = torch.ones(self.size, dtype=torch.float64) if self.weight is None else self.weight.double()
        rows, columns, share = self.shares
        return weight.new_zeros(size).index_add(0, columns, share * weight[rows])

    def strength(self, canvas: Tensor) -> Tensor:  # (S,) -> (P,)
        """What `apply` makes of a canvas of strengths, were A without signs."""
        rows, columns, share = self.shares
        return canvas.new_zeros(self.size).index_add(0, rows, share * canvas[columns])

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and sizes of A's entries.

        A rotation's transpose is its inverse, so its squares add up to one; a look-up's rows are shares of neighbours.
        """
        if isinstance(self.view, Tensor):
            return torch.arange(len(self.view)), self.view, torch.ones(len(self.view), dtype=torch.float64)
        rows, columns, values = _entries(self.view)
        return rows, columns, values.square() if self.white else values.abs()

    @property
    def size(self) -> int:
        """P."""
        return len(self.view) if isinstance(self.view, Tensor) else self.view.out_size

    @cached_property
    def white(self) -> bool:
        """Whether A of white noise is white."""
        if isinstance(self.view, Tensor) or self.view.orthonormal:
            return True
        rows, columns, values = (part.numpy() for part in _entries(self.view))
        matrix = coo_array((values, (rows, columns)), shape=(self.size, self.view.in_size)).tocsr()
        return abs(matrix @ matrix.T - eye_array(self.size)).max() < SQUARE


@dataclass(frozen=True, eq=False)
class Projection:
    """All canvases, and what every trajectory shows of them; values are ``(n, *shape)`` by trajectory."""

    canvases: list[Canvas]
    sights: dict[Name, list[Sight]]
    _totals: dict[tuple, Tensor] = field(default_factory=dict, repr=False)

    def onto(self, values: Mapping[Name, Tensor], signed: bool = True) -> list[Tensor]:
        """Every canvas as the weighted mean of the values that show it; zero where none does.

        The sums are taken in the order of the trajectories and divided once, as MultiDiffusion's code does it. Not
        `signed`: of what has no sign, as variances, which a negative shares with its picture.
        """
        out = []
        for k, canvas in enumerate(self.canvases):
            first = next(iter(values.values()))
            flat = first.new_zeros(len(first), math.prod(canvas.shape))
            for name, sight in self._of(k, values):
                flat = sight.add(flat, sight.weighed(values[name]), signed)
            total = self.totals(k, values).to(flat)
            out.append(torch.where(total != 0, flat / total, flat).reshape(len(first), *canvas.shape))
        return out

    def totals(self, k: int, names: Mapping[Name, object] | Sequence[Name]) -> Tensor:
        """The sum of all weights at the elements of canvas k, ``(S,)`` float64."""
        key = (k, *names)
        if key not in self._totals:
            size = math.prod(self.canvases[k].shape)
            zero = torch.zeros(size, dtype=torch.float64)
            self._totals[key] = sum((sight.counts(size) for _, sight in self._of(k, names)), zero)
        return self._totals[key]

    def seen(self, canvases: Sequence[Tensor], values: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """`values` with the canvases in the place of what shows them."""
        out = {}
        for name, value in values.items():
            for sight in self.sights.get(name, []):
                value = sight.put(sight.apply(canvases[sight.canvas]), value)
            out[name] = value
        return out

    def averaged(self, values: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """What is shared made equal: `onto` the canvases and back."""
        return self.seen(self.onto(values), values)

    def composed(self, values: Mapping[Name, Tensor], rule: str) -> list[Tensor]:
        """Canvases from trajectories that need not agree.

        "average": `onto`; "last" and "first": the later or the earlier trajectory on top; "nearest": every element
        from the trajectory in whose middle it lies most. Canvases seen through maps that do more than pick elements
        are averages in any case. Raises ParameterError.
        """
        if rule not in RULES:
            raise ParameterError(f"canvas={rule!r} is not one of {', '.join(RULES)}", canvas=rule)
        out = self.onto(values)
        for k, canvas in enumerate(self.canvases):
            sights = self._of(k, values)
            if rule == "average" or any(not isinstance(sight.view, Tensor) for _, sight in sights):
                continue
            flat = out[k].flatten(1)
            depth = torch.full((flat.shape[1],), math.inf, dtype=torch.float64)
            for order, (name, sight) in enumerate(sights):
                value = values[name]
                if rule == "nearest":
                    own = window_profile(tuple(value.shape[1:]))
                    own = own if sight.place is None else own[sight.place]
                else:
                    own = torch.full(
                        (sight.size,), float(-order if rule == "last" else order), dtype=torch.float64
                    )
                assert isinstance(sight.view, Tensor)
                on_top = own < depth[sight.view]
                where = sight.view[on_top]
                depth[where] = own[on_top]
                flat = flat.index_copy(1, where.to(flat.device), sight.take(value)[:, on_top.to(flat.device)])
            out[k] = flat.reshape(len(flat), *canvas.shape)
        return out

    def partial(self, name: Name, size: int) -> bool:
        """Whether some of a trajectory's `size` elements are on no canvas."""
        sights = self.sights.get(name, [])
        if any(sight.place is None for sight in sights):
            return False
        places = [sight.place for sight in sights if sight.place is not None]
        return not places or len(torch.unique(torch.cat(places))) < size

    @property
    def weighted(self) -> bool:
        """Whether the graph says how much trajectories count."""
        return any(sight.weight is not None for sights in self.sights.values() for sight in sights)

    def _of(self, k: int, names: Mapping[Name, object] | Sequence[Name]) -> list[tuple[Name, Sight]]:
        return [(name, sight) for name in names for sight in self.sights.get(name, []) if sight.canvas == k]


def projection(graph: FactorGraph) -> Projection:
    """The shared content of a graph.

    That of Equality factors, with their weights; and hidden variables that trajectories are drawn to by an Attraction,
    where it takes elements of the trajectory and any linear map of the variable (a texture atlas seen through UV
    look-ups), with precisions for weights where they are one per element. All other potentials are left aside.

    Raises what `find_carriers` raises.
    """
    carriers = find_carriers(structure(graph))
    canvases: list[Canvas] = []
    sights: dict[Name, list[Sight]] = {name: [] for name in graph.trajectories}
    number: dict[int, int] = {}
    given = {
        graph.scope(factor)[0]
        for factor in graph.factors
        if isinstance(p := graph.potential(factor), Equality) and p.weight is not None
    }
    for name in graph.trajectories:
        view = carriers.views[name]
        if view.index is None:
            continue
        if view.carrier not in number:
            number[view.carrier] = len(canvases)
            carrier = carriers.carriers[view.carrier]
            canvases.append(Canvas(carrier.name, carrier.shape))
        sights[name].append(
            Sight(number[view.carrier], None, view.index, view.weight if name in given else None)
        )
    placed = {canvas.name: k for k, canvas in enumerate(canvases)}
    for factor in graph.factors:
        found = _attracted(graph, factor)
        if found is None:
            continue
        name, variable, place, image = found
        if variable not in placed:
            placed[variable] = len(canvases)
            canvases.append(Canvas(variable, graph.shape(variable)))
        strength = torch.as_tensor(graph.potential(factor).precision)  # type: ignore[attr-defined]
        weight = strength.double().flatten() if strength.ndim else None
        sights[name].append(Sight(placed[variable], place, image, weight))
    return Projection(canvases, sights)


def structure(graph: FactorGraph) -> FactorGraph:
    """Trajectories, and the canvases that they show by Equality: the graph without what it has learned."""
    kept = [f for f in graph.factors if isinstance(graph.potential(f), Equality)]
    names = {end for factor in kept for end in graph.scope(factor)}
    bare = FactorGraph()
    for name in graph.variables:  # in the same order, so that canvases are the same
        if name in graph.trajectories:
            bare.add_trajectory(name, graph.shape(name))
        elif name in names:
            bare.add_variable(name, graph.shape(name))
    for factor in kept:
        bare.add_factor(factor, graph.scope(factor), graph.potential(factor), graph.maps(factor))
    return bare


def apart(graph: FactorGraph) -> FactorGraph:
    """The same trajectories without any factor."""
    alone = FactorGraph()
    for name in graph.trajectories:
        alone.add_trajectory(name, graph.shape(name))
    return alone


def _attracted(graph: FactorGraph, factor: Name) -> tuple[Name, Name, Tensor, LinearMap] | None:
    """A trajectory, a hidden variable, the elements of the one that are an image of the other, and by which map."""
    scope, hidden = graph.scope(factor), graph.hidden
    if not isinstance(graph.potential(factor), Attraction) or len(scope) != 2:
        return None
    maps = graph.maps(factor)
    for own, other in ((0, 1), (1, 0)):
        place = element_index(maps[own])
        if scope[own] not in hidden and scope[other] in hidden and place is not None:
            return scope[own], scope[other], place, maps[other]
    return None


def _entries(view: LinearMap) -> tuple[Tensor, Tensor, Tensor]:
    if is_sparse(view):
        return sparse_entries(view)
    dense = view.dense()
    rows, columns = dense.nonzero().T
    return rows, columns, dense[rows, columns]
