"""The exact plans: for every group of equal components, and for the blocks, the one that is estimated fastest.

Each solves ``Lambda x = eta`` on its own sites: `solve` and `root` take vectors over all sites of the graph and give
parts, ``(*batch, G)`` per position, in the order in which `Structure.join` puts them back.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from . import block, block_rounds, elimination, rounds
from .ordering import Elimination, ScalarScheme, scalar_scheme
from .pivots import ALONG, close, closeness, first_bad, rounding, weak, weak_rows
from .problem import Problem
from .structure import ElementGroup, Rows, Signatures

# Measured on one core: what a torch call costs, what a number costs that streams through one, and one that is gathered.
CALL, STREAMED, GATHERED = 2.5e-6, 0.3e-9, 4e-9
MULTIPLIED = 0.05e-9  # a multiplication inside a matrix product
ROUND = 25 * CALL  # one round of `rounds`, both sweeps and the selected inverse
NARROW = 4
MOST_SIGNATURES = 8  # different matrices that a group may have, to be solved as so many dense ones
LARGEST_SIGNATURE = 512  # rows


class Solver(abc.ABC):
    """A group of equal components, or the block system, factorised.

    Parts are ``(*batch, G)`` per position of a group, ``(*batch, s)`` per block.
    """

    name: str
    width: int  # the largest message, in numbers
    cost: float  # multiplications, means and marginals
    close: bool = False  # whether `failed` saw pivots that are small beside their diagonal, see `lost`

    @abc.abstractmethod
    def failed(self) -> int | None:
        """A copy, or a block, whose precision is not positive definite."""

    @abc.abstractmethod
    def left(self) -> list[Tensor]:
        """What the elimination leaves of the diagonal: pivots as shares of it."""

    @abc.abstractmethod
    def solve(self, right: Tensor) -> list[Tensor]:
        """``Lambda^{-1} right`` for ``right (*batch, sites)``."""

    @abc.abstractmethod
    def root(self, white: Tensor) -> list[Tensor]:
        """``W white`` with ``W W' = Lambda^{-1}``, for ``white (*batch, sites)``."""

    @abc.abstractmethod
    def log_determinant(self) -> Tensor:
        """Sum over all copies or blocks, ``(*precision batch)``."""

    @abc.abstractmethod
    def variance(self) -> list[Tensor]:
        """Diagonal of the inverse."""

    @abc.abstractmethod
    def covariance(self, a: int, b: int) -> Tensor:
        """Between two positions of every copy, ``(*precision batch, G)``; between two blocks all, ``(..., s, s)``."""


class LaneElimination(Solver):
    """Many copies: every number of the elimination is a vector over them."""

    name = "elimination of all elements at once"

    def __init__(self, group: ElementGroup, problem: Problem):
        self.group, self.scheme = group, group.scheme
        self.width = self.scheme.width
        self.cost = self.scheme.calls * _wide(group, problem)
        self.diagonal = group.site_rows.lanes(problem.system.diagonal)
        self._highest = problem.system.diagonal.detach().amax()  # of all groups: enough for a first look
        edges = group.coupling_lanes(problem.system.pairs)
        self.factor = elimination.factorise(self.scheme, self.diagonal, edges)

    def failed(self) -> int | None:
        pivots = self.factor.pivots
        with torch.no_grad():
            # one reduction per lane where all is well
            low = torch.stack([lane.amin() for lane in pivots])
            units = rounding(self.scheme.n, self.width)
            share = max(closeness(low.dtype), units * torch.finfo(low.dtype).eps)
            if bool((low > share * self._highest).all()):
                return None
            self.close = any(map(close, self.left()))
            return first_bad(torch.stack([weak(p, d, units) for p, d in zip(pivots, self.diagonal, strict=True)]))

    def left(self) -> list[Tensor]:
        return [(p / d).detach() for p, d in zip(self.factor.pivots, self.diagonal, strict=True)]

    def solve(self, right: Tensor) -> list[Tensor]:
        return elimination.solve(self.scheme, self.factor, self.group.site_rows.lanes(right))

    def root(self, white: Tensor) -> list[Tensor]:
        return elimination.root(self.scheme, self.factor, self.group.site_rows.lanes(white))

    def log_determinant(self) -> Tensor:
        return sum(lane.log().sum(-1) for lane in self.factor.pivots)  # type: ignore[return-value]

    @cached_property
    def _inverse(self) -> dict[int, Tensor]:
        return elimination.selected_inverse(self.scheme, self.factor)

    def variance(self) -> list[Tensor]:
        return [self._inverse[p] for p in range(self.scheme.n)]

    def covariance(self, a: int, b: int) -> Tensor:
        if (a, b) in self.scheme:
            return self._inverse[self.scheme.find(a, b)]
        unit = [torch.zeros_like(self.factor.pivots[0]) for _ in range(self.scheme.n)]
        unit[a] = torch.ones_like(unit[a])
        return elimination.solve(self.scheme, self.factor, unit)[b]


class RoundElimination(Solver):
    """Few copies of a large pattern: all pivots that do not meet go at once."""

    name = "elimination in rounds of independent pivots"

    def __init__(self, group: ElementGroup, problem: Problem, scheme: ScalarScheme):
        self.group, self.scheme = group, scheme
        self.width = scheme.width
        self.cost = scheme.calls * _wide(group, problem)
        diagonal = group.site_rows.stacked(problem.system.diagonal).movedim(-2, 0)
        edges = group.pair_rows.stacked(problem.system.pairs)  # (edges, G)
        edges = edges.reshape(len(edges), *(1,) * (diagonal.ndim - 2), edges.shape[-1])
        self.diagonal = diagonal
        self.steps = rounds.on_device(scheme, diagonal.device)
        self.factor = rounds.factorise(scheme, self.steps, diagonal, edges)

    @property
    def _pivots(self) -> Tensor:
        return self.factor[: self.scheme.n]

    def failed(self) -> int | None:
        units = rounding(self.scheme.n, self.width)
        self.close = any(map(close, self.left()))
        return first_bad(weak(self._pivots.detach(), self.diagonal.detach(), units))

    def left(self) -> list[Tensor]:
        return self._parts((self._pivots / self.diagonal).detach())

    def solve(self, right: Tensor) -> list[Tensor]:
        stacked = self.group.site_rows.stacked(right).movedim(-2, 0)
        return self._parts(rounds.solve(self.scheme, self.steps, self._for(stacked), stacked))

    def root(self, white: Tensor) -> list[Tensor]:
        stacked = self.group.site_rows.stacked(white).movedim(-2, 0)
        return self._parts(rounds.root(self.scheme, self.steps, self._for(stacked), stacked))

    def _for(self, right: Tensor) -> Tensor:
        """The factor with room for the batch of a right side."""
        missing = right.ndim - self.factor.ndim
        if missing <= 0:
            return self.factor
        return self.factor.reshape(len(self.factor), *(1,) * missing, *self.factor.shape[1:])

    def _parts(self, stacked: Tensor) -> list[Tensor]:
        return [stacked.movedim(0, -2).flatten(-2)]

    def log_determinant(self) -> Tensor:
        return self._pivots.log().sum((0, -1))

    @cached_property
    def _inverse(self) -> Tensor:
        return rounds.selected_inverse(self.scheme, self.steps, self.factor)

    def variance(self) -> list[Tensor]:
        return self._parts(self._inverse[: self.scheme.n])

    def covariance(self, a: int, b: int) -> Tensor:
        if (a, b) in self.scheme:
            return self._inverse[self.scheme.find(a, b)]
        unit = torch.zeros_like(self._pivots)
        unit[a] = 1
        return rounds.solve(self.scheme, self.steps, self.factor, unit)[b]


class SharedMatrices(Solver):
    """Copies of few different matrices (K ⊗ I, or one per mask): small dense inverses, and one product per step."""

    def __init__(
        self,
        group: ElementGroup,
        signatures: Signatures,
        diagonal: Tensor,
        shift: Tensor | None,
        dtype: torch.dtype,
        columns: int,
    ):
        """`diagonal` is ``(*batch, n, S)``; `shift` ``(*batch)`` if the evidence adds it to all of the diagonal;
        `columns` is how many numbers eta has on the group."""
        self.group, self.signatures, self.dtype = group, signatures, dtype
        count = len(signatures.first)
        self.name = f"{count} dense {'matrix' if count == 1 else 'matrices'} that all elements share"
        self.width = group.scheme.n - 1
        self.cost = float(diagonal.numel() * group.scheme.n**2 + group.scheme.n * columns)
        self._diagonal = diagonal.movedim(-1, -2)  # (*batch, S, n)
        self._shift = shift
        static = signatures.matrices
        if shift is not None:
            if not signatures.eigen:
                signatures.eigen.append(torch.linalg.eigh(static))
            values, vectors = signatures.eigen[0]
            self._values = values + shift.double()[..., None, None]  # (*batch, S, n)
            self._vectors = vectors
            self._bad = weak(self._values, self._diagonal, rounding(group.scheme.n, 0)).any(-1)
            pivots = self._values
        else:
            off = static - torch.diag_embed(static.diagonal(dim1=-2, dim2=-1))
            self._lower, info = torch.linalg.cholesky_ex(off + torch.diag_embed(self._diagonal))
            self._bad = weak_rows(self._lower, info, self._diagonal, rounding(4 * group.scheme.n, 0)).any(-1)
            pivots = self._lower.diagonal(dim1=-2, dim2=-1).square()
        if close(pivots / self._diagonal):  # as in `lost`, for all columns of W
            along = (self._diagonal.unsqueeze(-1) * self._half.square()).sum(-2)
            self._bad = self._bad | ~(ALONG * torch.finfo(along.dtype).eps * along < 1).all(-1)

    def failed(self) -> int | None:
        signature = first_bad(self._bad)
        return None if signature is None else int(self.signatures.first[signature])

    def left(self) -> list[Tensor]:
        """All of it: what is close was looked at in float64."""
        return [self._spread(torch.ones_like(own, dtype=self.dtype)) for own in self._diagonal.unbind(-1)]

    @cached_property
    def _inverse(self) -> Tensor:
        """(*batch, S, n, n)"""
        if self._shift is None:
            return torch.cholesky_inverse(self._lower)
        return (self._vectors / self._values.unsqueeze(-2)) @ self._vectors.mT

    @cached_property
    def _half(self) -> Tensor:
        if self._shift is None:
            eye = torch.eye(self._lower.shape[-1], dtype=self._lower.dtype, device=self._lower.device)
            return torch.linalg.solve_triangular(self._lower, eye.expand_as(self._lower), upper=False).mT
        return self._vectors * self._values.rsqrt().unsqueeze(-2)

    def solve(self, right: Tensor) -> list[Tensor]:
        return self._times(self._inverse, right)

    def root(self, white: Tensor) -> list[Tensor]:
        return self._times(self._half, white)

    def _times(self, matrices: Tensor, vectors: Tensor) -> list[Tensor]:
        stacked = self.group.site_rows.stacked(vectors)  # (*batch, n, G)
        matrices = matrices.to(self.dtype)
        if matrices.shape[-3] == 1:
            return [(matrices[..., 0, :, :] @ stacked).flatten(-2)]
        parts = [
            matrices[..., s, :, :] @ stacked.index_select(-1, copies)
            for s, copies in enumerate(self.signatures.copies)
        ]
        back = torch.cat(self.signatures.copies).argsort()
        return [torch.cat(parts, -1).index_select(-1, back).flatten(-2)]

    def log_determinant(self) -> Tensor:
        if self._shift is None:
            own = 2 * self._lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        else:
            own = self._values.log().sum(-1)
        count = torch.bincount(self.signatures.label, minlength=own.shape[-1])
        return (own * count).sum(-1).to(self.dtype)

    def variance(self) -> list[Tensor]:
        own = self._inverse.diagonal(dim1=-2, dim2=-1).to(self.dtype)  # (*batch, S, n)
        return [self._spread(own[..., p]) for p in range(own.shape[-1])]

    def covariance(self, a: int, b: int) -> Tensor:
        return self._spread(self._inverse[..., a, b].to(self.dtype))

    def _spread(self, values: Tensor) -> Tensor:
        """(*batch, S) to (*batch, G)."""
        if values.shape[-1] == 1:
            return values.expand(*values.shape[:-1], self.group.copies)
        return values.index_select(-1, self.signatures.label)


class BlockElimination(Solver):
    """Vector nodes and everything that is coupled to them: dense blocks on a junction tree, one after the other."""

    name = "block elimination"

    def __init__(self, problem: Problem):
        structure = problem.structure
        self.sites = structure.blocks.sites
        self.sizes = [len(s) for s in self.sites]
        later = structure.blocks.elimination.later
        self.width = max((sum(self.sizes[u] for u in own) for own in later), default=0)
        self.cost = structure.blocks.elimination.cost(self.sizes) * _block_batch(problem).numel()
        device = problem.system.eta.device
        self.index = [torch.from_numpy(s).to(device) for s in self.sites]
        units = rounding(structure.largest_of_blocks, self.width)
        self.factor = block.factorise(structure.blocks.elimination, self.sizes, problem.system.blocks, units)
        self._own = problem.system.blocks

    def failed(self) -> int | None:
        if self.factor.failed is None:
            self.close = any(map(close, self.left()))
        return self.factor.failed

    def left(self) -> list[Tensor]:
        return [_left(self.factor.lower[b], self._own[b, b]) for b in range(len(self.sizes))]

    def solve(self, right: Tensor) -> list[Tensor]:
        return block.solve(self.factor, [right.index_select(-1, i) for i in self.index])

    def root(self, white: Tensor) -> list[Tensor]:
        return block.root(self.factor, [white.index_select(-1, i) for i in self.index])

    def log_determinant(self) -> Tensor:
        return block.log_determinant(self.factor)

    @cached_property
    def _inverse(self) -> block.Blocks:
        return block.selected_inverse(self.factor)

    def variance(self) -> list[Tensor]:
        return [self._inverse[b, b].diagonal(dim1=-2, dim2=-1) for b in range(len(self.sizes))]

    def covariance(self, a: int, b: int) -> Tensor:
        if (min(a, b), max(a, b)) in self._inverse:
            found = self._inverse[min(a, b), max(a, b)]
            return found if a <= b else found.mT
        like = self.factor.lower[a]
        lead = like.ndim - 2
        right = [
            torch.eye(self.sizes[a], dtype=like.dtype, device=like.device)
            if v == a
            else like.new_zeros(self.sizes[a], s)
            for v, s in enumerate(self.sizes)
        ]
        right = [r.reshape(len(r), *(1,) * lead, r.shape[1]) for r in right]
        return block.solve(self.factor, right)[b].movedim(0, -2)


class BlockRounds(Solver):
    """Many vector nodes of one size: all blocks that do not meet at once."""

    name = "block elimination in rounds of independent blocks"

    def __init__(self, problem: Problem, scheme: ScalarScheme):
        structure, system = problem.structure, problem.system
        sites = np.stack(structure.blocks.sites)
        self.scheme, self._rows = scheme, Rows(sites)
        self.size = sites.shape[1]
        self.width = scheme.width * self.size
        lead = _block_batch(problem)
        self.cost = scheme.elimination.cost([self.size] * scheme.n) * lead.numel()
        zero = system.eta.new_zeros(1, 1).expand(*lead, self.size, self.size)
        slots = [zero] * scheme.slots
        for (a, b), values in system.blocks.items():
            slots[scheme.find(a, b)] = values
        self.steps = block_rounds.on_device(scheme, system.eta.device)
        units = rounding(structure.largest_of_blocks, self.width)
        self.factor = block_rounds.factorise(scheme, self.steps, torch.stack(slots), units)
        self._own = torch.stack(slots[: scheme.n])

    def failed(self) -> int | None:
        self.close = any(map(close, self.left()))
        return first_bad(self.factor.failed)

    def left(self) -> list[Tensor]:
        return list(_left(self.factor.lower, self._own))

    def solve(self, right: Tensor) -> list[Tensor]:
        return list(block_rounds.solve(self.steps, self.factor, self._rows.stacked(right).movedim(-2, 0)))

    def root(self, white: Tensor) -> list[Tensor]:
        return list(block_rounds.root(self.steps, self.factor, self._rows.stacked(white).movedim(-2, 0)))

    def log_determinant(self) -> Tensor:
        return 2 * self.factor.lower.diagonal(dim1=-2, dim2=-1).log().sum((0, -1))

    @cached_property
    def _inverse(self) -> Tensor:
        return block_rounds.selected_inverse(self.scheme, self.steps, self.factor)

    def variance(self) -> list[Tensor]:
        return list(self._inverse[: self.scheme.n].diagonal(dim1=-2, dim2=-1))

    def covariance(self, a: int, b: int) -> Tensor:
        if (a, b) in self.scheme:
            found = self._inverse[self.scheme.find(a, b)]
            return found if a <= b else found.mT
        lead = self.factor.lower.ndim - 3
        unit = self.factor.lower.new_zeros(self.scheme.n, self.size, *(1,) * lead, self.size)
        unit[a] = torch.eye(self.size).to(unit).reshape(self.size, *(1,) * lead, self.size)
        return block_rounds.solve(self.steps, self.factor, unit)[b].movedim(0, -2)


def _left(lower: Tensor, own: Tensor) -> Tensor:
    return (lower.diagonal(dim1=-2, dim2=-1).square() / own.diagonal(dim1=-2, dim2=-1)).detach()


def _block_batch(problem: Problem) -> torch.Size:
    return next(iter(problem.system.blocks.values())).shape[:-2]


def block_solver(problem: Problem) -> Solver:
    """Blocks one after the other, or in rounds where they are many, of one size and narrowly coupled."""
    blocks = problem.structure.blocks
    sizes = {len(s) for s in blocks.sites}
    if len(sizes) > 1 or len(blocks.sites) < 8 or blocks.elimination.width > NARROW:
        return BlockElimination(problem)
    scheme = scalar_scheme(len(blocks.sites), blocks.edges, "odd-even")
    size, batch = sizes.pop(), _block_batch(problem).numel()

    def seconds(steps: int, elimination: Elimination) -> float:
        return steps * 30 * CALL + elimination.cost([size] * len(blocks.sites)) * batch * MULTIPLIED

    if seconds(len(scheme.rounds), scheme.elimination) < seconds(len(blocks.sites), blocks.elimination):
        return BlockRounds(problem, scheme)
    return BlockElimination(problem)


def group_solver(group: ElementGroup, problem: Problem) -> Solver:
    """The plan for one group that is estimated fastest for this batch; `estimates` says by which numbers."""
    times = estimates(group, problem)
    for name in sorted(times, key=lambda name: times[name][0]):
        solver = times[name][1]()
        if solver is not None:
            return solver
    raise AssertionError("the elimination is always possible")


def estimates(
    group: ElementGroup, problem: Problem
) -> dict[str, tuple[float, Callable[[], Solver | None]]]:
    """Estimated seconds of every plan, and how to run it; what runs may say that it cannot (None)."""
    scheme, system = group.scheme, problem.system
    wide = _wide(group, problem)
    columns = group.copies * system.eta.shape[:-1].numel()
    found: dict[str, tuple[float, Callable[[], Solver | None]]] = {}
    if scheme.n <= 20_000:
        seconds = scheme.calls * (CALL + wide * STREAMED)
        found["lanes"] = (seconds, lambda: LaneElimination(group, problem))
    if scheme.n >= 16:
        order = scheme
        if scheme.width <= NARROW:  # chains, rings, trees: few rounds are worth some fill
            order = min(
                (scheme, scalar_scheme(scheme.n, scheme.edges, "odd-even")), key=lambda s: _in_rounds(s, wide)
            )
        found["rounds"] = (_in_rounds(order, wide), lambda: RoundElimination(group, problem, order))
    if 2 <= scheme.n <= LARGEST_SIGNATURE and not (
        system.diagonal.requires_grad or system.pairs.requires_grad
    ):
        seconds = 30 * CALL + (scheme.n * columns + scheme.n**2 * wide / group.copies) * scheme.n * MULTIPLIED
        found["shared"] = (seconds, lambda: shared_matrices(group, problem))
    return found


def _wide(group: ElementGroup, problem: Problem) -> int:
    """How many numbers an operation of the elimination is over."""
    return group.copies * problem.system.diagonal.shape[:-1].numel()


def _in_rounds(scheme: ScalarScheme, wide: int) -> float:
    return len(scheme.rounds) * ROUND + scheme.calls * wide * GATHERED


def shared_matrices(group: ElementGroup, problem: Problem) -> SharedMatrices | None:
    """The plan of `SharedMatrices`, or None where copies differ by more than a few signatures."""
    plan, system = problem.plan, problem.system
    device = system.diagonal.device
    if system.pairs is not plan.constants(system.diagonal.dtype, device).pairs:
        return None  # not the couplings that the signatures were read from
    if device not in group.signatures:
        group.signatures[device] = _signatures(group, plan.sums.diagonal, plan.sums.pairs, device)
    signatures = group.signatures[device]
    if signatures is None:
        return None
    unary = group.site_rows.stacked(system.unary)  # (*batch, n, G)
    own = unary.index_select(-1, signatures.first)
    if len(signatures.first) == 1:
        same = bool((unary.amin(-1) == unary.amax(-1)).all())
    else:
        same = bool((own.index_select(-1, signatures.label) == unary).all())
    if not same:
        return None
    flat = own.flatten(-2)
    uniform = bool((flat == flat[..., :1]).all())
    static = signatures.matrices.diagonal(dim1=-2, dim2=-1).mT  # (n, S)
    shift = flat[..., 0] if uniform else None
    columns = system.eta.shape[:-1].numel() * group.sites.size
    return SharedMatrices(group, signatures, own.double() + static, shift, system.diagonal.dtype, columns)


def _signatures(
    group: ElementGroup, diagonal: Tensor, pairs: Tensor, device: torch.device
) -> Signatures | None:
    own = group.site_rows.stacked(diagonal.detach())
    coupled = group.pair_rows.stacked(pairs.detach())
    columns = torch.cat([own, coupled])  # (n + edges, G)
    weights = torch.rand(len(columns), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, label = torch.unique(weights @ columns, return_inverse=True)
    if len(values) > MOST_SIGNATURES:
        return None
    first = torch.stack([(label == s).nonzero()[0, 0] for s in range(len(values))])
    if not torch.equal(columns[:, first][:, label], columns):
        return None
    matrices = group.matrices(own[:, first], coupled[:, first])
    copies = [(label == s).nonzero()[:, 0].to(device) for s in range(len(values))]
    return Signatures(label.to(device), first.to(device), copies, matrices.to(device), [])
