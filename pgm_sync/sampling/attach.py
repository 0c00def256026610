"""Synchronising a diffusers pipeline from within: its scheduler's `step` corrects the model output (section 8)."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap
from ..score import CanvasWeights, JointDenoiser, PosteriorCovariance
from .callbacks import OnStep, as_callbacks
from .hook import check_output, follow, full_precision, hooked, joint_denoiser, proceed, read, stock_scheduler
from .processes import Processes
from .rows import Rows
from .sampler import SamplingState
from .step_noise import mapped_noise


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
    on_step: OnStep = None,
    scheduler: str = "scheduler",
    distributed: bool = False,
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
        called after every step with a `SamplingState`, for recording: a function, or several.
    scheduler
        the attribute of `pipe` that holds the scheduler.
    distributed
        shares the trajectories out over the processes of `torch.distributed`'s default group: the pipeline of each
        process has the rows of its own stretch only (`Attachment.trajectories`), as
        ``accelerate.PartialState().split_between_processes`` cuts a list of prompts. One gather per step, and one per
        draw of shared noise, so all processes must take the same steps. `SamplingState.next` has own rows only.

    The scheduler is copied, and the pipeline gets its own back in the end, exceptions included. Attaching again
    replaces an attachment until its context closes. Half precision is corrected and stepped in float32. Of two
    pipelines of one class attached at once, the inner context shares the initial noise of both: give such pipelines
    ``latents=``, or attach them one after the other.

    Raises UnknownNameError, ShapeError, BatchError for rows that do not fit the graph; UnsupportedSchedulerError;
    UnsupportedError; NotFiniteError, naming trajectory and step; ProcessError, ParameterError about processes.

    Anything that steps a diffusers scheduler is a pipeline. This one's contents are N(0, 1), for which the model output
    at ``x_t`` is ``sigma x_t``:

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> class Pipeline:
    ...     def __init__(self):
    ...         self.scheduler = DDIMScheduler(clip_sample=False)
    ...     def __call__(self, latents):
    ...         self.scheduler.set_timesteps(20)
    ...         for t in self.scheduler.timesteps:
    ...             output = (1 - self.scheduler.alphas_cumprod[t]) ** 0.5 * latents
    ...             latents = self.scheduler.step(output, t, latents).prev_sample
    ...         return latents
    >>> pipe, graph = Pipeline(), ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> with ps.attach(pipe, graph) as attached:
    ...     left, right = pipe(attached.noise(num_samples=1000)).reshape(2, 1000)
    >>> round(torch.corrcoef(torch.stack([left, right]))[0, 1].item(), 1)
    0.8
    """
    joint = joint_denoiser(graph, posterior_covariance, noise_correlation, couple, canvas_weights)
    rows = Rows.of(graph, trajectories, axis, layout)
    follows = shared_noise and (joint.carriers.shared or joint.correlates)
    stock = stock_scheduler(pipe, scheduler, own_noise=not follows)
    before = getattr(pipe, scheduler)
    attachment = Attachment(joint, rows, follows, on_step, Processes(rows.names) if distributed else None)
    setattr(pipe, scheduler, hooked(stock, attachment))
    try:
        with mapped_noise([pipe], attachment.follow):
            yield attachment
    finally:
        setattr(pipe, scheduler, before)


class Attachment:
    """One synchronised pipeline: what happened in its last run, and noise to start it from; made by `attach`.

    It holds the `joint` denoiser and the `rows` of the pipeline that are its trajectories; `shares_noise`, `on_step`
    and `processes` are as `attach` was asked for.

    >>> import types, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> pipe = types.SimpleNamespace(scheduler=DDIMScheduler())
    >>> with ps.attach(pipe, ps.wide_canvas((1, 1, 3), window=(1, 2), stride=1)) as attached:
    ...     noise = attached.noise(seed=0)
    >>> attached.trajectories, bool(noise[0, 0, 0, 1] == noise[1, 0, 0, 0])  # the pixel that both windows show
    (['w0', 'w1'], True)
    """

    def __init__(
        self,
        joint: JointDenoiser,
        rows: Rows,
        shares_noise: bool = True,
        on_step: OnStep = None,
        processes: Processes | None = None,
    ):
        self.joint, self.shares_noise, self.processes = joint, shares_noise, processes
        self.on_step = as_callbacks(on_step)
        self.rows = rows if processes is None else rows.part(processes.own)
        self._all = rows
        self._new_run(None)

    @property
    def trajectories(self) -> list[Name]:
        """The names of the pipeline's rows, in order; among several processes, of those of this one."""
        return list(self.rows.names)

    def _everywhere(self, own: dict[Name, Any]) -> dict[Name, Any]:
        """What is known of the own trajectories, here and in all other processes."""
        return own if self.processes is None else self.processes.gather(own, self.steps)

    def _follow(self, white: dict[Name, Tensor]) -> dict[Name, Tensor]:
        return follow(self.joint, self._everywhere(white))

    def _new_run(self, schedule: Tensor | None) -> None:
        self._schedule = schedule
        self.steps = 0  # of the last run
        self.capped: list[float] = []  # per step: fraction of directions where Eq. 8 acted
        self.seconds = {"engine": 0.0, "scheduler": 0.0}

    def noise(self, num_samples: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal noise for all rows, shared and correlated as the joint denoiser takes it to be.

        For pipelines that take ``latents=``, which they scale themselves; `num_samples` joint samples, in `dtype`.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (num_samples, *self.rows.shape)
        white = {name: torch.randn(shape, generator=generator) for name in self._all.names}
        return self.rows.join(follow(self.joint, white)).to(dtype)

    def samples(self, latents: Tensor) -> dict[Name, Tensor]:
        """What a pipeline returned as latents, ``(k, *shape)`` per trajectory and per hidden canvas."""
        return self.joint.carriers.complete(self._everywhere(self.rows.split(latents)))

    def follow(self, noise: Tensor) -> Tensor:
        """White noise as a pipeline drew it, shared and correlated; of another shape than the latents: as it is."""
        return self.rows.mapped(noise, self._follow) if self.shares_noise else noise

    def step(self, stock: Callable[..., Any], scheduler: Any, call: inspect.BoundArguments) -> Any:
        """What the hooked `scheduler` does for a `call` in the place of `stock`, its class's ``step``."""
        start = time.perf_counter()
        if scheduler.timesteps is not self._schedule:  # set anew by every run
            self._new_run(scheduler.timesteps)
        reading = read(scheduler, call)
        with full_precision():
            own, states = self.rows.split(reading.denoised), self.rows.split(reading.noisy)
            check_output(own, self.steps)
            seen = self._everywhere({name: (states[name], own[name]) for name in own})
            noisy = {name: state for name, (state, _) in seen.items()}
            denoised = {name: content for name, (_, content) in seen.items()}
            found = self.joint(noisy, denoised, reading.level)
            corrected = reading.replace(self.rows.join(found.mean))
        middle = time.perf_counter()
        with mapped_noise([scheduler], self.follow):
            result = proceed(stock, call, reading, corrected)
        self.seconds["engine"] += middle - start
        self.seconds["scheduler"] += time.perf_counter() - middle
        self.capped.append(found.capped)
        self.steps += 1
        if self.on_step:
            following = self.rows.split(result[0])
            state = SamplingState(
                self.steps - 1, len(scheduler.timesteps), reading.timestep, reading.level, noisy, denoised,
                found.mean, following, found.capped, dict(self.seconds), self.steps, found.guard,
            )  # fmt: skip
            for callback in self.on_step:
                callback(state)
        return result
