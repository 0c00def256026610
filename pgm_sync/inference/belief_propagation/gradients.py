"""Implicit derivatives: of the solution that means converge to, and of the fixed point of the precision messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import ConvergenceError
from ..problem import Problem, product
from .messages import Messages
from .network import Network
from .schedules import Mixing, State, Turn, compute, flooding_turns


def wants_gradient(net: Network) -> bool:
    system = net.problem.system
    tensors = [system.diagonal, system.pairs, system.eta, *system.blocks.values()]
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


class Solve(torch.autograd.Function):
    """``x`` of ``Lambda x = eta``, given, with the derivative ``dx = Lambda^{-1} (d eta - d Lambda x)`` of a solution.

    Lambda is symmetric, so backward is one more solve, ``v = Lambda^{-1} g``; it can be differentiated in turn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        solve: Callable[[Tensor], Tensor],
        problem: Problem,
        eta: Tensor,
        *numbers: Tensor,
    ) -> Tensor:
        ctx.solve, ctx.problem = solve, problem
        solution = x.clone()
        ctx.save_for_backward(solution, *numbers)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, *numbers = ctx.saved_tensors
        v = ctx.solve(gradients[0])
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # Copies, so that only the product's own dependence on them is differentiated, not that of x and v.
            copies = [
                n.view_as(n) if again and n.requires_grad else n.detach().requires_grad_() for n in numbers
            ]
            diagonal, pairs, *blocks = copies
            system = ctx.problem.system._replace(
                diagonal=diagonal,
                pairs=pairs,
                blocks=dict(zip(ctx.problem.system.blocks, blocks, strict=True)),
            )
            both = (v * product(ctx.problem._replace(system=system), x)).sum()
            parts = torch.autograd.grad(both, copies, create_graph=again, allow_unused=True)
        return None, None, None, v, *(None if part is None else -part for part in parts)


class _Adjoint(torch.autograd.Function):
    """Identity whose backward solves ``v = g + J' v``, J the derivative of one round of messages at its fixed point."""

    @staticmethod
    def forward(ctx: Any, pull: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], *values: Tensor) -> Any:
        ctx.pull = pull
        return tuple(v.clone() for v in values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, *ctx.pull(gradients)


def attached(net: Network, messages: Messages, options: dict[str, Any]) -> Messages:
    """The same messages, with the derivative of the precision messages' fixed point."""
    detached = Messages(
        tuple(p.detach() for p in messages.precision), tuple(h.detach() for h in messages.eta)
    )

    def round_of(precision: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        state = State(Messages(precision, detached.eta))
        found = {}
        for turn in flooding_turns(net, Mixing(net)):
            found[turn.part] = compute(net, state, Turn(turn.part, turn.firing)).precision
        return tuple(found.get(k) if k in found else p for k, p in enumerate(precision))  # type: ignore[misc]

    kept = [k for k, p in enumerate(detached.precision) if p.numel()]
    start = tuple(p.clone().requires_grad_() for p in detached.precision)
    with torch.enable_grad():
        once = round_of(start)
    after = round_of(detached.precision)

    def pull(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        v, weight = list(gradients), Mixing(net, options["damping"]).largest
        for _ in range(options["max_iterations"]):
            down = torch.autograd.grad(
                [once[k] for k in kept], [start[k] for k in kept], v, retain_graph=True, allow_unused=True
            )
            moved, size = 0.0, 0.0
            for i, (g, d) in enumerate(zip(gradients, down, strict=True)):
                new = (1 - weight) * (g if d is None else g + d) + weight * v[i]
                moved = max(moved, (new - v[i]).abs().max().item())
                size = max(size, new.abs().max().item())
                v[i] = new
            if moved <= options["tolerance"] * size:
                return tuple(v)
        raise ConvergenceError(
            f"the gradient of the variances did not settle in {options['max_iterations']} iterations",
            trace=(),
        )

    found = list(after)
    if kept:
        for k, value in zip(kept, _Adjoint.apply(pull, *(after[k] for k in kept)), strict=True):
            found[k] = value
    return Messages(tuple(found), messages.eta)
