"""Running tasks: one method, or many on the same seeds with measures and costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import peers
from ..errors import NotFiniteError, UnknownNameError, listed
from ..evaluation import Cost, CostMeter, Scoreboard, method_sheet
from ..graph.serialization import write_atomically
from ..inspection.images import png
from ..sampling import sample
from .base import Results, Scene, Task

OURS = "learned"
REFERENCE = "real"  # the row of real results, where a task has them
TUNED = " (tuned)"  # of a published method whose options were chosen on validation seeds
SHOWN = 6
DIVERGED = "diverged"


@dataclass
class Comparison:
    """What `compare` made: numbers, results of the first seeds, and what was tuned."""

    task: Task
    board: Scoreboard
    contents: dict[str, Tensor] = field(default_factory=dict)  # (at most SHOWN, *shape) by method
    tunings: dict[str, Any] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)  # methods without a result, and why

    def sheet(self) -> Any:
        """A picture: a row per seed, a column per method."""
        return method_sheet({name: self.task.pictures(x) for name, x in self.contents.items()})

    def write(self, folder: str | Path) -> list[Path]:
        """Tables (Markdown, CSV, JSON) and the picture sheet; returns the paths."""
        folder = Path(folder)
        paths = self.board.write(folder, self.task.name)
        write_atomically(folder / f"{self.task.name}.png", png(self.sheet()))
        return [*paths, folder / f"{self.task.name}.png"]


def methods(task: Task) -> dict[str, str | None]:
    """All methods, ours first, and for published ones that do not apply to the task, the reason."""
    scene = task.scene()
    ours: dict[str, str | None] = dict.fromkeys(_ours(scene))
    return {**ours, **{name: peers.why_not(name, scene.graph) for name in peers.methods()}}


def _ours(scene: Scene) -> dict[str, dict[str, Any]]:
    """Variants of ours by name: "learned", "learned, denoiser's C"."""
    return {OURS if not key else f"{OURS}, {key}": value for key, value in (scene.options or {"": {}}).items()}


def sample_method(
    task: Task,
    method: str,
    num_samples: int,
    num_inference_steps: int = 50,
    seed: int = 0,
    *,
    meter: CostMeter | None = None,
    progress: bool = True,
    **options: Any,
) -> Results:
    """Joint samples of a task by one method, ours or published, from the seeds ``seed, seed + 1, ...``.

    Raises UnknownNameError, UnsupportedError where a method does not apply, and what the sampler raises.
    """
    scene, seeds = task.scene(), list(range(seed, seed + num_samples))
    denoisers = scene.denoisers if meter is None else meter.count(scene.denoisers)
    common = {"conditions": task.conditions(seeds), "progress": progress, **options}
    ours = _ours(scene)
    if method in ours:
        graph = scene.graph if scene.learned is None else scene.learned
        common = {**ours[method], **common}
        result = sample(graph, denoisers, scene.scheduler, num_inference_steps, num_samples, seeds, **common)
    elif method in peers.methods():
        common = {**scene.peers.get(method, {}), **common}
        result = peers.sample(
            method, scene.graph, denoisers, scene.scheduler, num_inference_steps, num_samples, seeds, **common
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
    found = Comparison(task, board)
    known = methods(task)
    names = [name for name, reason in known.items() if reason is None] if chosen is None else list(chosen)
    unknown = [name for name in names if name not in known and name != REFERENCE]
    if unknown:
        raise UnknownNameError(f"no method is called {unknown[0]!r}; there are {listed(known, 40)}", name=unknown[0])
    board.main.setdefault(task.name, task.measures()[0].name)
    for name in names:
        if name == REFERENCE:
            continue
        runs: list[tuple[str, dict[str, Any]]] = [(name, {})]
        if name in tuned:
            tuning = _tune(task, name, num_inference_steps, seed + num_samples, validation, progress)
            found.tunings[name] = tuning
            if tuning is not None:
                runs.append((name + TUNED, dict(tuning.best.options)))
        for label, options in runs:
            if all((task.name, label, measure.name) in board for measure in task.measures()):
                continue
            _run(found, label, name, num_samples, num_inference_steps, seed, batch, options, progress)
    real = task.reference()
    if real is not None and (chosen is None or REFERENCE in names):
        found.contents[REFERENCE] = real[:SHOWN]
        _measure(found, REFERENCE, Results(real, {}, range(len(real))), None)
    return found


def _run(
    found: Comparison, label: str, method: str, count: int, steps: int, seed: int, batch: int | None,
    options: dict[str, Any], progress: bool,
) -> None:  # fmt: skip
    parts = []
    size = count if batch is None else batch
    with CostMeter(count) as meter:
        try:
            for start in range(0, count, size):
                parts.append(
                    sample_method(
                        found.task, method, min(size, count - start), steps, seed + start, meter=meter,
                        progress=progress, **options,
                    )
                )  # fmt: skip
        except NotFiniteError as error:
            found.diverged[label] = str(error)
            return
    results = join(parts)
    found.contents[label] = results.content[:SHOWN]
    shown = ", ".join(f"{key} {value:g}" for key, value in options.items())
    _measure(found, label, results, meter.cost, shown)


def join(parts: Sequence[Results]) -> Results:
    """Results of several batches as one."""
    import torch

    first = parts[0]
    if len(parts) == 1:
        return first
    samples = {name: torch.cat([part.samples[name] for part in parts]) for name in first.samples}
    seeds = [seed for part in parts for seed in part.seeds]
    return Results(torch.cat([part.content for part in parts]), samples, seeds)


def _measure(found: Comparison, label: str, results: Results, cost: Cost | None, note: str = "") -> None:
    for measure in found.task.measures():
        estimate = measure.of(results)
        if math.isfinite(estimate.value):
            found.board.add(
                found.task.name, label, measure.name, estimate, measure.better, cost, note, replace=True
            )


def _tune(task: Task, method: str, steps: int, seed: int, count: int, progress: bool) -> Any:
    """The strength of a published method by the task's main measure; None where none gives a finite value."""
    scene, main = task.scene(), task.measures()[0]
    seeds = list(range(seed, seed + count))

    def objective(result: Any) -> float:
        value = main.of(Results(task.content(result.samples), result.samples, seeds)).value
        if main.better == "higher":
            return -value
        return value if main.better == "lower" else abs(value - float(main.better))

    return peers.tune(
        method, scene.graph, scene.denoisers, scene.scheduler, steps, seeds, objective,
        conditions=task.conditions(seeds), progress=progress, **scene.peers.get(method, {}),
    )  # fmt: skip
