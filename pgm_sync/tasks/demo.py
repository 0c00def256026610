"""Wide pictures from a patch denoiser: learned potentials, averaging, and independent windows."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ParameterError, ShapeError
from ..graph import FactorGraph, wide_canvas
from ..graph.factor_graph import Name
from ..graph.serialization import write_atomically
from ..inspection.correlations import CorrelationTable, correlations
from ..inspection.images import comparison, png, sheet
from ..inspection.inspect import inspect
from ..inspection.layout import windows
from ..inspection.report import Metric, Sheet, report
from ..learning import Fit, fit
from ..maps import DCT, Crop
from ..metrics import Estimate, energy_distance, far_correlation, seam_discontinuity
from ..peers.projection import apart, projection
from ..sampling import sample
from ..zoo import wide_crops
from .models import even_scheduler
from .run import versions

TITLES = {
    "learned": "Learned potentials",
    "averaging": "Averaging",
    "independent": "Independent windows",
    "heldout": "Held-out photographs",
}
CAPTIONS = {
    "learned": "Windows share their overlaps and are correlated as windows of photographs are.",
    "averaging": "Windows share their overlaps and know nothing else of each other.",
    "independent": "Each window by itself, cut in the middle of the overlaps.",
    "heldout": "What to aim for: crops that neither the denoiser nor the potentials have seen.",
}
STAGES = ("graph", "learned", "averaging", "independent", "report")
MOST_REFERENCE = 500  # photograph crops in the measures
SHOWN = 6  # pictures of each method in files and report


@dataclass(frozen=True)
class WideConfig:
    """What to sample; sizes in pixels."""

    width: int = 96
    height: int = 24
    window: int = 24
    stride: int | None = None  # three quarters of a window; with wrap, the next smaller divisor of the width
    modes: int = 4  # cosine modes per window and channel that are coupled
    neighbours: str = "all"  # which windows are coupled, "adjacent" or "all"
    steps: int = 30
    num_samples: int = 128
    crops: int = 2000  # photograph crops to learn from, and as many held-out ones to compare with
    seed: int = 0
    device: str = "cpu"
    wrap: bool = False  # close the picture to 360 degrees

    def __post_init__(self) -> None:
        if self.stride is None:
            steps = range(max(1, 3 * self.window // 4), 0, -1)
            fits = next(s for s in steps if not self.wrap or self.width % s == 0)
            object.__setattr__(self, "stride", fits)
        for name in ("width", "height", "window", "stride", "modes", "steps", "num_samples", "crops"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParameterError(f"{name}={value!r} must be a positive integer", name=name, value=value)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ParameterError(f"seed={self.seed!r} must be an integer of at least 0", value=self.seed)

    def photographs(self, split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops ``(crops, 3, height, width)``, closed to 360 degrees for wrap, and the photograph of each."""
        margin = self.window if self.wrap else 0
        shape = (3, self.height, self.width + margin)
        crops, photos = wide_crops(shape, self.crops, split, generator=generator, return_photos=True)
        return (close(crops, margin) if self.wrap else crops), photos

    def graph(self, channels: int = 3, coupled: bool = True) -> FactorGraph:
        """The windows on their canvas; with unfitted potentials between them, or without (averaging)."""
        assert self.stride is not None  # set when the settings were made
        return wide_canvas(
            (channels, self.height, self.width),
            (self.window, self.window),
            self.stride,
            features=(lambda shape: DCT(shape, self.modes)) if coupled else None,
            neighbours=self.neighbours,
            wrap=self.wrap,
        )


@dataclass
class WideRun:
    """What `run` has made so far; a method appears when it is done."""

    config: WideConfig
    graph: FactorGraph  # fitted
    table: CorrelationTable
    pictures: dict[str, Tensor] = field(default_factory=dict)  # (n, C, H, W) in [-1, 1], by method
    metrics: list[Metric] = field(default_factory=list)
    timing: dict[str, dict[str, float]] = field(default_factory=dict)  # seconds, by method and part

    def shown(self, method: str) -> Tensor:
        """The first few pictures of a method, ``(n, C, H, W)`` in [0, 1]."""
        return (self.pictures[method][:SHOWN].float().cpu() * 0.5 + 0.5).clamp(0, 1)

    def write(self, folder: str | Path, stage: str) -> list[Path]:
        """Write what a stage of `run` has made, each file whole or not at all; returns the paths.

        Stages: "graph" (graph.safetensors), "learned", "averaging", "independent" (a PNG each), "report"
        (comparison.png, metrics.json, report.html).
        """
        folder = Path(folder)
        if stage == "graph":
            path = folder / "graph.safetensors"
            self.graph.save(path)
            return [path]
        if stage in self.pictures:
            files = {f"{stage}.png": png(sheet(self.shown(stage), scale=self._scale))}
        elif stage == "report":
            named = {TITLES[method]: self.shown(method) for method in TITLES}
            files = {
                "comparison.png": png(comparison(named, scale=self._scale)),
                "metrics.json": json.dumps(self.record(), indent=1).encode(),
                "report.html": self.report().encode(),
            }
        else:
            raise ParameterError(f"stage={stage!r} is none of {', '.join(STAGES)}, or is not done yet")
        for name, content in files.items():
            write_atomically(folder / name, content)
        return [folder / name for name in files]

    @property
    def _scale(self) -> int:
        return max(1, round(576 / self.config.width))

    def record(self) -> dict[str, Any]:
        """Everything measured, as JSON data."""
        return {
            "config": dataclasses.asdict(self.config),
            "metrics": {
                metric.name: {
                    method: {k: _finite(v) for k, v in estimate._asdict().items()}
                    for method, estimate in metric.estimates.items()
                }
                for metric in self.metrics
            },
            "seconds": self.timing,
            "correlations": [
                {k: list(v) if isinstance(v, tuple) else _finite(v) for k, v in row.items()}
                for row in self.table.to_dicts()
            ],
            "fit": self.graph.graph.get("fit"),
            "versions": versions(),
        }

    def report(self) -> str:
        """The HTML page."""
        c = self.config
        seen = inspect(self.graph)
        return report(
            "Wide pictures from a patch denoiser",
            f"{len(self.graph.trajectories)} windows of {c.window} × {c.window} pixels are denoised together "
            f"into one picture of {c.width} × {c.height}. What one window should know of the others was "
            "learned from photographs; rows at the same place start from the same seed.",
            [
                Sheet(TITLES[m], self.shown(m), CAPTIONS[m], () if m == "heldout" else self._spans())
                for m in TITLES
            ],
            self.metrics,
            self.graph,
            self.table,
            self.timing,
            {
                "Settings": dataclasses.asdict(c),
                "Fit": Fit.of(self.graph).settings(),
                "Versions": versions(),
            },
            self.command(),
            seen.model,
            seen.levels,
            seen.partial,
        )

    def command(self) -> str:
        """The command line that makes this run again."""
        parts = ["pgm-sync demo"]
        for f in dataclasses.fields(self.config):
            value = getattr(self.config, f.name)
            if value == f.default or f.name in UNNAMED:
                continue
            option = "samples" if f.name == "num_samples" else f.name
            parts.append(f"--{option}" if value is True else f"--{option} {value}")
        return " ".join(parts)

    def _spans(self) -> list[tuple[float, float]]:
        """Left and right ends of the windows, as shares of the width; parts that wrap around are cut off."""
        lefts = sorted({crop.start[1] for crop in _windows(self.graph)[1].values()})
        c = self.config
        return [(left / c.width, min(1.0, (left + c.window) / c.width)) for left in lefts]

    def summary(self) -> str:
        """The numbers as a text table."""
        methods = [m for m in TITLES.values() if any(m in metric.estimates for metric in self.metrics)]
        cells = [["", *methods]]
        for metric in self.metrics:
            cells.append([metric.name, *(_brief(metric.estimates.get(m)) for m in methods)])
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
        )


UNNAMED = ("window", "neighbours", "crops")  # settings that the command line does not offer


def run(
    config: WideConfig | None = None,
    progress: bool = True,
    on_stage: Callable[[str, WideRun], None] | None = None,
    denoiser: Denoiser | None = None,
) -> WideRun:
    """Learn the correlations between windows of photographs; sample wide pictures with and without them.

    Three ways to make a wide picture from one patch `denoiser` (default: the embedded "photo-patches"), from
    the same seeds: with the learned potentials, by averaging (the same graph without potentials), and window
    by window. `on_stage` is called with the stage and the run so far after each of `STAGES`.

    Raises ShapeError if the window is not the denoiser's, ParameterError on a stride or mode number that does
    not fit.
    """
    from .. import zoo

    config = config or WideConfig()
    denoiser = denoiser if denoiser is not None else zoo.load("photo-patches")
    channels, *window = denoiser.shape
    if window != [config.window, config.window]:
        raise ShapeError(
            f"the denoiser knows windows of {' x '.join(map(str, window))} pixels, not of {config.window}",
            expected=tuple(window),
            got=config.window,
        )
    unfitted = config.graph(channels)  # before anything is loaded or learned: refuses what does not fit
    tell = on_stage or (lambda stage, so_far: None)

    clock = time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed)
    crops, photos = config.photographs("train", generator)
    heldout, _ = config.photographs("test", generator)
    loaded = time.perf_counter() - clock
    fitted = fit(unfitted, {"canvas": crops}, groups=photos, seed=config.seed)
    made = WideRun(config, fitted, correlations(fitted))
    made.timing["Fit"] = {"fit": time.perf_counter() - clock - loaded, "other": loaded}
    made.pictures["heldout"] = heldout
    tell("graph", made)

    graphs = {
        "learned": fitted,
        "averaging": config.graph(channels, coupled=False),
        "independent": apart(fitted),
    }
    for method, graph in graphs.items():
        result = sample(
            graph,
            denoiser,
            even_scheduler(),
            num_inference_steps=config.steps,
            num_samples=config.num_samples,
            seed=config.seed,
            device=config.device,
            progress=progress,
        )
        known = dict(result.timing)
        total = known.pop("total")
        made.timing[TITLES[method]] = {**known, "other": max(0.0, total - sum(known.values()))}
        made.pictures[method] = (
            hard_cut(fitted, result.samples) if method == "independent" else result.samples["canvas"]
        )
        tell(method, made)

    made.metrics = measure(made.pictures, fitted, config.wrap)
    tell("report", made)
    return made


def hard_cut(graph: FactorGraph, samples: Mapping[Name, Tensor]) -> Tensor:
    """Paste the windows of a canvas graph, every pixel from the window whose centre is nearest.

    `samples` is ``{name: (n, C, h, w)}``; returns ``(n, C, H, W)``. Overlaps are cut in the middle.

    Raises ShapeError if the graph has no canvas.
    """
    _windows(graph)
    (canvas,) = projection(graph).composed(samples, "nearest")
    return canvas


def _windows(graph: FactorGraph) -> tuple[Name, dict[Name, Crop]]:
    found = windows(graph)
    if found is None:
        raise ShapeError(f"{graph!r} is not a canvas seen through windows")
    return found


def close(crops: Tensor, margin: int) -> Tensor:  # (n, C, H, W + margin) -> (n, C, H, W)
    """Crops whose right end goes on at their left: the last `margin` columns fade into the first.

    Photographs end at their borders, so windows across the border of a 360 degree picture are learned, and
    measured, on crops closed this way.
    """
    fade = (torch.arange(margin, dtype=crops.dtype) + 0.5) / margin
    closed = crops[..., :-margin].clone()
    closed[..., :margin] = fade * closed[..., :margin] + (1 - fade) * crops[..., -margin:]
    return closed


def measure(pictures: Mapping[str, Tensor], graph: FactorGraph, wrap: bool = False) -> list[Metric]:
    """The three measures of every method; the held-out photographs show what to aim for.

    Half of the photograph crops serve as the reference of the energy distance, the other half stand beside
    the methods.
    """
    half = len(pictures["heldout"]) // 2
    reference = pictures["heldout"][half:][:MOST_REFERENCE]
    shown = {TITLES[m]: pictures[m].float().cpu() for m in TITLES if m != "heldout"}
    shown[TITLES["heldout"]] = pictures["heldout"][:half][:MOST_REFERENCE]
    _, crops = _windows(graph)
    width = next(iter(crops.values())).size[1]
    columns = pictures["heldout"].shape[-1]
    far = columns // 2 if wrap else columns - width
    seams = _seams(graph)
    aim = TITLES["heldout"]
    return [
        Metric(
            "Far-apart brightness",
            f"Correlation between the mean brightness of the leftmost {width} columns and "
            f"{'those opposite' if wrap else 'the rightmost'}.",
            {name: far_correlation(x, width, far) for name, x in shown.items()},
            aim,
        ),
        Metric(
            "Seams",
            "Step into the columns where windows meet, over the step into other columns; 1 is seamless.",
            {name: seam_discontinuity(x, seams) for name, x in shown.items()},
            aim,
        ),
        Metric(
            "Energy distance",
            "To held-out photographs, over whole pictures; 0 if the distributions are the same.",
            {name: energy_distance(x, reference) for name, x in shown.items()},
            aim,
        ),
    ]


def _seams(graph: FactorGraph) -> list[int]:
    """Columns where `hard_cut` goes from one window to the next."""
    numbered = {
        name: torch.full((1, *graph.shape(name)), float(k)) for k, name in enumerate(graph.trajectories)
    }
    owner = hard_cut(graph, numbered)
    row = owner.flatten(0, -2)[0]
    return [int(c) + 1 for c in (row[1:] != row[:-1]).nonzero().flatten()]


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _brief(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (round(v, 3) + 0.0 for v in estimate[:3])  # + 0.0: no negative zero
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
