"""Belief propagation as one of the plans of `infer`: its result in the form of every other solution."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ...errors import UnsupportedError
from ..posterior import Solution
from ..problem import Problem
from .messages import Messages
from .network import Edge, network
from .run import Result, log_determinant, run
from .schedules import Damping


def propagate(
    problem: Problem,
    start: Solution | None = None,
    schedule: str | None = None,
    damping: Damping = 0.0,
    frozen: Collection[Edge] = (),
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    messages: Messages | None = None,
    progress: bool = False,
) -> Solution:
    """Run until it settles; options as in `run`, schedule "tree" on forests and "flooding" elsewhere unless given.

    A `start` by belief propagation gives its messages. On loops `log_determinant` and `entries` raise
    UnsupportedError when they are asked for, and `variance` is what the beliefs say.
    """
    net = network(problem)
    schedule = schedule or ("tree" if net.forest else "flooding")
    if messages is None and start is not None and isinstance(start.state, Result):
        messages = start.state.messages
    result = run(net, schedule, damping, frozen, tolerance, max_iterations, messages, progress=progress)
    result.require_stable()
    exact = result.variances_exact

    def refuse(what: str) -> UnsupportedError:
        why = "on loops" if not net.forest else "with frozen edges"
        return UnsupportedError(f"belief propagation has no {what} {why}; method='exact' has")

    def determinant() -> Tensor:
        if not exact:
            raise refuse("log_evidence")
        return log_determinant(net, result.messages)

    def entries(rows: Tensor, columns: Tensor) -> Tensor:
        """By solving for one column after the other: messages of precision stay, means are sent again."""
        if not exact:
            raise refuse("covariances")
        component = torch.from_numpy(problem.structure.component)
        lead = problem.system.eta.shape[:-1]
        out = problem.system.eta.new_zeros(*lead, len(rows))
        together = component[rows] == component[columns]
        # Rows of different components do not disturb each other: one solve serves one row of each of them.
        todo = torch.unique(rows[together])
        while len(todo):
            order = torch.argsort(component[todo], stable=True)
            todo = todo[order]
            first = torch.ones(len(todo), dtype=torch.bool)
            first[1:] = component[todo[1:]] != component[todo[:-1]]
            chosen, todo = todo[first], todo[~first]
            unit = problem.system.eta.new_zeros(problem.plan.sites.size).index_fill(
                0, chosen.to(out.device), 1
            )
            solved = result.solve(unit)
            pick = (torch.isin(rows, chosen) & together).nonzero().squeeze(-1)
            values = solved.index_select(-1, columns[pick].to(out.device))
            out = out.index_copy(-1, pick.to(out.device), values)
        return out

    def unsupported(*_: Tensor) -> Tensor:
        raise refuse("exact samples")

    sent = sum(row.messages for row in result.trace)
    return Solution(
        result.site_mean,
        determinant,
        lambda: result.site_variance,
        entries,
        result.solve,
        unsupported,
        plan=f"belief propagation, {schedule}, {result.iterations} iterations, ended by {result.reason}",
        width=net.width,
        exact=exact,
        cost=float(3 * sent * net.width),
        trace=tuple(row.residual for row in result.trace),
        state=result,
    )
