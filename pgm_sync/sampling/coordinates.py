"""Noise coordinates of a diffusers scheduler: which (alpha, sigma) the sample handed to `step` has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers.prediction import coefficients, mean_part
from ..errors import ParameterError, UnsupportedSchedulerError
from ..levels import NoiseLevel

_BASIC = ("epsilon", "sample", "v_prediction")


class _Family(NamedTuple):
    """How a group of schedulers stores its noise levels, and the prediction types its `step` understands."""

    locate: Callable[[Any, Any], tuple[float, float]]  # (scheduler, timestep) -> (alpha, sigma)
    prediction_types: tuple[str, ...]
    preserving: bool = False  # alpha^2 + sigma^2 = 1 but for rounding, and step reads v as if exactly


class Coordinates(NamedTuple):
    """Coordinates of one state ``x_t = alpha x_0 + sigma eps`` and of the model output that goes with it.

    ``denoised = c_x * sample + c_m * output`` is what the scheduler's `step` computes, before clipping.
    """

    alpha: float
    sigma: float
    prediction_type: str  # "epsilon" | "sample" | "v_prediction" | "flow_prediction"
    c_x: float
    c_m: float

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
        ``denoised_from_output(output, sample)``, clipped where `step` clips (see `clipping`). Where the two
        are equal the output is kept bit for bit. Under clipping this differs from ``correct(output, joint -
        shown)``, whose result `step` would clip a second time, from the unclipped value, and so lose the
        correction.
        """
        own = self.denoised_from_output(output, sample)
        return self.correct(output, torch.where(joint == shown, torch.zeros_like(joint), joint - own))


def coordinates(scheduler: Any, timestep: Any) -> Coordinates:
    """Coordinates of the sample that ``scheduler.step(output, timestep, sample)`` would be handed now.

    Reads the scheduler's state and leaves it as it is: before the first step the index is looked up the way
    `step` will. alpha and sigma carry the float32 rounding of the scheduler's own tensors, on purpose: they
    are the numbers that `step` works with, so a denoised content survives the trip through the model output.

    Schedulers: DDPM, DDIM (variance preserving, by timestep); Euler, Euler ancestral, Heun, LMS (variance
    exploding, alpha = 1); DPM-Solver multistep and singlestep, DEIS, UniPC (variance preserving or flow
    sigmas); flow-match Euler (alpha = 1 - sigma). Dispatch is by class name, subclasses included.

    Raises UnsupportedSchedulerError, naming what works, for another scheduler or for a prediction type that
    its `step` does not take; ParameterError when the schedule is used up.
    """
    family = _family(scheduler)
    kind = prediction_type(scheduler)
    alpha, sigma = family.locate(scheduler, timestep)
    try:
        c_x, c_m = coefficients(kind, alpha, sigma)
    except ParameterError as error:
        raise UnsupportedSchedulerError(
            f"{_name(scheduler)} at timestep {_number(timestep)}: {error}",
            scheduler=_name(scheduler),
            prediction_type=kind,
        ) from None
    if kind == "v_prediction" and family.preserving:
        c_x, c_m = alpha, -sigma
    if kind == "flow_prediction" and getattr(scheduler.config, "invert_sigmas", False):
        c_m = -c_m  # these models predict x_0 - eps
    return Coordinates(alpha, sigma, kind, float(c_x), float(c_m))


def noise_level(scheduler: Any, timestep: Any) -> NoiseLevel:
    """The same state as a NoiseLevel for denoisers, with the scheduler's own timestep and input scaling."""
    alpha, sigma = _family(scheduler).locate(scheduler, timestep)
    if not hasattr(scheduler, "scale_model_input"):  # flow matching
        return NoiseLevel(alpha, sigma, timestep, _unscaled)
    return NoiseLevel(alpha, sigma, timestep, lambda sample: scheduler.scale_model_input(sample, timestep))


def prediction_type(scheduler: Any) -> str:
    """What the scheduler expects a model to predict, checked against what its `step` can take.

    Raises UnsupportedSchedulerError otherwise.
    """
    family = _family(scheduler)
    config = scheduler.config
    kind = getattr(config, "prediction_type", family.prediction_types[0])
    allowed = family.prediction_types
    if getattr(config, "use_flow_sigmas", False):
        # With flow sigmas, step reads v as if alpha^2 + sigma^2 = 1, which they do not satisfy.
        allowed = tuple(k for k in allowed if k != "v_prediction")
    elif "use_flow_sigmas" in config:
        allowed = tuple(k for k in allowed if k != "flow_prediction")
    if kind not in allowed:
        flow = "" if "use_flow_sigmas" not in config else f" with use_flow_sigmas={config.use_flow_sigmas}"
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
    _family(scheduler)
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
        and names & _THRESHOLDS
        and getattr(scheduler, "predict_x0", True)
    ):
        return scheduler._threshold_sample
    if getattr(config, "clip_sample", False) and names & _CLIPS:
        bound = config.clip_sample_range
        return lambda denoised: denoised.clamp(-bound, bound)
    return None


def _by_timestep(scheduler: Any, timestep: Any) -> tuple[float, float]:
    alpha_bar = scheduler.alphas_cumprod[timestep]
    return (alpha_bar**0.5).item(), ((1 - alpha_bar) ** 0.5).item()


def _exploding(scheduler: Any, timestep: Any) -> tuple[float, float]:
    return 1.0, scheduler.sigmas[_step_index(scheduler, timestep)].item()


def _preserving(scheduler: Any, timestep: Any) -> tuple[float, float]:
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[_step_index(scheduler, timestep)])
    return alpha.item(), sigma.item()


def _flow(scheduler: Any, timestep: Any) -> tuple[float, float]:
    sigma = scheduler.sigmas[_step_index(scheduler, timestep)].item()
    return (sigma, 1.0 - sigma) if scheduler.config.invert_sigmas else (1.0 - sigma, sigma)


_FAMILIES = {
    **dict.fromkeys(
        ("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler"),
        _Family(_by_timestep, _BASIC, preserving=True),
    ),
    **dict.fromkeys(
        ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
        _Family(_exploding, _BASIC),
    ),
    "EulerAncestralDiscreteScheduler": _Family(_exploding, ("epsilon", "v_prediction")),
    **dict.fromkeys(
        (
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "DEISMultistepScheduler",
            "UniPCMultistepScheduler",
        ),
        _Family(_preserving, (*_BASIC, "flow_prediction"), preserving=True),
    ),
    "FlowMatchEulerDiscreteScheduler": _Family(_flow, ("flow_prediction",)),
}
_CLIPS = {
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "HeunDiscreteScheduler",
}
_THRESHOLDS = (_CLIPS - {"HeunDiscreteScheduler"}) | {
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
}


def _family(scheduler: Any) -> _Family:
    for cls in type(scheduler).__mro__:
        if cls.__name__ in _FAMILIES:
            return _FAMILIES[cls.__name__]
    raise UnsupportedSchedulerError(
        f"{_name(scheduler)} has no known noise coordinates; use one of {', '.join(_FAMILIES)}",
        scheduler=_name(scheduler),
        supported=tuple(_FAMILIES),
    )


def _step_index(scheduler: Any, timestep: Any) -> int:
    """The index that `step` will use, by the rule of the schedulers' `_init_step_index`, which stores it."""
    index = scheduler.step_index
    if index is None:
        index = scheduler.begin_index
    if index is None:
        if isinstance(timestep, Tensor):
            timestep = timestep.to(scheduler.timesteps.device)
        index = scheduler.index_for_timestep(timestep)
    if index >= len(scheduler.timesteps):
        raise ParameterError(
            f"{_name(scheduler)} has taken all of its {len(scheduler.timesteps)} steps; "
            "call set_timesteps before another run",
            scheduler=_name(scheduler),
            step=index,
        )
    return index


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _name(scheduler: Any) -> str:
    return type(scheduler).__name__


def _number(timestep: Any) -> Any:
    return timestep.item() if isinstance(timestep, Tensor) else timestep


def _unscaled(sample: Tensor) -> Tensor:
    return sample
