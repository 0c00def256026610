"""Synchronising a diffusers pipeline from within: its scheduler's `step` corrects the model output (section 8)."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import NotFiniteError, ParameterError, UnsupportedError, UnsupportedSchedulerError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap
from ..score import CanvasWeights, JointDenoiser, PosteriorCovariance
from ..score.noise import correlate
from .coordinates import clipping, coordinates, noise_level, prediction_type
from .families import OWN_NOISE
from .rows import Rows
from .sampler import SamplingState
from .step_noise import mapped_noise

HOOK = "_pgm_sync"  # attribute of a hooked scheduler that holds its Attachment


@contextmanager
def attach(
    pipe: Any,
    graph: FactorGraph,
    trajectories: Sequence[Name] | None = None,
    *,
    axis: int = 0,
    layout: LinearMap | None = None,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    noise_correlation: float | str = 0.0,
    couple: bool = True,
    canvas_weights: CanvasWeights | str | None = None,
    shared_noise: bool = True,
    on_step: Callable[[SamplingState], None] | None = None,
    scheduler: str = "scheduler",
) -> Iterator[Attachment]:
    """Within the context, calls of a diffusers pipeline denoise all of their rows together.

    Every step reads the denoised contents from the model output (after guidance), replaces them by joint ones (Eq. 6),
    and hands the scheduler the output that says so. What the engine leaves alone keeps its output bit for bit: without
    factors the pipeline's result is that of the stock pipeline.

    Parameters
    ----------
    pipe
        a pipeline, or anything with a diffusers scheduler that it steps once per noise level for all rows.
    graph
        its trajectories have the shape of the pipeline's latents, without the batch.
    trajectories
        the names of the rows, in order; those of the graph in its order if not given. With k joint samples, the rows
        of a trajectory follow one another, as with ``prompt=[...], num_images_per_prompt=k``.
    axis
        0: trajectories are rows of the batch. Otherwise the axis of the frames of a video, each of them a trajectory
        (2: AnimateDiff, Wan; 1: Stable Video Diffusion, CogVideoX), and rows are joint samples.
    layout
        map from a trajectory to its part of the pipeline's latents, where they are packed: ``Tokens(shape)`` for Flux.
    posterior_covariance, noise_correlation, couple, canvas_weights
        as for `JointDenoiser`. Covariances that are asked from denoisers do not reach through a pipeline.
    shared_noise
        whether the noise that the pipeline and its scheduler draw for latents is shared on canvases and correlated
        (Eq. 5'), as the joint denoiser takes it to be. It is still drawn from the pipeline's own generators. Latents
        that are handed to the pipeline stay as they are; see `Attachment.noise`.
    on_step
        called after every step with a `SamplingState`, for recording.
    scheduler
        the attribute of `pipe` that holds the scheduler.

    The scheduler is copied, and the pipeline gets its own back in the end, exceptions included. Attaching again
    replaces an attachment until its context closes. Half precision is corrected and stepped in float32. Of two
    pipelines of one class attached at once, the inner context shares the initial noise of both: give such pipelines
    ``latents=``, or attach them one after the other.

    Raises UnknownNameError, ShapeError, BatchError for rows that do not fit the graph; UnsupportedSchedulerError;
    UnsupportedError; NotFiniteError, naming trajectory and step.
    """
    joint = JointDenoiser(graph, posterior_covariance, noise_correlation, couple, canvas_weights)
    if joint.needs_covariance:
        raise UnsupportedError(
            f"posterior_covariance={posterior_covariance!r} asks denoisers for covariances, and a pipeline only shows "
            "its guided output; use 'surrogate' or 'fitted' here, or `sample` with DiffusersDenoiser"
        )
    rows = Rows.of(graph, trajectories, axis, layout)
    before = getattr(pipe, scheduler, None)
    if not hasattr(before, "config"):
        raise ParameterError(f"{type(pipe).__name__}.{scheduler} is no scheduler", scheduler=scheduler)
    stock = copy.deepcopy(before)  # of a hooked scheduler, the stock one
    prediction_type(stock)
    follows = shared_noise and (joint.carriers.shared or joint.correlates)
    if follows and {cls.__name__ for cls in type(stock).__mro__} & OWN_NOISE:
        raise UnsupportedSchedulerError(
            f"{type(stock).__name__} draws its noise from a Brownian tree of its own, which trajectories cannot share; "
            "use another scheduler, or shared_noise=False",
            scheduler=type(stock).__name__,
        )
    attachment = Attachment(joint, rows, follows, on_step)
    setattr(pipe, scheduler, _hooked(stock, attachment))
    try:
        with mapped_noise([pipe], attachment.follow):
            yield attachment
    finally:
        setattr(pipe, scheduler, before)


class Attachment:
    """One synchronised pipeline: what happened in its last run, and noise to start it from."""

    def __init__(
        self,
        joint: JointDenoiser,
        rows: Rows,
        shares_noise: bool = True,
        on_step: Callable[[SamplingState], None] | None = None,
    ):
        self.joint, self.rows, self.shares_noise, self.on_step = joint, rows, shares_noise, on_step
        self._new_run(None)

    def _new_run(self, schedule: Tensor | None) -> None:
        self._schedule = schedule
        self.steps = 0  # of the last run
        self.capped: list[float] = []  # per step: fraction of directions where Eq. 8 acted
        self.seconds = {"engine": 0.0, "scheduler": 0.0}

    def noise(self, num_samples: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal noise for all rows, shared and correlated as the joint denoiser takes it to be.

        For pipelines that take ``latents=``, which they scale themselves; `num_samples` joint samples.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (num_samples, *self.rows.shape)
        white = {name: torch.randn(shape, generator=generator) for name in self.rows.names}
        return self.rows.join(self._follow(white)).to(dtype)

    def follow(self, noise: Tensor) -> Tensor:
        """White noise as a pipeline drew it, shared and correlated; of another shape than the latents: as it is."""
        for packed in (True, False):
            if self.shares_noise and self.rows.matches(noise.shape, packed):
                return self.rows.join(self._follow(self.rows.split(noise, packed)), packed)
        return noise

    def _follow(self, white: dict[Name, Tensor]) -> dict[Name, Tensor]:
        carriers = self.joint.carriers
        states = carriers.first(white)
        if self.joint.correlates and self.joint.noise is not None:
            states = correlate(self.joint.noise, self.joint.reduction, states, carriers)
        return {name: carriers.view(states, name) for name in white}

    def step(self, stock: Callable[..., Any], scheduler: Any, call: inspect.BoundArguments) -> Any:
        """What the hooked scheduler does in the place of `stock`, its class's ``step``."""
        start = time.perf_counter()
        output, timestep, sample = (call.arguments[name] for name in ("model_output", "timestep", "sample"))
        if call.arguments.get("per_token_timesteps") is not None:
            raise UnsupportedError(
                f"{type(scheduler).__name__}.step was handed per_token_timesteps: parts of a content have noise levels "
                "of their own, and attach needs one level for all"
            )
        if scheduler.timesteps is not self._schedule:  # set anew by every run
            self._new_run(scheduler.timesteps)
        where, level = coordinates(scheduler, timestep), noise_level(scheduler, timestep)
        with torch.no_grad():
            shown = where.denoised_from_output(output, sample)
            clip = clipping(scheduler)
            shown = shown if clip is None else clip(shown)
            denoised, noisy = self.rows.split(shown), self.rows.split(sample.to(shown.dtype))
            self._check(denoised)
            found = self.joint(noisy, denoised, level)
            corrected = where.replace(output, sample, shown, self.rows.join(found.mean))
        middle = time.perf_counter()
        wide = corrected is not output and corrected.dtype != output.dtype
        if corrected is not output:
            call.arguments["model_output"] = corrected
        if wide:
            call.arguments["sample"] = sample.to(corrected.dtype)
        with mapped_noise([scheduler], self.follow):
            result = stock(*call.args, **call.kwargs)
        if wide:
            result = _cast(result, corrected.dtype, sample.dtype)
        self.seconds["engine"] += middle - start
        self.seconds["scheduler"] += time.perf_counter() - middle
        self.capped.append(found.capped)
        self.steps += 1
        if self.on_step is not None:
            following = self.rows.split(result[0])
            self.on_step(
                SamplingState(
                    self.steps - 1, len(scheduler.timesteps), timestep, level, noisy, denoised, found.mean, following,
                    found.capped, dict(self.seconds), self.steps, found.guard,
                )
            )  # fmt: skip
        return result

    def _check(self, denoised: dict[Name, Tensor]) -> None:
        for name, content in denoised.items():
            if not torch.isfinite(content).all():
                bad = int((~torch.isfinite(content)).sum())
                raise NotFiniteError(
                    f"the pipeline's output for {name!r} has {bad} NaN or infinite numbers out of {content.numel()} at "
                    f"step {self.steps}; in half precision, try bfloat16 or a float32 VAE and text encoder",
                    name=name,
                    step=self.steps,
                )


def _hooked(stock: Any, attachment: Attachment) -> Any:
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
    hooked = subclass.__new__(subclass)
    hooked.__dict__.update(stock.__dict__)
    hooked.__dict__[HOOK] = attachment
    return hooked


def _cast(result: Any, wide: torch.dtype, narrow: torch.dtype) -> Any:
    """The tensors of what `step` returned, brought back to the dtype of the latents."""

    def cast(value: Any) -> Any:
        return value.to(narrow) if isinstance(value, Tensor) and value.dtype == wide else value

    if isinstance(result, tuple):
        return tuple(map(cast, result))
    return dataclasses.replace(result, **{f.name: cast(getattr(result, f.name)) for f in dataclasses.fields(result)})
