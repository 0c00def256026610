"""Several diffusers pipelines in lockstep, each of them the denoiser of one trajectory (section 8)."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import (
    BatchError,
    ParameterError,
    PipelineError,
    ShapeError,
    StepCountError,
    UnknownNameError,
    UnsupportedError,
    listed,
)
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel, same_level
from ..maps import LinearMap
from ..score import CanvasWeights, Guard, JointDenoised, JointDenoiser, PosteriorCovariance
from .callbacks import OnStep, as_callbacks
from .hook import (
    Reading,
    check_output,
    follow,
    full_precision,
    hooked,
    joint_denoiser,
    proceed,
    read,
    stock_scheduler,
)
from .rows import Rows
from .step_noise import mapped_noise
from .workers import Worker

# The noise at which a finished trajectory takes part, in units of its content: what it delivered stays as it is.
DELIVERED = NoiseLevel(alpha=1.0, sigma=1e-3)


class Call:
    """A pipeline `pipe`, and what it will be called with, `args` and `kwargs`; for `synchronize`.

    >>> import types, pgm_sync as ps
    >>> ps.Call(types.SimpleNamespace(), prompt="a house", num_inference_steps=30)
    Call(SimpleNamespace, prompt=..., num_inference_steps=...)
    """

    def __init__(self, pipe: Any, /, *args: Any, **kwargs: Any):
        self.pipe, self.args, self.kwargs = pipe, args, kwargs

    def __repr__(self) -> str:
        given = [*("..." for _ in self.args), *(f"{key}=..." for key in self.kwargs)]
        return f"Call({', '.join([type(self.pipe).__name__, *given])})"


class LockstepState(NamedTuple):
    """One joint denoising; dictionaries by trajectory, tensors ``(k, *shape)`` on the engine's device.

    Handed to ``on_step`` of `synchronize`, and made here by hand:

    >>> import pgm_sync as ps
    >>> from pgm_sync.score import Guard
    >>> state = ps.LockstepState(0, ["left"], {}, {}, {}, {}, capped=0.0, guard=Guard())
    >>> state.moving, state.guard.rule
    (['left'], None)
    """

    step: int  # joint denoisings before this one
    moving: list[Name]  # whose schedulers step now
    levels: dict[Name, NoiseLevel]  # of the states
    noisy: dict[Name, Tensor]  # x_t^i, in the coordinates of its own scheduler
    denoised: dict[Name, Tensor]  # m_i, from each trajectory's own pipeline, after guidance
    joint: dict[Name, Tensor]  # m_i^joint
    capped: float  # fraction of directions where Eq. 8 had to act
    guard: Guard  # which rule kept Eq. 8, and where it acted


class LockstepResult(Mapping[Name, Any]):
    """What every pipeline returned, by trajectory; and how the run went.

    As a mapping it gives the `outputs`. ``samples`` has the last latents ``(k, *shape)`` of every trajectory and of
    every hidden canvas, on one device; ``timing`` has seconds, "engine", "total" and one entry per trajectory under
    "pipelines"; ``info`` the schedulers, the steps of every trajectory, the number of joint denoisings, and of Eq. 8
    what `SampleResult.info` has; ``graph`` is what was sampled.

    >>> import torch, pgm_sync as ps
    >>> samples = {0: torch.zeros(1, 1), 1: torch.zeros(1, 1)}
    >>> outputs, graph = {0: "a picture", 1: "a film"}, ps.chain_graph(2, shape=(1,))
    >>> result = ps.LockstepResult(outputs, samples, timing={}, info={}, graph=graph)
    >>> result[1], list(result)
    ('a film', [0, 1])
    """

    def __init__(
        self,
        outputs: dict[Name, Any],
        samples: dict[Name, Tensor],
        timing: dict[str, Any],
        info: dict[str, Any],
        graph: FactorGraph,
    ):
        self.outputs, self.samples, self.timing, self.info, self.graph = outputs, samples, timing, info, graph

    def __getitem__(self, name: Name) -> Any:
        return self.outputs[name]

    def __iter__(self) -> Iterator[Name]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        steps = ", ".join(f"{name!r}: {n} steps" for name, n in list(self.info["steps"].items())[:6])
        more = f", and {len(self) - 6} more" if len(self) > 6 else ""
        return f"LockstepResult({{{steps}{more}}}, {self.timing['total']:.1f} s)"


def synchronize(
    calls: Mapping[Name, Call],
    graph: FactorGraph,
    *,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    noise_correlation: float | str = 0.0,
    couple: bool = True,
    canvas_weights: CanvasWeights | str | None = None,
    layouts: Mapping[Name, LinearMap] | None = None,
    align: str | None = None,
    shared_noise: bool = True,
    schedulers: Mapping[Name, str] | None = None,
    device: torch.device | str | None = None,
    on_step: OnStep = None,
    progress: bool = True,
) -> LockstepResult:
    """Call several diffusers pipelines at once, and let them denoise the trajectories of `graph` together.

    Models, schedulers, latent spaces, guidance and devices may all differ; maps of the graph's factors say what their
    latents have in common. Every pipeline runs in a thread, of which one runs at a time, and waits in its scheduler's
    `step` until the others have come as far; then the joint denoiser corrects all of them (Eq. 6), and each goes on by
    its own scheduler. What no potential couples keeps its output bit for bit, so without factors every result is that
    of the stock pipeline.

    Noise levels may differ between trajectories: each enters Eq. 5 with its own signal-to-noise ratio, in whatever
    coordinates (variance preserving, exploding, flow) its scheduler has. That is exact for independent noise; canvases
    (Equality) and correlated noise need one ratio for all, and are refused elsewhere, by name and step.

    Parameters
    ----------
    calls
        ``{name: Call(pipe, ...)}``, one for every trajectory. The rows of a pipeline are joint samples, as many in all
        of them. A pipeline may occur in several calls. Give every call a generator of its own: from a common one, or
        the global one, pipelines draw in another order than by themselves.
    graph
        its trajectories have the shapes of their pipelines' latents, without the batch.
    posterior_covariance, noise_correlation, couple, canvas_weights
        as for `JointDenoiser`. Covariances that are asked from denoisers do not reach through a pipeline.
    layouts
        ``{name: map}`` from a trajectory to the pipeline's latents where they are packed: ``Tokens(shape)`` for Flux.
    align
        None: all take their k-th steps together, and numbers of steps that differ raise. "level": the trajectories
        with most noise step next, so that nobody runs ahead, with any numbers of steps; the others take part with their
        present state at its own level, finished ones with what they delivered (as if at noise sigma = 0.001).
    shared_noise
        whether the noise that pipelines and schedulers draw for latents is shared on canvases and correlated (Eq. 5'),
        as the joint denoiser takes it to be. Latents that are handed to pipelines stay as they are.
    schedulers
        ``{name: attribute}`` of pipelines whose scheduler is not called ``scheduler``.
    device
        where contents are combined; the first pipeline's by default. Half precision is combined in float32.
    on_step
        called after every joint denoising with a `LockstepState`, for recording: a function, or several.
    progress
        whether to show one progress bar, of the steps of all; the pipelines' own are off.

    Only one pipeline has activations at a time; of the others, latents, embeddings and weights stay. Gradient,
    inference and autocast modes are those of the caller. Pipelines get their schedulers back in the end, exceptions and
    interrupts included; an interrupt waits for the pass through a network that is under way.

    Raises PipelineError, naming the trajectory, with the pipeline's own exception as its cause; StepCountError;
    ParameterError;
    UnknownNameError, ShapeError, BatchError for calls that do not fit the graph; UnsupportedSchedulerError;
    UnsupportedError; NotFiniteError, naming trajectory and step.

    Two pipelines of contents N(0, 1), one of them with half as many steps (`attach` has the same pipeline):

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> class Pipeline:
    ...     def __init__(self):
    ...         self.scheduler = DDIMScheduler(clip_sample=False)
    ...     def __call__(self, latents, steps):
    ...         self.scheduler.set_timesteps(steps)
    ...         for t in self.scheduler.timesteps:
    ...             output = (1 - self.scheduler.alphas_cumprod[t]) ** 0.5 * latents
    ...             latents = self.scheduler.step(output, t, latents).prev_sample
    ...         return latents
    >>> generator = torch.Generator().manual_seed(0)
    >>> noise = {name: torch.randn(1000, 1, generator=generator) for name in (0, 1)}
    >>> calls = {0: ps.Call(Pipeline(), noise[0], steps=20), 1: ps.Call(Pipeline(), noise[1], steps=10)}
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> result = ps.synchronize(calls, graph, align="level", progress=False)
    >>> round(torch.corrcoef(torch.cat([result[0], result[1]], 1).T)[0, 1].item(), 1)
    0.8
    """
    from tqdm.auto import tqdm

    start = time.perf_counter()
    joint = joint_denoiser(graph, posterior_covariance, noise_correlation, couple, canvas_weights)
    if align not in (None, "level"):
        raise ParameterError(f"align={align!r} is neither None nor 'level'", align=align)
    layouts, schedulers = layouts or {}, schedulers or {}
    _check_names(graph, calls, layouts=layouts, schedulers=schedulers)
    sharing = _sharing(joint) if shared_noise else set()
    nodes, pipes = [], list[Any]()
    for name in graph.trajectories:
        pipe = calls[name].pipe
        if any(pipe is other for other in pipes):
            pipe = copy.copy(pipe)  # its own scheduler, the same weights
        pipes.append(pipe)
        rows = _rows(graph, name, layouts.get(name))
        nodes.append(_Node(name, pipe, calls[name], rows, schedulers.get(name, "scheduler"), name in sharing))
    run = _Run(nodes, joint, align, device, on_step)
    with ExitStack() as stack:
        for node in nodes:
            node.hook(stack)
        # Closed in reverse: first all are told to stop, then each is waited for, then the pipelines are restored.
        for node in nodes:
            stack.callback(node.worker.wait)
        for node in nodes:
            stack.callback(node.worker.stop)
        with tqdm(total=None, disable=not progress, desc="lockstep", leave=False) as bar:
            run.to_the_end(bar)
    timing = {"pipelines": {n.name: n.seconds for n in nodes}, "engine": run.seconds}
    info = {
        "schedulers": {n.name: type(n.stock).__name__ for n in nodes},
        "steps": {n.name: n.steps for n in nodes},
        "joint_denoisings": len(run.capped),
        "capped": sum(run.capped) / max(1, len(run.capped)),
        "capped_per_step": run.capped,
        "guard": run.guard.rule,
    }
    outputs = {n.name: n.worker.result for n in nodes}
    timing["total"] = time.perf_counter() - start
    return LockstepResult(outputs, run.samples(), timing, info, graph)


class _Draws(NamedTuple):
    """A worker stands where its pipeline has drawn noise for its latents, and waits for what to use instead."""

    white: Tensor  # (k, *shape)


class _Node:
    """One trajectory: its pipeline, and the owner of its scheduler's hook."""

    def __init__(self, name: Name, pipe: Any, call: Call, rows: Rows, attribute: str, shares: bool):
        self.name, self.pipe, self.call, self.rows, self.attribute, self.shares = (
            name, pipe, call, rows, attribute, shares,
        )  # fmt: skip
        self.stock = stock_scheduler(pipe, attribute, own_noise=not shares)
        self.scheduler = hooked(self.stock, self)
        self.worker = Worker(repr(name), self._run)
        self.steps, self.seconds = 0, 0.0
        self.left: Tensor | None = None  # what the last step returned

    def hook(self, stack: ExitStack) -> None:
        """Put the hooked scheduler in the pipeline and switch its progress bar off, until `stack` closes."""
        vars(self.pipe).pop("_num_timesteps", None)  # of an earlier call
        _swap(stack, self.pipe, self.attribute, self.scheduler)
        if hasattr(self.pipe, "set_progress_bar_config"):
            before = getattr(self.pipe, "_progress_bar_config", {})
            _swap(stack, self.pipe, "_progress_bar_config", {**before, "disable": True})

    def _run(self) -> Any:
        # diffusers draws by functions of modules, which are substituted per thread
        noise = mapped_noise([self.pipe, self.stock], self._follow) if self.shares else nullcontext()
        with noise:
            return self.pipe(*self.call.args, **self.call.kwargs)

    def _follow(self, drawn: Tensor) -> Tensor:
        return self.rows.mapped(drawn, lambda white: {self.name: self.worker.park(_Draws(white[self.name]))})

    def step(self, stock: Callable[..., Any], scheduler: Any, call: inspect.BoundArguments) -> Any:
        """What the hooked scheduler does: show the denoised content, wait for the joint one, go on with that."""
        if not self.worker.here:  # somebody kept the scheduler, and the run is over
            return stock(*call.args, **call.kwargs)
        reading = read(scheduler, call)
        joint = self.worker.park(reading)
        with torch.no_grad():
            corrected = reading.replace(self.rows.join({self.name: joint}))
        result = proceed(stock, call, reading, corrected)
        self.left = result[0]
        self.steps += 1
        return result

    def advance(self, answer: Tensor | None) -> None:
        """Let the pipeline run to its next step, draw or end. Raises PipelineError."""
        start = time.perf_counter()
        self.worker.advance(answer)
        self.seconds += time.perf_counter() - start
        error = self.worker.error
        if error is None:
            return
        if not isinstance(error, Exception):  # an interrupt or exit is not a failure
            raise error
        raise PipelineError(
            f"the pipeline of {self.name!r} ({type(self.pipe).__name__}) failed at its step {self.steps}: "
            f"{type(error).__name__}: {error}",
            name=self.name,
            step=self.steps,
        ) from error

    @property
    def reading(self) -> Reading | None:
        """What its scheduler was handed, if it stands at a step."""
        request = self.worker.request
        return request if isinstance(request, Reading) else None

    @property
    def place(self) -> str:
        """For messages."""
        if not self.worker.ended:
            return f"{self.name!r} is at its step {self.steps}"
        interrupted = " by an interrupt" if getattr(self.pipe, "interrupt", False) is True else ""
        return f"{self.name!r} ended{interrupted} after {self.steps} steps"

    def contents(self) -> tuple[Tensor, Tensor, NoiseLevel]:
        """Noisy and denoised content ``(k, *shape)`` and level; of a finished one, what it delivered."""
        if (reading := self.reading) is None:
            return self.delivered, self.delivered, DELIVERED
        return self._split(reading.noisy), self._split(reading.denoised), reading.level

    @property
    def delivered(self) -> Tensor:
        """What its last step returned, ``(k, *shape)``, at least in float32."""
        assert self.left is not None
        content = self._split(self.left)
        return content.float() if content.dtype in (torch.float16, torch.bfloat16) else content

    def _split(self, tensor: Tensor) -> Tensor:
        if not self.rows.matches(tensor.shape):
            expected = self.rows.shape if self.rows.layout is None else self.rows.layout.out_shape
            raise ShapeError(
                f"the pipeline of {self.name!r} steps latents of shape {tuple(tensor.shape)}, its trajectory needs "
                f"(k, {', '.join(map(str, expected))}) with k joint samples; give the trajectory the shape of the "
                "latents, or layouts= a map to them where they are packed",
                name=self.name,
                expected=tuple(expected),
                got=tuple(tensor.shape),
            )
        return self.rows.split(tensor)[self.name]


class _Run:
    """The caller's side: who goes next, and with which joint content."""

    def __init__(
        self,
        nodes: list[_Node],
        joint: JointDenoiser,
        align: str | None,
        device: torch.device | str | None,
        on_step: OnStep,
    ):
        self.nodes, self.joint, self.align, self.on_step = nodes, joint, align, as_callbacks(on_step)
        self.device = None if device is None else torch.device(device)
        self.seconds, self.capped, self.guard = 0.0, list[float](), Guard()

    def to_the_end(self, bar: Any) -> None:
        next_: list[tuple[_Node, Tensor | None]] = [(node, None) for node in self.nodes]
        while next_:
            for node, answer in next_:
                node.advance(answer)
            if drawn := [node for node in self.nodes if isinstance(node.worker.request, _Draws)]:
                next_ = self._follow(drawn)
                continue
            moving = self._moving()
            if not self.capped and moving:
                bar.total = sum(_expected(node) or len(node.scheduler.timesteps) for node in self.nodes)
            bar.update(len(moving))
            next_ = self._denoise(moving) if moving else []

    def samples(self) -> dict[Name, Tensor]:
        """The last latents of every trajectory, and the canvases that they show."""
        contents = self._together({node.name: node.delivered for node in self.nodes})
        return self.joint.carriers.complete(contents)

    def _moving(self) -> list[_Node]:
        """The pipelines that step next. Raises StepCountError."""
        parked = [node for node in self.nodes if node.reading is not None]
        ended = [node for node in self.nodes if node.worker.ended]
        for node in ended:
            if node.steps == 0:
                raise StepCountError(
                    f"the pipeline of {node.name!r} ended without a step of its {node.attribute!r}; name the attribute "
                    "that holds the scheduler it steps with schedulers={name: attribute}",
                    name=node.name,
                    steps={n.name: n.steps for n in self.nodes},
                )
        if self.align == "level" and parked:
            levels = {node.name: node.reading.level for node in parked if node.reading is not None}
            noisiest = min(levels.values(), key=lambda level: float(level.snr))
            return [node for node in parked if same_level(levels[node.name], noisiest)]
        counts = {node.name: _expected(node) for node in self.nodes}
        known = {name: n for name, n in counts.items() if n is not None}
        early = not self.capped and len(set(known.values())) > 1
        if early or (parked and ended):
            what = ", ".join(f"{name!r} {n}" for name, n in list(known.items())[:8])
            where = f"pipelines take different numbers of steps ({what})" if early else (
                f"{ended[0].place} while {parked[0].place}"
            )  # fmt: skip
            raise StepCountError(
                f"{where}; give their calls the same num_inference_steps, or align='level'",
                name=(ended or self.nodes)[0].name,
                steps=known if early else {node.name: node.steps for node in self.nodes},
            )
        return parked

    def _denoise(self, moving: list[_Node]) -> list[tuple[_Node, Tensor | None]]:
        """The joint contents of all, for those that move. Raises NotFiniteError, BatchError, UnsupportedError."""
        start, step = time.perf_counter(), len(self.capped)
        noisy, denoised, levels = dict[Name, Tensor](), dict[Name, Tensor](), dict[Name, NoiseLevel]()
        for node in self.nodes:
            noisy[node.name], denoised[node.name], levels[node.name] = node.contents()
            check_output({node.name: denoised[node.name]}, node.steps)
        found, noisy, denoised = self._engine(noisy, denoised, levels, step)
        answers: list[tuple[_Node, Tensor | None]] = []
        for node in moving:
            assert node.reading is not None
            answers.append((node, found.mean[node.name].to(node.reading.denoised)))
        self.seconds += time.perf_counter() - start
        self.capped.append(found.capped)
        self.guard = found.guard
        if self.on_step:
            names = [node.name for node in moving]
            state = LockstepState(step, names, levels, noisy, denoised, found.mean, found.capped, found.guard)
            for callback in self.on_step:
                callback(state)
        return answers

    def _engine(
        self,
        noisy: dict[Name, Tensor],
        denoised: dict[Name, Tensor],
        levels: dict[Name, NoiseLevel],
        step: int,
    ) -> tuple[JointDenoised, dict[Name, Tensor], dict[Name, Tensor]]:
        """The joint denoiser on one device, in the widest dtype of all."""
        noisy, denoised = self._together(noisy), self._together(denoised)
        try:
            with full_precision():
                return self.joint(noisy, denoised, levels), noisy, denoised
        except UnsupportedError as error:
            raise UnsupportedError(f"step {step}: {error}", **{**error.data, "step": step}) from None

    def _follow(self, drawn: list[_Node]) -> list[tuple[_Node, Tensor | None]]:
        """Noise shared and correlated between the pipelines that have drawn it. Raises UnsupportedError."""
        absent = next((node for node in self.nodes if node.shares and node not in drawn), None)
        if absent is not None:
            raise UnsupportedError(
                f"{drawn[0].name!r} draws noise after {drawn[0].steps} steps that {absent.name!r} should share, but "
                f"{absent.place}; take schedulers that are all deterministic or all stochastic, give "
                "latents= to all calls or to none, or pass shared_noise=False",
                name=drawn[0].name,
                other=absent.name,
            )
        white = self._together({node.name: node.worker.request.white for node in drawn})
        like = next(iter(white.values()))
        # Who shares nothing has drawn its own noise already.
        every = {n.name: white.get(n.name, like.new_zeros(len(like), *n.rows.shape)) for n in self.nodes}
        with full_precision():
            noise = follow(self.joint, every)
        return [(node, noise[node.name]) for node in drawn]

    def _together(self, contents: dict[Name, Tensor]) -> dict[Name, Tensor]:
        """Contents on one device and in one dtype, at least float32. Raises BatchError."""
        first, *others = contents
        for name in others:
            if len(contents[name]) != len(contents[first]):
                raise BatchError(
                    f"the pipeline of {first!r} has {len(contents[first])} rows and that of {name!r} has "
                    f"{len(contents[name])}; rows are joint samples, so give all calls as many prompts or images",
                    name=name,
                )
        dtype = torch.float32
        for content in contents.values():
            dtype = torch.promote_types(dtype, content.dtype)
        device = self.device or contents[first].device
        return {name: content.to(device=device, dtype=dtype) for name, content in contents.items()}


def _expected(node: _Node) -> int | None:
    """How many steps a pipeline of diffusers says it will take; None of others."""
    count = vars(node.pipe).get("_num_timesteps")
    return count if isinstance(count, int) and count > 0 else None


def _sharing(joint: JointDenoiser) -> set[Name]:
    """The trajectories whose noise depends on that of others."""
    names = {name for name, view in joint.carriers.views.items() if view.index is not None}
    if joint.correlates and joint.noise is not None:
        names |= set(joint.noise.names)
    return names & set(joint.graph.trajectories)


def _rows(graph: FactorGraph, name: Name, layout: LinearMap | None) -> Rows:
    shape = graph.shape(name)
    if layout is not None and tuple(layout.in_shape) != tuple(shape):
        raise ShapeError(
            f"layouts: that of {name!r} takes contents of shape {tuple(layout.in_shape)}, its trajectory has {shape}",
            name=name,
        )
    return Rows([name], shape, 0, layout)


def _check_names(graph: FactorGraph, calls: Mapping[Name, Call], **others: Mapping[Name, Any]) -> None:
    """Raises UnknownNameError, ParameterError."""
    if not isinstance(calls, Mapping) or not calls:
        raise ParameterError(
            "calls is no dictionary {name: Call(pipe, ...)} with an entry for every trajectory"
        )
    missing = [name for name in graph.trajectories if name not in calls]
    if missing:
        raise UnknownNameError(
            f"calls: {missing[0]!r} is missing; every trajectory has a pipeline", name=missing[0]
        )
    for what, given in {"calls": calls, **others}.items():
        for name in given:
            if name not in graph.trajectories:
                raise UnknownNameError(
                    f"{what}: {name!r} is no trajectory of the graph, which has {listed(graph.trajectories)}",
                    name=name,
                )
    for name, call in calls.items():
        if not isinstance(call, Call):
            raise ParameterError(
                f"calls: that of {name!r} is a {type(call).__name__}; write Call(pipe, prompt=..., ...)",
                name=name,
            )


def _swap(stack: ExitStack, thing: Any, attribute: str, value: Any) -> None:
    """Set an attribute until `stack` closes."""
    missing = object()
    before = getattr(thing, attribute, missing)

    def restore() -> None:
        if before is missing:
            delattr(thing, attribute)
        else:
            setattr(thing, attribute, before)

    stack.callback(restore)
    setattr(thing, attribute, value)
