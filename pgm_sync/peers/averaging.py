"""Averaging what trajectories share: MultiDiffusion, SyncTweedies, Mixture of Diffusers, Visual Anagrams, DoubleTake.

One update with two choices: which quantity is averaged, and whether the trajectories or the canvas are denoised. With
f the forward and g the inverse mapping and A the average (`Projection.seen` and `Projection.onto`), these are the cases
of SyncTweedies (Kim et al., NeurIPS 2024):

====  =======================  ==========  ==================================================================
case  averaged                 denoised    update
====  =======================  ==========  ==================================================================
1     noise, eps               views       ``x_i <- step(x_i, f_i(A g_j(eps_j)))``
2     clean content, x_0       views       ``x_i <- step(x_i, f_i(A g_j(m_j)))``, "SyncTweedies" itself
3     next state, x_{t-1}      views       ``x_i <- f_i(A g_j(step(x_j, m_j)))``
4     noise, eps               canvas      ``z <- step(z, A g_j(eps_j))``, ``x_j = f_j(z)``
5     clean content, x_0       canvas      ``z <- step(z, A g_j(m_j))``
6     next state, x_{t-1}      canvas      ``z <- A g_j(step(x_j, m_j))``; MultiDiffusion
====  =======================  ==========  ==================================================================

Where views pick elements, share their noise and step deterministically, all six are one (Eq. 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import Name
from .projection import Projection
from .run import Answers, Noise, Run, scaled

QUANTITIES = ("noise", "clean", "next")
SPACES = ("views", "canvas")
#: SyncTweedies' six cases: what is averaged ("noise", "clean", "next"), and what is denoised ("views", "canvas").
CASES = {
    1: ("noise", "views"), 2: ("clean", "views"), 3: ("next", "views"),
    4: ("noise", "canvas"), 5: ("clean", "canvas"), 6: ("next", "canvas"),
}  # fmt: skip


@torch.no_grad()
def average(
    run: Run, shared: Projection, quantity: str | None, space: str, noise: str = "shared"
) -> tuple[dict[Name, Tensor], list[Tensor]]:
    """Final states by trajectory, and the canvases.

    `quantity` "noise", "clean" or "next" is averaged, None nothing; `space` "views" or "canvas" is denoised. A
    trajectory's elements that are on no canvas are its own in either; learned variances are averaged on a canvas, too.
    `noise` as for `Noise`, for the start and for every step of a stochastic scheduler. Raises ParameterError,
    UnsupportedError.
    """
    for value, names, what in ((quantity, (*QUANTITIES, None), "quantity"), (space, SPACES, "space")):
        if value not in names:
            raise ParameterError(f"{what}={value!r} is not one of {', '.join(map(repr, names))}")
    if not shared.canvases:
        quantity, space = None, "views"
    source = Noise(run, shared, noise)
    if space == "views" or quantity == "next":
        return _views(run, shared, quantity, source, start_on_canvas=space == "canvas")
    return _canvas(run, shared, quantity, source)


def _views(
    run: Run, shared: Projection, quantity: str | None, source: Noise, start_on_canvas: bool
) -> tuple[dict[Name, Tensor], list[Tensor]]:
    own = run.schedulers(run.names)
    first, canvases = source.first()
    if start_on_canvas:
        first = shared.seen(_all(canvases), first)
    states = {name: scaled(first[name], own[name]) for name in run.names}
    for step, timestep in run.timesteps(own):
        _announce(own, states, timestep)
        seen = run.ask(states, own[run.names[0]], timestep, step)
        source.next_step()
        outputs = seen.outputs if quantity in (None, "next") else _agreed(seen, states, shared, quantity)
        states = {
            name: run.step(own[name], outputs[name], timestep, states[name], source.of(name))
            for name in run.names
        }
        if quantity == "next":
            canvas = shared.onto(states)
            states = shared.seen(canvas, states)
    return states, canvas if start_on_canvas else shared.onto(states)


def _canvas(
    run: Run, shared: Projection, quantity: str | None, source: Noise
) -> tuple[dict[Name, Tensor], list[Tensor]]:
    first, canvases = source.first()
    partial = [name for name in run.names if shared.partial(name, first[name][0].numel())]
    own = run.schedulers([*range(len(shared.canvases)), *partial])
    states = {name: scaled(first[name], own[0]) for name in run.names}
    canvas = [scaled(noise, own[k]) for k, noise in enumerate(_all(canvases))]
    for step, timestep in run.timesteps(own):
        states = shared.seen(canvas, states)
        _announce(own, {**states, **dict(enumerate(canvas))}, timestep)
        seen = run.ask(states, own[0], timestep, step)
        source.next_step()
        if quantity == "noise" and seen.level.alpha > 0:
            together = shared.onto(_noises(seen, states))
            content = [_content(z, eps, seen) for z, eps in zip(canvas, together, strict=True)]
        else:
            content = shared.onto(seen.shown)
        after = {
            name: run.step(own[name], seen.outputs[name], timestep, states[name], source.of(name))
            for name in partial
        }
        outputs = [seen.where.output_from_denoised(m, z) for m, z in zip(content, canvas, strict=True)]
        if any(seen.outputs[name].shape != states[name].shape for name in run.names):
            halves = {name: seen.outputs[name][:, states[name].shape[1] :] for name in run.names}
            outputs = [
                torch.cat(pair, 1) for pair in zip(outputs, shared.onto(halves, signed=False), strict=True)
            ]
        canvas = [run.step(own[k], outputs[k], timestep, z, source.on(k)) for k, z in enumerate(canvas)]
        states = {**states, **after}
    return shared.seen(canvas, states), canvas


def _agreed(
    seen: Answers, states: Mapping[Name, Tensor], shared: Projection, quantity: str
) -> dict[Name, Tensor]:
    """The model outputs after averaging; those of trajectories that it leaves alone are kept bit for bit."""
    if quantity == "clean" or seen.level.alpha == 0:  # of pure noise, eps tells nothing of the content
        agreed, shown = shared.averaged(seen.shown), seen.shown
    else:
        together = shared.averaged(_noises(seen, states))
        agreed, shown = {}, seen.denoised
        for name, state in states.items():
            same = together[name] == _noise(seen.denoised[name], state, seen)
            agreed[name] = torch.where(same, seen.denoised[name], _content(state, together[name], seen))
    return {
        name: seen.where.replace(seen.outputs[name], states[name], shown[name], agreed[name])
        for name in states
    }


def _noises(seen: Answers, states: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    return {name: _noise(seen.denoised[name], state, seen) for name, state in states.items()}


def _noise(content: Tensor, state: Tensor, seen: Answers) -> Tensor:
    return (state - seen.level.alpha * content) / seen.level.sigma


def _content(state: Tensor, noise: Tensor, seen: Answers) -> Tensor:
    return (state - seen.level.sigma * noise) / seen.level.alpha


def _announce(schedulers: Mapping[Any, Any], states: Mapping[Any, Tensor], timestep: Any) -> None:
    for key, own in schedulers.items():
        if hasattr(own, "scale_model_input"):
            own.scale_model_input(states[key], timestep)  # some schedulers insist on the call


def _all(canvases: list[Tensor | None]) -> list[Tensor]:
    if any(noise is None for noise in canvases):
        raise UnsupportedError(
            "a canvas that no node shows whole has no noise of its own; use noise='shared'"
        )
    return [noise for noise in canvases if noise is not None]
