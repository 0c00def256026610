"""Ablations: every choice of every task by itself, against the defaults, from the same seeds."""

from __future__ import annotations

from _table import RESULTS, main, table  # first: it pins the threads

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import networkx as nx
import torch
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.evaluation import CostMeter, Estimate, Scoreboard, difference
from pgm_sync.evaluation.comparison import rounded
from pgm_sync.evaluation.figures import HIGHLIGHT
from pgm_sync.inspection.layout import windows
from pgm_sync.inspection.plots import pyplot
from pgm_sync.learning.problem import contents, pose
from pgm_sync.tasks import Measure, Results, Scene, Task
from pgm_sync.tasks.ambiguous import Ambiguous
from pgm_sync.tasks.base import Unfitted

CELLS = Path(__file__).resolve().parents[1] / "build" / "ablations"  # an interrupted run goes on from here
FIGURE = RESULTS.parent / "_static" / "ablations.png"
STEPS = 25
SAMPLES = {"wide": 100, "ambiguous": 100, "mask": 200, "edit": 200, "texture": 200, "motion": 200}
QUICK = {"wide": {"width": 42}, "texture": {"views": 4}, "motion": {"frames": 56}}  # settings, for a look
MODES = {"wide": (0, 1, 2, 4, 8, 16), "mask": (0, 1, 2, 4), "edit": (0, 1, 2, 4), "texture": (0, 1, 2, 4, 8),
         "motion": (0, 2, 4, 8, 16, 32)}  # fmt: skip
SCORED = 500  # joint samples for score matching, which asks the denoisers about each at many levels
SOLVERS = {
    "DPM++ 2M": diffusers.DPMSolverMultistepScheduler,
    "Euler": diffusers.EulerDiscreteScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
}
DEFAULT = "default"


class Variant(NamedTuple):
    """One setting: of the scene that is sampled, and of `ps.sample`."""

    scene: Callable[[], Scene]
    steps: int = STEPS
    options: dict[str, Any] = {}


Panel = dict[str, Variant | None]  # by setting; None: the default


def panels(task: Task) -> dict[str, Panel]:
    """All ablations that a task has, by name."""
    found: dict[str, Panel] = {}
    own = next(iter(task.scene.options.values()), {})
    if task.unfitted is not None:
        found |= {
            "features": _features(task, task.unfitted),
            "posterior covariance": _covariances(task, own.get("posterior_covariance", "surrogate")),
        }
        if not task.unfitted.graph.hidden:
            correlations = {f"c = {c:g}": _with(task, noise_correlation=c) for c in (0.3, 0.6, 0.9)}
            found["correlated noise"] = {"c = 0": None, **correlations}
        found |= {"fit": _fits(task, task.unfitted), "graph": _graphs(task, task.unfitted)}
    if isinstance(task, Ambiguous):
        found["guidance"] = {
            f"{g:g}": None if g == task.guidance else Variant(lambda g=g: dataclasses.replace(task, guidance=g).scene)
            for g in (1.0, 2.0, 4.0, 8.0)
        }
    found["steps"] = {
        str(steps): None if steps == STEPS else Variant(lambda: task.scene, steps) for steps in (5, 10, 25, 50, 100)
    }
    found["scheduler"] = {"DDIM": None, "DDIM, eta 1": _with(task, eta=1.0), **{
        name: Variant(lambda kind=kind: dataclasses.replace(task.scene, scheduler=same_levels(kind, task.scene)))
        for name, kind in SOLVERS.items()
    }}  # fmt: skip
    return {name: panel for name, panel in found.items() if len(panel) > 1}


def same_levels(kind: Any, scene: Scene) -> Any:
    """Another scheduler whose steps go through the same noise levels."""
    config = scene.scheduler.config
    return kind(
        num_train_timesteps=config.num_train_timesteps, trained_betas=config.trained_betas,
        timestep_spacing=config.timestep_spacing,
    )  # fmt: skip


def _with(task: Task, **options: Any) -> Variant:
    return Variant(lambda: task.scene, options=options)


def _learned(task: Task, fitted: Callable[[], ps.FactorGraph]) -> Variant:
    return Variant(lambda: dataclasses.replace(task.scene, learned=fitted()))


def _features(task: Any, unfitted: Unfitted) -> Panel:
    """Modes per trajectory (and channel); 0: no potentials, trajectories share what their canvas shares."""

    def variant(modes: int) -> Variant | None:
        if modes == task.modes:
            return None
        if modes == 0:
            return _learned(task, lambda: rewired(unfitted, []).graph)
        return Variant(lambda: dataclasses.replace(task, modes=modes).scene)

    return {str(modes): variant(modes) for modes in MODES[task.name]}


def _covariances(task: Task, default: Any) -> Panel:
    denoisers = task.scene.denoisers
    all_of_them = list(denoisers.values()) if isinstance(denoisers, Mapping) else [denoisers]
    kinds = ["surrogate"]
    kinds += ["denoiser"] * all(denoiser.has_covariance for denoiser in all_of_them)
    kinds += ["jacobian"] * (len(kinds) == 1)  # of a network; a closed form's is the same, exactly (Eq. 4)
    if isinstance(default, ps.Scaled):
        kinds.insert(0, default := "surrogate, 0 where known")
    return {kind: None if kind == default else _with(task, posterior_covariance=kind) for kind in kinds}


def _fits(task: Any, unfitted: Unfitted) -> Panel:
    found: Panel = {"moments": None, "unshrunk": _learned(task, lambda: unfitted.fit(shrinkage="none", seed=task.seed))}
    if windows(unfitted.graph) is not None:
        found["single views"] = _learned(task, lambda: single_views(unfitted))
    if task.name == "mask":
        few = unfitted._replace(data={name: x[:SCORED] for name, x in unfitted.data.items()})
        found[f"moments, {SCORED}"] = _learned(task, lambda: few.fit(seed=task.seed))
        found[f"score, {SCORED}"] = _learned(
            task, lambda: few.fit("score", denoisers=conditioned(task), seed=task.seed)
        )
    return found


def single_views(unfitted: Unfitted) -> ps.FactorGraph:
    """Windows as if no two had ever been seen together."""
    placed = windows(unfitted.graph)
    assert placed is not None
    positions = {name: crop.start[-1] for name, crop in placed[1].items()}
    views = contents(pose(unfitted.graph), unfitted.data)
    return ps.fit(unfitted.graph, views, "single_view", positions=positions)


def conditioned(task: Task) -> dict[Any, ps.Denoiser]:
    """Denoisers that know the prompt of their trajectory."""
    own = task.scene.denoisers
    assert isinstance(own, ps.Denoiser)

    def of(prompt: torch.Tensor) -> ps.Denoiser:
        def ask(noisy: torch.Tensor, alpha: Any, sigma: Any) -> torch.Tensor:
            return own.denoise(noisy, ps.NoiseLevel(alpha, sigma), prompt.expand(len(noisy)))

        return ps.FunctionDenoiser(ask, own.shape)

    return {name: of(prompt) for name, prompt in task.conditions([0]).items()}


def _graphs(task: Any, unfitted: Unfitted) -> Panel:
    names = unfitted.graph.trajectories
    if len(names) < 3:
        return {}

    def variant(edges: Sequence[Any], style: int = 0) -> Variant:
        return _learned(task, lambda: rewired(unfitted, edges, style).fit(seed=task.seed))

    neighbours = list(itertools.pairwise(names))
    if task.name == "texture":
        neighbours.append((names[-1], names[0]))
    if task.name == "mask":
        neighbours = [(names[0], name) for name in names[1:]]
    return {
        "all pairs": None,
        "neighbours": variant(neighbours),
        "star, hidden": variant([], 4),
        "Chow-Liu tree": _learned(task, lambda: rewired(unfitted, tree(unfitted, task.seed)).fit(seed=task.seed)),
    }


def seen(graph: ps.FactorGraph) -> dict[Any, Any]:
    """What learned factors see of each trajectory."""
    learned = [f for f in graph.factors if isinstance(graph.potential(f), ps.JointGaussian)]
    return {end: m for f in learned for end, m in zip(graph.scope(f), graph.maps(f), strict=True)}


def rewired(unfitted: Unfitted, edges: Sequence[Any], style: int = 0) -> Unfitted:
    """The trajectories with other learned factors: on `edges`, and of all with a hidden variable of some numbers."""
    graph, maps = unfitted.graph.copy(), seen(unfitted.graph)
    graph.remove_nodes_from([f for f in graph.factors if isinstance(graph.potential(f), ps.JointGaussian)])
    for a, b in edges:
        graph.add_factor((a, b), [a, b], ps.JointGaussian(), [maps[a], maps[b]])
    if style:
        graph.add_variable("style", style)
        for name in maps:
            graph.add_factor(("style", name), ["style", name], ps.JointGaussian(), [None, maps[name]])
    return unfitted._replace(graph=graph)


def tree(unfitted: Unfitted, seed: int) -> list[Any]:
    """The edges of the tree of largest likelihood."""
    bare = ps.FactorGraph()
    for name in unfitted.graph.trajectories:
        bare.add_trajectory(name, unfitted.graph.shape(name))
    views = contents(pose(unfitted.graph), unfitted.data)
    learned = ps.learn_structure(  # of all windows, also where few photographs would not pay for an edge
        bare, views, maps=seen(unfitted.graph), groups=unfitted.groups, significant=False, seed=seed
    )
    found = nx.Graph([learned.scope(factor) for factor in learned.factors])
    return list(found.edges)


def cells(task: Task, samples: int, board: Scoreboard, chosen: Mapping[str, Panel], most: int | None = None) -> None:
    """Measure every setting that the board does not have yet, cheap ones first; with at most so many steps."""
    measure = task.measures()[0]
    todo: dict[str, Variant] = {DEFAULT: Variant(lambda: task.scene)}
    todo |= {f"{panel}: {setting}": variant for panel, setting, variant in _flat(chosen) if variant is not None}
    if most is not None:
        todo = {label: variant._replace(steps=min(variant.steps, most)) for label, variant in todo.items()}
    todo = dict(sorted(todo.items(), key=lambda item: (item[0] != DEFAULT, item[1].steps)))
    missing = {label: v for label, v in todo.items() if (task.name, label, measure.name) not in board}
    for label, variant in tqdm(missing.items(), desc=task.name, leave=False):
        estimate, meter = measured(task, measure, variant, samples)
        board.add(task.name, label, measure.name, estimate, measure.better, meter.cost)


def measured(task: Task, measure: Measure, variant: Variant, samples: int) -> tuple[Estimate, CostMeter]:
    scene, seeds = variant.scene(), list(range(samples))
    graph = scene.graph if scene.learned is None else scene.learned
    own = next(iter(scene.options.values()), {})
    with CostMeter(samples) as meter:
        result = ps.sample(
            graph, meter.count(scene.denoisers), scene.scheduler, variant.steps, samples, seeds,
            conditions=task.conditions(seeds), progress=False, device=scene.device, **{**own, **variant.options},
        )  # fmt: skip
    return measure.of(Results(task.content(result.samples), result.samples, seeds)), meter


def _flat(chosen: Mapping[str, Panel]) -> Iterator[tuple[str, str, Variant | None]]:
    for panel, settings in chosen.items():
        for setting, variant in settings.items():
            yield panel, setting, variant


def shown(task: Task, board: Scoreboard, chosen: Mapping[str, Panel]) -> str:
    """The table of one task; a star where the paired interval leaves out 0."""
    measure = task.measures()[0]
    base = board[task.name, DEFAULT, measure.name]
    rows: list[list[object]] = [["", "setting", measure.name, "less the default, paired", "", "evaluations"]]
    last = ""
    for panel, setting, variant in _flat(chosen):
        cell = base if variant is None else board[task.name, f"{panel}: {setting}", measure.name]
        gap = difference(cell.estimate, base.estimate)
        mark = ("better" if (gap.value < 0) == (measure.better == "lower") else "worse") if gap.significant else ""
        assert cell.cost is not None
        name = "" if panel == last else panel
        told = ["default", ""] if variant is None else [rounded(gap), mark]
        rows.append([name, setting, rounded(cell.estimate), *told, f"{cell.cost.evaluations:g}"])
        last = panel
    return f"{task.name.upper()}, {measure.name}: {measure.what}. n = {base.estimate.samples}.\n\n{table(rows)}"


def draw(boards: Mapping[str, tuple[Task, Scoreboard, Mapping[str, Panel]]], path: Path, columns: int = 4) -> None:
    """A small panel per ablation: every setting with its interval, the default in colour."""
    plt = pyplot()
    every = [(name, panel) for name, (_, _, chosen) in boards.items() for panel in chosen]
    lines = -(-len(every) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.1 * columns, 1.75 * lines), layout="constrained")
    for ax in axes.flat[len(every) :]:
        ax.set_visible(False)
    for ax, (name, panel) in zip(axes.flat, every, strict=False):
        task, board, chosen = boards[name]
        measure = task.measures()[0]
        for k, (setting, variant) in enumerate(chosen[panel].items()):
            label = DEFAULT if variant is None else f"{panel}: {setting}"
            value, low, high, _ = board[name, label, measure.name].estimate
            colour = HIGHLIGHT if variant is None else "#4a4a46"
            ax.plot([low, high], [k, k], color=colour, lw=1.6, solid_capstyle="round")
            ax.plot(value, k, "o", color=colour, ms=5)
        ax.axvline(board[name, DEFAULT, measure.name].estimate.value, color=HIGHLIGHT, lw=0.8, alpha=0.5, zorder=0)
        ax.set_yticks(range(len(chosen[panel])), list(chosen[panel]), fontsize=8)
        ax.set_ylim(len(chosen[panel]) - 0.5, -0.5)
        ax.tick_params(axis="x", labelsize=7.5)
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(length=2)
        ax.spines[["top", "right"]].set_visible(False)
        arrow = "←" if measure.better == "lower" else "→"
        ax.set_title(f"{name}: {panel} {arrow}", fontsize=8.5, loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _brief(settings: Panel) -> Panel:
    """The default, and the first setting that is another."""
    default, other = (next(x for x in settings.items() if (x[1] is None) is wanted) for wanted in (True, False))
    return dict([default, other])


def build(quick: bool, names: Sequence[str] | None = None) -> str:
    made: dict[str, tuple[Task, Scoreboard, Mapping[str, Panel]]] = {}
    for name in names or tasks.names():
        task = tasks.load(name, **(QUICK.get(name, {}) if quick else {}))
        board = Scoreboard(None if quick else CELLS / f"{name}.json")
        chosen = panels(task)
        if quick:
            chosen = {panel: _brief(settings) for panel, settings in chosen.items()}
        cells(task, 8 if quick else SAMPLES[name], board, chosen, 4 if quick else None)
        made[name] = task, board, chosen
    if not quick:
        draw(made, FIGURE)
    head = (
        f"One choice at a time, all else as in the task's defaults ({STEPS} DDIM steps, even in log snr), from the\n"
        "same seeds, on the task's main measure. 95 % intervals; differences are paired. Every comparison has an\n"
        "interval of its own: of twenty that change nothing, one is expected to be marked."
    )
    return "\n\n\n".join([head, *(shown(task, board, chosen) for task, board, chosen in made.values())])


if __name__ == "__main__":
    main("ablations", build)
