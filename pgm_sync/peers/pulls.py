"""Which trajectories draw which, read from a graph: SyncSDE's conditioning for every task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import GraphStructureError, ParameterError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..inspection.layout import windows
from ..maps import Shape
from .projection import Projection, Sight, projection
from .run import known
from .syncsde import Pull

PREDECESSORS = ("last", "all", "masks")


def pulls_from_graph(
    graph: FactorGraph, order: Sequence[Name] | None = None, predecessors: str | None = None
) -> dict[Name, list[Pull]]:
    """What draws each trajectory: those before it in `order`, through the content that they share.

    * "last", the default for windows, and for views of a whole canvas (ambiguous images): every element is drawn to the
      last predecessor that shows it.
    * "masks", the default where views of a whole canvas have weights, masks of regions: to all predecessors, to each as
      strongly as its weight, so that a region is drawn to the background outside of its mask.
    * "all", the default otherwise (views of a texture): to the weighted average of all predecessors, brought onto the
      canvas and seen from there.

    Trajectories that share nothing with a predecessor are drawn by nothing. `order` is that of the graph if None.

    >>> import pgm_sync as ps
    >>> pulls = pulls_from_graph(ps.wide_canvas((1, 1, 8), window=(1, 4), stride=2))
    >>> [(name, pull.source, pull.mask.flatten().tolist()) for name, own in pulls.items() for pull in own]
    [('w1', 'w0', [1.0, 1.0, 0.0, 0.0]), ('w2', 'w1', [1.0, 1.0, 0.0, 0.0])]

    Raises GraphStructureError if trajectories share no content, UnknownNameError and ParameterError on the order.
    """
    names = graph.trajectories if order is None else list(order)
    known(graph, names, "order")
    if len(set(names)) < len(names):
        raise ParameterError(f"order={names} names a trajectory twice")
    if predecessors not in (None, *PREDECESSORS):
        raise ParameterError(f"predecessors={predecessors!r} is not one of {', '.join(PREDECESSORS)}")
    shared = projection(graph)
    if not shared.canvases:
        raise GraphStructureError(
            f"{graph!r}: no trajectory shares content with another through Equality, or through an Attraction to a "
            "hidden variable; give pulls={name: Pull(source, project)}"
        )
    rule = predecessors or _rule(graph, shared)
    routes: dict[tuple[Name, Name], list[_Route]] = {}
    for k, canvas in enumerate(shared.canvases):
        for (name, source), route in _routes(shared, k, math.prod(canvas.shape), names, rule):
            routes.setdefault((name, source), []).append(route)
    out: dict[Name, list[Pull]] = {}
    for name, source in sorted(routes, key=lambda pair: tuple(map(names.index, pair))):
        own = routes[name, source]
        mask = torch.zeros(1, *graph.shape(name), dtype=torch.float64)
        for route in own:
            mask = route.target.put(route.strength[None], mask)
        out.setdefault(name, []).append(Pull(source, _through(own, graph.shape(name)), mask[0]))
    return out


def _through(routes: Sequence[_Route], shape: Shape) -> Callable[[Tensor], Tensor]:
    """The source's state as the drawn trajectory would show it."""

    def project(state: Tensor) -> Tensor:
        out = state.new_zeros(len(state), *shape)
        for route in routes:
            out = route.target.put(route.project(state), out)
        return out

    return project


def _rule(graph: FactorGraph, shared: Projection) -> str:
    """The paper's choice for the task that the graph looks like."""
    whole = all(
        sight.size == math.prod(shared.canvases[sight.canvas].shape)
        for sights in shared.sights.values()
        for sight in sights
    )
    if shared.weighted:
        return "masks" if whole else "all"
    return "last" if whole or windows(graph) is not None else "all"


class _Route(NamedTuple):
    """How what one trajectory shows of a canvas reaches another that shows it too."""

    source: Sight
    target: Sight
    scale: Tensor  # (S,) what to multiply the source's weighed content with, on the canvas
    strength: Tensor  # (P,) of the pull, at the target's elements
    shape: Shape  # of the canvas

    def project(self, state: Tensor) -> Tensor:
        """The source's state as the target would show it, ``(n, P)``; zero where they share nothing."""
        if isinstance(self.source.view, Tensor) and isinstance(self.target.view, Tensor):
            seen = self.source.take(state).index_select(1, self._at.to(state.device))
            return torch.where(self.strength.to(state) != 0, seen, torch.zeros_like(seen))
        flat = state.new_zeros(len(state), len(self.scale))
        onto = self.source.add(flat, self.source.weighed(state)) * self.scale.to(state)
        seen, strength = self.target.apply(onto.reshape(len(state), *self.shape)), self.strength.to(state)
        return torch.where(strength != 0, seen / strength, torch.zeros_like(seen))

    @property
    def _at(self) -> Tensor:
        """Which of the source's elements each of the target's is, 0 where none."""
        assert isinstance(self.source.view, Tensor)
        assert isinstance(self.target.view, Tensor)
        place = torch.zeros(len(self.scale), dtype=torch.int64)
        place[self.source.view] = torch.arange(self.source.size)
        return place[self.target.view]


def _routes(
    shared: Projection, k: int, size: int, names: Sequence[Name], rule: str
) -> Iterator[tuple[tuple[Name, Name], _Route]]:
    """All pulls through canvas k, ``((drawn, source), route)``."""
    before: dict[Name, tuple[Sight, Tensor]] = {}  # and what each counts on the canvas, (S,)
    total = torch.zeros(size, dtype=torch.float64)
    owner = torch.full((size,), -1)
    for name in names:
        sight = next((sight for sight in shared.sights.get(name, []) if sight.canvas == k), None)
        if sight is None:
            continue
        columns = sight.shares[1].unique()
        on_top = set(owner[columns].tolist())
        for j, (source, (other, counts)) in enumerate(before.items()):
            if j not in on_top if rule == "last" else not counts[columns].any():
                continue
            if rule == "last":
                share = (owner == j).double()
            else:
                share = counts if rule == "masks" else torch.where(total != 0, counts / total, total)
            # a constant content stays what it is
            scale = torch.where(counts != 0, share / counts, torch.zeros_like(share))
            yield (name, source), _Route(other, sight, scale, sight.strength(share), shared.canvases[k].shape)
        own = sight.counts(size)
        owner[own != 0] = len(before)
        total = total + own
        before[name] = (sight, own)
