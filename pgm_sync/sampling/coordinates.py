"""Noise coordinates of a diffusers scheduler: which (alpha, sigma) the sample handed to `step` has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers.prediction import coefficients, mean_part
from ..errors import ParameterError, UnsupportedSchedulerError
from ..levels import NoiseLevel
from .families import CLIPPED, THRESHOLDED, Family, family


class Coordinates(NamedTuple):
    """Coordinates of one state ``x_t = alpha x_0 + sigma eps`` and of the model output that goes with it.

    ``denoised = c_x * sample + c_m * output`` is what the scheduler's `step` computes, before clipping.

    >>> import torch
    >>> where = Coordinates(alpha=0.8, sigma=0.6, prediction_type="epsilon", c_x=1 / 0.8, c_m=-0.6 / 0.8)
    >>> where.denoised_from_output(torch.tensor([[-1.0]]), torch.tensor([[1.0]]))  # 1 = 0.8 * 2 + 0.6 * -1
    tensor([[2.]])
    """

    alpha: float  # of the content
    sigma: float  # of the noise
    prediction_type: str  # "epsilon" | "sample" | "v_prediction" | "flow_prediction" | "preconditioned ..."
    c_x: float  # of the sample in the denoised content
    c_m: float  # of the model output

    def denoised_from_output(
        self,
        output: Tensor,  # (batch, *shape), or (batch, 2 * channels, ...) of a learned-variance network
        sample: Tensor,  # (batch, *shape)
    ) -> Tensor:  # (batch, *shape)
        """The denoised content that `step` will read from `output`, before it clips; at least float32."""
        return self.c_x * _full(sample) + self.c_m * _full(mean_part(output, sample, channel_axis=1))

    def output_from_denoised(self, denoised: Tensor, sample: Tensor) -> Tensor:  # all (batch, *shape)
        """The model output from which `step` will read `denoised`; inverse of `denoised_from_output`."""
        return (denoised - self.c_x * sample) / self.c_m

    def correct(self, output: Tensor, delta_denoised: Tensor) -> Tensor:
        """`output` changed so that `step` reads ``denoised + delta_denoised`` from it.

        Elements with a zero delta keep their output bit for bit, and `output` itself comes back if all are
        zero. Otherwise half precision is corrected in, and returned as, float32: step in float32 too, and
        cast once after it. A learned variance half is passed through.
        """
        if not delta_denoised.any():
            return output
        mean = mean_part(output, delta_denoised, channel_axis=1)
        corrected = torch.where(delta_denoised == 0, mean, mean + _full(delta_denoised) / self.c_m)
        variance = output[:, mean.shape[1] :].to(corrected.dtype)
        return torch.cat([corrected, variance], dim=1) if mean is not output else corrected

    def replace(self, output: Tensor, sample: Tensor, shown: Tensor, joint: Tensor) -> Tensor:
        """`output` changed so that `step` reads `joint` from it wherever that differs from `shown`.

        `shown` is the own denoised content that the joint one was computed from:
        ``denoised_from_output(output, sample)``, clipped where `step` clips (see `clipping`). A sample of the batch
        where the two are equal keeps its output bit for bit; in other samples, every element does where they are equal
        and `step` does not clip (what dynamic thresholding makes of an element depends on all others). Under clipping
        this differs from ``correct(output, joint - shown)``, whose result `step` would clip a second time, from the
        unclipped value, and so lose the correction.
        """
        own = self.denoised_from_output(output, sample)
        same = joint == shown
        kept = same & ((shown == own) | same.flatten(1).all(1).view(-1, *[1] * (same.ndim - 1)))
        return self.correct(output, torch.where(kept, torch.zeros_like(joint), joint - own))


def coordinates(scheduler: Any, timestep: Any) -> Coordinates:
    """Coordinates of the sample that ``scheduler.step(output, timestep, sample)`` would be handed now.

    Reads the scheduler's state and leaves it as it is: before the first step the index is looked up the way
    `step` will. alpha and sigma carry the float32 rounding of the scheduler's own tensors, on purpose: they
    are the numbers that `step` works with, so a denoised content survives the trip through the model output.

    The schedulers are those of `sampling.families`, and others whose forward process can be probed and whose
    `step` then reads a known content back.

    >>> from diffusers import DDIMScheduler
    >>> scheduler = DDIMScheduler()
    >>> scheduler.set_timesteps(10)
    >>> where = coordinates(scheduler, scheduler.timesteps[0])
    >>> where.prediction_type, round(where.alpha**2 + where.sigma**2, 5)
    ('epsilon', 1.0)

    Raises UnsupportedSchedulerError, naming what works, for another scheduler or for a prediction type that
    its `step` does not take; ParameterError when the schedule is used up.
    """
    own = family(scheduler)
    kind = prediction_type(scheduler)
    alpha, sigma = own.locate(scheduler, timestep)
    if own.convert is not None:
        return Coordinates(alpha, sigma, _reading(own, kind), *own.convert(scheduler, kind, alpha, sigma))
    try:
        c_x, c_m = coefficients(kind, alpha, sigma)
    except ParameterError as error:
        raise UnsupportedSchedulerError(
            f"{_name(scheduler)} at timestep {_number(timestep)}: {error}",
            scheduler=_name(scheduler),
            prediction_type=kind,
        ) from None
    if kind == "v_prediction" and own.preserving:
        c_x, c_m = alpha, -sigma
    return Coordinates(alpha, sigma, kind, float(c_x), float(c_m))


def noise_level(scheduler: Any, timestep: Any) -> NoiseLevel:
    """The same state as a NoiseLevel for denoisers, with the scheduler's own `timestep` and input scaling.

    >>> from diffusers import FlowMatchEulerDiscreteScheduler
    >>> scheduler = FlowMatchEulerDiscreteScheduler()
    >>> scheduler.set_timesteps(10)
    >>> level = noise_level(scheduler, scheduler.timesteps[4])
    >>> round(level.alpha + level.sigma, 5)  # flow: alpha = 1 - s, sigma = s
    1.0

    Raises as `coordinates`.
    """
    alpha, sigma = family(scheduler).locate(scheduler, timestep)
    if not hasattr(scheduler, "scale_model_input"):  # flow matching
        return NoiseLevel(alpha, sigma, timestep, _unscaled)
    return NoiseLevel(alpha, sigma, timestep, lambda sample: scheduler.scale_model_input(sample, timestep))


def prediction_type(scheduler: Any) -> str:
    """What the scheduler expects a model to predict, checked against what its `step` can take.

    Raises UnsupportedSchedulerError otherwise.
    """
    config = scheduler.config
    allowed = family(scheduler).prediction_types
    kind = getattr(config, "prediction_type", allowed[0])
    if getattr(config, "use_flow_sigmas", False):
        # With flow sigmas, step reads v as if alpha^2 + sigma^2 = 1, which they do not satisfy.
        allowed = tuple(k for k in allowed if k != "v_prediction")
    elif hasattr(config, "use_flow_sigmas"):
        allowed = tuple(k for k in allowed if k != "flow_prediction")
    if kind not in allowed:
        flow = "" if not hasattr(config, "use_flow_sigmas") else f" with use_flow_sigmas={config.use_flow_sigmas}"
        raise UnsupportedSchedulerError(
            f"{_name(scheduler)}{flow} has no known coordinates for prediction type {kind!r}; "
            f"it works with {', '.join(allowed)}",
            scheduler=_name(scheduler),
            prediction_type=kind,
            supported=allowed,
        )
    return kind


def initial_scale(scheduler: Any) -> float:
    """Standard deviation of the pure noise a run starts from (stock pipelines: ``randn * init_noise_sigma``).

    Call after ``scheduler.set_timesteps``. Close to the first sigma, but not always equal to it: variance
    exploding schedulers with "leading" spacing start from ``sqrt(sigma^2 + 1)``.
    """
    family(scheduler)
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def clipping(scheduler: Any) -> Callable[[Tensor], Tensor] | None:
    """The function that `step` applies to the denoised content ``(batch, channels, ...)``; None if none.

    Dynamic thresholding goes before a fixed clip, as in diffusers. Show the clipped content to whatever
    combines the trajectories, and hand the result to `Coordinates.replace`.
    """
    config = scheduler.config
    names = {cls.__name__ for cls in type(scheduler).__mro__}
    if (
        getattr(config, "thresholding", False)
        and names & THRESHOLDED
        and getattr(scheduler, "predict_x0", True)
    ):
        return scheduler._threshold_sample
    clipped = getattr(config, "clip_sample", False) and names & CLIPPED
    if clipped or getattr(config, "clip_denoised", False):  # the latter of consistency models
        bound = getattr(config, "clip_sample_range", 1.0)
        return lambda denoised: denoised.clamp(-bound, bound)
    return None


def _reading(own: Family, kind: str) -> str:
    """The prediction type by a name that a network with another preconditioning does not have."""
    return kind if kind == "flow_prediction" else f"preconditioned {kind}"


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _name(scheduler: Any) -> str:
    return type(scheduler).__name__


def _number(timestep: Any) -> Any:
    return timestep.item() if isinstance(timestep, Tensor) else timestep


def _unscaled(sample: Tensor) -> Tensor:
    return sample
