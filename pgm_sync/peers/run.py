"""What every preset needs: checked arguments, noise, answers of the denoisers, steps of the schedulers."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..denoisers.prediction import mean_part
from ..errors import ParameterError, UnknownNameError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..levels import NoiseLevel
from ..sampling import SampleResult, sampling_steps, step_noise
from ..sampling.asking import ask
from ..sampling.clock import PARTS, Clock
from ..sampling.coordinates import Coordinates, clipping, coordinates, initial_scale, noise_level
from ..sampling.memory import peak_memory
from ..sampling.noise import NoiseSource, as_seeds
from ..score import JointDenoiser
from .projection import Projection, apart, structure

NOISES = ("shared", "own")


class Answers(NamedTuple):
    """What all denoisers say of one state; dictionaries by trajectory."""

    outputs: dict[Name, Tensor]  # as the scheduler would be handed them
    denoised: dict[Name, Tensor]  # the contents in them
    shown: dict[Name, Tensor]  # clipped where the scheduler clips
    level: NoiseLevel
    where: Coordinates


@dataclass
class Run:
    """The arguments of a preset after the checks, and what it has cost so far."""

    graph: FactorGraph
    names: list[Name]  # of all that is denoised: the trajectories, and for DiffCollage their overlaps
    denoisers: dict[Name, Denoiser]
    conditions: dict[Name, Any]
    scheduler: Any
    steps: int
    seeds: list[int]
    initial_noise: Mapping[Name, Tensor] | None
    device: torch.device
    dtype: torch.dtype
    progress: bool
    chunk: int | None
    step_options: dict[str, Any]
    asked: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.clock = Clock(self.seconds)

    @property
    def num_samples(self) -> int:
        """Joint samples."""
        return len(self.seeds)

    def schedulers(self, keys: Sequence[Any]) -> dict[Any, Any]:
        """A scheduler for each of `keys`, with a memory of its own."""
        own = {}
        for key in keys:
            own[key] = copy.deepcopy(self.scheduler)
            own[key].set_timesteps(self.steps, device=self.device)
        return own

    def timesteps(self, schedulers: Mapping[Any, Any]) -> Iterator[tuple[int, Any]]:
        """Number and timestep of every step, with a bar."""
        from tqdm.auto import tqdm

        timesteps = next(iter(schedulers.values())).timesteps
        yield from tqdm(list(enumerate(timesteps)), disable=not self.progress, desc="sampling", leave=False)

    def ask(self, noisy: Mapping[Name, Tensor], scheduler: Any, timestep: Any, step: int) -> Answers:
        """Every denoiser about its state. Raises ShapeError, NotFiniteError, naming trajectory and step."""
        self.clock.lap("engine")
        level, where = noise_level(scheduler, timestep), coordinates(scheduler, timestep)
        # Of networks that predict a variance too, other schedulers take the first half
        learned = getattr(scheduler.config, "variance_type", None) in ("learned", "learned_range")
        clip = clipping(scheduler) or (lambda denoised: denoised)
        answers = ask(self.denoisers, noisy, level, where, self.conditions, {}, self.chunk, step)
        outputs, denoised = {}, {}
        for name, answer in answers.items():
            outputs[name] = answer.output if learned else mean_part(answer.output, noisy[name], 1)
            denoised[name] = answer.mean
        self.asked += len(self.names)
        shown = {name: clip(content) for name, content in denoised.items()}
        self.clock.lap("denoiser")
        return Answers(outputs, denoised, shown, level, where)

    def step(
        self,
        scheduler: Any,
        output: Tensor,
        timestep: Any,
        state: Tensor,
        draw: Callable[[tuple[int, ...]], Tensor],
    ) -> Tensor:
        """One step of a scheduler, whose noise, if it wants any, is drawn from outside."""
        self.clock.lap("engine")
        with step_noise(scheduler, draw):
            after = scheduler.step(output, timestep, state, return_dict=False, **self.step_options)[0]
        self.clock.lap("scheduler")
        return after

    def result(self, samples: Mapping[Name, Tensor], method: str, **info: Any) -> SampleResult:
        """What `ps.sample` returns, for this preset."""
        self.clock.lap("engine")
        known = {
            "method": method,
            "scheduler": type(self.scheduler).__name__,
            "steps": self.steps,
            "seeds": self.seeds,
            "denoiser_evaluations": self.asked,
            "capped": 0.0,
            "peak_memory": peak_memory(self.device),
            **info,
        }
        timing = {**self.seconds, "total": time.perf_counter() - self.started}
        return SampleResult(dict(samples), timing, known, self.graph)


def prepare(
    graph: FactorGraph,
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    num_inference_steps: int = 50,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    *,
    conditions: Any = None,
    initial_noise: Mapping[Name, Tensor] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
    chunk: int | None = None,
    **step_options: Any,
) -> Run:
    """The arguments of `peers.sample`, under the checks of `ps.sample`, whose errors it raises."""
    for option in step_options:
        if option in inspect.signature(sampling_steps).parameters:
            raise ParameterError(
                f"{option!r} is for the joint model of ps.sample; no peer takes it", option=option
            )
    # Nothing is sampled here: the checks are made when the generator is built
    sampling_steps(
        apart(graph), denoisers, scheduler, num_inference_steps, num_samples, seed,
        conditions=conditions, chunk=chunk, device=device, dtype=dtype, **step_options,
    )  # fmt: skip
    names = graph.trajectories
    chosen = {name: denoisers[name] if isinstance(denoisers, Mapping) else denoisers for name in names}
    given = {name: conditions.get(name) if isinstance(conditions, Mapping) else conditions for name in names}
    return Run(
        graph, names, chosen, given, scheduler, num_inference_steps, as_seeds(seed, num_samples), initial_noise,
        torch.device(device), dtype, progress, chunk, step_options,
    )  # fmt: skip


class Noise:
    """Initial and step noise, from the streams of `ps.sample`: a trajectory's or canvas's own seed and name fix it.

    "shared": trajectories show the noise of their canvas wherever that stays white, as in `ps.sample`. "own": every
    trajectory has its own.
    """

    def __init__(self, run: Run, projection: Projection, kind: str):
        if kind not in NOISES:
            raise ParameterError(f"noise={kind!r} is neither {' nor '.join(map(repr, NOISES))}", noise=kind)
        self.projection, self.kind = projection, kind
        graph = apart(run.graph) if kind == "own" else structure(run.graph)
        extra = [name for name in run.names if name not in graph]
        for name in extra:  # overlaps of trajectories, which no graph has
            graph.add_trajectory(name, run.denoisers[name].shape)
        extra += [name for name in run.names if kind == "shared" and self._follows(run, name)]
        for canvas in projection.canvases:
            if canvas.name is not None and canvas.name not in graph:
                graph.add_trajectory(canvas.name, canvas.shape)
                extra.append(canvas.name)
        joint = JointDenoiser(graph)
        self.source = NoiseSource(joint, run.seeds, run.device, run.dtype)
        self.carriers = joint.carriers
        self.names = run.names
        self._first = self.source.draw() if run.initial_noise is None or extra else []
        if run.initial_noise is not None:
            self._first = self.source.given(self._completed(run.initial_noise, extra))
        self.next_step()

    def _completed(self, given: Mapping[Name, Tensor], extra: Sequence[Name]) -> dict[Name, Tensor]:
        """The user's noise, and the seeds' for what `ps.sample` does not know of."""
        drawn = dict(zip([c.name for c in self.carriers.carriers], self._first, strict=False))
        return {**{name: drawn[name] for name in extra if name in drawn}, **given}

    def _follows(self, run: Run, name: Name) -> bool:
        """Whether all noise of a trajectory is a canvas's."""
        sights = self.projection.sights.get(name, [])
        size = torch.Size(run.denoisers[name].shape).numel()
        return not self.projection.partial(name, size) and all(sight.white for sight in sights)

    def first(self) -> tuple[dict[Name, Tensor], list[Tensor | None]]:
        """White noise to start from, by trajectory and by canvas; the latter None where only trajectories have any."""
        return self._shown(self._first)

    def next_step(self) -> None:
        """Forget the noise of the last step."""
        self._drawn: list[tuple[dict[Name, Tensor], list[Tensor | None]]] = []
        self._used: dict[Any, int] = {}

    def of(self, name: Name) -> Callable[[tuple[int, ...]], Tensor]:
        """What `step_noise` asks for a trajectory."""
        return self._draw(("trajectory", name), lambda noises: noises[0][name])

    def on(self, k: int) -> Callable[[tuple[int, ...]], Tensor]:
        """What `step_noise` asks for canvas k."""
        return self._draw(("canvas", k), lambda noises: noises[1][k])

    def _draw(self, key: Any, part: Callable[[Any], Tensor | None]) -> Callable[[tuple[int, ...]], Tensor]:
        def draw(shape: tuple[int, ...]) -> Tensor:
            k = self._used.get(key, 0)
            self._used[key] = k + 1
            while len(self._drawn) <= k:
                self._drawn.append(self._shown(self.source.draw()))
            noise = part(self._drawn[k])
            assert noise is not None
            return noise

        return draw

    def _shown(self, draws: list[Tensor]) -> tuple[dict[Name, Tensor], list[Tensor | None]]:
        noises = {name: self.carriers.view(draws, name) for name in self.names}
        canvases: list[Tensor | None] = []
        for k, canvas in enumerate(self.projection.canvases):
            canvases.append(self._canvas(k, canvas.name, draws))
        if self.kind == "shared":
            for name in self.names:
                for sight in self.projection.sights.get(name, []):
                    noise = canvases[sight.canvas]
                    if noise is not None and sight.white:
                        noises[name] = sight.put(sight.apply(noise), noises[name])
        return noises, canvases

    def _canvas(self, k: int, name: Name | None, draws: list[Tensor]) -> Tensor | None:
        if name is not None:
            return self.carriers.view(draws, name)
        if self.kind == "own":
            return None
        member = next(n for n, sights in self.projection.sights.items() if any(s.canvas == k for s in sights))
        return draws[self.carriers.views[member].carrier]


def scaled(noise: Tensor, scheduler: Any) -> Tensor:
    """Standard normal noise as the state that the scheduler starts from."""
    return noise * initial_scale(scheduler)


def known(graph: FactorGraph, names: Sequence[Name], what: str) -> None:
    """Raises UnknownNameError unless all are trajectories."""
    for name in names:
        if name not in graph.trajectories:
            raise UnknownNameError(f"{what} names {name!r}, which is no trajectory of the graph", name=name)
