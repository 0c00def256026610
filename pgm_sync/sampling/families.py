"""Where the schedulers of diffusers keep their noise levels, and how their `step` reads a model output.

One row per scheduler. Dispatch is by class name over the class hierarchy, so diffusers need not be imported and
subclasses are recognised.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers.prediction import coefficients
from ..errors import ParameterError, UnsupportedSchedulerError

BASIC = ("epsilon", "sample", "v_prediction")
FLOW = ("flow_prediction",)
POINT = 0.37  # the clean content with which an unknown scheduler is tried
TOLERANCE = 0.15  # of its final sample; some schedulers stop at a noise level of that size


class Family(NamedTuple):
    """How a group of schedulers stores its noise levels, and the prediction types its `step` understands."""

    locate: Callable[[Any, Any], tuple[float, float]]  # (scheduler, timestep) -> (alpha, sigma)
    prediction_types: tuple[str, ...]
    preserving: bool = False  # alpha^2 + sigma^2 = 1 but for rounding, and step reads v as if exactly
    # (scheduler, prediction type, alpha, sigma) -> (c_x, c_m), where step reads the output in a way of its own
    convert: Callable[[Any, str, float, float], tuple[float, float]] | None = None


def family(scheduler: Any) -> Family:
    """Raises UnsupportedSchedulerError, saying why."""
    names = [cls.__name__ for cls in type(scheduler).__mro__]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
        if name in REFUSED:
            raise UnsupportedSchedulerError(
                f"{names[0]} cannot be synchronised: {REFUSED[name]}; use one of {', '.join(FAMILIES)}",
                scheduler=names[0],
                supported=tuple(FAMILIES),
            )
    return _unknown(scheduler)


def step_index(scheduler: Any, timestep: Any) -> int:
    """The index that `step` will use, by the rule of the schedulers' `_init_step_index`, which stores it.

    Raises ParameterError when the schedule is used up.
    """
    index = scheduler.step_index
    if index is None:
        index = scheduler.begin_index
    if index is None:
        if isinstance(timestep, Tensor):
            timestep = timestep.to(scheduler.timesteps.device)
        index = scheduler.index_for_timestep(timestep)
    if index >= len(scheduler.timesteps):
        raise ParameterError(
            f"{type(scheduler).__name__} has taken all of its {len(scheduler.timesteps)} steps; "
            "call set_timesteps before another run",
            scheduler=type(scheduler).__name__,
            step=index,
        )
    return index


def require_plain_step(scheduler: Any) -> None:
    """Raises UnsupportedSchedulerError for a scheduler that only its own pipeline can drive, or that none can seed."""
    names = {cls.__name__ for cls in type(scheduler).__mro__}
    name = type(scheduler).__name__
    if names & OWN_NOISE:
        raise UnsupportedSchedulerError(
            f"{name} draws its noise from a Brownian tree of its own, so it can be neither seeded per sample nor "
            "shared between trajectories; use DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++')",
            scheduler=name,
        )
    if names & PIPELINE_ONLY.keys():
        what = next(PIPELINE_ONLY[n] for n in PIPELINE_ONLY if n in names)
        raise UnsupportedSchedulerError(
            f"{name}.step needs {what}, which only its own pipeline gives it; use DDIMScheduler or DDPMScheduler",
            scheduler=name,
        )


def _by_timestep(scheduler: Any, timestep: Any) -> tuple[float, float]:
    alpha_bar = scheduler.alphas_cumprod[timestep]
    return (alpha_bar**0.5).item(), ((1 - alpha_bar) ** 0.5).item()


def _exploding(scheduler: Any, timestep: Any) -> tuple[float, float]:
    return 1.0, scheduler.sigmas[step_index(scheduler, timestep)].item()


def _preserving(scheduler: Any, timestep: Any) -> tuple[float, float]:
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[step_index(scheduler, timestep)])
    return alpha.item(), sigma.item()


def _flow(scheduler: Any, timestep: Any) -> tuple[float, float]:
    sigma = scheduler.sigmas[step_index(scheduler, timestep)].item()
    inverted = getattr(scheduler.config, "invert_sigmas", False)
    return (sigma, 1.0 - sigma) if inverted else (1.0 - sigma, sigma)


def _trigonometric(scheduler: Any, timestep: Any) -> tuple[float, float]:
    angle = scheduler.timesteps[step_index(scheduler, timestep)]
    return torch.cos(angle).item(), (torch.sin(angle) * scheduler.config.sigma_data).item()


def _two_stage(midpoint: Callable[[Any, int], Tensor]) -> Callable[[Any, Any], tuple[float, float]]:
    """Schedulers that evaluate a second time at a midpoint, where `midpoint` finds its sigma."""

    def locate(scheduler: Any, timestep: Any) -> tuple[float, float]:
        index = step_index(scheduler, timestep)
        first = scheduler.state_in_first_order
        return 1.0, (scheduler.sigmas[index] if first else midpoint(scheduler, index)).item()

    return locate


def _preconditioned(scheduler: Any, kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    """Karras et al. 2022, table 1: ``c_skip x + c_out F``; with "v_prediction" the output has the other sign."""
    data = scheduler.config.sigma_data
    out = sigma * data / (sigma**2 + data**2) ** 0.5
    return data**2 / (sigma**2 + data**2), -out if kind == "v_prediction" else out


def _consistent(scheduler: Any, kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    skip, out = scheduler.get_scalings_for_boundary_condition(torch.tensor(sigma))
    return float(skip), float(out)


def _trigflow(scheduler: Any, kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    return alpha, -sigma / scheduler.config.sigma_data


def _inverted(scheduler: Any, kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    c_x, c_m = coefficients(kind, alpha, sigma)
    # models of inverted sigmas predict x_0 - eps
    return float(c_x), float(-c_m if getattr(scheduler.config, "invert_sigmas", False) else c_m)


def _probed(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """From what the public forward process makes of a one and of a zero."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    at = torch.as_tensor(timestep).reshape(1)
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(one, zero, at).item(), scheduler.add_noise(zero, one, at).item()
    return scheduler.scale_noise(one, at, zero).item(), scheduler.scale_noise(zero, at, one).item()


_VP = Family(_by_timestep, BASIC, preserving=True)
_VE = Family(_exploding, BASIC)
_SOLVER = Family(_preserving, (*BASIC, *FLOW), preserving=True)
_EDM = Family(_exploding, ("epsilon", "v_prediction"), convert=_preconditioned)
_FLOW = Family(_flow, FLOW, convert=_inverted)

FAMILIES = {
    "DDPMScheduler": _VP,
    "DDPMParallelScheduler": _VP,
    "DDIMScheduler": _VP,
    "DDIMParallelScheduler": _VP,
    "CogVideoXDDIMScheduler": _VP,
    "CogVideoXDPMScheduler": _VP,
    "LCMScheduler": _VP,
    "TCDScheduler": _VP,
    # its second evaluation reads v at one level and the state at another
    "PNDMScheduler": Family(_by_timestep, ("epsilon",)),
    "RePaintScheduler": Family(_by_timestep, ("epsilon",)),
    "UnCLIPScheduler": Family(_by_timestep, ("epsilon", "sample")),
    "EulerDiscreteScheduler": _VE,
    "HeunDiscreteScheduler": _VE,
    "LMSDiscreteScheduler": _VE,
    "EulerAncestralDiscreteScheduler": Family(_exploding, ("epsilon", "v_prediction")),
    "KDPM2DiscreteScheduler": Family(
        _two_stage(lambda s, i: s.sigmas_interpol[i]), ("epsilon", "v_prediction")
    ),
    "KDPM2AncestralDiscreteScheduler": Family(
        _two_stage(lambda s, i: s.sigmas_interpol[i - 1]), ("epsilon", "v_prediction")
    ),
    "DPMSolverSDEScheduler": Family(_two_stage(lambda s, i: s.mid_point_sigma), ("epsilon", "v_prediction")),
    "DPMSolverMultistepScheduler": _SOLVER,
    "DPMSolverSinglestepScheduler": _SOLVER,
    "DEISMultistepScheduler": _SOLVER,
    "UniPCMultistepScheduler": _SOLVER,
    "SASolverScheduler": _SOLVER,
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": _EDM,
    "CosineDPMSolverMultistepScheduler": _EDM,
    "CMStochasticIterativeScheduler": Family(_exploding, ("sample",), convert=_consistent),
    "SCMScheduler": Family(_trigonometric, ("trigflow",), convert=_trigflow),
    "FlowMatchEulerDiscreteScheduler": _FLOW,
    "FlowMatchHeunDiscreteScheduler": _FLOW,
    "FlowMatchLCMScheduler": _FLOW,
    "LTXEulerAncestralRFScheduler": _FLOW,
}
REFUSED = {
    "IPNDMScheduler": "its first state has no signal and its outputs are not read as a prediction of one kind",
    "DDIMInverseScheduler": "it adds noise, and its states are not noisy versions of one clean content",
    "DPMSolverMultistepInverseScheduler": (
        "it adds noise, and its states are not noisy versions of one clean content"
    ),
    "ScoreSdeVeScheduler": "it has no step, only predictor and corrector halves",
    "AmusedScheduler": "its states are tokens, not noisy contents",
    "VQDiffusionScheduler": "its states are tokens, not noisy contents",
    "DDPMWuerstchenScheduler": "its timesteps are ratios with a noise schedule of its own",
    "KarrasVeScheduler": "its step takes two noise levels",
}
CLIPPED = {  # where step clamps the denoised content if clip_sample says so
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "RePaintScheduler",
    "UnCLIPScheduler",
}
THRESHOLDED = {  # where step thresholds it dynamically if thresholding says so
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "LCMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "EDMDPMSolverMultistepScheduler",
}
# Where step draws from a Brownian tree of its own, which no seed and no other trajectory reaches.
OWN_NOISE = {"DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"}
PIPELINE_ONLY = {
    "UnCLIPScheduler": "the timestep after this one (prev_timestep=)",
    "CogVideoXDPMScheduler": "the denoised content of the step before",
    "RePaintScheduler": "an original image and a mask",
}

_tried: weakref.WeakKeyDictionary[Any, Family] = weakref.WeakKeyDictionary()


def _unknown(scheduler: Any) -> Family:
    """A scheduler of somebody else's: its forward process is probed, and its `step` is tried on a known content."""
    name = type(scheduler).__name__
    if scheduler in _tried:
        return _tried[scheduler]
    found = Family(_probed, BASIC if hasattr(scheduler, "add_noise") else FLOW)
    if not (hasattr(scheduler, "add_noise") or hasattr(scheduler, "scale_noise")):
        why = "it has neither add_noise nor scale_noise, from which its noise levels could be read"
    else:
        try:
            end = _run_to_point(copy.deepcopy(scheduler), found)
            if abs(end - POINT) <= TOLERANCE:
                _tried[scheduler] = found
                return found
            why = f"fed the output that means a clean content of {POINT} at every step, it ended on {end:.3g}"
        except Exception as error:  # whatever a foreign step raises is the reason
            why = f"trying its step failed with {type(error).__name__}: {error}"
    raise UnsupportedSchedulerError(
        f"{name} has no known noise coordinates, and {why}; use one of {', '.join(FAMILIES)}",
        scheduler=name,
        supported=tuple(FAMILIES),
    )


def _run_to_point(scheduler: Any, found: Family) -> float:
    kind = getattr(scheduler.config, "prediction_type", found.prediction_types[0])
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    # Many equal elements: what a stochastic step adds averages out.
    state = torch.randn(1, 1, 32, 32, generator=generator) * float(getattr(scheduler, "init_noise_sigma", 1))
    for timestep in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(state, timestep)
        c_x, c_m = coefficients(kind, *found.locate(scheduler, timestep))
        state = scheduler.step((POINT - c_x * state) / c_m, timestep, state, return_dict=False)[0]
    return (state - POINT).abs().max().item() + POINT
