"""What an elimination needs to know before any number arrives: components, groups of equal patterns, blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .ordering import Elimination, best_elimination, scalar_scheme


class Rows:
    """Rows of positions in the last dimension of a tensor, read as views where a row is a range."""

    def __init__(self, index: np.ndarray):
        self.index = index  # (n, G)
        self._moved: dict[torch.device, Tensor] = {}

    @cached_property
    def _starts(self) -> list[int | None]:
        count = self.index.shape[1]
        ranges = (self.index == self.index[:, :1] + np.arange(count)).all(1)
        return [int(row[0]) if is_range else None for row, is_range in zip(self.index, ranges, strict=True)]

    @cached_property
    def _start(self) -> int | None:
        """Where all rows together are one range."""
        n, count = self.index.shape
        starts = np.array([-1 if s is None else s for s in self._starts])
        return (
            int(starts[0])
            if (starts == starts[:1] + count * np.arange(n)).all() and n and starts[0] >= 0
            else None
        )

    def on(self, device: torch.device) -> Tensor:
        """The positions on a device."""
        if device not in self._moved:
            self._moved[device] = torch.from_numpy(np.ascontiguousarray(self.index)).to(device)
        return self._moved[device]

    def lanes(self, values: Tensor) -> list[Tensor]:
        """One ``(*batch, G)`` per row."""
        count = self.index.shape[1]
        return [
            values.index_select(-1, self.on(values.device)[k])
            if start is None
            else values.narrow(-1, start, count)
            for k, start in enumerate(self._starts)
        ]

    def stacked(self, values: Tensor) -> Tensor:
        """``(*batch, n, G)``."""
        shape = self.index.shape
        if self._start is not None:
            return values.narrow(-1, self._start, shape[0] * shape[1]).unflatten(-1, shape)
        return values.index_select(-1, self.on(values.device).flatten()).unflatten(-1, shape)


class Signatures(NamedTuple):
    """The different matrices that the copies of a group have before any evidence arrives."""

    label: Tensor  # (G,)
    first: Tensor  # (S,), a copy of each
    copies: list[Tensor]  # per signature the copies that have it
    matrices: Tensor  # (S, n, n), float64
    eigen: list[tuple[Tensor, Tensor]]  # filled at the first use


class ElementGroup:
    """Components of one pattern: n sites each, G copies, solved together by per-element elimination."""

    def __init__(self, n: int, edges: tuple[tuple[int, int], ...], sites: np.ndarray, pairs: np.ndarray):
        self.sites = sites  # (n, G), the site at each position of each copy
        self.pairs = pairs  # (edges, G), which of the plan's coupled pairs sits on each edge of the pattern
        self.scheme = scalar_scheme(n, edges)
        self.site_rows, self.pair_rows = Rows(sites), Rows(pairs)
        self._couplings: tuple[Tensor | None, list[Tensor]] = (None, [])
        self.signatures: dict[torch.device, Signatures | None] = {}  # filled where they are of use

    def coupling_lanes(self, pairs: Tensor) -> list[Tensor]:
        """What is on each edge of the pattern, ``(G)``, or ``(1)`` where all copies have the same."""
        if pairs.requires_grad:
            return self.pair_rows.lanes(pairs)
        if (
            self._couplings[0] is not pairs
        ):  # the constants of a plan are one tensor for all of its inferences
            lanes = self.pair_rows.lanes(pairs)
            alike = [bool((lane == lane[:1]).all()) for lane in lanes]
            self._couplings = (
                pairs,
                [lane[:1] if same else lane for lane, same in zip(lanes, alike, strict=True)],
            )
        return self._couplings[1]

    def matrices(self, diagonal: Tensor, coupled: Tensor) -> Tensor:
        """The matrix of every copy, ``(*batch, G, n, n)``, from ``(*batch, n, G)`` and ``(edges, G)``; any copies."""
        out = torch.diag_embed(diagonal.movedim(-1, -2))
        first, second = torch.from_numpy(self.scheme.ends)
        out[..., first, second] = out[..., second, first] = coupled.movedim(-1, -2)
        return out

    @property
    def copies(self) -> int:
        """G."""
        return self.sites.shape[1]


class BlockSystem(NamedTuple):
    """The sites that matrix potentials couple, cut into blocks that always act together."""

    sites: tuple[np.ndarray, ...]  # per block
    edges: tuple[tuple[int, int], ...]  # blocks that are coupled
    elimination: Elimination


class Structure:
    """Every site of a graph, in exactly one group or block."""

    def __init__(
        self,
        groups: tuple[ElementGroup, ...],
        blocks: BlockSystem,
        component: np.ndarray,
        group: np.ndarray,
        position: np.ndarray,
        copy: np.ndarray,
    ):
        self.groups, self.blocks = groups, blocks
        self.component = component  # (sites,), which component each site belongs to
        self.group = group  # (sites,), its group, or -1 for a site in a block
        self.position = position  # (sites,), its position in the pattern, or its block
        self.copy = copy  # (sites,), its copy of the pattern, or its place in the block
        order = np.concatenate([g.sites.reshape(-1) for g in groups] + list(blocks.sites))
        self._back = Rows(np.argsort(order)[None])
        self._in_order = bool((order == np.arange(len(order))).all())

    @cached_property
    def largest_component(self) -> int:
        """How many sites it has."""
        return int(np.bincount(self.component).max())

    @cached_property
    def largest_of_blocks(self) -> int:
        """How many sites the largest component has that is solved by blocks."""
        return int(np.bincount(self.component[self.group < 0]).max())

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """``(*batch, sites)`` from the lanes of all groups and then of the blocks, ``(*batch, G or s)`` each."""
        together = torch.cat(tuple(parts), -1)
        return together if self._in_order else together.index_select(-1, self._back.on(together.device)[0])


def analyse(
    size: int,
    pairs: np.ndarray,  # (m, 2) sites coupled by elementwise factors, each pair once, first < second
    joints: Sequence[np.ndarray],  # the sites of every matrix term
    owner: np.ndarray,  # (size,) the node each site belongs to, so that blocks do not mix nodes
) -> Structure:
    """Split the sites into independent components and choose an elimination for each."""
    stars = [np.stack([np.full(len(j), j[0]), j], 1) for j in joints if len(j)]
    links = np.concatenate([pairs, *stars]) if len(stars) or len(pairs) else np.zeros((0, 2), dtype=np.int64)
    adjacency = coo_array(
        (np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(size, size)
    )
    _, component = connected_components(adjacency, directed=False)
    in_block = np.zeros(size, dtype=bool)
    if stars:
        in_block = np.isin(component, component[np.concatenate(list(joints))])
    group = np.full(size, -1, dtype=np.int64)
    position = np.zeros(size, dtype=np.int64)
    copy = np.zeros(size, dtype=np.int64)
    groups = _element_groups(pairs, component, in_block)
    for g, found in enumerate(groups):
        n, copies = found.sites.shape
        group[found.sites] = g
        position[found.sites] = np.arange(n)[:, None]
        copy[found.sites] = np.arange(copies)[None, :]
    blocks = _blocks(pairs, joints, component, owner, in_block)
    for b, sites in enumerate(blocks.sites):
        position[sites] = b
        copy[sites] = np.arange(len(sites))
    return Structure(groups, blocks, component, group, position, copy)


def _element_groups(
    pairs: np.ndarray, component: np.ndarray, in_block: np.ndarray
) -> tuple[ElementGroup, ...]:
    """Components whose sites, sorted, are joined in the same way share one symbolic elimination."""
    sites = np.flatnonzero(~in_block)
    if not len(sites):
        return ()
    sites = sites[np.argsort(component[sites], kind="stable")]  # by component, ascending inside each
    labels, starts, counts = np.unique(component[sites], return_index=True, return_counts=True)
    local = np.zeros(len(component), dtype=np.int64)
    local[sites] = np.arange(len(sites)) - np.repeat(starts, counts)
    kept = np.flatnonzero(~in_block[pairs[:, 0]]) if len(pairs) else np.zeros(0, dtype=np.int64)
    ends = local[pairs[kept]]
    of = np.searchsorted(labels, component[pairs[kept, 0]])
    order = np.lexsort((ends[:, 1], ends[:, 0], of)) if len(kept) else kept
    kept, ends, of = kept[order], ends[order], of[order]
    edge_counts = np.bincount(of, minlength=len(labels))
    edge_starts = np.concatenate([[0], edge_counts.cumsum()[:-1]])

    groups = []
    for n, m in sorted(set(zip(counts.tolist(), edge_counts.tolist(), strict=True))):
        members = np.flatnonzero((counts == n) & (edge_counts == m))
        rows = edge_starts[members][:, None] + np.arange(m)
        patterns, which = np.unique(ends[rows].reshape(len(members), 2 * m), axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            chosen = members[which.reshape(-1) == k]
            edges = tuple(map(tuple, pattern.reshape(m, 2).tolist()))
            groups.append(
                ElementGroup(
                    n,
                    edges,
                    sites[starts[chosen][None, :] + np.arange(n)[:, None]],
                    kept[edge_starts[chosen][None, :] + np.arange(m)[:, None]],
                )
            )
    return tuple(groups)


def _blocks(
    pairs: np.ndarray,
    joints: Sequence[np.ndarray],
    component: np.ndarray,
    owner: np.ndarray,
    in_block: np.ndarray,
) -> BlockSystem:
    """Blocks: sites of one node and one component that are in the same matrix terms."""
    sites = np.flatnonzero(in_block)
    if not len(sites):
        return BlockSystem((), (), Elimination((), ()))
    # Membership in a set of terms as the sum of one random 64-bit word per term: equal sums, equal sets.
    words = np.random.default_rng(0).integers(0, 2**63, size=len(joints), dtype=np.uint64)
    signature = np.zeros(len(component), dtype=np.uint64)
    for word, term in zip(words, joints, strict=True):
        signature[term] += word
    keys = np.stack([component[sites].astype(np.uint64), owner[sites].astype(np.uint64), signature[sites]], 1)
    _, first, label = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    label = np.argsort(np.argsort(first))[label.reshape(-1)]  # in the order of the sites
    blocks = tuple(sites[label == b] for b in range(label.max() + 1))
    block_of = np.full(len(component), -1, dtype=np.int64)
    block_of[sites] = label
    edges: set[tuple[int, int]] = set()
    for term in joints:
        members = np.unique(block_of[term]).tolist()
        edges.update((a, b) for k, a in enumerate(members) for b in members[k + 1 :])
    if len(pairs):
        coupled = np.sort(block_of[pairs[in_block[pairs[:, 0]]]], axis=1)
        edges.update(map(tuple, np.unique(coupled[coupled[:, 0] != coupled[:, 1]], axis=0).tolist()))
    listed = tuple(sorted(edges))
    elimination, _ = best_elimination(len(blocks), listed, [len(b) for b in blocks])
    return BlockSystem(blocks, listed, elimination)
