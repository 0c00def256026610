"""Elimination orders, and the symbolic elimination they imply."""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import ParameterError

T = TypeVar("T")

ORDERS = ("minimum degree", "minimum fill", "odd-even")
MINIMUM_FILL_UP_TO = 300  # nodes; it takes longer to find, and gains little on large patterns
AFFORDABLE = 1e9  # multiplications per copy: a few seconds, and less than 1 GB of fill in a planar pattern


class Elimination(NamedTuple):
    """A perfect elimination scheme: the clique tree of the message passing.

    Eliminating ``order[k]`` sends one message to ``later[k]``, its neighbours still present (fill included).
    """

    order: tuple[int, ...]
    later: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """Size of the largest clique, minus one."""
        return max((len(neighbours) for neighbours in self.later), default=0)

    def cost(self, size: Sequence[int] | None = None) -> float:
        """Multiplications of the factorisation, for nodes of the given sizes (all 1 by default)."""
        weight = np.ones(len(self.order)) if size is None else np.asarray(size, dtype=float)
        total = 0.0
        for v, later in zip(self.order, self.later, strict=True):
            own, rest = weight[v], weight[list(later)].sum() if later else 0.0
            total += own**3 / 3 + own**2 * rest + own * rest * (rest + 1) / 2
        return float(total)

    def levels(self) -> np.ndarray:
        """For every node the earliest round it can go in: nodes of one round do not send to each other.

        Their number is the depth of the message passing when every round runs at once.
        """
        level = np.zeros(len(self.order), dtype=np.int64)
        for v, later in zip(self.order, self.later, strict=True):
            for u in later:
                level[u] = max(level[u], level[v] + 1)
        return level


def eliminate_in(
    n: int, edges: Sequence[tuple[int, int]], order: str, weight: Sequence[int] | None = None
) -> Elimination:
    """The symbolic elimination of a graph in one of the `ORDERS`. Never recurses; about linear for trees.

    "minimum degree": the node with the lightest neighbourhood first; "minimum fill": the one whose elimination joins
    the fewest neighbours (slower to find, sometimes cheaper to use); "odd-even": rounds of nodes that are no
    neighbours of each other, lightest first, so that a chain of n nodes takes about log2(n) rounds. Ties go to the
    lowest number. `weight` is the size of each node (all 1 by default).
    """
    if order not in ORDERS:
        raise ParameterError(f"order={order!r} is not one of {', '.join(map(repr, ORDERS))}", order=order)
    adjacent = _neighbours(n, edges)
    if order == "odd-even":
        return _rounds(adjacent)
    price: Callable[[int], int] | None = None
    if order == "minimum fill":
        price = functools.partial(_fill, adjacent)
    elif weight is not None:
        price = lambda v: sum(weight[u] for u in adjacent[v])  # noqa: E731
    found = _greedy(adjacent, price, second_ring=order == "minimum fill")
    assert found is not None  # without a limit
    return found


def _neighbours(n: int, edges: Sequence[tuple[int, int]]) -> list[set[int]]:
    adjacent: list[set[int]] = [set() for _ in range(n)]
    for a, b in edges:
        if a != b:
            adjacent[a].add(b)
            adjacent[b].add(a)
    return adjacent


def best_elimination(
    n: int, edges: Sequence[tuple[int, int]], weight: Sequence[int] | None = None
) -> tuple[Elimination, str]:
    """The cheapest of the greedy orders, and its name; minimum fill is tried up to `MINIMUM_FILL_UP_TO` nodes."""
    names = ["minimum degree"] + (["minimum fill"] if n <= MINIMUM_FILL_UP_TO else [])
    found = [(eliminate_in(n, edges, name, weight), name) for name in names]
    return min(found, key=lambda pair: pair[0].cost(weight))


def _greedy(
    adjacent: list[set[int]],
    price: Callable[[int], int] | None,
    second_ring: bool = False,
    limit: float = math.inf,
) -> Elimination | None:
    """Eliminate the node of the lowest price (its degree) until none is left; updates the prices around it.

    None as soon as the elimination takes more than `limit` multiplications.
    """
    if price is None:
        price = lambda v: len(adjacent[v])  # noqa: E731
    degree = [len(around) for around in adjacent]
    prices = [price(v) for v in range(len(adjacent))]
    heap = [(p, v) for v, p in enumerate(prices)]
    heapq.heapify(heap)
    done = [False] * len(adjacent)
    order, later = [], []
    while heap:
        p, v = heapq.heappop(heap)
        if done[v] or p != prices[v]:
            continue  # an outdated entry
        done[v] = True
        limit -= len(adjacent[v]) ** 2 / 2
        if limit < 0:
            return None
        neighbours = _remove(adjacent, v)
        order.append(v)
        later.append(neighbours)
        touched = set(neighbours)
        if second_ring:  # fill counts edges among neighbours, so the neighbours' neighbours change too
            touched |= {w for u in neighbours for w in adjacent[u]}
        for u in touched:
            prices[u] = price(u)
            heapq.heappush(heap, (prices[u], u))
    return _hub_last(order, later, degree)


def _hub_last(order: list[int], later: list[tuple[int, ...]], degree: list[int]) -> Elimination:
    """The order with a hub, if it is among those at the end that are all joined to each other, as the last of them.

    Any order of them costs the same, but the last pivot holds the rounding of all the others, which is small beside
    what a hub has on the diagonal, and not beside a leaf.
    """
    n = len(order)
    first = n - 1
    while first > 0 and len(later[first - 1]) == n - first:
        first -= 1
    end = order[first:]
    hub = max(end, key=lambda v: degree[v], default=0)
    if end and degree[hub] > 2 * degree[end[-1]]:
        order = [*order[:first], *(v for v in end if v != hub), hub]
        later = [*later[:first], *(tuple(sorted(order[k + 1 :])) for k in range(first, n))]
    return Elimination(tuple(order), tuple(later))


def _rounds(adjacent: list[set[int]]) -> Elimination:
    """Rounds of mutually independent nodes among those with at most 2 neighbours, or the fewest there are."""
    left = set(range(len(adjacent)))
    order, later = [], []
    while left:
        degree = {v: len(adjacent[v]) for v in left}
        most = max(2, min(degree.values()))
        blocked: set[int] = set()
        chosen = []
        for v in sorted((v for v in left if degree[v] <= most), key=lambda v: (degree[v], v)):
            if v not in blocked:
                chosen.append(v)
                blocked |= adjacent[v]
        for v in sorted(chosen):
            order.append(v)
            later.append(_remove(adjacent, v))
        left.difference_update(chosen)
    return Elimination(tuple(order), tuple(later))


def _remove(adjacent: list[set[int]], v: int) -> tuple[int, ...]:
    """Eliminate v: its neighbours, sorted, which are now joined to each other."""
    neighbours = tuple(sorted(adjacent[v]))
    for u in neighbours:
        adjacent[u].discard(v)
        adjacent[u].update(neighbours)
        adjacent[u].discard(u)
    adjacent[v] = set()
    return neighbours


def _fill(adjacent: list[set[int]], v: int) -> int:
    around = adjacent[v]
    return sum(len(around - adjacent[u]) - 1 for u in around) // 2


class Pivot(NamedTuple):
    """One step of the elimination: a node, its later neighbours, and where the numbers between them live."""

    node: int
    later: tuple[int, ...]
    column: tuple[int, ...]  # per later neighbour: the slot of its entry with the node
    pairs: tuple[tuple[int, ...], ...]  # (k, k): the slot of every two of them


class Round(NamedTuple):
    """Pivots that go at once, flattened: E entries below them, U pairs of entries, F ordered pairs."""

    pivots: np.ndarray  # (p,) nodes
    column: np.ndarray  # (E,) slots
    of: np.ndarray  # (E,) which of the pivots
    to: np.ndarray  # (E,) the later neighbour
    first: np.ndarray  # (U,) entry
    second: np.ndarray  # (U,) entry
    target: np.ndarray  # (U,) slot that the two entries update
    left: np.ndarray  # (F,) entry
    right: np.ndarray  # (F,) entry
    between: np.ndarray  # (F,) slot of the two entries' neighbours


class ScalarScheme:
    """A symbolic elimination with storage slots: slots 0..n-1 hold the diagonal, the others one pair each.

    Nothing is worked out before it is asked for: other plans need the pattern only.
    """

    def __init__(self, n: int, edges: tuple[tuple[int, int], ...], order: str | None = None):
        self.n, self.edges, self._order = n, edges, order
        self._kept: dict[tuple[str, Hashable], Any] = {}

    def kept(self, what: str, device: Hashable, make: Callable[[], T]) -> T:
        """What a plan has made of the scheme for a device: made once, and let go with the scheme."""
        if (what, device) not in self._kept:
            self._kept[what, device] = make()
        return self._kept[what, device]

    @cached_property
    def ends(self) -> np.ndarray:
        """Both ends of every edge, ``(2, edges)``."""
        return np.ascontiguousarray(np.array(self.edges, dtype=np.int64).reshape(-1, 2).T)

    @cached_property
    def _found(self) -> tuple[Elimination, str]:
        if self._order is not None:
            return eliminate_in(self.n, self.edges, self._order), self._order
        return self._cheap or best_elimination(self.n, self.edges)

    @cached_property
    def _cheap(self) -> tuple[Elimination, str] | None:
        """The cheapest order if it takes at most `AFFORDABLE` multiplications per copy; gives up once it does not."""
        if self.n <= MINIMUM_FILL_UP_TO:
            return best_elimination(self.n, self.edges)
        found = _greedy(_neighbours(self.n, self.edges), None, limit=AFFORDABLE)
        return None if found is None else (found, "minimum degree")

    @property
    def affordable(self) -> bool:
        """Whether a copy takes at most `AFFORDABLE` multiplications."""
        return self._cheap is not None

    @property
    def elimination(self) -> Elimination:
        """Order and neighbours."""
        return self._found[0]

    @property
    def order(self) -> str:
        """Which of the `ORDERS` it is."""
        return self._found[1]

    @cached_property
    def _slot(self) -> dict[tuple[int, int], int]:
        slot: dict[tuple[int, int], int] = {}
        for a, b in self.edges:
            slot.setdefault((min(a, b), max(a, b)), self.n + len(slot))
        for v, later in zip(self.elimination.order, self.elimination.later, strict=True):
            for u in later:
                slot.setdefault((min(u, v), max(u, v)), self.n + len(slot))
        return slot

    @property
    def slots(self) -> int:
        """How many numbers the factor has."""
        return self.n + len(self._slot)

    @cached_property
    def edge_slots(self) -> tuple[int, ...]:
        """The slot of every edge."""
        return tuple(self.find(a, b) for a, b in self.edges)

    @property
    def width(self) -> int:
        """Size of the largest clique, minus one."""
        return self.elimination.width

    @cached_property
    def cost(self) -> float:
        """Multiplications per copy of the factorisation."""
        return self.elimination.cost()

    @cached_property
    def calls(self) -> float:
        """Operations per copy of the factorisation, one solve and the selected inverse."""
        k = np.array([len(later) for later in self.elimination.later], dtype=float)
        return float((1.5 * k**2 + 4.5 * k + 3).sum())

    def find(self, a: int, b: int) -> int:
        """The slot of a pair (or of the diagonal); KeyError for a pair outside the filled pattern."""
        return a if a == b else self._slot[min(a, b), max(a, b)]

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return pair[0] == pair[1] or (min(pair), max(pair)) in self._slot

    def _look_up(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """`find` for arrays of pairs inside the filled pattern."""
        keys, slots = self._sorted
        if not len(keys):
            return a.copy()
        wanted = np.minimum(a, b) * self.n + np.maximum(a, b)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(a == b, a, slots[at])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        keys = np.array([a * self.n + b for a, b in self._slot], dtype=np.int64)
        order = np.argsort(keys)
        return keys[order], order + self.n

    @cached_property
    def pivots(self) -> tuple[Pivot, ...]:
        """The steps one by one, for copies so many that every number is a long vector."""
        return tuple(
            Pivot(
                v,
                later,
                tuple(self.find(v, u) for u in later),
                tuple(tuple(self.find(u, w) for w in later) for u in later),
            )
            for v, later in zip(self.elimination.order, self.elimination.later, strict=True)
        )

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """The steps in rounds, for few copies of a large pattern."""
        level = self.elimination.levels()
        order = np.asarray(self.elimination.order, dtype=np.int64)
        found = []
        later_of = dict(zip(self.elimination.order, self.elimination.later, strict=True))
        by_level = order[np.argsort(level[order], kind="stable")]
        edges = np.flatnonzero(np.diff(level[by_level])) + 1
        for nodes in np.split(by_level, edges):
            counts = np.array([len(later_of[v]) for v in nodes.tolist()], dtype=np.int64)
            to = np.array([u for v in nodes.tolist() for u in later_of[v]], dtype=np.int64)
            of = np.repeat(np.arange(len(nodes)), counts)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            column = self._look_up(nodes[of], to)
            # every ordered pair of entries below one pivot, by arithmetic on the flat numbering
            repeats = counts[of]
            left = np.repeat(np.arange(len(to)), repeats)
            offset = np.arange(len(left)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            right = starts[of[left]] + offset
            between = self._look_up(to[left], to[right])
            lower = left >= right
            found.append(
                Round(nodes, column, of, to, left[lower], right[lower], between[lower], left, right, between)
            )
        return tuple(found)


@functools.lru_cache(maxsize=64)
def scalar_scheme(n: int, edges: tuple[tuple[int, int], ...], order: str | None = None) -> ScalarScheme:
    """Symbolic elimination of a pattern with n scalar nodes, in one of the `ORDERS` or the cheapest greedy one."""
    return ScalarScheme(n, edges, order)
