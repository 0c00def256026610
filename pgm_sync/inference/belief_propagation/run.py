"""Gaussian belief propagation: one message at a time, or until it settles.

On a forest it is exact. On a graph with loops its means are exact wherever it converges [WeissFreeman2001]_, which
walk-summability guarantees [Malioutov2006]_; its variances are not. Everything here is a pure function of a `Network`
and its `Messages`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...errors import ConvergenceError, ParameterError, ShapeError, UnsupportedError
from ...graph.factor_graph import Name
from ..posterior import ByName
from .gradients import Solve, attached, wants_gradient
from .messages import (
    Messages,
    beliefs_of,
    cavity_error,
    checked_cholesky,
    floor,
    means_of,
    residual_of,
    rounding_of,
    symmetric,
)
from .network import Edge, Network, with_eta
from .schedules import (
    SCHEDULES,
    Damping,
    Mixing,
    Progress,
    State,
    compute,
    flooding_turns,
    mixed,
    require_edge,
    turns_of,
)


class Beliefs(NamedTuple):
    """What the messages say about every node; the answer of `beliefs`.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> said = beliefs(net, step(net, init(net)))
    >>> said.mean[0].item(), round(said.variance[0].item(), 4)
    (2.0, 0.6667)
    """

    mean: Mapping[Name, Tensor]  # (*batch, *shape) per name
    variance: Mapping[Name, Tensor]  # (*batch, *shape) per name


class Message(NamedTuple):
    """One message, as a function of the elements of its receiver, in information form.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0)})
    >>> told = message(net, step(net, init(net)), 0, 1)
    >>> told.precision.item(), told.eta.item()  # with the factor's own precision, 1: a mean of 1.5 / 0.5
    (-0.5, 1.5)
    """

    precision: Tensor  # (*batch, *shape); (*batch, D, D) where matrices couple the two nodes
    eta: Tensor  # (*batch, *shape)


class Iteration(NamedTuple):
    """One row of a trace.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> result = run(network(chain_graph(3, 1, Attraction(1.0)), {0: (3.0, 1.0)}), schedule="tree")
    >>> result.trace[-1].number, result.trace[-1].messages
    (1, 4)
    """

    number: int  # 0: the messages at the start
    residual: float  # |Lambda mu - eta| / |eta|, the largest of the batch; inf where no mean exists yet
    change: float  # largest change of a message, relative to the largest precision or eta of the problem
    messages: int  # sent in this iteration, counted by named edge


def init(net: Network, messages: Messages | None = None) -> Messages:
    """Empty messages of `net`; or a warm start from `messages` of an earlier network of the same graph.
    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> graph = chain_graph(3, 1, Attraction(1.0))
    >>> before = run(network(graph, {0: (3.0, 1.0)}))
    >>> net = network(graph, {0: (3.1, 1.0)})
    >>> run(net, messages=init(net, before.messages)).iterations <= before.iterations
    True

    Raises ShapeError where they do not fit.
    """
    system, base = net.problem.system, len(net.layout.cells)
    sizes = [(2 * c.m, c.sites.shape[1]) for c in net.layout.cells]
    ends = [len(net.layout.block_sites[b]) for _, b in net.layout.block_edges]
    lead = [net.diagonal[part].shape[:-2] for part in range(base)]
    lead += [net.coupling[base + k].shape[:-2] for k in range(len(ends))]
    batch = system.eta.shape[:-1]
    shapes = [(*lead[k], *size) for k, size in enumerate([*sizes, *((s, s) for s in ends)])]
    eta_shapes = [(*batch, *size) for size in [*sizes, *((s,) for s in ends)]]
    if messages is None:
        zeros = [[system.eta.new_zeros(shape) for shape in each] for each in (shapes, eta_shapes)]
        return Messages(tuple(zeros[0]), tuple(zeros[1]))
    found = []
    for given, each in zip(messages, (shapes, eta_shapes), strict=True):
        if len(given) != len(each):
            raise ShapeError(
                f"messages of {len(given)} parts for a network of {len(each)}: they come from another graph"
            )
        for values, shape in zip(given, each, strict=True):
            try:
                found.append(values.detach().to(system.eta).expand(shape).clone())
            except RuntimeError as error:
                raise ShapeError(
                    f"messages of shape {tuple(values.shape)} do not fit {shape}: they come from another graph, or "
                    "from a larger batch",
                    expected=shape,
                    got=tuple(values.shape),
                ) from error
    return Messages(tuple(found[: len(shapes)]), tuple(found[len(shapes) :]))


def step(
    net: Network,
    messages: Messages,
    edges: Edge | Iterable[Edge] | None = None,
    damping: Damping = 0.0,
    frozen: Collection[Edge] = (),
) -> Messages:
    """The messages after sending along `edges`: one ``(from, to)``, several, or all (None), at once from `messages`.

    `damping` is the weight of the old message, for all edges or per edge; edges in `frozen` keep theirs.
    Differentiable. Raises CavityError, UnknownNameError, ParameterError (damping outside [0, 1)).

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(3, 1, Attraction(1.0)), {k: (6.0 if k == 0 else 0.0, 1.0) for k in range(3)})
    >>> messages = init(net)
    >>> for _ in range(3):  # the evidence at node 0 moves on by one edge per step
    ...     messages = step(net, messages)
    ...     print([round(mean.item(), 2) for mean in beliefs(net, messages).mean.values()])
    [3.6, 1.5, 0.0]
    [3.75, 1.5, 0.75]
    [3.75, 1.5, 0.75]
    """
    mixing = Mixing(net, damping, frozen)
    state = State(messages)
    if edges is None:
        turns = flooding_turns(net, mixing)
    else:
        chosen: list[Any] = [edges] if _is_edge(net, edges) else list(edges)
        for edge in chosen:
            require_edge(net, edge)
        turns = [
            turn
            for edge in dict.fromkeys(chosen)
            if edge not in mixing.frozen
            for turn in turns_of(net, edge)
        ]
    found = [(turn, *mixed(state, turn, compute(net, state, turn), mixing)[:2]) for turn in turns]
    precision, eta = list(messages.precision), list(messages.eta)
    for turn, p, h in found:
        assert p is not None
        if turn.firing is not None:
            p = precision[turn.part].index_copy(-2, turn.firing.lanes, p)
            h = eta[turn.part].index_copy(-2, turn.firing.lanes, h)
        precision[turn.part], eta[turn.part] = p, h
    return Messages(tuple(precision), tuple(eta))


def _is_edge(net: Network, edges: Any) -> bool:
    try:
        return edges in net.layout.carried
    except TypeError:  # a list of edges
        return False


def beliefs(net: Network, messages: Messages) -> Beliefs:
    """Mean and variance of every element of `net` as the `messages` have it.

    Before any message, every node believes its own evidence:

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> beliefs(net, init(net)).mean[0].item()  # pulled half way to 0 by the attraction's own precision
    1.5

    Raises CavityError where that is no density.
    """
    precision, eta = beliefs_of(net, messages)
    means = _means(net, precision, eta)
    return _by_name(net, net.layout.join(means), lambda: _variance(net, precision))


def message(net: Network, messages: Messages, source: Name, target: Name) -> Message:
    """What `source` tells `target` in `messages` of `net`, over the elements of `target` (0 where it says nothing).

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0)})
    >>> message(net, init(net), 0, 1).eta.item(), message(net, step(net, init(net)), 0, 1).eta.item()
    (0.0, 1.5)

    Raises UnknownNameError.
    """
    require_edge(net, (source, target))
    layout, base = net.layout, len(net.layout.cells)
    sites, device = net.problem.plan.sites, net.problem.system.eta.device
    own = sites.index[target].to(device)
    place = torch.full((sites.size,), -1, dtype=torch.int64, device=device)
    place[own] = torch.arange(len(own), device=device)
    carried = layout.carried[source, target]
    batch = net.problem.system.eta.shape[:-1]
    eta = net.problem.system.eta.new_zeros(*batch, len(own))
    as_matrix = any(part >= base for part, _ in carried)
    lead = torch.broadcast_shapes(*(messages.precision[part].shape[:-2] for part, _ in carried))
    precision = eta.new_zeros(*lead, len(own), *([len(own)] if as_matrix else []))
    for part, lanes in carried:
        if part < base:
            cells = layout.cells[part]
            where = place[torch.from_numpy(cells.sites[cells.target[lanes]].reshape(-1)).to(device)]
            chosen = torch.from_numpy(lanes).to(device)
            p, h = (v[part].index_select(-2, chosen).flatten(-2) for v in messages)
            if as_matrix:
                flat = where * (len(own) + 1)
                p = p.expand(*lead, p.shape[-1])
                precision = precision.flatten(-2).index_add(-1, flat, p).unflatten(-1, (len(own), len(own)))
            else:
                precision = precision.index_add(-1, where, p.expand(*lead, p.shape[-1]))
        else:
            where = place[torch.from_numpy(layout.block_sites[layout.block_edges[part - base][1]]).to(device)]
            p, h = messages.precision[part], messages.eta[part]
            flat = (where[:, None] * len(own) + where).flatten()
            p = p.flatten(-2).expand(*lead, len(flat))
            precision = precision.flatten(-2).index_add(-1, flat, p).unflatten(-1, (len(own), len(own)))
        eta = eta.index_add(-1, where, h)
    shape = sites.shapes[target]
    precision = precision if as_matrix else precision.unflatten(-1, shape) if shape else precision.squeeze(-1)
    return Message(precision, eta.unflatten(-1, shape) if shape else eta.squeeze(-1))


class Result:
    """A finished run, made by `run` of a `net`.

    Attributes: ``mean[name]`` and ``variance[name]`` ``(*batch, *shape)``; ``messages``, for a warm start; ``trace``, a
    tuple of `Iteration`; ``reason`` it stopped; ``variances_exact``; ``network``. `options` are those of the run,
    `kept` whether it kept its precision messages.

    Gradients of the mean are those of the exact solution, whatever messages led there: one more linear solve, by the
    same schedule, when they are asked for. Those of the variance are of the fixed point of the precision messages.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> result = run(network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)}), "tree")
    >>> result.mean[0].item(), result.mean[1].item(), result.variances_exact
    (2.0, 1.0, True)
    """

    def __init__(
        self,
        net: Network,
        messages: Messages,
        trace: tuple[Iteration, ...],
        reason: str,
        options: dict[str, Any],
        kept: bool,
    ):
        self.network, self.messages, self.trace, self.reason = net, messages, trace, reason
        self.variances_exact = net.forest and not kept
        self._options, self._kept = options, kept

    @property
    def iterations(self) -> int:
        """How many it took."""
        return self.trace[-1].number

    @property
    def residual(self) -> float:
        """``|Lambda mu - eta| / |eta|`` at the end."""
        return self.trace[-1].residual

    @cached_property
    def site_mean(self) -> Tensor:
        """``(*batch, sites)``."""
        with torch.no_grad():
            mean = self.network.layout.join(_means(self.network, *beliefs_of(self.network, self.messages)))
        if not wants_gradient(self.network):
            return mean
        self._refuse_gradient()
        problem, system = self.network.problem, self.network.problem.system
        numbers = (system.eta, system.diagonal, system.pairs, *system.blocks.values())
        return Solve.apply(mean, self.solve, problem, *numbers)

    @cached_property
    def site_variance(self) -> Tensor:
        """``(*batch, sites)``."""
        messages = self.messages
        if wants_gradient(self.network):
            self._refuse_gradient()
            messages = attached(self.network, messages, self._options)
        variance = _variance(self.network, beliefs_of(self.network, messages)[0])
        batch = self.network.problem.system.eta.shape[:-1]
        return variance.expand(*batch, variance.shape[-1])

    @cached_property
    def mean(self) -> Mapping[Name, Tensor]:
        """Per name, ``(*batch, *shape)``."""
        return _by_name(self.network, self.site_mean, lambda: self.site_variance).mean

    @cached_property
    def variance(self) -> Mapping[Name, Tensor]:
        """Per name, ``(*batch, *shape)``."""
        return _by_name(self.network, self.site_mean, lambda: self.site_variance).variance

    def solve(self, right: Tensor) -> Tensor:
        """``Lambda^{-1} right`` for ``right (*batch, sites)``: only means are sent. Raises as `run`."""
        own = self.network.problem.system.eta
        right = right.to(own).expand(torch.broadcast_shapes(own.shape, right.shape))
        posed = with_eta(self.network, right)
        start = Messages(
            self.messages.precision, tuple(torch.zeros_like(h[..., :1]) for h in self.messages.eta)
        )
        start = Messages(start.precision, init(posed).eta)
        return run(posed, messages=start, means_only=True, **self._options).site_mean

    def require_stable(self) -> None:
        """Pass where messages have settled for every eta. Raises ConvergenceError if they have for this one only.

        On loops they can, for an eta that is zero or lies well, although the graph is improper or means diverge for
        almost every other eta. A random eta tells, with means alone, and without the batch where precisions have none.
        """
        if self.network.forest or self._kept:
            return
        lead = torch.broadcast_shapes(
            *(d.shape[:-2] for d in self.network.diagonal), *(p.shape[:-2] for p in self.messages.precision)
        )
        own = self.network.problem.system.eta
        probe = torch.randn(own.shape[-1], generator=torch.Generator().manual_seed(0)).to(own)
        with torch.no_grad():
            posed = with_eta(self.network, probe.expand(*lead, -1))
            start = Messages(self.messages.precision, init(posed).eta)
            try:
                run(posed, messages=start, means_only=True, **self._options)
            except ConvergenceError as error:
                raise ConvergenceError(
                    "belief propagation settled for this eta, but not for a random one under the same precision: the "
                    "graph is improper or not walk-summable; method='exact' says which",
                    trace=error.data["trace"], messages=self.messages, residual=error.data["residual"],
                ) from error  # fmt: skip

    def _refuse_gradient(self) -> None:
        if self._kept:
            raise UnsupportedError(
                "with frozen edges the beliefs are not the solution of the graph, and have no implicit gradient; "
                "run without frozen, differentiate through step(), or detach the evidence"
            )

    def __repr__(self) -> str:
        return f"Result({self.network!r}, {self.iterations} iterations, residual {self.residual:.1e}, {self.reason})"


def run(
    net: Network,
    schedule: str = "flooding",
    damping: Damping = 0.0,
    frozen: Collection[Edge] = (),
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    messages: Messages | None = None,
    means_only: bool = False,
    progress: bool = False,
) -> Result:
    """Send messages until the means solve ``Lambda mu = eta``.

    schedule: "flooding" (all at once), "sequential" (one after the other, along ``net.edges``), "residual" (the largest
    change first) or "tree" (towards a root and back; exact, on forests only). `damping` and `frozen` as in `step`;
    `messages` is a warm start. `means_only` keeps the precision messages of `messages`, which do not depend on eta: for
    another eta under the same precision.

    It ends when ``|Lambda mu - eta| <= tolerance |eta|`` for every sample of the batch (or stands still at what
    rounding leaves of it in this dtype: ``result.reason`` says so) and no belief's precision moves by more than
    `tolerance`, relatively: the residual alone says nothing about variances. With frozen edges the fixed point is not
    the solution, so it ends when no message changes. `progress` shows a bar, of at most `max_iterations`.

    Raises ConvergenceError with ``trace`` and ``messages`` (from which a run can go on), CavityError, LoopError
    ("tree" on a loop), UnknownNameError, ParameterError, ShapeError.

    >>> from pgm_sync.graph import ring_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(ring_graph(4, 1, Attraction(1.0)), {k: (float(k), 1.0) for k in range(4)})
    >>> result = run(net)
    >>> result.mean[0].round(decimals=3)
    tensor([1.0670], dtype=torch.float64)
    """
    if schedule not in SCHEDULES:
        raise ParameterError(f"schedule={schedule!r} is not one of {', '.join(SCHEDULES)}", schedule=schedule)
    if not tolerance > 0:
        raise ParameterError(f"tolerance={tolerance!r} is not positive", tolerance=tolerance)
    if max_iterations < 1:
        raise ParameterError(
            f"max_iterations={max_iterations!r} is not at least 1", max_iterations=max_iterations
        )
    if means_only and messages is None:
        raise ParameterError("means_only=True keeps the precision messages of `messages`; give some")
    mixing = Mixing(net, damping, frozen)
    options = {
        "schedule": schedule, "damping": damping, "frozen": tuple(frozen), "tolerance": tolerance,
        "max_iterations": max_iterations,
    }  # fmt: skip
    with torch.no_grad():
        loop = _Loop(net, State(init(net, messages), means_only), mixing, schedule, tolerance)
        reason = loop.until(max_iterations, progress)
    return Result(net, Messages(tuple(loop.state.precision), tuple(loop.state.eta)), tuple(loop.trace), reason,
                  options, bool(mixing.frozen))  # fmt: skip


class _Loop:
    """Iterations, their trace, and when to stop."""

    def __init__(self, net: Network, state: State, mixing: Mixing, schedule: str, tolerance: float):
        self.net, self.state, self.mixing, self.tolerance = net, state, mixing, tolerance
        self.iterations = SCHEDULES[schedule](net, state, mixing)
        self.exact_at_once = schedule == "tree" and not mixing.damped and not mixing.frozen
        self.eps = torch.finfo(net.problem.system.eta.dtype).eps
        self.kept = state.means_only  # precisions that were never sent
        self.precision: list[Tensor] = []
        self.trace: list[Iteration] = []
        self.moved = float("inf")
        self.best = (float("inf"), 0)  # residual, and when
        self._look(Progress(0.0, 0))
        first = self.trace[0].residual  # what only grows is given up long before numbers overflow
        self.limit = 1e8 * max(1.0, first if first < float("inf") else 1.0)

    def until(self, most: int, progress: bool) -> str:
        """Run; why it stopped. Raises ConvergenceError."""
        bar = _bar(most) if progress else None
        try:
            reason = self._reason()
            while reason is None:
                if len(self.trace) > most:
                    raise self._failed(f"did not reach {self.tolerance:g} in {most} iterations")
                self.state.iteration += 1
                self._look(next(self.iterations))
                if self.means is not None and not self.trace[-1].residual <= self.limit:
                    raise self._failed("diverges")
                if bar is not None:
                    bar.set_postfix_str(f"residual {self.trace[-1].residual:.1e}")
                    bar.update()
                reason = self._reason()
            return reason
        finally:
            if bar is not None:
                bar.close()

    def _look(self, done: Progress) -> None:
        precision, eta = beliefs_of(self.net, Messages(tuple(self.state.precision), tuple(self.state.eta)))
        means = means_of(self.net, precision, eta)
        residual = float("inf") if means is None else residual_of(self.net, means)
        residual = residual if residual == residual else float("inf")
        if self.precision and not self.state.means_only:
            self.moved = max(
                (_moved(new, old, k < len(self.net.layout.cells))
                 for k, (new, old) in enumerate(zip(precision, self.precision, strict=True))), default=0.0,
            )  # fmt: skip
            if self.moved <= 4 * self.eps and not self.mixing.damped:
                self.state.means_only = True  # they do not depend on eta, and have arrived
        self.precision, self.means = precision, means
        self.trace.append(Iteration(len(self.trace), residual, done.change, done.messages))

    def _reason(self) -> str | None:
        last = self.trace[-1]
        sent = last.number > 0
        if self.mixing.frozen:
            quiet = sent and last.change <= self.tolerance and self.means is not None
            return "messages are still" if quiet else None
        settled = self.kept or self.moved <= max(self.tolerance, 8 * self.eps) or not self.net.edges
        if not settled and not (self.exact_at_once and sent):
            return None
        if last.residual <= self.tolerance:
            return "residual"
        self.best = min(self.best, (last.residual, last.number))
        still = self.exact_at_once or last.number >= self.best[1] + 10
        if (
            still
            and self.means is not None
            and last.residual <= rounding_of(self.net, self.precision, self.means)
        ):
            return "rounding"
        return None

    def _failed(self, how: str) -> ConvergenceError:
        last = self.trace[-1]
        if self.means is None and last.residual == float("inf"):
            how += " (some beliefs have no positive precision)"
        rising = len(self.trace) > 2 and last.residual > self.trace[len(self.trace) // 2].residual
        advice = (
            "it grows: the graph is not walk-summable; use method='exact', or damping"
            if rising
            else "go on from error.messages with more iterations, or use method='exact'"
        )
        return ConvergenceError(
            f"belief propagation {how}: residual {last.residual:.3g}; {advice}",
            trace=tuple(self.trace), messages=self.state.messages(), residual=last.residual,
        )  # fmt: skip


def _moved(new: Tensor, old: Tensor, diagonal: bool) -> float:
    """Largest relative change of beliefs' precisions."""
    if not new.numel():
        return 0.0
    if not diagonal:
        scale = new.diagonal(dim1=-2, dim2=-1).abs()
        return ((new - old).abs() / (scale.unsqueeze(-1) * scale.unsqueeze(-2)).sqrt()).max().item()
    return ((new - old) / new).abs().max().item()


def _bar(total: int) -> Any:
    return tqdm(total=total, desc="belief propagation", unit="iteration")


def _means(net: Network, precision: Sequence[Tensor], eta: Sequence[Tensor]) -> list[Tensor]:
    """Raises CavityError naming the belief without a positive precision."""
    means = means_of(net, precision, eta)
    if means is None:
        _raise_belief(net, precision)
        raise AssertionError
    return means


def _raise_belief(net: Network, precision: Sequence[Tensor]) -> None:
    base = len(net.layout.cells)
    for part, j in enumerate(precision):
        if part < base:
            bad = ~(j > floor(net.diagonal[part]))
            if bool(bad.any()):
                row = int(bad.transpose(-1, -2).reshape(-1, bad.shape[-2]).any(0).nonzero()[0])
                value = j[..., row, :][bad[..., row, :]].min().item()
                raise cavity_error(net, int(net.layout.cells[part].owners[row]), None, value, None)
        else:
            checked_cholesky(net, j, net.diagonal[part], part - base, None, None)


def _variance(net: Network, precision: Sequence[Tensor]) -> Tensor:
    base = len(net.layout.cells)
    _raise_belief(net, precision)
    parts = [1 / j for j in precision[:base]]
    for b, j in enumerate(precision[base:]):
        factor = checked_cholesky(net, j, net.diagonal[base + b], b, None, None)
        parts.append(torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1))
    lead = torch.broadcast_shapes(*(p.shape[: -2 if k < base else -1] for k, p in enumerate(parts)))
    return net.layout.join([p.expand(*lead, *p.shape[-2 if k < base else -1 :]) for k, p in enumerate(parts)])


def _by_name(net: Network, mean: Tensor, variance: Callable[[], Tensor]) -> Beliefs:
    sites = net.problem.plan.sites
    known: list[Tensor] = []

    def read(name: Name) -> Tensor:
        if not known:
            known.append(variance())
        return sites.gather(known[0], name)

    names = net.layout.names
    return Beliefs(ByName(names, lambda name: sites.gather(mean, name)), ByName(names, read))


def log_determinant(net: Network, messages: Messages) -> Tensor:
    """``log |Lambda|`` of `net`, ``(*batch)``, in the Bethe approximation from its `messages`: ``log |J_i|`` of nodes
    and of pairs ``log |J_ij| / |J_i| |J_j|``.

    Exact on forests. At the fixed point it is stationary in the messages, so its derivative with them held is its
    whole derivative.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import network
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (0.0, 1.0), 1: (0.0, 1.0)})
    >>> round(log_determinant(net, run(net).messages).exp().item(), 6)  # of [[2, -1], [-1, 2]]
    3.0

    Raises CavityError, UnsupportedError (a pair without a density).
    """
    layout, base = net.layout, len(net.layout.cells)
    beliefs_at, _ = beliefs_of(net, messages)
    _raise_belief(net, beliefs_at)
    total: Tensor = net.problem.system.eta.new_zeros(())
    for part, cells in enumerate(layout.cells):
        j = beliefs_at[part]
        total = total + j.log().sum((-2, -1))
        if not cells.m:
            continue
        source, target, reverse = (
            cells.index(w, j.device)[: cells.m] for w in ("source", "target", "reverse")
        )
        p = messages.precision[part]
        first = j.index_select(-2, source) - p.index_select(-2, reverse)
        second = j.index_select(-2, target) - p[..., : cells.m, :]
        pair = first * second - net.coupling[part][: cells.m] ** 2
        ratio = pair / (j.index_select(-2, source) * j.index_select(-2, target))
        if not bool((ratio > 0).all()):
            raise UnsupportedError(
                "the belief of a pair is no density: no Bethe determinant; use method='exact'"
            )
        total = total + ratio.log().sum((-2, -1))
    dets = [torch.linalg.slogdet(j)[1] for j in beliefs_at[base:]]
    for d in dets:
        total = total + d
    half = len(layout.block_edges) // 2
    for k, (a, b) in enumerate(layout.block_edges[:half]):
        first = beliefs_at[base + a] - messages.precision[base + k + half]
        factor = checked_cholesky(net, first, net.diagonal[base + a], a, b, None)
        cross = net.coupling[base + k]  # (s_b, s_a)
        second = beliefs_at[base + b] - messages.precision[base + k]
        rest = symmetric(second - cross @ torch.cholesky_solve(cross.mT, factor))
        total = total + torch.linalg.slogdet(first)[1] + torch.linalg.slogdet(rest)[1] - dets[a] - dets[b]
    return total
