"""From a graph to a plan: everything that does not change when only the evidence does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DeviceError, DtypeError, ParameterError, StalePlanError
from ..graph.factor_graph import FactorGraph, Name
from .block import Blocks
from .evidence import Unary, likelihood_sites
from .sites import Sites, shared_sites
from .structure import Structure, analyse
from .terms import ElementTerm, JointTerm, element_terms, joint_terms


class System(NamedTuple):
    """The joint precision and eta of a graph with its evidence, in the layout of a `Structure`."""

    diagonal: Tensor  # (*batch, sites), of the elementwise factors and evidence
    pairs: Tensor  # (pairs,)
    blocks: Blocks  # (*batch, s, s)
    eta: Tensor  # (*batch, sites)
    log_scale: Callable[[], Tensor]  # -> (*batch)
    unary: Tensor  # (*batch, sites), the part of `diagonal` that came with the evidence


class Constants(NamedTuple):
    """What the elementwise factors add."""

    diagonal: Tensor  # (sites,)
    pairs: Tensor  # (m,)
    eta: Tensor  # (sites,)
    log_scale: Tensor  # ()


class Watched(NamedTuple):
    """A tensor that a potential or map holds: torch counts how often it was written to."""

    tensor: Tensor
    version: int
    factor: Name


@dataclass(eq=False)
class Plan:
    """A compiled graph, made by `compile`. Reusable as long as the graph stays as it is.

    >>> import pgm_sync as ps
    >>> plan = ps.compile(ps.chain_graph(2, (1,), ps.Correlation(0.5)))
    >>> means = [ps.infer(plan, {0: (value, 1e9), 1: (0.0, 1.0)}).mean[1].item() for value in (1.0, 2.0)]
    >>> [round(mean, 4) for mean in means]
    [0.5, 1.0]
    """

    graph: FactorGraph
    sites: Sites  # where the elements of every node are
    pairs: np.ndarray  # (m, 2) sites coupled by elementwise factors, each pair once, first < second
    sums: Constants  # float64, on the CPU
    device: torch.device | None  # where evidence is brought; None: it stays
    dtype: torch.dtype | None  # what evidence becomes; None: it stays
    description: tuple  # of the graph when it was compiled
    watched: list[Watched]  # numbers of its potentials, to notice changes
    memory: dict[str, Any] = field(default_factory=dict)  # what plans of the engine keep between inferences
    _structures: dict[frozenset, Structure] = field(default_factory=dict)
    _constants: dict[tuple, Constants] = field(default_factory=dict)

    @cached_property
    def joints(self) -> list[JointTerm]:
        """What the factors through feature maps and matrix potentials add. Made when first used: see `low_rank`."""
        return joint_terms(self.graph, self.sites)

    @cached_property
    def without_eta(self) -> bool:
        """Whether the elementwise factors add nothing to eta, as without means of their own."""
        return not (self.sums.eta.requires_grad or bool(self.sums.eta.any()))

    def check_current(self) -> None:
        """Raise StalePlanError if the graph has changed since the plan was made, or numbers in its potentials."""
        if describe(self.graph) != self.description:
            raise StalePlanError(
                f"{self.graph!r} has changed since this plan was compiled; call compile(graph) again",
                graph=self.graph,
            )
        for tensor, version, factor in self.watched:
            if tensor._version != version:
                raise StalePlanError(
                    f"numbers of factor {factor!r} were written over in place since this plan was compiled; call "
                    "compile(graph) again",
                    factor=factor,
                )

    def structure(self, matrix_evidence: Iterable[Name] = ()) -> Structure:
        """The elimination for evidence that is a matrix on the nodes or Likelihood factors in `matrix_evidence`."""
        key = frozenset(matrix_evidence)
        if key not in self._structures:
            terms = [term.sites.numpy() for term in self.joints]
            terms += [likelihood_sites(self.graph, self.sites, name).numpy() for name in key]
            owner = np.full(self.sites.size, -1, dtype=np.int64)
            if terms:
                for k, name in reversed(list(enumerate(self.graph.variables))):
                    owner[self.sites.index[name].numpy()] = k
            self._structures[key] = analyse(self.sites.size, self.pairs, terms, owner)
        return self._structures[key]

    def constants(self, dtype: torch.dtype, device: torch.device) -> Constants:
        """What the elementwise factors add, in a dtype and on a device."""
        key = (dtype, device)
        if key not in self._constants:
            moved = Constants(*(part.to(dtype=dtype, device=device) for part in self.sums))
            if any(part.requires_grad for part in moved):
                return moved  # part of one computation only
            self._constants[key] = moved
        return self._constants[key]

    def assemble(self, unary: Unary, matrices: list[JointTerm], structure: Structure) -> System:
        """The system of the graph under one set of evidence, in the evidence's dtype and on its device.

        `unary` and `matrices` are the evidence as `read_evidence` gives it, `structure` the elimination for it.
        """
        dtype, device = unary.eta.dtype, unary.eta.device
        constants = self.constants(dtype, device)
        diagonal = constants.diagonal + unary.precision
        eta = unary.eta if self.without_eta else constants.eta + unary.eta
        terms = [*self.joints, *matrices]
        for term in terms:
            index = term.sites.to(device)
            term_eta = term.eta.to(dtype=dtype, device=device)
            batch = torch.broadcast_shapes(eta.shape[:-1], term_eta.shape[:-1])
            term_eta = term_eta.expand(*batch, len(index))
            eta = eta.expand(*batch, eta.shape[-1]).index_add(-1, index, term_eta)
        blocks = self._blocks(diagonal, constants.pairs, terms, structure)
        batch = torch.broadcast_shapes(
            eta.shape[:-1], diagonal.shape[:-1], *(b.shape[:-2] for b in blocks.values())
        )
        eta = eta.expand(*batch, eta.shape[-1])

        def log_scale() -> Tensor:
            scales = [term.log_scale.to(dtype=dtype, device=device) for term in terms]
            return unary.log_scale() + constants.log_scale + sum(scales)

        return System(diagonal, constants.pairs, blocks, eta, log_scale, unary.precision)

    def _blocks(
        self, diagonal: Tensor, pairs: Tensor, terms: list[JointTerm], structure: Structure
    ) -> Blocks:
        sites = structure.blocks.sites
        if not sites:
            return {}
        dtype, device = diagonal.dtype, diagonal.device
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


def compile(
    graph: FactorGraph, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Plan:
    """Turn a `graph` into flat index arrays and constants, once for many inferences.

    With `device` or `dtype` (float32 or float64) evidence is brought there before anything is computed, for
    denoisers in half precision for example; without, the evidence decides.

    >>> import torch, pgm_sync as ps
    >>> plan = ps.compile(ps.chain_graph(2, (1,), ps.Correlation(0.8)), dtype=torch.float64)
    >>> ps.infer(plan, {0: (1.0, 1e9), 1: (0.0, 1.0)}).mean[1].round(decimals=4)
    tensor([0.8000], dtype=torch.float64)

    Raises ParameterError (not a FactorGraph), EmptyGraphError, GraphStructureError, UnfittedError, UnsupportedError
    (see `infer`), DtypeError, DeviceError; ShapeError, NotFiniteError, CovarianceError for a potential of one's own
    whose `information` is wrong.
    """
    if not isinstance(graph, FactorGraph):
        raise ParameterError(
            f"graph is a {type(graph).__name__}; give a FactorGraph (from_trajectory_graph makes one of a networkx "
            "graph)",
            value=graph,
        )
    if dtype not in (None, torch.float32, torch.float64):
        raise DtypeError(f"dtype={dtype} is not torch.float32 or torch.float64", dtype=dtype)
    graph.validate()
    sites = shared_sites(graph)
    pairs, constants = _add_up(element_terms(graph, sites), sites.size)
    where = None if device is None else _usable(device)
    return Plan(graph, sites, pairs, constants, where, dtype, describe(graph), numbers(graph))


def _usable(device: torch.device | str) -> torch.device:
    """The device, once a tensor could be made there. Raises DeviceError."""
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(f"device={device!r} cannot be used: {reason}", device=device) from error
    if found.type == "meta":
        raise DeviceError("device='meta' holds no numbers; give one that does, as 'cpu'", device=device)
    return found


def _add_up(terms: list[ElementTerm], size: int) -> tuple[np.ndarray, Constants]:
    """The coupled pairs of all terms, each once, and the sums of what the terms add."""
    zero = torch.zeros(size, dtype=torch.float64)
    if not terms:
        return np.zeros((0, 2), dtype=np.int64), Constants(zero, zero[:0], zero, zero.new_zeros(()))
    where, diagonal, eta, pairs, coupling = (torch.cat(part) for part in list(zip(*terms, strict=True))[:5])
    low, high = pairs.amin(1), pairs.amax(1)
    keys, index = torch.unique(low * size + high, return_inverse=True)
    found = torch.stack([keys // size, keys % size], 1).numpy()
    return found, Constants(
        zero.index_add(0, where, diagonal),
        zero.new_zeros(len(keys)).index_add(0, index, coupling),
        zero.index_add(0, where, eta),
        torch.stack([term.log_scale for term in terms]).sum(),
    )


def describe(graph: FactorGraph) -> tuple[Any, ...]:
    """What a plan depends on: nodes, scopes, and the potential and map objects themselves (by identity)."""
    what = ("kind", "shape", "potential", "maps")
    nodes = tuple((name, *map(data.get, what)) for name, data in graph.nodes(data=True))
    ends = tuple(
        tuple((end, data.get("position")) for end, data in graph.adj[name].items())
        for name, kind, *_ in nodes
        if kind == "factor"
    )
    return nodes, ends


def numbers(graph: FactorGraph) -> list[Watched]:
    """All tensors in the potentials and maps of a graph, each once."""
    found: dict[int, Watched] = {}
    known: set[int] = set()  # many factors share one potential

    def look(value: Any, factor: Name) -> None:
        if isinstance(value, Tensor):
            if not value.is_inference():  # these have no counter, and cannot be written to outside inference mode
                found.setdefault(id(value), Watched(value, value._version, factor))
        elif isinstance(value, tuple | list):
            for part in value:
                look(part, factor)
        elif dataclasses.is_dataclass(value) and id(value) not in known:
            known.add(id(value))
            for item in dataclasses.fields(value):
                look(getattr(value, item.name), factor)

    for name, data in graph.nodes(data=True):
        look((data.get("potential"), data.get("maps", ())), name)
    return list(found.values())


def as_plan(graph: FactorGraph | Plan) -> Plan:
    """A plan, compiled now if it was not before. Raises StalePlanError."""
    if isinstance(graph, Plan):
        graph.check_current()
        return graph
    return compile(graph)
