"""SyncSDE: every trajectory is pulled towards its predecessor at the noisy level (Lee et al., CVPR 2025).

Written from the published update. With alpha_bar = alpha^2 and alpha_bar' that of the next, less noisy level::

    x^j <- DDIM(x^j) - gamma (1/lambda) (t/T) M (x_t^j - pi(x_t^{j-1}))
    gamma = sqrt(alpha_bar' / alpha_bar) - sqrt((1 - alpha_bar') / (1 - alpha_bar))
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import NotFiniteError, ParameterError, ShapeError, UnknownNameError, UnsupportedSchedulerError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..sampling import sampling_steps
from ..sampling.coordinates import coordinates, noise_level

FORMS = ("explicit", "implicit")


@dataclass(frozen=True)
class Pull:
    """What draws a trajectory: `project` of its `source`'s noisy state, where `mask` is not zero."""

    source: Name
    project: Callable[[Tensor], Tensor] = lambda state: state  # pi: (n, *source shape) -> (n, *own shape)
    mask: Tensor | float = 1.0  # M, broadcastable to the own shape


def step_gain(alpha_bar: float, alpha_bar_next: float) -> float:
    """gamma: how far a DDIM step to the next level moves a state per unit of ``sigma^2 * score``.

    >>> round(step_gain(0.36, 0.64), 6)  # 0.8 / 0.6 - 0.6 / 0.8
    0.583333
    """
    return math.sqrt(alpha_bar_next / alpha_bar) - math.sqrt((1 - alpha_bar_next) / (1 - alpha_bar))


def pulled(
    stepped: Tensor,  # (n, *shape) DDIM(x_t^j)
    noisy: Tensor,  # (n, *shape) x_t^j
    target: Tensor,  # (n, *shape) pi(x_t^{j-1})
    gain: float,  # gamma (1/lambda) (t/T)
    mask: Tensor | float = 1.0,
    form: str = "explicit",
) -> Tensor:
    """One SyncSDE update.

    "explicit" is the published one, ``stepped - G (noisy - target)`` with ``G = gain * mask``: it overshoots the
    target for G > 1 and diverges with few steps or a strong pull. "implicit" takes the pull at its own result,
    ``G / (1 + G)`` in the place of G: the same to first order, and never beyond the target.
    """
    if form not in FORMS:
        raise ParameterError(f"form={form!r} is not one of {', '.join(FORMS)}", form=form)
    strength = gain * torch.as_tensor(mask, dtype=noisy.dtype, device=noisy.device)
    if form == "implicit":
        strength = strength / (1 + strength)
    return stepped - strength * (noisy - target)


@torch.no_grad()
def sample_syncsde(
    denoisers: Mapping[Name, Denoiser],
    pulls: Mapping[Name, Pull],
    scheduler: Any,
    num_inference_steps: int = 50,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    *,
    strength: float = 5.0,
    form: str = "explicit",
    conditions: Any = None,
    initial_noise: Mapping[Name, Tensor] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[Name, Tensor]:
    """Sample trajectories by SyncSDE; ``{name: (num_samples, *shape)}``.

    Parameters
    ----------
    denoisers
        one per trajectory.
    pulls
        ``{trajectory: what draws it}``; the others are sampled by themselves. All states of a step are taken before
        it, so the order does not matter.
    scheduler
        a DDIM scheduler; it is copied, never changed. Steps are deterministic.
    seed, conditions, initial_noise, device, dtype
        as for `ps.sample`, from whose noise a run with the same seed starts.
    strength, form
        1/lambda, and the form of the update: see `pulled`.

    Raises UnsupportedSchedulerError for a scheduler other than DDIM, ParameterError, UnknownNameError, ShapeError on a
    projection or mask of another shape, and NotFiniteError, naming the trajectory and the step, when the explicit
    update diverges.
    """
    if "DDIMScheduler" not in [cls.__name__ for cls in type(scheduler).__mro__]:
        raise UnsupportedSchedulerError(
            f"SyncSDE's update is one of DDIM; {type(scheduler).__name__} is not a DDIMScheduler",
            scheduler=type(scheduler).__name__,
        )
    if form not in FORMS:
        raise ParameterError(f"form={form!r} is not one of {', '.join(FORMS)}", form=form)
    if not 0 <= strength < math.inf:
        raise ParameterError(f"strength={strength} must be finite and at least 0", strength=strength)
    for name, pull in pulls.items():
        for known in (name, pull.source):
            if known not in denoisers:
                raise UnknownNameError(
                    f"the pull of {pull.source!r} on {name!r} names {known!r}, which has no denoiser",
                    name=known,
                )
    graph = FactorGraph()  # without factors: it checks the arguments, and draws the noise
    for name, denoiser in denoisers.items():
        graph.add_trajectory(name, denoiser.shape)
    first = next(
        sampling_steps(
            graph, denoisers, scheduler, num_inference_steps, num_samples, seed,
            conditions=conditions, initial_noise=initial_noise, device=device, dtype=dtype,
        )
    )  # fmt: skip
    given = conditions if isinstance(conditions, Mapping) else dict.fromkeys(denoisers, conditions)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(num_inference_steps, device=device)
    trained = own.config.num_train_timesteps
    states = dict(first.noisy)
    for step, timestep in enumerate(own.timesteps):
        where, level = coordinates(own, timestep), noise_level(own, timestep)
        gamma = step_gain(*_alpha_bars(own, int(timestep)))
        after = {}
        for name, denoiser in denoisers.items():
            noisy = states[name]
            denoised = denoiser.denoise(noisy, level, given.get(name))
            output = where.output_from_denoised(denoised, noisy)
            after[name] = own.step(output, timestep, noisy, return_dict=False)[0]
            if name not in pulls:
                continue
            pull = pulls[name]
            target = pull.project(states[pull.source])
            moved = pulled(
                after[name], noisy, _fit(target, noisy, name), gamma * strength * int(timestep) / trained,
                pull.mask, form,
            )  # fmt: skip
            after[name] = _fit(moved, noisy, name)
            if not torch.isfinite(after[name]).all():
                raise NotFiniteError(
                    f"SyncSDE's {form} update of {name!r} diverged at step {step}; use more steps, a smaller strength "
                    f"than {strength:g}, or form='implicit'",
                    name=name,
                    step=step,
                )
        states = after
    return states


def _fit(tensor: Tensor, noisy: Tensor, name: Name) -> Tensor:
    if tensor.shape != noisy.shape:
        raise ShapeError(
            f"the pull on {name!r} gives shape {tuple(tensor.shape)}, its state has {tuple(noisy.shape)}",
            name=name,
            expected=tuple(noisy.shape),
            got=tuple(tensor.shape),
        )
    return tensor


def _alpha_bars(scheduler: Any, timestep: int) -> tuple[float, float]:
    """alpha_bar of a level and of the next, by the rule of DDIM's own step."""
    following = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    last = scheduler.final_alpha_cumprod
    return float(scheduler.alphas_cumprod[timestep]), float(
        scheduler.alphas_cumprod[following] if following >= 0 else last
    )
