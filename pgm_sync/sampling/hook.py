"""What `attach` and `synchronize` share: a scheduler whose `step` first hands the denoised content to somebody else."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError, UnsupportedSchedulerError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..score import CanvasWeights, JointDenoiser, PosteriorCovariance
from .asking import check_finite
from .coordinates import Coordinates, clipping, coordinates, noise_level, prediction_type
from .families import OWN_NOISE

HOOK = "_pgm_sync"  # attribute of a hooked scheduler that holds its owner
DEVICES = ("cpu", "cuda", "mps", "xpu")  # with an autocast of their own


class Owner(Protocol):
    """Who is asked in the place of a hooked scheduler's class."""

    def step(self, stock: Callable[..., Any], scheduler: Any, call: inspect.BoundArguments) -> Any:
        """What ``scheduler.step`` returns; `stock` is the step of its class, `call` its arguments, self included."""


class Reading(NamedTuple):
    """One call of `step`, as the scheduler will understand it."""

    where: Coordinates
    level: NoiseLevel
    timestep: Any
    output: Tensor
    sample: Tensor  # as handed to step
    noisy: Tensor  # the same, at least in float32
    denoised: Tensor  # what step reads from the output, clipped where it clips

    def replace(self, joint: Tensor) -> Tensor:
        """The output that says `joint`; the same object where that is what it says already."""
        return self.where.replace(self.output, self.sample, self.denoised, joint)


@torch.no_grad()
def read(scheduler: Any, call: inspect.BoundArguments) -> Reading:
    """Raises UnsupportedSchedulerError, UnsupportedError, ParameterError."""
    if call.arguments.get("per_token_timesteps") is not None:
        raise UnsupportedError(
            f"{type(scheduler).__name__}.step was handed per_token_timesteps, so parts of a content have noise levels "
            "of their own; one level for all is needed"
        )
    output, timestep, sample = (call.arguments[name] for name in ("model_output", "timestep", "sample"))
    where, level = coordinates(scheduler, timestep), noise_level(scheduler, timestep)
    denoised = where.denoised_from_output(output, sample)
    clip = clipping(scheduler)
    denoised = denoised if clip is None else clip(denoised)
    return Reading(where, level, timestep, output, sample, sample.to(denoised.dtype), denoised)


def proceed(
    stock: Callable[..., Any], call: inspect.BoundArguments, reading: Reading, corrected: Tensor
) -> Any:
    """The scheduler's own step with another output. What was corrected in float32 is stepped in it, and cast once."""
    if corrected is reading.output:
        return stock(*call.args, **call.kwargs)
    wide = corrected.dtype != reading.output.dtype
    call.arguments["model_output"] = corrected
    if wide:
        call.arguments["sample"] = reading.sample.to(corrected.dtype)
    result = stock(*call.args, **call.kwargs)
    return _cast(result, corrected.dtype, reading.sample.dtype) if wide else result


def hooked(stock: Any, owner: Owner) -> Any:
    """A scheduler of a subclass with the same name, as pipelines check classes, signatures and saved names."""
    base: Any = type(stock)
    signature = inspect.signature(base.step)

    @functools.wraps(base.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached = self.__dict__.get(HOOK)
        if attached is None:  # made by from_config
            return base.step(self, *args, **kwargs)
        return attached.step(base.step, self, signature.bind(self, *args, **kwargs))

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        """A stock scheduler: a copy that a pipeline makes for something else is not synchronised."""
        out = base.__new__(base)
        out.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k != HOOK})
        return out

    names = {"step": step, "__deepcopy__": deepcopy, "__module__": base.__module__, "__doc__": base.__doc__}
    subclass: Any = type(base.__name__, (base,), names)
    out = subclass.__new__(subclass)
    out.__dict__.update(stock.__dict__)
    out.__dict__[HOOK] = owner
    return out


def stock_scheduler(pipe: Any, attribute: str, own_noise: bool) -> Any:
    """A copy of a pipeline's scheduler, checked; `own_noise`: whether it may draw noise that nobody else reaches.

    Raises ParameterError, UnsupportedSchedulerError.
    """
    before = getattr(pipe, attribute, None)
    if not hasattr(before, "config"):
        raise ParameterError(f"{type(pipe).__name__}.{attribute} is no scheduler", scheduler=attribute)
    stock = copy.deepcopy(before)  # of a hooked scheduler, the stock one
    prediction_type(stock)
    if not own_noise and {cls.__name__ for cls in type(stock).__mro__} & OWN_NOISE:
        raise UnsupportedSchedulerError(
            f"{type(stock).__name__} draws its noise from a Brownian tree of its own, which trajectories cannot share; "
            "use another scheduler, or shared_noise=False",
            scheduler=type(stock).__name__,
        )
    return stock


def joint_denoiser(
    graph: FactorGraph,
    posterior_covariance: str | float | PosteriorCovariance,
    noise_correlation: float | str,
    couple: bool,
    canvas_weights: CanvasWeights | str | None,
) -> JointDenoiser:
    """A joint denoiser that only needs what a pipeline shows. Raises UnsupportedError."""
    joint = JointDenoiser(graph, posterior_covariance, noise_correlation, couple, canvas_weights)
    if joint.needs_covariance:
        raise UnsupportedError(
            f"posterior_covariance={posterior_covariance!r} asks denoisers for covariances, and a pipeline only shows "
            "its guided output; use 'surrogate' or 'fitted' here, or `sample` with DiffusersDenoiser"
        )
    return joint


def follow(joint: JointDenoiser, white: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    """White noise ``(k, *shape)`` per trajectory, shared and correlated as the joint denoiser takes it to be."""
    states = joint.correlated(joint.carriers.first(white))
    return {name: joint.carriers.view(states, name) for name in white}


def check_output(denoised: Mapping[Name, Tensor], step: int) -> None:
    """Raises NotFiniteError, naming trajectory and step."""
    for name, content in denoised.items():
        check_finite(
            content, [name], step, "the pipeline's output for {} has",
            "; in half precision, try bfloat16 or a float32 VAE and text encoder",
        )  # fmt: skip


@contextmanager
def full_precision() -> Iterator[None]:
    """Neither gradients nor autocast: the engine's matrices keep their precision inside of a user's autocast."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _cast(result: Any, wide: torch.dtype, narrow: torch.dtype) -> Any:
    """The tensors of what `step` returned, brought back to the dtype of the latents."""

    def cast(value: Any) -> Any:
        return value.to(narrow) if isinstance(value, Tensor) and value.dtype == wide else value

    if isinstance(result, tuple):
        return tuple(map(cast, result))
    return dataclasses.replace(
        result, **{f.name: cast(getattr(result, f.name)) for f in dataclasses.fields(result)}
    )
