"""Which trajectories draw which, read from a graph: SyncSDE's conditioning for every task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import GraphStructureError, ParameterError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..inspection.layout import windows
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
    out: dict[Name, list[Pull]] = {}
    for j, name in enumerate(names):
        own = []
        for k in range(j):
            pull = _pull(graph, shared, names[:j], names[k], name, rule)
            if pull is not None:
                own.append(pull)
        if own:
            out[name] = own
    return out


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


def _pull(
    graph: FactorGraph, shared: Projection, before: Sequence[Name], source: Name, name: Name, rule: str
) -> Pull | None:
    """How `source`, one of those `before`, draws `name`."""
    mask = torch.zeros(1, *graph.shape(name), dtype=torch.float64)
    routes = []
    for k in range(len(shared.canvases)):
        ends = [_sight(shared, end, k) for end in (source, name)]
        if ends[0] is None or ends[1] is None:
            continue
        share = _share(shared, k, before, source, rule)
        brought = ends[0].counts(len(share))  # a constant content stays what it is
        scale = torch.where(brought != 0, share / brought, torch.zeros_like(share))
        mask = ends[1].put(ends[1].strength(share)[None], mask)
        routes.append((ends[0], ends[1], scale, shared.canvases[k].shape))
    if not mask.any():
        return None
    return Pull(source, _through(routes, mask, graph.shape(name)), mask[0])


def _through(
    routes: list[tuple[Sight, Sight, Tensor, tuple]], mask: Tensor, shape: tuple
) -> Callable[[Tensor], Tensor]:
    """The source's state as the pulled trajectory would show it; zero where they share nothing."""

    def project(state: Tensor) -> Tensor:
        out = state.new_zeros(len(state), *shape)
        for source, target, scale, canvas in routes:
            flat = state.new_zeros(len(state), math.prod(canvas))
            onto = source.add(flat, source.weighed(state)) * scale.to(state)
            out = target.put(target.apply(onto.reshape(len(state), *canvas)), out)
        strength = mask.to(out)
        return torch.where(strength != 0, out / strength, torch.zeros_like(out))

    return project


def _share(shared: Projection, k: int, before: Sequence[Name], source: Name, rule: str) -> Tensor:
    """How much of the pull at each element of canvas k goes to `source`, ``(S,)`` float64."""
    size = math.prod(shared.canvases[k].shape)
    counts = {n: s.counts(size) for n in before if (s := _sight(shared, n, k)) is not None}
    own = counts[source]
    if rule == "masks":
        return own
    if rule == "last":
        later = before[list(before).index(source) + 1 :]
        covered = sum((counts[n] for n in later if n in counts), torch.zeros_like(own))
        return ((own != 0) & (covered == 0)).double()
    total = sum(counts.values(), torch.zeros_like(own))
    return torch.where(total != 0, own / total, torch.zeros_like(own))


def _sight(shared: Projection, name: Name, k: int) -> Sight | None:
    return next((sight for sight in shared.sights.get(name, []) if sight.canvas == k), None)
