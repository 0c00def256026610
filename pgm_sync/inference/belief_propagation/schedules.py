"""In which order belief propagation sends its messages.

Each schedule is a generator over iterations; stopping lives outside, in `belief_propagation.run`:

* flooding: all messages at once, from those of the iteration before;
* sequential: one after the other along ``network.edges`` (in the order of the nodes, and back);
* residual: always the message that would change most [Elidan2006]_;
* tree: towards a root in the middle and back, level by level; exact after one iteration, on forests only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from ...errors import LoopError, ParameterError, UnknownNameError, listed
from .messages import Messages, Sent, check_lanes, send_block, send_lanes
from .network import Edge, Firing, Network

Damping = float | Mapping[Edge, float]


class Turn(NamedTuple):
    """Some messages of one part: the lanes of a firing (None: all of them), or one block edge."""

    part: int
    firing: Firing | None


class Mixing:
    """How new messages mix with old ones: the weight of the old one per edge, and the edges that stay as they are."""

    def __init__(self, net: Network, damping: Damping = 0.0, frozen: Collection[Edge] = ()):
        known = net.layout.carried
        each = damping if isinstance(damping, Mapping) else {}
        for edge in [*each, *frozen]:
            require_edge(net, edge)
        for value in each.values() if isinstance(damping, Mapping) else [damping]:
            if not 0 <= value < 1:
                raise ParameterError(
                    f"damping={value!r} is not in [0, 1): it is the weight of the old message; "
                    "to keep a message, put its edge in frozen",
                    damping=value,
                )
        self.frozen = frozenset(frozen)
        self.largest = max(each.values(), default=0.0) if isinstance(damping, Mapping) else float(damping)
        self.damped = self.largest > 0
        self._one = None if isinstance(damping, Mapping) else float(damping)
        device, dtype = net.problem.system.eta.device, net.problem.system.eta.dtype
        self._weights: dict[int, Tensor] = {}  # per part (2m, 1), or () for a block edge
        self.free: dict[int, np.ndarray] = {}  # lanes that are sent, for parts with a frozen one
        for edge in each:
            for part, lanes in known[edge]:
                self._of(net, part, dtype, device)[lanes if len(lanes) else ...] = each[edge]
        base = len(net.layout.cells)
        for edge in self.frozen:
            for part, lanes in known[edge]:
                size = 2 * net.layout.cells[part].m if part < base else 1
                mask = self.free.setdefault(part, np.ones(size, dtype=bool))
                mask[lanes if len(lanes) else ...] = False

    def _of(self, net: Network, part: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        if part not in self._weights:
            base = len(net.layout.cells)
            shape = (2 * net.layout.cells[part].m, 1) if part < base else ()
            self._weights[part] = torch.zeros(shape, dtype=dtype, device=device)
        return self._weights[part]

    def weight(self, part: int, lanes: Tensor | None) -> Tensor | float:
        """Of the old message, for lanes of a part."""
        if self._one is not None:
            return self._one
        found = self._weights.get(part)
        if found is None:
            return 0.0
        return found if lanes is None or not found.ndim else found.index_select(0, lanes)

    def mix(self, old: Tensor, new: Tensor, part: int, lanes: Tensor | None) -> Tensor:
        weight = self.weight(part, lanes)
        return new if isinstance(weight, float) and weight == 0 else new + weight * (old - new)


class State:
    """The messages of a run, and whether only means are still sent. Schedules write into it."""

    def __init__(self, messages: Messages, means_only: bool = False):
        self.precision, self.eta = list(messages.precision), list(messages.eta)
        self.means_only, self.iteration = means_only, 0
        self.gains: dict[object, Tensor] = {}  # of cavities that no longer change

    def messages(self) -> Messages:
        """As an immutable value; copies, since a schedule may go on writing."""
        return Messages(tuple(p.clone() for p in self.precision), tuple(h.clone() for h in self.eta))


class Scale(NamedTuple):
    """What changes of messages are measured by."""

    precision: float
    eta: float


class Progress(NamedTuple):
    """What an iteration did."""

    change: float  # largest, of a precision or eta message, relative to the largest precision or eta of the problem
    messages: int  # sent, counted by named edge


Schedule = Callable[[Network, State, Mixing], Iterator[Progress]]


def require_edge(net: Network, edge: Edge) -> None:
    """Raise UnknownNameError unless `net` has this directed edge."""
    try:
        known = edge in net.layout.carried
    except TypeError:
        known = False
    if not known:
        raise UnknownNameError(f"the network has no edge {edge!r}; it has {listed(net.edges)}", name=edge)


def scale_of(net: Network) -> Scale:
    """The largest precision and eta of a problem (1 where that is 0)."""
    precision = max((v.abs().max().item() for v in net.diagonal if v.numel()), default=0.0)
    eta = max((v.abs().max().item() for v in net.eta if v.numel()), default=0.0)
    return Scale(precision or 1.0, eta or 1.0)


def compute(net: Network, state: State, turn: Turn, key: object = None) -> Sent:
    """One turn's new messages. With a `key`, its gains are kept while only means are sent."""
    gain = state.gains.get(key) if state.means_only and key is not None else None
    base = len(net.layout.cells)
    if turn.part < base:
        sent = send_lanes(
            net, turn.part, turn.firing, state.precision[turn.part], state.eta[turn.part], gain, state.means_only,
            state.iteration,
        )  # fmt: skip
    else:
        sent = send_block(
            net, turn.part - base, state.precision, state.eta, gain, state.means_only, state.iteration
        )
    if state.means_only and key is not None:
        state.gains[key] = sent.gain
    return sent


def turns_of(net: Network, edge: Edge) -> list[Turn]:
    """What sending along one edge takes."""
    device, base = net.problem.system.eta.device, len(net.layout.cells)
    return [
        Turn(part, net.layout.cells[part].firing(lanes, device) if part < base else None)
        for part, lanes in net.layout.carried[edge]
    ]


def mixed(
    state: State, turn: Turn, sent: Sent, mixing: Mixing
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor]:
    """A turn's messages after damping, and those they replace."""
    lanes = None if turn.firing is None else turn.firing.lanes

    def old(values: Tensor) -> Tensor:
        return values if lanes is None else values.index_select(-2, lanes)

    before = precision = None
    if sent.precision is not None:
        before = old(state.precision[turn.part])
        precision = mixing.mix(before, sent.precision, turn.part, lanes)
    eta_before = old(state.eta[turn.part])
    return precision, mixing.mix(eta_before, sent.eta, turn.part, lanes), before, eta_before


def write(state: State, turn: Turn, precision: Tensor | None, eta: Tensor) -> None:
    """Put messages where they belong; single lanes are written in place."""
    if turn.firing is None:
        state.eta[turn.part] = eta
        if precision is not None:
            state.precision[turn.part] = precision
        return
    state.eta[turn.part].index_copy_(-2, turn.firing.lanes, eta)
    if precision is not None:
        state.precision[turn.part].index_copy_(-2, turn.firing.lanes, precision)


def change_of(
    scale: Scale, precision: Tensor | None, eta: Tensor, before: Tensor | None, eta_before: Tensor
) -> float:
    change = largest(eta - eta_before) / scale.eta
    if precision is not None and before is not None:
        change = max(change, largest(precision - before) / scale.precision)
    return change


def largest(values: Tensor) -> float:
    if not values.numel():
        return 0.0
    low, high = values.aminmax()
    return max(-low.item(), high.item())


def flooding_turns(net: Network, mixing: Mixing) -> list[Turn]:
    """Everything that is not frozen, as few turns."""
    turns, device = [], net.problem.system.eta.device
    for part, cells in enumerate(net.layout.cells):
        free = mixing.free.get(part)
        if free is None:
            turns += [Turn(part, None)] if cells.m else []
        elif free.any():
            turns.append(Turn(part, cells.firing(np.flatnonzero(free), device)))
    for part in range(len(net.layout.cells), len(net.coupling)):
        if part not in mixing.free:
            turns.append(Turn(part, None))
    return turns


def flooding(net: Network, state: State, mixing: Mixing) -> Iterator[Progress]:
    """All messages at once."""
    scale, turns = scale_of(net), flooding_turns(net, mixing)
    count = len(net.edges) - len(mixing.frozen)
    while True:
        new = [
            mixed(state, turn, compute(net, state, turn, ("flooding", k)), mixing)
            for k, turn in enumerate(turns)
        ]
        for turn, (precision, eta, _, _) in zip(turns, new, strict=True):
            write(state, turn, precision, eta)
        yield Progress(max((change_of(scale, p, h, p0, h0) for p, h, p0, h0 in new), default=0.0), count)


def sequential(net: Network, state: State, mixing: Mixing) -> Iterator[Progress]:
    """One edge after the other, in the order of ``net.edges``."""
    scale = scale_of(net)
    turns = [turn for edge in net.edges if edge not in mixing.frozen for turn in turns_of(net, edge)]
    count = len(net.edges) - len(mixing.frozen)
    while True:
        change = 0.0
        for k, turn in enumerate(turns):
            p, h, p0, h0 = mixed(state, turn, compute(net, state, turn, ("sequential", k)), mixing)
            change = max(change, change_of(scale, p, h, p0, h0))
            write(state, turn, p, h)
        yield Progress(change, count)


def residual(net: Network, state: State, mixing: Mixing) -> Iterator[Progress]:
    """The edge whose messages would change most, as many times as there are edges."""
    scale = scale_of(net)
    turns = {edge: turns_of(net, edge) for edge in net.edges if edge not in mixing.frozen}
    number = {edge: k for k, edge in enumerate(turns)}
    edges = list(turns)
    pending: dict[Edge, list[tuple[Tensor | None, Tensor]]] = {}
    changes: dict[Edge, float] = {}
    heap: list[tuple[float, int, float]] = []

    def prepare(edge: Edge) -> None:
        found = [
            mixed(state, t, compute(net, state, t, (edge, k)), mixing) for k, t in enumerate(turns[edge])
        ]
        pending[edge] = [(p, h) for p, h, _, _ in found]
        changes[edge] = max(change_of(scale, p, h, p0, h0) for p, h, p0, h0 in found)
        heapq.heappush(heap, (-changes[edge], number[edge], changes[edge]))

    for edge in edges:
        prepare(edge)
    while True:
        change, sent = 0.0, 0
        while sent < len(edges) and heap:
            _, k, known = heapq.heappop(heap)
            edge = edges[k]
            if known != changes[edge]:
                continue  # an outdated entry
            change, sent = max(change, known), sent + 1
            for turn, (p, h) in zip(turns[edge], pending[edge], strict=True):
                write(state, turn, p, h)
            prepare(edge)  # damped messages have not arrived yet
            for other in net.layout.outgoing.get(edge[1], []):
                if other != edge and other in turns:
                    prepare(other)
        yield Progress(change, sent)


class Sweep(NamedTuple):
    """A forest rooted in the middle of its trees, nodes by distance from their root."""

    order: np.ndarray  # (n,), the roots first
    parent: np.ndarray  # (n,), the parent's place in `order`; -1 for a root
    bounds: tuple[int, ...]  # level d is order[bounds[d]:bounds[d + 1]]


def sweep(n: int, first: np.ndarray, second: np.ndarray) -> Sweep | list[int]:
    """Levels of a forest with the given edges; or a cycle, as its nodes in order."""
    adjacency = coo_array((np.ones(len(first)), (first, second)), shape=(n, n)).tocsr()
    parent = np.full(n, -1, dtype=np.int64)
    depth = np.zeros(n, dtype=np.int64)
    _, label = connected_components(adjacency, directed=False)
    starts = np.unique(label, return_index=True)[1]
    for start in starts.tolist():
        far = breadth_first_order(adjacency, start, directed=False)[0][-1]
        order, before = breadth_first_order(adjacency, far, directed=False)
        path = [int(order[-1])]  # a longest path, if this is a tree
        while path[-1] != far:
            path.append(int(before[path[-1]]))
        root = path[len(path) // 2]
        order, before = breadth_first_order(adjacency, root, directed=False)
        for v in order[1:].tolist():
            parent[v] = before[v]
            depth[v] = depth[before[v]] + 1
    along = (parent[first] == second) | (parent[second] == first)
    if not along.all():
        a, b = (int(ends[np.flatnonzero(~along)[0]]) for ends in (first, second))
        return _cycle(parent, depth, a, b)
    order = np.argsort(depth, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    above = np.where(parent[order] >= 0, place[parent[order]], -1)
    bounds = np.searchsorted(depth[order], np.arange(depth.max() + 2))
    return Sweep(order, above, tuple(bounds.tolist()))


def _cycle(parent: np.ndarray, depth: np.ndarray, a: int, b: int) -> list[int]:
    left, right = [a], [b]
    while left[-1] != right[-1]:
        side = left if depth[left[-1]] >= depth[right[-1]] else right
        side.append(int(parent[side[-1]]))
    return [*left, *right[-2::-1]]


def _require_tree(net: Network, found: Sweep | list[int], names: list[int]) -> Sweep:
    if isinstance(found, Sweep):
        return found
    cycle = [net.layout.names[names[v]] for v in found]
    shown = " - ".join(map(repr, cycle[:12])) + (" - ..." if len(cycle) > 12 else "")
    raise LoopError(
        f"schedule='tree' on a graph with the loop {shown} - {cycle[0]!r}: two sweeps are exact on forests only; "
        "use schedule='flooding', 'sequential' or 'residual', or infer(graph, method='exact')",
        cycle=cycle,
    )


def tree(net: Network, state: State, mixing: Mixing) -> Iterator[Progress]:
    """Collect and distribute, in every tree of a forest. Raises LoopError naming a cycle."""
    layout, scale = net.layout, scale_of(net)
    plans = []
    for cells in layout.cells:
        plans.append(_require_tree(net, sweep(cells.n, cells.first, cells.second), cells.owners.tolist()))
    pairs = np.array(layout.block_edges[: len(layout.block_edges) // 2], dtype=np.int64).reshape(-1, 2)
    block_turns: list[Turn] = []
    if layout.block_sites:
        blocks = _require_tree(net, sweep(len(layout.block_sites), *pairs.T), layout.block_owner)
        block_turns = _block_sweeps(net, blocks, mixing)
    lanes = [_TreeLanes(net, part, found) for part, found in enumerate(plans) if layout.cells[part].m]
    count = len(net.edges) - len(mixing.frozen)
    while True:
        change = max((two_sweeps(net, state, mixing, tree_lanes, scale) for tree_lanes in lanes), default=0.0)
        for k, turn in enumerate(block_turns):
            p, h, p0, h0 = mixed(state, turn, compute(net, state, turn, ("tree", k)), mixing)
            change = max(change, change_of(scale, p, h, p0, h0))
            write(state, turn, p, h)
        yield Progress(change, count)


def _block_sweeps(net: Network, found: Sweep, mixing: Mixing) -> list[Turn]:
    base = len(net.layout.cells)
    number = {edge: base + k for k, edge in enumerate(net.layout.block_edges)}
    ends = [(int(v), int(found.order[p])) for v, p in zip(found.order, found.parent, strict=True) if p >= 0]
    parts = [number[edge] for edge in reversed(ends)] + [number[p, v] for v, p in ends]
    return [Turn(part, None) for part in parts if part not in mixing.free]


class _TreeLanes:
    """The lanes of one pattern in the order of the two sweeps: entry k belongs to the k-th node that is no root."""

    def __init__(self, net: Network, part: int, found: Sweep):
        cells, device = net.layout.cells[part], net.problem.system.eta.device
        child_is_first = np.zeros(cells.m, dtype=bool)
        place = np.empty(cells.n, dtype=np.int64)
        place[found.order] = np.arange(cells.n)
        a, b = place[cells.first], place[cells.second]
        child_is_first = found.parent[a] == b
        child = np.where(child_is_first, a, b)
        up, down = np.empty(cells.n, dtype=np.int64), np.empty(cells.n, dtype=np.int64)
        edges = np.arange(cells.m)
        up[child] = np.where(child_is_first, edges, edges + cells.m)
        down[child] = np.where(child_is_first, edges + cells.m, edges)
        self.part, self.roots = part, found.bounds[1]
        self.levels = [
            (lo, hi) for lo, hi in zip(found.bounds[1:], found.bounds[2:], strict=False) if hi > lo
        ]
        self.order = torch.from_numpy(found.order).to(device)
        self.parent = torch.from_numpy(found.parent).to(device)
        self.up = torch.from_numpy(up[self.roots :].copy()).to(device)
        self.down = torch.from_numpy(down[self.roots :].copy()).to(device)


def two_sweeps(net: Network, state: State, mixing: Mixing, lanes: _TreeLanes, scale: Scale) -> float:
    """Collect towards the roots, distribute back; one operation per level, whatever its width. The largest change."""
    part, up, down, parent, roots = lanes.part, lanes.up, lanes.down, lanes.parent, lanes.roots
    own = net.diagonal[part].index_select(-2, lanes.order)
    precision = state.precision[part]
    j = own.expand(*precision.shape[:-2], *own.shape[-2:]).clone()
    h = net.eta[part].index_select(-2, lanes.order)
    coupling = net.coupling[part].index_select(-2, up)
    square = coupling * coupling
    free = mixing.free.get(part)
    kept = None if free is None else torch.from_numpy(~free).to(h.device)[:, None]

    def old(values: Tensor, which: Tensor) -> Tensor:
        return values.index_select(-2, which)

    def settle(new: Tensor, before: Tensor, which: Tensor, at: slice) -> Tensor:
        chosen = which[at]
        new = mixing.mix(before[..., at, :], new, part, chosen)
        return new if kept is None else torch.where(kept[chosen], before[..., at, :], new)

    before = [old(values, which) for which in (up, down) for values in (precision, state.eta[part])]
    sent = [torch.empty_like(values) for values in before]
    cavities = torch.empty_like(before[0])
    mix = mixing.damped or kept is not None
    for lo, hi in reversed(lanes.levels):
        at = slice(lo - roots, hi - roots)
        c, above = j[..., lo:hi, :], parent[lo:hi]
        new_p = -square[..., at, :] / c
        new_h = -coupling[..., at, :] * h[..., lo:hi, :] / c
        if mix:
            new_p, new_h = settle(new_p, before[0], up, at), settle(new_h, before[1], up, at)
        sent[0][..., at, :], sent[1][..., at, :] = new_p, new_h
        _accumulate(j, above, new_p)
        _accumulate(h, above, new_h)
    collected = j[..., roots:, :].clone()
    for lo, hi in lanes.levels:
        at = slice(lo - roots, hi - roots)
        above = parent[lo:hi]
        c = j.index_select(-2, above) - sent[0][..., at, :]
        cavities[..., at, :] = c
        new_p = -square[..., at, :] / c
        new_h = -coupling[..., at, :] * (h.index_select(-2, above) - sent[1][..., at, :]) / c
        if mix:
            new_p, new_h = settle(new_p, before[2], down, at), settle(new_h, before[3], down, at)
        sent[2][..., at, :], sent[3][..., at, :] = new_p, new_h
        j[..., lo:hi, :] += new_p
        h[..., lo:hi, :] += new_h
    # Checked once, in the order of sending: a cavity that is not positive spoils only what comes after it.
    cells, lane_source = net.layout.cells[part], net.layout.cells[part].index("source", h.device)
    for which, seen in ((up, collected.flip(-2)), (down, cavities)):
        rows = which.flip(0) if which is up else which
        if kept is not None:
            seen = torch.where(kept[rows], torch.ones_like(seen), seen)
        check_lanes(net, part, seen, net.diagonal[part], lane_source[rows], rows, state.iteration)
    assert cells.m == len(up)
    change = max(largest(sent[k] - before[k]) / (scale.eta if k % 2 else scale.precision) for k in range(4))
    both = torch.cat([up, down])
    state.precision[part] = precision.index_copy(-2, both, torch.cat([sent[0], sent[2]], -2))
    state.eta[part] = state.eta[part].index_copy(-2, both, torch.cat([sent[1], sent[3]], -2))
    return change


def _accumulate(total: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add rows in place; narrow ones by a scatter, whose cost does not grow with their number."""
    if values.shape[-1] >= 32 or values.shape[-2] < 4:
        total.index_add_(-2, rows, values)
    else:
        total.scatter_add_(-2, rows[:, None].expand(values.shape), values)


SCHEDULES: dict[str, Schedule] = {
    "flooding": flooding,
    "sequential": sequential,
    "residual": residual,
    "tree": tree,
}
