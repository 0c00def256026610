"""The rules of Gaussian belief propagation: one message, all beliefs, the residual. Pure functions.

With ``Lambda x = eta`` the message of j to i, and the belief of i, are [Malioutov2006]_

    c = Lambda_jj + sum_{k != i} P_kj      (the cavity: j as it is without i)
    P_ji = -Lambda_ij c^{-1} Lambda_ji,    h_ji = -Lambda_ij c^{-1} (eta_j + sum_{k != i} h_kj)
    J_i = Lambda_ii + sum_k P_ki,          mu_i = J_i^{-1} (eta_i + sum_k h_ki)

over the neighbours k. Every operation here is as wide as there are copies of the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import CavityError
from ..block import times
from .network import Firing, Network


class Messages(NamedTuple):
    """Every message of a network, in information form. Lanes of the cells in order, then the block edges.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import init, network
    >>> from pgm_sync.potentials import Attraction
    >>> empty = init(network(chain_graph(3, 4, Attraction(1.0)), {0: (1.0, 1.0)}))
    >>> [tuple(part.shape) for part in empty.eta]  # two edges, both ways, four elements each
    [(4, 4)]
    """

    precision: tuple[Tensor, ...]  # (*batch, 2m, G) per cells, (*batch, s, s) per block edge
    eta: tuple[Tensor, ...]  # (*batch, 2m, G) per cells, (*batch, s) per block edge


class Sent(NamedTuple):
    """New messages of one part, before damping."""

    precision: Tensor | None  # None where only means were sent
    eta: Tensor
    gain: Tensor  # what turned the cavity's eta into the message's


ADVICE = (
    "belief propagation needs every such precision to be positive, which walk-summable graphs have and a positive "
    "definite joint precision alone does not give. Weaken the potentials, give evidence more precision, or solve with "
    "method='exact', which also says whether the graph is improper"
)


def row_sum(base: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """`base` ``(*batch, n, G)`` with the rows of `values` ``(*batch, k, G)`` added at `index`."""
    base = base.expand(*torch.broadcast_shapes(base.shape[:-2], values.shape[:-2]), *base.shape[-2:])
    if values.shape[-1] >= 32:  # one vector addition per row
        return base.index_add(-2, index, values)
    return base.scatter_add(-2, index[:, None].expand(values.shape), values)


def send_lanes(
    net: Network,
    part: int,
    firing: Firing | None,
    precision: Tensor,
    eta: Tensor,
    gain: Tensor | None = None,
    means_only: bool = False,
    iteration: int | None = None,
) -> Sent:
    """Messages of the lanes of a `firing` (None: all) from those there are; a known `gain` saves the precisions.

    Raises CavityError.
    """
    cells, device = net.layout.cells[part], eta.device
    if firing is None:
        which, reverse = cells.index("source", device), cells.index("reverse", device)
        coupling = net.coupling[part]

        def gather(own: Tensor, messages: Tensor) -> Tensor:
            return row_sum(own, cells.index("target", device), messages)
    else:
        which, reverse = firing.which, firing.reverse
        coupling = net.coupling[part].index_select(-2, firing.lanes)

        def gather(own: Tensor, messages: Tensor) -> Tensor:
            arriving = messages.index_select(-2, firing.incoming)
            return row_sum(own.index_select(-2, firing.nodes), firing.slot, arriving)

    def cavity(own: Tensor, messages: Tensor) -> Tensor:
        return gather(own, messages).index_select(-2, which) - messages.index_select(-2, reverse)

    new = None
    if gain is None:
        own = net.diagonal[part]
        without = cavity(own, precision)
        source = cells.index("source", device)
        sender = source if firing is None else source.index_select(0, firing.lanes)
        check_lanes(net, part, without, own, sender, None if firing is None else firing.lanes, iteration)
        gain = -coupling / without
        new = None if means_only else coupling * gain
    return Sent(new, gain * cavity(net.eta[part], eta), gain)


def send_block(
    net: Network,
    edge: int,
    precision: Sequence[Tensor],
    eta: Sequence[Tensor],
    gain: Tensor | None = None,
    means_only: bool = False,
    iteration: int | None = None,
) -> Sent:
    """The message of one block edge from all messages there are. Raises CavityError."""
    layout, base = net.layout, len(net.layout.cells)
    a, b = layout.block_edges[edge]
    arriving = [base + k for k in layout.block_incoming[a] if layout.block_edges[k][0] != b]
    coupling = net.coupling[base + edge]  # (*batch, s_b, s_a)
    new = None
    if gain is None:
        own = net.diagonal[base + a]
        without = sum((precision[k] for k in arriving), own)
        gain = -torch.cholesky_solve(coupling.mT, checked_cholesky(net, without, own, a, b, iteration)).mT
        new = None if means_only else symmetric(gain @ coupling.mT)
    total = sum((eta[k] for k in arriving), net.eta[base + a])
    return Sent(new, times(gain, total), gain)


def beliefs_of(net: Network, messages: Messages) -> tuple[list[Tensor], list[Tensor]]:
    """Precision and eta of every belief, per cells and then per block."""
    layout, base = net.layout, len(net.layout.cells)
    precision, eta = [], []
    for part, cells in enumerate(layout.cells):
        target = cells.index("target", net.eta[part].device)
        precision.append(row_sum(net.diagonal[part], target, messages.precision[part]))
        eta.append(row_sum(net.eta[part], target, messages.eta[part]))
    for b, arriving in enumerate(layout.block_incoming):
        precision.append(sum((messages.precision[base + k] for k in arriving), net.diagonal[base + b]))
        eta.append(sum((messages.eta[base + k] for k in arriving), net.eta[base + b]))
    return precision, eta


def means_of(net: Network, precision: Sequence[Tensor], eta: Sequence[Tensor]) -> list[Tensor] | None:
    """Mean of every belief; None where one of them has no positive precision."""
    means = []
    for part, (j, h) in enumerate(zip(precision, eta, strict=True)):
        if part < len(net.layout.cells):
            if not bool((j > floor(net.diagonal[part])).all()):
                return None
            means.append(h / j)
        else:
            factor, info = torch.linalg.cholesky_ex(j)
            if bool((info > 0).any()):
                return None
            means.append(solve(factor, h))
    return means


def product_of(net: Network, means: Sequence[Tensor], absolute: bool = False) -> list[Tensor]:
    """``Lambda mu`` per cells and per block; `absolute` takes every number by its absolute value."""
    layout, base = net.layout, len(net.layout.cells)

    def given(values: Tensor) -> Tensor:
        return values.abs() if absolute else values

    out = []
    for part, cells in enumerate(layout.cells):
        x, device = given(means[part]), means[part].device
        flow = given(net.coupling[part]) * x.index_select(-2, cells.index("source", device))
        out.append(row_sum(given(net.diagonal[part]) * x, cells.index("target", device), flow))
    for b, arriving in enumerate(layout.block_incoming):
        total = times(given(net.diagonal[base + b]), given(means[base + b]))
        for k in arriving:
            total = total + times(
                given(net.coupling[base + k]), given(means[base + layout.block_edges[k][0]])
            )
        out.append(total)
    return out


def square_norm(net: Network, values: Sequence[Tensor]) -> Tensor:
    """Sum of squares over all sites, ``(*batch)``, in double precision: a sum over many elements."""
    base = len(net.layout.cells)
    total = torch.zeros((), dtype=torch.float64, device=net.problem.system.eta.device)
    for part, v in enumerate(values):
        size = torch.linalg.vector_norm(v, dim=(-2, -1) if part < base else -1, dtype=torch.float64)
        total = total + size.square()
    return total


def residual_of(net: Network, means: Sequence[Tensor]) -> float:
    """Largest ``|Lambda mu - eta| / |eta|`` over the batch (where eta = 0: 0 for mu = 0)."""
    difference = [p - h for p, h in zip(product_of(net, means), net.eta, strict=True)]
    top, bottom = square_norm(net, difference).sqrt(), square_norm(net, net.eta).sqrt()
    ratio = torch.where(top > 0, top / bottom, torch.zeros_like(top))
    return ratio.max().item() if ratio.numel() else 0.0


def rounding_of(net: Network, precision: Sequence[Tensor], means: Sequence[Tensor]) -> float:
    """The residual that rounding alone can leave in this dtype.

    A belief's precision is ``Lambda_ii`` less what its messages take away, so its mean is off by
    ``eps Lambda_ii / J_i`` of itself.
    """
    base, off = len(net.layout.cells), []
    for part, (j, x) in enumerate(zip(precision, means, strict=True)):
        own = net.diagonal[part]
        if part >= base:
            own, j = own.diagonal(dim1=-2, dim2=-1), 1 / torch.linalg.inv(j).diagonal(dim1=-2, dim2=-1)
        off.append((own / j).abs().clamp_min(1) * x)
    size = [p + h.abs() for p, h in zip(product_of(net, off, absolute=True), net.eta, strict=True)]
    top, bottom = square_norm(net, size).sqrt(), square_norm(net, net.eta).sqrt()
    lowest = (top / bottom)[bottom > 0]  # a sample with eta = 0 has no residual to begin with
    return (
        8 * torch.finfo(net.problem.system.eta.dtype).eps * (lowest.min().item() if lowest.numel() else 0.0)
    )


def floor(own: Tensor) -> Tensor:
    """What rounding leaves of a precision that is zero."""
    return 16 * torch.finfo(own.dtype).eps * own.abs()


def check_lanes(
    net: Network,
    part: int,
    cavity: Tensor,  # (*batch, k, G)
    own: Tensor,  # (*batch, n, G)
    sender: Tensor,  # (k,), the position that each row of `cavity` belongs to
    lanes: Tensor | None,  # (k,), which lanes these are; None: row k is lane k
    iteration: int | None,
) -> None:
    """Raise CavityError, naming the first message, unless every cavity has a positive precision."""
    if not cavity.numel() or bool(cavity.amin() > floor(own).amax()):
        return
    bad = ~(cavity > floor(own).index_select(-2, sender))
    if not bool(bad.any()):
        return
    rows = bad.transpose(-1, -2).reshape(-1, bad.shape[-2]).any(0)
    row = int(rows.nonzero()[0])
    value = cavity[..., row, :][bad[..., row, :]].min().item()
    lane = row if lanes is None else int(lanes[row])
    cells = net.layout.cells[part]
    source, target = (int(cells.owners[ends[lane]]) for ends in (cells.source, cells.target))
    raise cavity_error(net, source, target, value, iteration)


def checked_cholesky(
    net: Network, cavity: Tensor, own: Tensor, source: int, target: int | None, iteration: int | None
) -> Tensor:
    """Cholesky factor of the cavity of a block. Raises CavityError."""
    factor, info = torch.linalg.cholesky_ex(cavity)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square()
    if bool((info > 0).any()) or not bool((pivots > floor(own.diagonal(dim1=-2, dim2=-1))).all()):
        lowest = torch.linalg.eigvalsh(cavity.detach())[..., 0].min().item()
        owner = net.layout.block_owner
        raise cavity_error(net, owner[source], None if target is None else owner[target], lowest, iteration)
    return factor


def cavity_error(
    net: Network, source: int, target: int | None, precision: float, iteration: int | None
) -> CavityError:
    names = net.layout.names
    when = "" if iteration is None else f" at iteration {iteration}"
    if target is None:
        return CavityError(
            f"the belief of {names[source]!r} has precision {precision:.3g}{when}: {ADVICE}",
            source=names[source], target=None, iteration=iteration, precision=precision,
        )  # fmt: skip
    return CavityError(
        f"message {names[source]!r} -> {names[target]!r}{when}: without {names[target]!r}, {names[source]!r} has "
        f"precision {precision:.3g}: {ADVICE}",
        source=names[source], target=names[target], iteration=iteration, precision=precision,
    )  # fmt: skip


def solve(factor: Tensor, vectors: Tensor) -> Tensor:
    """``(L L')^{-1} v`` for ``(*batch, n)`` vectors."""
    batch = torch.broadcast_shapes(factor.shape[:-2], vectors.shape[:-1])
    factor = factor.expand(*batch, *factor.shape[-2:])
    vectors = vectors.expand(*batch, vectors.shape[-1])
    return torch.cholesky_solve(vectors.unsqueeze(-1), factor).squeeze(-1)


def symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
