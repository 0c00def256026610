"""Running tasks: one method, or many on the same seeds with measures and costs."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import peers
from ..errors import NotFiniteError, ParameterError, PgmSyncError, UnknownNameError, listed
from ..evaluation import Cost, CostMeter, Scoreboard, method_sheet
from ..graph import FactorGraph
from ..graph.serialization import write_atomically
from ..inspection.images import png
from ..inspection.recorder import Recorder
from ..inspection.recording import Recording
from ..inspection.storage import HEADER
from ..sampling import sample
from ..score.schedule import fitted
from .base import Measure, Results, Scene, Task

OURS = "learned"
REFERENCE = "real"  # the row of real results, where a task has them
TUNED = " (tuned)"  # of a published method whose options were chosen on validation seeds
SHOWN = 6
RECORDED = ("noisy", "denoised", "joint", "correction", "disagreement")
MOST_RECORDED = 24  # trajectories and canvases whose pictures a run keeps
WIDTH = 96  # of a picture in a sheet, in pixels, at least roughly


@dataclass
class Comparison:
    """What `compare` made: numbers, results of the first seeds, and what was tuned."""

    task: Task
    board: Scoreboard
    measures: Sequence[Measure]  # the task's
    contents: dict[str, Tensor] = field(default_factory=dict)  # (at most SHOWN, *shape) by method
    tunings: dict[str, Any] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)  # methods without a result, and why

    def sheet(self) -> Any:
        """A picture: a row per seed, a column per method."""
        return _sheet({name: self.task.pictures(x) for name, x in self.contents.items()})

    def write(self, folder: str | Path) -> list[Path]:
        """The sheet of pictures, and what was tuned and what diverged, as text; returns the paths."""
        files = {}
        if self.contents:
            files[".png"] = png(self.sheet())
        notes = [f"{name}\n\n{tuning}" for name, tuning in self.tunings.items()]
        notes += [f"{name} diverged: {why}" for name, why in self.diverged.items()]
        if notes:
            files[".txt"] = ("\n\n".join(notes) + "\n").encode()
        paths = [Path(folder) / f"{self.task.name}{suffix}" for suffix in files]
        for path, content in zip(paths, files.values(), strict=True):
            write_atomically(path, content)
        return paths


def methods(task: Task) -> dict[str, str | None]:
    """All methods, ours first, and for published ones that do not apply to the task, the reason."""
    scene = task.scene
    ours: dict[str, str | None] = dict.fromkeys(_ours(scene))
    return {**ours, **{name: peers.why_not(name, scene.graph) for name in peers.methods()}}


def _ours(scene: Scene) -> dict[str, dict[str, Any]]:
    """Variants of ours by name: "learned", "learned: surrogate C"."""
    return {OURS if not key else f"{OURS}: {key}": value for key, value in (scene.options or {"": {}}).items()}


def sample_method(
    task: Task,
    method: str,
    num_samples: int,
    num_inference_steps: int = 50,
    seed: int = 0,
    *,
    batch: int | None = None,
    meter: CostMeter | None = None,
    progress: bool = True,
    **options: Any,
) -> Results:
    """Joint samples of a task by one method, ours or published, from the seeds ``seed, seed + 1, ...``.

    `batch` joint samples at once, all by default; `options` are those of `ps.sample` or `peers.sample`. Raises
    UnknownNameError, UnsupportedError where a method does not apply, ParameterError, and what the sampler raises.
    """
    if num_samples < 1 or (batch is not None and batch < 1):
        raise ParameterError(f"num_samples={num_samples} and batch={batch} must be at least 1")
    if batch is not None and batch < num_samples:
        given = {"meter": meter, "progress": progress, **options}
        parts = []
        for k in range(0, num_samples, batch):
            size = min(batch, num_samples - k)
            parts.append(sample_method(task, method, size, num_inference_steps, seed + k, **given))
            given.pop("on_step", None)  # a recorder records one run: that of the first batch
        return join(parts)
    scene, seeds = task.scene, list(range(seed, seed + num_samples))
    denoisers = scene.denoisers if meter is None else meter.count(scene.denoisers)
    common = {"conditions": task.conditions(seeds), "progress": progress, "device": scene.device, **options}
    ours = _ours(scene)
    graph = graph_of(task, method)
    common.setdefault("initial_noise", task.initial_noise(seeds, num_inference_steps, graph))
    if method in ours:
        common = {**ours[method], **common}
        result = sample(graph, denoisers, scene.scheduler, num_inference_steps, num_samples, seeds, **common)
    elif method in peers.methods():
        result = peers.sample(
            method, graph, denoisers, scene.scheduler, num_inference_steps, num_samples, seeds, **common
        )
    else:
        known = [*ours, *peers.methods()]
        raise UnknownNameError(f"no method is called {method!r}; there are {listed(known, 40)}", name=method)
    return Results(task.content(result.samples), result.samples, seeds)


def compare(
    task: Task,
    chosen: Iterable[str] | None = None,
    num_samples: int = 200,
    num_inference_steps: int = 50,
    seed: int = 0,
    *,
    tuned: Sequence[str] = ("syncsde", "syncsde-implicit"),
    validation: int = 64,
    batch: int | None = None,
    board: Scoreboard | None = None,
    progress: bool = True,
) -> Comparison:
    """Measure methods on the same seeds.

    Parameters
    ----------
    chosen
        methods, as `methods` names them; by default all that apply. "real" stands for real results.
    tuned
        of the published methods, those that also run with the strength that does best by the task's main measure on
        `validation` seeds of their own.
    batch
        joint samples at once; all by default.
    board
        a scoreboard to add to: what it has already is not run again.

    A method that diverges has no numbers; `Comparison.diverged` says why. Raises UnknownNameError, UnsupportedError.
    """
    board = Scoreboard() if board is None else board
    found = Comparison(task, board, task.measures())
    known = methods(task)
    names = [name for name, reason in known.items() if reason is None] if chosen is None else list(chosen)
    unknown = [name for name in names if name not in known and name != REFERENCE]
    if unknown:
        raise UnknownNameError(f"no method is called {unknown[0]!r}; there are {listed(known, 40)}", name=unknown[0])
    board.main.setdefault(task.name, found.measures[0].name)
    if REFERENCE not in board.aims:
        board.aims.append(REFERENCE)
    for name in names:
        if name == REFERENCE:
            continue
        if not _complete(found, name):
            _run(found, name, name, num_samples, num_inference_steps, seed, batch, {}, progress)
        if name in tuned and not _complete(found, name + TUNED):
            tuning = _tune(found, name, num_inference_steps, seed + num_samples, validation, progress)
            found.tunings[name] = tuning
            options = dict(tuning.best.options)
            _run(found, name + TUNED, name, num_samples, num_inference_steps, seed, batch, options, progress)
    real = task.reference()
    if real is not None and (chosen is None or REFERENCE in names):
        found.contents[REFERENCE] = real[:SHOWN]
        _measure(found, REFERENCE, Results(real, {}, range(len(real))), None)
    return found


def _complete(found: Comparison, label: str) -> bool:
    """Whether the board has all numbers of a method."""
    return all((found.task.name, label, measure.name) in found.board for measure in found.measures)


def _run(
    found: Comparison, label: str, method: str, count: int, steps: int, seed: int, batch: int | None,
    options: dict[str, Any], progress: bool,
) -> None:  # fmt: skip
    with CostMeter(count) as meter:
        try:
            results = sample_method(
                found.task, method, count, steps, seed, batch=batch, meter=meter, progress=progress, **options
            )
        except NotFiniteError as error:
            found.diverged[label] = str(error)
            return
    found.contents[label] = results.content[:SHOWN]
    shown = ", ".join(f"{key} {value:g}" for key, value in options.items())
    _measure(found, label, results, meter.cost, shown)


def graph_of(task: Task, method: str) -> FactorGraph:
    """The graph that a method samples: the learned one for ours, that of the scene for published methods."""
    scene = task.scene
    return scene.learned if method in _ours(scene) and scene.learned is not None else scene.graph


def recorder(task: Task, method: str) -> Recorder | None:
    """What records a run of ours for ``on_step``, small enough to keep beside it; None for published methods."""
    if method not in _ours(task.scene):
        return None
    graph = graph_of(task, method)
    options = _ours(task.scene)[method]
    noise = options.get("noise_correlation", 0.0)
    noise = float(fitted(graph, "noise_correlation")) if isinstance(noise, str) else noise
    covariance = options.get("posterior_covariance")
    variance = float(covariance) if isinstance(covariance, int | float) else None
    images = {"kinds": RECORDED, "trajectories": [*graph.hidden, *graph.trajectories][:MOST_RECORDED]}
    return Recorder(graph, images=images, noise_correlation=noise, variance=variance)


def write_run(
    task: Task, method: str, results: Results, steps: int, folder: str | Path, recording: Recording | None = None
) -> list[Path]:
    """Pictures of all results (PNG), contents and samples (safetensors), a record (JSON), the graph; returns the paths.

    `recording`, if any, takes the place of an earlier one in the folder.
    """
    from safetensors.torch import save

    folder = Path(folder)
    whole = {**{str(name): sample for name, sample in results.samples.items()}, "content": results.content}
    # copies, since a content may be one of the samples
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in whole.items()}
    settings = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}  # type: ignore[arg-type]
    record = {
        "task": task.name,
        "method": method,
        "settings": settings,
        "steps": steps,
        "seeds": list(results.seeds),
        "measures": {m.name: _record(m, results) for m in task.measures()},
        "versions": versions(),
    }
    files = {
        f"{task.name}.png": png(_sheet({method: task.pictures(results.content)})),
        "samples.safetensors": save(tensors),
        "run.json": json.dumps(record, indent=1, default=str).encode(),
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    paths = [folder / name for name in files]
    graph_of(task, method).save(folder / "graph.safetensors")
    paths.append(folder / "graph.safetensors")
    if recording is not None:
        place = folder / "recording"
        if (place / HEADER).exists():
            shutil.rmtree(place)
        recording.save(place)
        paths.append(place)
    return [*paths, *task.files(results.content, folder)]


def _sheet(pictures: dict[str, Tensor]) -> Any:
    """Small pictures are enlarged, pixel by pixel."""
    narrowest = min(shown.shape[-1] for shown in pictures.values())
    return method_sheet(pictures, scale=max(1, round(WIDTH / narrowest)))


def _record(measure: Measure, results: Results) -> dict[str, float] | str:
    try:
        return measure.of(results)._asdict()
    except PgmSyncError as error:  # a few samples are too few for some
        return str(error)


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    names = ("pgm_sync", "torch", "diffusers", "networkx", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def join(parts: Sequence[Results]) -> Results:
    """Results of several batches as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    samples = {name: torch.cat([part.samples[name] for part in parts]) for name in first.samples}
    seeds = [seed for part in parts for seed in part.seeds]
    return Results(torch.cat([part.content for part in parts]), samples, seeds)


def _measure(found: Comparison, label: str, results: Results, cost: Cost | None, note: str = "") -> None:
    for measure in found.measures:
        estimate = measure.of(results)
        if math.isfinite(estimate.value):
            found.board.add(
                found.task.name, label, measure.name, estimate, measure.better, cost, note, replace=True
            )


def _tune(found: Comparison, method: str, steps: int, seed: int, count: int, progress: bool) -> Any:
    """Strengths of a published method, judged by the task's main measure."""
    task, main = found.task, found.measures[0]
    scene = task.scene
    seeds = list(range(seed, seed + count))

    def objective(result: Any) -> float:
        value = main.of(Results(task.content(result.samples), result.samples, seeds)).value
        if main.better == "higher":
            return -value
        return value if main.better == "lower" else abs(value - float(main.better))

    return peers.tune(
        method, scene.graph, scene.denoisers, scene.scheduler, steps, seeds, objective,
        conditions=task.conditions(seeds), initial_noise=task.initial_noise(seeds, steps, scene.graph),
        progress=progress, device=scene.device,
    )  # fmt: skip
