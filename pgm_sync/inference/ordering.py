"""Elimination orders, and the symbolic elimination they imply."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


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


def minimum_degree(
    n: int, edges: Sequence[tuple[int, int]], weight: Sequence[int] | None = None
) -> Elimination:
    """Eliminate the node with the lightest neighbourhood first; ties go to the lowest number.

    `weight` is the size of each node (all 1 by default). Never recurses; about linear for trees.
    """
    size = weight if weight is not None else [1] * n
    adjacent: list[set[int]] = [set() for _ in range(n)]
    for a, b in edges:
        if a != b:
            adjacent[a].add(b)
            adjacent[b].add(a)
    degree = [sum(size[u] for u in adjacent[v]) for v in range(n)]
    heap = [(degree[v], v) for v in range(n)]
    heapq.heapify(heap)
    done = [False] * n
    order, later = [], []
    while heap:
        d, v = heapq.heappop(heap)
        if done[v] or d != degree[v]:
            continue  # an outdated entry
        done[v] = True
        neighbours = sorted(adjacent[v])
        order.append(v)
        later.append(tuple(neighbours))
        for u in neighbours:
            adjacent[u].discard(v)
        for u in neighbours:
            adjacent[u].update(w for w in neighbours if w != u)
        for u in neighbours:
            degree[u] = sum(size[w] for w in adjacent[u])
            heapq.heappush(heap, (degree[u], u))
        adjacent[v] = set()
    return Elimination(tuple(order), tuple(later))


class ScalarScheme(NamedTuple):
    """A symbolic elimination with storage slots: slots 0..n-1 hold the diagonal, the others one pair each."""

    n: int
    slots: int
    edge_slots: np.ndarray  # (m,) where the given edges start
    pivots: tuple[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]
    # per pivot: node, its later neighbours (k,), their column slots (k,), and for every pair of them (rows, columns,
    # slots), each (k(k+1)/2,)
    full_slots: tuple[np.ndarray, ...]  # per pivot: the (k, k) slots of its neighbours' block

    @property
    def width(self) -> int:
        """Size of the largest clique, minus one."""
        return max((len(pivot[1]) for pivot in self.pivots), default=0)


@lru_cache(maxsize=256)
def scalar_scheme(n: int, edges: tuple[tuple[int, int], ...]) -> ScalarScheme:
    """Symbolic elimination of a pattern with n scalar nodes."""
    elimination = minimum_degree(n, edges)
    slot: dict[tuple[int, int], int] = {(v, v): v for v in range(n)}
    for a, b in edges:
        slot.setdefault((min(a, b), max(a, b)), len(slot))
    edge_slots = np.array([slot[min(a, b), max(a, b)] for a, b in edges], dtype=np.int64)

    def find(a: int, b: int) -> int:
        return slot.setdefault((min(a, b), max(a, b)), len(slot))

    pivots, full = [], []
    for v, neighbours in zip(elimination.order, elimination.later, strict=True):
        rows, columns = np.tril_indices(len(neighbours))
        pairs = np.array(
            [find(neighbours[r], neighbours[c]) for r, c in zip(rows, columns, strict=True)], dtype=np.int64
        )
        column = np.array([find(v, u) for u in neighbours], dtype=np.int64)
        block = np.zeros((len(neighbours), len(neighbours)), dtype=np.int64)
        block[rows, columns] = pairs
        block[columns, rows] = pairs
        pivots.append((v, np.array(neighbours, dtype=np.int64), column, rows, columns, pairs))
        full.append(block)
    return ScalarScheme(n, len(slot), edge_slots, tuple(pivots), tuple(full))
