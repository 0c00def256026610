"""The task of wide pictures in one go, with pictures, numbers and a report: learned, averaged, and window by window."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ParameterError
from ..evaluation import Scoreboard
from ..graph import FactorGraph
from ..graph.serialization import write_atomically
from ..inspection.correlations import CorrelationTable, correlations
from ..inspection.images import comparison, png, sheet
from ..inspection.inspect import inspect
from ..inspection.report import Metric, Sheet, report
from ..learning import Fit
from ..metrics import Estimate
from .run import OURS, REFERENCE, Comparison, compare, versions
from .wide import Wide

METHODS = {  # of `tasks.run`: what files, titles and captions call them
    OURS: ("learned", "Learned potentials", "Windows share their overlaps and are correlated as in photographs."),
    "multidiffusion": ("averaging", "Averaging", "Windows share their overlaps and know nothing else of each other."),
    "independent": ("independent", "Independent windows", "Each by itself, cut in the middle of the overlaps."),
    REFERENCE: (
        "heldout", "Held-out photographs",
        "What to aim for: crops that neither the denoiser nor the potentials have seen.",
    ),
}  # fmt: skip
STAGES = ("graph", "learned", "averaging", "independent", "report")


@dataclass
class Demo:
    """What `run` has made so far; a method appears when it is done."""

    task: Wide
    steps: int
    num_samples: int
    seed: int
    made: Comparison
    fitting: float = 0.0  # seconds
    seconds: dict[str, float] = field(default_factory=dict)  # by method

    @property
    def graph(self) -> FactorGraph:
        """The fitted graph."""
        learned = self.task.scene.learned
        assert learned is not None  # the task always learns
        return learned

    @cached_property
    def table(self) -> CorrelationTable:
        """What was learned."""
        return correlations(self.graph)

    def shown(self, method: str) -> Tensor:
        """The first few pictures of a method, ``(n, C, H, W)`` in [0, 1]."""
        return self.task.pictures(self.made.contents[method])

    def write(self, folder: str | Path, stage: str) -> list[Path]:
        """Write what a stage of `run` has made, each file whole or not at all; returns the paths.

        Stages: "graph" (graph.safetensors), "learned", "averaging", "independent" (a PNG each), "report"
        (comparison.png, metrics.json, report.html). Raises ParameterError on another, or on one that is not done yet.
        """
        folder = Path(folder)
        if stage == "graph":
            path = folder / "graph.safetensors"
            self.graph.save(path)
            return [path]
        done = {METHODS[method][0]: method for method in METHODS if method in self.made.contents}
        scale = max(1, round(576 / self.task.width))
        if stage == "report" and len(done) == len(METHODS):
            named = {METHODS[method][1]: self.shown(method) for method in METHODS}
            files = {
                "comparison.png": png(comparison(named, scale=scale)),
                "metrics.json": json.dumps(self.record(), indent=1).encode(),
                "report.html": self.report().encode(),
            }
        elif stage in STAGES and stage in done:
            files = {f"{stage}.png": png(sheet(self.shown(done[stage]), scale=scale))}
        else:
            raise ParameterError(f"stage={stage!r} is none of {', '.join(STAGES)}, or is not done yet")
        for name, content in files.items():
            write_atomically(folder / name, content)
        return [folder / name for name in files]

    @property
    def metrics(self) -> list[Metric]:
        """Every measure of the task, of the methods that are done."""
        board, found = self.made.board, []
        for measure in self.made.measures:
            keys = {METHODS[method][1]: (self.task.name, method, measure.name) for method in METHODS}
            estimates = {title: board[key].estimate for title, key in keys.items() if key in board}
            found.append(Metric(measure.name, measure.what, estimates, METHODS[REFERENCE][1]))
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """Of the task and of the run."""
        own = {f.name: getattr(self.task, f.name) for f in dataclasses.fields(self.task)}
        return {**own, "model": str(own["model"]), "steps": self.steps, "samples": self.num_samples}

    def record(self) -> dict[str, Any]:
        """Everything measured, as JSON data."""
        return {
            "config": self.settings,
            "metrics": {
                metric.name: {
                    title: {key: _finite(value) for key, value in estimate._asdict().items()}
                    for title, estimate in metric.estimates.items()
                }
                for metric in self.metrics
            },
            "seconds": {METHODS[method][1]: value for method, value in self.seconds.items()},
            "correlations": [
                {k: list(v) if isinstance(v, tuple) else _finite(v) for k, v in row.items()}
                for row in self.table.to_dicts()
            ],
            "fit": self.graph.graph.get("fit"),
            "versions": versions(),
        }

    def report(self) -> str:
        """The HTML page."""
        window = self.task.scene.graph.shape(self.task.scene.graph.trajectories[0])[-2:]
        inspected = inspect(self.graph)
        return report(
            "Wide pictures from a patch denoiser",
            f"{len(self.graph.trajectories)} windows of {window[0]} × {window[1]} pixels are denoised together "
            f"into one picture of {self.task.width} × {self.task.height}. What one window should know of the others "
            "was learned from photographs; rows at the same place start from the same seed.",
            [
                Sheet(title, self.shown(method), caption, () if method == REFERENCE else self._spans())
                for method, (_, title, caption) in METHODS.items()
            ],
            self.metrics,
            self.graph,
            self.table,
            {"Fit": {"fit": self.fitting}, **{METHODS[m][1]: {"sampling": s} for m, s in self.seconds.items()}},
            {"Settings": self.settings, "Fit": Fit.of(self.graph).settings(), "Versions": versions()},
            self.command(),
            inspected.model,
            inspected.levels,
            inspected.partial,
        )

    def command(self) -> str:
        """The command line that makes this run again."""
        defaults = {f.name: f.default for f in dataclasses.fields(Wide)} | {"steps": STEPS, "samples": SAMPLES}
        parts = ["pgm-sync demo"]
        for name, value in self.settings.items():
            if name in OPTIONS and value != defaults[name]:
                parts.append(f"--{name}" if value is True else f"--{name} {value}")
        return " ".join(parts)

    def _spans(self) -> list[tuple[float, float]]:
        """Left and right ends of the windows, as shares of the width; parts that wrap around are cut off."""
        views = self.task.views().values()
        width = self.task.scene.graph.shape("canvas")[-1]
        spans = {(view.start[1] / width, min(1.0, (view.start[1] + view.size[1]) / width)) for view in views}
        return sorted(spans)

    def summary(self) -> str:
        """The numbers as a text table."""
        titles = [title for _, title, _ in METHODS.values() if any(title in m.estimates for m in self.metrics)]
        cells = [["", *titles]]
        for metric in self.metrics:
            cells.append([metric.name, *(_brief(metric.estimates.get(title)) for title in titles)])
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
        )


STEPS, SAMPLES = 30, 128
OPTIONS = ("width", "height", "stride", "modes", "wrap", "seed", "device", "steps", "samples")  # of the command line


def run(
    task: Wide | None = None,
    steps: int = STEPS,
    num_samples: int = SAMPLES,
    seed: int = 0,
    progress: bool = True,
    on_stage: Callable[[str, Demo], None] | None = None,
) -> Demo:
    """Learn the correlations between windows of photographs; sample wide pictures with and without them.

    Three ways from the same seeds: with the learned potentials, by averaging, and window by window, measured as the
    task measures. `on_stage` is called with the stage and the run so far after each of `STAGES`.

    Raises ParameterError, ShapeError on settings that do not fit, before anything is learned.
    """
    task = task or Wide()
    for name, value in (("steps", steps), ("num_samples", num_samples)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ParameterError(f"{name}={value!r} must be a positive integer", name=name, value=value)
    tell = on_stage or (lambda stage, so_far: None)
    start = time.perf_counter()
    _ = task.scene
    board = Scoreboard()
    demo = Demo(task, steps, num_samples, seed, Comparison(task, board, []), time.perf_counter() - start)
    tell("graph", demo)
    for method, (stage, _, _) in METHODS.items():
        start = time.perf_counter()
        found = compare(task, [method], num_samples, steps, seed, tuned=(), board=board, progress=progress)
        demo.made.measures = found.measures
        demo.made.contents.update(found.contents)
        if method != REFERENCE:
            demo.seconds[method] = time.perf_counter() - start
            tell(stage, demo)
    tell("report", demo)
    return demo


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _brief(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (round(v, 3) + 0.0 for v in estimate[:3])  # + 0.0: no negative zero
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
