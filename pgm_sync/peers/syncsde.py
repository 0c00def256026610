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
from .projection import projection
from .run import Noise, Run, prepare, scaled

FORMS = ("explicit", "implicit")
OUT_OF_RANGE = 1e4  # of a state's numbers, beyond which it is the update that has diverged, not the denoiser


@dataclass(frozen=True)
class Pull:
    """What draws a trajectory: `project` of its `source`'s noisy state, where `mask` is not zero.

    >>> import torch
    >>> mirrored = Pull("left", project=lambda state: state.flip(-1))
    >>> mirrored.project(torch.tensor([[1.0, 2.0]]))
    tensor([[2., 1.]])
    """

    source: Name
    project: Callable[[Tensor], Tensor] = lambda state: state  # pi: (n, *source shape) -> (n, *own shape)
    mask: Tensor | float = 1.0  # M, broadcastable to the own shape


def step_gain(alpha_bar: float, alpha_bar_next: float) -> float:
    """gamma: how far a DDIM step to the next level moves a state per unit of ``sigma^2 * score`` (section 5).

    `alpha_bar` and `alpha_bar_next` are alpha^2 of a variance preserving level and of the next, less noisy one.
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
    """One SyncSDE update (arXiv 2503.21555; section 5) of a state `stepped` by DDIM from `noisy`, towards `target`.

    `form` "explicit" is the published one, ``stepped - G (noisy - target)`` with ``G = gain * mask``: it overshoots the
    target for G > 1 and diverges with few steps or a strong pull. "implicit" takes the pull at its own result,
    ``G / (1 + G)`` in the place of G: the same to first order, and never beyond the target.

    >>> import torch
    >>> x, target = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    >>> pulled(x, x, target, gain=3.0).item(), pulled(x, x, target, gain=3.0, form="implicit").item()
    (-2.0, 0.25)

    Raises ParameterError on an unknown form.
    """
    if form not in FORMS:
        raise ParameterError(f"form={form!r} is not one of {', '.join(FORMS)}", form=form)
    strength = gain * torch.as_tensor(mask, dtype=noisy.dtype, device=noisy.device)
    if form == "implicit":
        strength = strength / (1 + strength)
    return stepped - strength * (noisy - target)


def amplification(
    scheduler: Any,
    num_inference_steps: int,
    strength: float = 5.0,
    form: str = "explicit",
    variance: float = 1.0,
) -> Tensor:  # (steps)
    """What each step multiplies the difference between a trajectory and its source by, for Gaussian contents.

    Of zero mean and of `variance`, both alike and shown in full. DDIM then multiplies a state by
    ``a = (alpha alpha' variance + sigma sigma') / (alpha^2 variance + sigma^2)``, with alpha' and sigma' those of the
    next level, and the pull takes G of the difference away: ``a - G``, or ``a - G / (1 + G)``, by its `form` and
    `strength` at each of the `num_inference_steps` of the `scheduler`. The product of all
    is what is left of the difference between two noises; the explicit update diverges where it is large. With
    strength 0, what DDIM makes of one trajectory.

    >>> from diffusers import DDIMScheduler
    >>> left = amplification(DDIMScheduler(timestep_spacing="trailing"), 5)
    >>> [round(factor, 1) for factor in left.tolist()]
    [-24.8, -11.5, -4.5, -1.5, -0.4]

    Raises as `sample_syncsde`.
    """
    check_syncsde(scheduler, strength, form)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(num_inference_steps)
    unit, nothing = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    found = []
    for timestep in own.timesteps.tolist():
        kept, next_kept = _alpha_bars(own, timestep)
        noise, next_noise = 1 - kept, 1 - next_kept
        plain = math.sqrt(kept * next_kept) * variance + math.sqrt(noise * next_noise)
        plain /= kept * variance + noise
        found.append(pulled(plain * unit, unit, nothing, _gain(own, timestep, strength), form=form))
    return torch.stack(found)


def sample_syncsde(
    denoisers: Mapping[Name, Denoiser],
    pulls: Mapping[Name, Pull | Sequence[Pull]],
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
        ``{trajectory: what draws it}``, one `Pull` or several, which add up; the others are sampled by themselves. All
        states of a step are taken before it, so the order does not matter. `pulls_from_graph` reads them from a graph.
    scheduler
        a DDIM scheduler; it is copied, never changed. Steps are deterministic.
    seed, conditions, initial_noise, device, dtype
        as for `ps.sample`, from whose noise a run with the same seed starts.
    num_inference_steps, num_samples
        denoising steps, and joint samples.
    strength, form
        1/lambda, and the form of the update: see `pulled`.

    Raises UnsupportedSchedulerError for a scheduler other than DDIM, ParameterError, UnknownNameError, ShapeError on a
    projection or mask of another shape, and NotFiniteError, naming the trajectory and the step, when the explicit
    update diverges.

    One node N(0, 1) by itself, the other drawn to it:

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> denoisers = {name: ps.GaussianDenoiser([0.0], [[1.0]]) for name in ("left", "right")}
    >>> scheduler = DDIMScheduler(clip_sample=False)
    >>> found = sample_syncsde(denoisers, {"right": Pull("left")}, scheduler, 20, num_samples=500, form="implicit")
    >>> round(torch.corrcoef(torch.cat([found["left"], found["right"]], 1).T)[0, 1].item(), 1)
    1.0
    """
    check_syncsde(scheduler, strength, form)
    graph = FactorGraph()  # without factors: it checks the arguments, and draws the noise
    for name, denoiser in denoisers.items():
        graph.add_trajectory(name, denoiser.shape)
    run = prepare(
        graph, denoisers, scheduler, num_inference_steps, num_samples, seed, conditions=conditions,
        initial_noise=initial_noise, device=device, dtype=dtype, progress=False,
    )  # fmt: skip
    return draw_along(run, pulls, Noise(run, projection(graph), "own").first()[0], strength, form)


@torch.no_grad()
def draw_along(
    run: Run,
    pulls: Mapping[Name, Pull | Sequence[Pull]],
    noise: Mapping[Name, Tensor],
    strength: float,
    form: str,
) -> dict[Name, Tensor]:
    """Final states of all trajectories, from white `noise`. Raises as `sample_syncsde`."""
    drawn = {name: [own] if isinstance(own, Pull) else list(own) for name, own in pulls.items()}
    for name, all_pulls in drawn.items():
        for pull in all_pulls:
            for end in (name, pull.source):
                if end not in run.names:
                    raise UnknownNameError(
                        f"the pull of {pull.source!r} on {name!r} names {end!r}, which has no denoiser",
                        name=end,
                    )
    own = run.schedulers([None])
    scheduler = own[None]
    states = {name: scaled(noise[name], scheduler) for name in run.names}
    for step, timestep in run.timesteps(own):
        try:
            seen = run.ask(states, scheduler, timestep, step)
        except NotFiniteError as error:
            name = error.data["name"]
            if name in drawn and states[name].abs().max() > OUT_OF_RANGE:
                raise _diverged(name, step, strength, form) from error
            raise
        gain = _gain(scheduler, int(timestep), strength)
        after = {}
        for name, noisy in states.items():
            after[name] = scheduler.step(seen.outputs[name], timestep, noisy, return_dict=False)[0]
            if not drawn.get(name):
                continue
            target, mask = _together(drawn[name], states, noisy, name)
            after[name] = _fit(pulled(after[name], noisy, target, gain, mask, form), noisy, name)
            if not torch.isfinite(after[name]).all():
                raise _diverged(name, step, strength, form)
        states = after
    return states


def _diverged(name: Name, step: int, strength: float, form: str) -> NotFiniteError:
    return NotFiniteError(
        f"SyncSDE's {form} update of {name!r} diverged at step {step}; use more steps, a smaller strength than "
        f"{strength:g}, or form='implicit'",
        name=name,
        step=step,
    )


def check_syncsde(scheduler: Any, strength: float, form: str) -> None:
    """Raises UnsupportedSchedulerError, ParameterError."""
    if "DDIMScheduler" not in [cls.__name__ for cls in type(scheduler).__mro__]:
        raise UnsupportedSchedulerError(
            f"SyncSDE's update is one of DDIM; {type(scheduler).__name__} is not a DDIMScheduler",
            scheduler=type(scheduler).__name__,
        )
    if form not in FORMS:
        raise ParameterError(f"form={form!r} is not one of {', '.join(FORMS)}", form=form)
    if not 0 <= strength < math.inf:
        raise ParameterError(f"strength={strength} must be finite and at least 0", strength=strength)


def _together(
    pulls: Sequence[Pull], states: Mapping[Name, Tensor], noisy: Tensor, name: Name
) -> tuple[Tensor, Tensor | float]:
    """Several pulls as one: the sum of their masks, and the mean of their targets by mask."""
    targets = [_fit(pull.project(states[pull.source]), noisy, name) for pull in pulls]
    if len(pulls) == 1:
        return targets[0], pulls[0].mask
    masks = [torch.as_tensor(pull.mask).to(noisy) for pull in pulls]
    total = sum(masks, torch.zeros_like(noisy[0]))
    target = sum((mask * to for mask, to in zip(masks, targets, strict=True)), torch.zeros_like(noisy))
    return torch.where(total != 0, target / total, noisy), total


def _fit(tensor: Tensor, noisy: Tensor, name: Name) -> Tensor:
    if tensor.shape != noisy.shape:
        raise ShapeError(
            f"the pull on {name!r} gives shape {tuple(tensor.shape)}, its state has {tuple(noisy.shape)}",
            name=name,
            expected=tuple(noisy.shape),
            got=tuple(tensor.shape),
        )
    return tensor


def _gain(scheduler: Any, timestep: int, strength: float) -> float:
    """gamma (1/lambda) (t/T)"""
    share = timestep / scheduler.config.num_train_timesteps
    return step_gain(*_alpha_bars(scheduler, timestep)) * strength * share


def _alpha_bars(scheduler: Any, timestep: int) -> tuple[float, float]:
    """alpha_bar of a level and of the next, by the rule of DDIM's own step."""
    following = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    last = scheduler.final_alpha_cumprod
    return float(scheduler.alphas_cumprod[timestep]), float(
        scheduler.alphas_cumprod[following] if following >= 0 else last
    )
