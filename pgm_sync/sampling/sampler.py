"""Sampling all trajectories of a graph together: a generator of states, and the loop that runs it to the end."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..denoisers.prediction import mean_part
from ..errors import (
    DtypeError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..score import CanvasWeights, Guard, JointDenoised, JointDenoiser, PosteriorCovariance, Tilt
from ..tables import in_notebook
from .asking import ask
from .callbacks import OnStep, as_callbacks
from .clock import PARTS, Clock
from .coordinates import clipping, coordinates, initial_scale, noise_level, prediction_type
from .corrector import Langevin
from .families import require_plain_step
from .memory import peak_memory
from .noise import NoiseSource, as_seeds
from .processes import Processes
from .resampling import Resample, check_memoryless, forward
from .step_noise import step_noise


class SamplingState(NamedTuple):
    """One denoising step of all trajectories; dictionaries by trajectory, tensors ``(num_samples, *shape)``.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> first = next(ps.sampling_steps(graph, denoiser, DDIMScheduler(clip_sample=False), 10))
    >>> first.step, first.num_steps, int(first.timestep), first.evaluations
    (0, 10, 900, 1)
    """

    step: int  # counts from 0
    num_steps: int  # of the whole run
    timestep: Any  # the scheduler's
    level: NoiseLevel  # of `noisy`
    noisy: dict[Name, Tensor]  # x_t^i
    denoised: dict[Name, Tensor]  # m_i, from each trajectory's own denoiser
    joint: dict[Name, Tensor]  # m_i^joint
    next: dict[Name, Tensor]  # x at the next, less noisy level; the samples, after the last step
    capped: float  # fraction of directions where Eq. 8 had to act
    seconds: dict[str, float]  # spent in "denoiser", "engine" and "scheduler" so far
    evaluations: int  # of every denoiser so far, those of a corrector included
    guard: Guard = Guard()  # which rule kept Eq. 8, and where it acted


@dataclass(frozen=True, repr=False)
class SampleResult:
    """What `sample` returns.

    ``info`` has scheduler, steps, seeds, denoiser_evaluations and peak_memory; of Eq. 8 the share of capped directions
    (capped, capped_per_step, capped_by_node) and the rule that capped them (guard).

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> result = ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 10, num_samples=3, progress=False)
    >>> result.samples[0].shape, result.info["steps"]
    (torch.Size([3, 1]), 10)
    """

    samples: dict[Name, Tensor]  # (num_samples, *shape) per trajectory, and per hidden canvas
    timing: dict[str, float]  # seconds: "denoiser", "engine", "scheduler", "total"
    info: dict[str, Any]  # of the run
    graph: FactorGraph  # what was sampled

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n!r}: {tuple(x.shape)}" for n, x in list(self.samples.items())[:6])
        more = f", and {len(self.samples) - 6} more" if len(self.samples) > 6 else ""
        return f"SampleResult({{{shapes}{more}}}, {self.info['steps']} steps, {self.timing['total']:.1f} s)"

    def _repr_html_(self) -> str:
        return in_notebook("samples", self)


def sample(
    graph: FactorGraph,
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    num_inference_steps: int = 50,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    *,
    progress: bool = True,
    on_step: OnStep = None,
    **options: Any,
) -> SampleResult:
    """Sample all trajectories of `graph` together.

    Parameters
    ----------
    graph
        a factor graph with fitted potentials. Without factors every trajectory is sampled by itself.
    denoisers
        one denoiser for all trajectories, or ``{name: denoiser}``.
    scheduler
        a diffusers scheduler; it is copied, never changed. See `sampling.coordinates` for the supported ones.
    num_inference_steps
        denoising steps, noise levels of the scheduler.
    num_samples, seed
        joint samples, and the seed of the first (the next ones count on), or one seed per sample. A sample depends
        only on its own seed, not on how many are drawn with it (up to the rounding of batched kernels).
    posterior_covariance, noise_correlation, couple, canvas_weights
        as for `JointDenoiser`: C_i of Eq. 4 ("surrogate", "denoiser", "jacobian", "fitted", a prior variance, or an
        object of `score.posterior`), c of Eq. 5', and w_i of Eq. 10 by noise level.
    corrector
        Langevin steps with the joint score at every level (`Langevin`), off by default. With ``posterior_covariance=
        "annealed"`` they converge to Eq. 1; otherwise the joint score is an approximation, and so is what they sample.
    resample
        going back up in noise and denoising again (`Resample`), off by default. Both take their noise, of covariance R,
        from the streams of the seeds, and both refuse multistep schedulers, whose steps depend on earlier states.
    tilt
        asks every denoiser again where the others say that its content lies (`Tilt`), off by default.
    conditions
        passed on to the denoisers: one for all, or ``{name: condition}``.
    initial_noise
        ``{carrier: (num_samples, *shape)}`` standard normal noise to start from, in place of the seeds'.
    distributed
        shares the trajectories out over the processes of `torch.distributed`'s default group, as `accelerate launch`
        and `torchrun` start them: each asks the denoisers of its own (the others' may be missing), one gather per
        question joins the answers, and all end with the same samples.
    chunk
        states that a denoiser is asked for at once. None: one trajectory after another, each with all of its joint
        samples. A number: trajectories that share a denoiser become one batch of ``trajectories * num_samples`` rows,
        worked through so many at a time, whatever of the two is larger: it bounds the memory of networks, and fills an
        accelerator. Conditions that differ between trajectories are then handed over row by row, as tensors.
    device, dtype
        where and how precisely states are kept (default: CPU, float32).
    progress
        whether to show a progress bar.
    on_step
        called after every step with its `SamplingState`: a function, or several in order. `Recorder` and `LiveView` are
        such functions. What one raises ends the sampling.
    options
        anything else goes to ``scheduler.step``, for instance ``eta=1.0`` for DDIM.

    ``info["peak_memory"]`` of the result is the process's high-water mark so far, in bytes: on CUDA that of tensors,
    since ``torch.cuda.reset_peak_memory_stats`` or the start.

    Raises a `PgmSyncError` that names what does not fit, before any sampling starts; NotFiniteError, naming the
    trajectory and the step, should a denoiser return NaN.

    Two nodes that are N(0, 1) by themselves, and the correlation of their samples:

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> result = ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 20, num_samples=1000, progress=False)
    >>> pairs = torch.cat([result.samples[0], result.samples[1]], 1)
    >>> round(torch.corrcoef(pairs.T)[0, 1].item(), 1)
    0.8
    """
    from tqdm.auto import tqdm

    start = time.perf_counter()
    callbacks = as_callbacks(on_step)
    steps = sampling_steps(graph, denoisers, scheduler, num_inference_steps, num_samples, seed, **options)
    state, capped, guards = None, [], []
    with tqdm(total=None, disable=not progress, desc="sampling", leave=False) as bar:
        for state in steps:
            bar.total = state.num_steps
            bar.update()
            capped.append(state.capped)
            guards.append(state.guard)
            for callback in callbacks:
                callback(state)
    assert state is not None
    info = {
        "scheduler": type(scheduler).__name__,
        "steps": state.num_steps,
        "seeds": as_seeds(seed, num_samples),
        "denoiser_evaluations": state.evaluations * len(graph.trajectories),
        "capped": sum(capped) / len(capped),
        "capped_per_step": capped,
        "capped_by_node": {name: [g.by_node[name] for g in guards] for name in guards[0].by_node},
        "guard": guards[0].rule,
        "peak_memory": peak_memory(options.get("device", "cpu")),
    }
    timing = {**state.seconds, "total": time.perf_counter() - start}
    return SampleResult(dict(state.next), timing, info, graph)


def sampling_steps(
    graph: FactorGraph,
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    num_inference_steps: int = 50,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    *,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    noise_correlation: float | str = 0.0,
    couple: bool = True,
    corrector: Langevin | None = None,
    resample: Resample | None = None,
    tilt: Tilt | None = None,
    canvas_weights: CanvasWeights | str | None = None,
    conditions: Any = None,
    initial_noise: Mapping[Name, Tensor] | None = None,
    distributed: bool = False,
    chunk: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **step_options: Any,
) -> Iterator[SamplingState]:
    """The states of `sample`, one per denoising step, for looking on, recording, or stopping early.

    Takes the arguments of `sample` (but ``progress`` and ``on_step``): `graph`, `denoisers`, `scheduler`,
    `num_inference_steps`, `num_samples`, `seed`, `posterior_covariance`, `noise_correlation`, `couple`, `corrector`,
    `resample`, `tilt`, `canvas_weights`, `conditions`, `initial_noise`, `distributed`, `chunk`, `device`, `dtype`;
    `step_options` go to ``scheduler.step``. Input is checked when this is called, not at the first step.

    How far the joint mean of a node moves from its own denoiser's, from noise to content:

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> states = ps.sampling_steps(graph, denoiser, DDIMScheduler(clip_sample=False), 4, num_samples=100)
    >>> [round((state.joint[0] - state.denoised[0]).abs().mean().item(), 2) for state in states]
    [0.03, 0.15, 0.21, 0.0]

    Raises as `sample`; ParameterError, DtypeError on numbers and dtypes.
    """
    joint = JointDenoiser(graph, posterior_covariance, noise_correlation, couple, canvas_weights)
    processes = Processes(graph.trajectories) if distributed else None
    chosen = denoisers_of(graph, denoisers, joint, graph.trajectories if processes is None else processes.own)
    given = conditions_of(graph, conditions)
    seeds = as_seeds(seed, num_samples)
    if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
        raise ParameterError(f"num_inference_steps={num_inference_steps!r} must be a positive integer")
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise ParameterError(f"chunk={chunk!r} must be a positive integer, or None", chunk=chunk)
    if not dtype.is_floating_point:
        raise DtypeError(f"states need a floating-point dtype, not {dtype}", dtype=dtype)
    prediction_type(scheduler)
    require_plain_step(scheduler)
    _check_step_options(scheduler, step_options)
    for option, value, kind in (("corrector", corrector, Langevin), ("resample", resample, Resample)):
        if value is None:
            continue
        if not isinstance(value, kind):
            raise ParameterError(f"{option}={value!r} is not a {kind.__name__}", option=option)
        check_memoryless(scheduler, option)
    if tilt is not None:
        if not isinstance(tilt, Tilt):
            raise ParameterError(f"tilt={tilt!r} is not a Tilt", option="tilt")
        tilt.check(joint)
    noise = NoiseSource(joint, seeds, torch.device(device), dtype)
    first = noise.draw() if initial_noise is None else noise.given(initial_noise)
    return _run(
        joint, chosen, given, scheduler, num_inference_steps, noise, first, corrector, resample, tilt, processes,
        chunk, step_options,
    )


@torch.no_grad()
def _run(
    joint: JointDenoiser,
    denoisers: dict[Name, Denoiser],
    conditions: dict[Name, Any],
    scheduler: Any,
    num_inference_steps: int,
    noise: NoiseSource,
    first: list[Tensor],
    corrector: Langevin | None,
    resample: Resample | None,
    tilt: Tilt | None,
    processes: Processes | None,
    chunk: int | None,
    step_options: dict[str, Any],
) -> Iterator[SamplingState]:
    carriers = joint.carriers
    schedulers = [copy.deepcopy(scheduler) for _ in carriers.carriers]
    for own in schedulers:
        own.set_timesteps(num_inference_steps, device=noise.device)
    states = [white * initial_scale(own) for white, own in zip(first, schedulers, strict=True)]
    seconds, evaluations = dict.fromkeys(PARTS, 0.0), 0
    timesteps = schedulers[0].timesteps
    passes = (resample or Resample(times=1)).passes(len(timesteps))
    kept, opened = schedulers, None
    for index, (step, back, opens) in enumerate(passes):
        timestep = timesteps[step]
        if opens and resample is not None:
            if back:
                assert opened is not None
                low = noise_level(schedulers[0], timesteps[passes[index - 1].step + 1])
                schedulers = copy.deepcopy(kept)
                states = forward(states, noise.draw(), low, opened)
            else:
                kept, opened = copy.deepcopy(schedulers), noise_level(schedulers[0], timestep)
        clock = Clock(seconds)
        look = Look(joint, denoisers, conditions, schedulers, timestep, index, tilt, processes, chunk, clock)
        if corrector is not None and corrector.acts(look.level):
            for _ in range(corrector.steps):
                joint_contents = look(states).result.carried
                states = corrector.step(states, joint_contents, noise.draw(), look.level)
                clock.lap("scheduler")
        seen = look(states)
        evaluations += look.asked
        noise.next_step()
        after = []
        for k, (carrier, own, state) in enumerate(zip(carriers.carriers, schedulers, states, strict=True)):
            content = seen.result.carried[k]
            if carrier.name in seen.outputs:
                shown = seen.denoised[carrier.name]
                output = look.where.replace(seen.outputs[carrier.name], state, shown, content)
            else:
                output = look.where.output_from_denoised(content, state)
            with step_noise(own, noise.of(k)):
                after.append(own.step(output, timestep, state, return_dict=False, **step_options)[0])
        states = after
        clock.lap("scheduler")
        yield SamplingState(
            index,
            len(passes),
            timestep,
            look.level,
            seen.noisy,
            seen.denoised,
            seen.result.mean,
            {name: carriers.view(states, name) for name in carriers.views},
            seen.result.capped,
            dict(seconds),
            evaluations,
            seen.result.guard,
        )


class _Seen(NamedTuple):
    """What all denoisers and the engine say about one state; dictionaries by trajectory."""

    noisy: dict[Name, Tensor]
    outputs: dict[Name, Tensor]  # as the scheduler would be handed them
    denoised: dict[Name, Tensor]  # clipped where the scheduler clips
    result: JointDenoised


class Look:
    """Joint denoising at one noise level."""

    def __init__(
        self,
        joint: JointDenoiser,
        denoisers: dict[Name, Denoiser],
        conditions: dict[Name, Any],
        schedulers: list[Any],
        timestep: Any,
        step: int,
        tilt: Tilt | None,
        processes: Processes | None,
        chunk: int | None,
        clock: Clock,
    ):
        self.joint, self.denoisers, self.conditions = joint, denoisers, conditions
        self.schedulers, self.timestep, self.step, self.tilt, self.clock = schedulers, timestep, step, tilt, clock
        self.processes, self.chunk = processes, chunk
        # Of networks that predict a variance too, other schedulers take the first half, as pipelines hand it to them
        self.learned = getattr(schedulers[0].config, "variance_type", None) in ("learned", "learned_range")
        self.asked = 0  # times that every denoiser was
        self.level = noise_level(schedulers[0], timestep)
        self.where = coordinates(schedulers[0], timestep)
        self.clip = clipping(schedulers[0]) or (lambda denoised: denoised)

    def __call__(self, states: list[Tensor]) -> _Seen:
        for own, state in zip(self.schedulers, states, strict=True):
            if hasattr(own, "scale_model_input"):
                own.scale_model_input(state, self.timestep)  # some schedulers insist on the call
        noisy = {name: self.joint.carriers.view(states, name) for name in self.joint.graph.trajectories}
        outputs, denoised, covariances = self._ask(noisy)
        result = self.joint(noisy, denoised, self.level, covariances)
        if self.tilt is not None:
            result = self.tilt(self.joint, noisy, result, self.level, denoised, self._ask_again)
        self.clock.lap("engine")
        return _Seen(noisy, outputs, denoised, result)

    def _ask(self, noisy: Mapping[Name, Tensor]) -> tuple[dict[Name, Tensor], dict[Name, Tensor], dict[Name, Tensor]]:
        """Model outputs, denoised contents, and covariances where the joint denoiser wants them."""
        wanted = self.joint.needs_covariance
        answers = ask(
            self.denoisers, noisy, self.level, self.where, self.conditions, wanted, self.chunk, self.step
        )
        if self.processes is not None:
            answers = self.processes.gather(answers, self.step)
        outputs = {
            name: answer.output if self.learned else mean_part(answer.output, noisy[name], 1)
            for name, answer in answers.items()
        }
        denoised = {name: self.clip(answer.mean) for name, answer in answers.items()}
        covariances = {name: answer.covariance for name, answer in answers.items() if answer.covariance is not None}
        self.asked += 1
        self.clock.lap("denoiser")
        return outputs, denoised, covariances

    def _ask_again(self, noisy: Mapping[Name, Tensor]) -> tuple[dict[Name, Tensor], dict[Name, Tensor]]:
        self.clock.lap("engine")
        return self._ask(noisy)[1:]


def denoisers_of(
    graph: FactorGraph, denoisers: Denoiser | Mapping[Name, Denoiser], joint: JointDenoiser, names: Sequence[Name]
) -> dict[Name, Denoiser]:
    """The denoiser of each of `names`, the trajectories of this process."""
    if isinstance(denoisers, Denoiser):
        chosen: dict[Name, Denoiser] = dict.fromkeys(names, denoisers)
    elif isinstance(denoisers, Mapping):
        unknown = [name for name in denoisers if name not in graph.trajectories]
        missing = [name for name in names if name not in denoisers]
        if unknown or missing:
            what = (
                f"{unknown[0]!r} is no trajectory of the graph"
                if unknown
                else f"{missing[0]!r} has no denoiser"
            )
            raise UnknownNameError(
                f"denoisers: {what}; the trajectories are {', '.join(map(repr, graph.trajectories[:8]))}",
                name=(unknown or missing)[0],
            )
        chosen = {name: denoisers[name] for name in names}
    else:
        raise ParameterError(
            f"denoisers is a {type(denoisers).__name__}; give a Denoiser, or {{name: Denoiser}}. A plain function "
            "becomes one by FunctionDenoiser(function, shape), a network by DiffusersDenoiser(model)"
        )
    if not graph.trajectories:
        raise UnknownNameError(
            "the graph has no trajectory to sample; call add_trajectory(name, shape) first"
        )
    for name, denoiser in chosen.items():
        if not isinstance(denoiser, Denoiser):
            raise ParameterError(
                f"the denoiser of {name!r} is a {type(denoiser).__name__}, not a Denoiser", name=name
            )
        if tuple(denoiser.shape) != graph.shape(name):
            raise ShapeError(
                f"the denoiser of {name!r} works on shape {tuple(denoiser.shape)}, "
                f"the trajectory has {graph.shape(name)}",
                name=name,
                expected=graph.shape(name),
                got=tuple(denoiser.shape),
            )
        if name not in joint.needs_covariance:
            continue
        chosen[name] = joint.posterior_covariance.denoiser(denoiser)
        if not chosen[name].has_covariance:
            raise UnsupportedError(
                f"posterior_covariance='denoiser', but {type(denoiser).__name__} of {name!r} knows only means; "
                "use 'surrogate', or 'jacobian'",
                name=name,
            )
    return chosen


def conditions_of(graph: FactorGraph, conditions: Any) -> dict[Name, Any]:
    if not isinstance(conditions, Mapping):
        return dict.fromkeys(graph.trajectories, conditions)
    for name in conditions:
        if name not in graph.trajectories:
            raise UnknownNameError(
                f"a condition for {name!r}, which is no trajectory of the graph; arguments of a network go under the "
                "name of each trajectory: {trajectory: {argument: value}}",
                name=name,
            )
    return {name: conditions.get(name) for name in graph.trajectories}


def _check_step_options(scheduler: Any, options: dict[str, Any]) -> None:
    known = inspect.signature(type(scheduler).step).parameters
    for key in options:
        if key not in known or key in (
            "self",
            "model_output",
            "timestep",
            "sample",
            "return_dict",
            "generator",
        ):
            allowed = [
                k
                for k in known
                if k not in ("self", "model_output", "timestep", "sample", "return_dict", "generator")
            ]
            raise ParameterError(
                f"unknown option {key!r}: neither sample() nor {type(scheduler).__name__}.step takes it "
                f"(step takes {', '.join(allowed) or 'none'})",
                option=key,
            )
