"""From a graph to a plan: everything that does not change when only the evidence does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import StalePlanError
from ..graph.factor_graph import FactorGraph, Name
from .block import Blocks
from .sites import Sites, shared_sites
from .structure import Structure, analyse
from .system import ElementTerm, JointTerm, Unary, factor_terms, likelihood_sites


class System(NamedTuple):
    """The joint precision and eta of a graph with its evidence, in the layout of a `Structure`."""

    diagonal: Tensor  # (*batch, sites)
    pairs: Tensor  # (pairs,)
    blocks: Blocks  # (*batch, s, s)
    eta: Tensor  # (*batch, sites)
    log_scale: Tensor  # (*batch)


@dataclass(eq=False)
class Plan:
    """A compiled graph, made by `compile`. Reusable as long as the graph stays as it is."""

    graph: FactorGraph
    sites: Sites
    elements: list[ElementTerm]
    joints: list[JointTerm]
    pairs: np.ndarray  # (m, 2) sites coupled by elementwise terms
    term_pairs: list[list[tuple[int, int, np.ndarray]]]  # per element term: ends, and their pairs
    description: tuple
    _structures: dict[frozenset, Structure] = field(default_factory=dict)
    _constants: dict[tuple, tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def check_current(self) -> None:
        """Raise StalePlanError if the graph has changed since the plan was made."""
        if describe(self.graph) != self.description:
            raise StalePlanError(
                f"{self.graph!r} has changed since this plan was compiled; call compile(graph) again"
            )

    def structure(self, matrix_evidence: Iterable[Name] = ()) -> Structure:
        """The elimination for evidence that is a matrix on the given nodes or Likelihood factors."""
        key = frozenset(matrix_evidence)
        if key not in self._structures:
            extra = [likelihood_sites(self.graph, self.sites, name).numpy() for name in key]
            owner = np.full(self.sites.size, -1, dtype=np.int64)
            for k, name in reversed(list(enumerate(self.graph.variables))):
                owner[self.sites.index[name].numpy()] = k
            terms = [term.sites.numpy() for term in self.joints] + extra
            self._structures[key] = analyse(self.sites.size, self.pairs, terms, owner)
        return self._structures[key]

    def constants(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the elementwise factors add: diagonal (sites), pairs (m), eta (sites), log_scale ()."""
        key = (dtype, device)
        if key not in self._constants:
            diagonal = torch.zeros(self.sites.size, dtype=torch.float64)
            eta = torch.zeros(self.sites.size, dtype=torch.float64)
            pairs = torch.zeros(len(self.pairs), dtype=torch.float64)
            scale = torch.zeros((), dtype=torch.float64)
            for term, coupled in zip(self.elements, self.term_pairs, strict=True):
                for k in range(len(term.sites)):
                    diagonal = diagonal.index_add(0, term.sites[k], term.precision[k, k])
                    eta = eta.index_add(0, term.sites[k], term.eta[k])
                for a, b, index in coupled:
                    apart = term.sites[a] != term.sites[b]
                    pairs = pairs.index_add(0, torch.from_numpy(index), term.precision[a, b][apart])
                    # two ends that show the same site: (x_a, x_b) = (z, z), so the cross term is one of z with itself
                    diagonal = diagonal.index_add(0, term.sites[a][~apart], 2 * term.precision[a, b][~apart])
                scale = scale + term.log_scale
            self._constants[key] = tuple(
                t.to(dtype=dtype, device=device) for t in (diagonal, pairs, eta, scale)
            )  # type: ignore[assignment]
        return self._constants[key]

    def assemble(self, unary: Unary, matrices: list[JointTerm], structure: Structure) -> System:
        """The system of the graph under one set of evidence, in the evidence's dtype and on its device."""
        dtype, device = unary.eta.dtype, unary.eta.device
        diagonal, pairs, eta, scale = self.constants(dtype, device)
        diagonal = diagonal + unary.precision
        eta = eta + unary.eta
        scale = scale + unary.log_scale
        for term in [*self.joints, *matrices]:
            index = term.sites.to(device)
            term_eta = term.eta.to(dtype=dtype, device=device)
            batch = torch.broadcast_shapes(eta.shape[:-1], term_eta.shape[:-1])
            term_eta = term_eta.expand(*batch, len(index))
            eta = eta.expand(*batch, eta.shape[-1]).index_add(-1, index, term_eta)
            scale = scale + term.log_scale.to(dtype=dtype, device=device)
        blocks = self._blocks(diagonal, pairs, matrices, structure)
        batch = torch.broadcast_shapes(
            eta.shape[:-1], diagonal.shape[:-1], *(b.shape[:-2] for b in blocks.values())
        )
        eta = eta.expand(*batch, eta.shape[-1])
        return System(diagonal, pairs, blocks, eta, scale)

    def _blocks(
        self, diagonal: Tensor, pairs: Tensor, matrices: list[JointTerm], structure: Structure
    ) -> Blocks:
        sites = structure.blocks.sites
        if not sites:
            return {}
        dtype, device = diagonal.dtype, diagonal.device
        terms = [*self.joints, *matrices]
        batch = torch.broadcast_shapes(diagonal.shape[:-1], *(t.precision.shape[:-2] for t in terms))
        blocks: Blocks = {
            (b, b): torch.diag_embed(diagonal[..., torch.from_numpy(own).to(device)])
            for b, own in enumerate(sites)
        }
        for term in terms:
            precision = term.precision.to(dtype=dtype, device=device)
            where = term.sites.numpy()
            label, place = structure.position[where], structure.copy[where]
            members = np.unique(label)
            # A block is in a term with all of its sites: bring the term's rows into the block's order.
            rows = {}
            for b in members:
                own = np.flatnonzero(label == b)
                rows[b] = torch.from_numpy(own[np.argsort(place[own])]).to(device)
            for k, a in enumerate(members):
                for b in members[k:]:
                    part = precision[..., rows[a][:, None], rows[b]]
                    key = (int(a), int(b))
                    blocks[key] = blocks[key] + part if key in blocks else part
        if len(self.pairs):
            in_block = structure.group[self.pairs[:, 0]] < 0
            first, second = self.pairs[in_block].T
            labels = np.stack([structure.position[first], structure.position[second]], 1)
            places = np.stack([structure.copy[first], structure.copy[second]], 1)
            flip = labels[:, 0] > labels[:, 1]
            labels[flip], places[flip] = labels[flip][:, ::-1], places[flip][:, ::-1]
            kept = np.flatnonzero(in_block)
            for a, b in np.unique(labels, axis=0):
                chosen = np.flatnonzero((labels[:, 0] == a) & (labels[:, 1] == b))
                i, j = (torch.from_numpy(np.ascontiguousarray(p)).to(device) for p in places[chosen].T)
                values = pairs[torch.from_numpy(kept[chosen]).to(device)]
                part = values.new_zeros(len(sites[a]), len(sites[b])).index_put(
                    (i, j), values, accumulate=True
                )
                if a == b:
                    part = part + part.mT
                key = (int(a), int(b))
                blocks[key] = blocks[key] + part if key in blocks else part
        return {key: block.expand(*batch, *block.shape[-2:]) for key, block in blocks.items()}


def compile(graph: FactorGraph) -> Plan:
    """Turn a graph into flat index arrays and constants, once for many inferences.

    Raises EmptyGraphError, GraphStructureError, UnfittedError, UnsupportedError (see `infer`).
    """
    graph.validate()
    sites = shared_sites(graph)
    elements, joints = factor_terms(graph, sites)
    ends, slots = [], []
    for t, term in enumerate(elements):
        for a, b in itertools.combinations(range(len(term.sites)), 2):
            couple = torch.stack([term.sites[a], term.sites[b]], 1)
            ends.append(couple[term.sites[a] != term.sites[b]].numpy())
            slots.append((t, a, b))
    every = np.sort(np.concatenate([np.zeros((0, 2), dtype=np.int64), *ends]), axis=1)
    pairs, index = np.unique(every, axis=0, return_inverse=True)
    term_pairs: list[list[tuple[int, int, np.ndarray]]] = [[] for _ in elements]
    parts = np.split(index.reshape(-1), np.cumsum([len(e) for e in ends])[:-1]) if ends else []
    for (t, a, b), part in zip(slots, parts, strict=True):
        term_pairs[t].append((a, b, part))
    return Plan(graph, sites, elements, joints, pairs, term_pairs, describe(graph))


def describe(graph: FactorGraph) -> tuple[Any, ...]:
    """What a plan depends on: nodes, scopes, and the potential and map objects themselves (by identity)."""
    variables = tuple((name, graph.nodes[name]["kind"], graph.shape(name)) for name in graph.variables)
    factors = tuple(
        (factor, tuple(graph.scope(factor)), graph.potential(factor), graph.nodes[factor]["maps"])
        for factor in graph.factors
    )
    return variables, factors


def as_plan(graph: FactorGraph | Plan) -> Plan:
    """A plan, compiled now if it was not before. Raises StalePlanError."""
    if isinstance(graph, Plan):
        graph.check_current()
        return graph
    return compile(graph)
