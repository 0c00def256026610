"""Stability: how large samples become, over numbers of steps and strengths of the coupling."""

from __future__ import annotations

from _table import RESULTS, main, table  # first: it pins the threads

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _mixtures import ModeJoint, joints
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync import peers, zoo
from pgm_sync.errors import NotFiniteError
from pgm_sync.graph.serialization import write_atomically
from pgm_sync.inspection.plots import pyplot
from pgm_sync.learning.problem import contents, pose
from pgm_sync.peers import Pull, amplification, sample_syncsde

CELLS = Path(__file__).resolve().parents[1] / "build" / "stability.json"  # an interrupted run goes on from here
FIGURE = RESULTS.parent / "_static" / "stability.png"
STEPS = (3, 5, 10, 20, 50)
PULLS = (1.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # 1/lambda; 5 is SyncSDE's default
CORRELATIONS = (0.5, 0.9, 0.99, 0.999)
CANVAS, WINDOW, STRIDE, MODES = (3, 24, 60), 24, 18, 4
UNIT = ps.GaussianDenoiser(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))

Samples = Mapping[Any, Tensor]


class Sweep(NamedTuple):
    """One method on one scene: strength and steps -> samples; and what samples should be like."""

    title: str
    strengths: tuple[float, ...]
    sample: Callable[[float, int], Samples]
    real: Samples


class Size(NamedTuple):
    """Of samples, relative to real ones; infinite where a method diverged."""

    variance: float  # the largest over trajectories, mean over elements
    value: float  # largest absolute value

    def __str__(self) -> str:
        return f"{_short(self.variance)} ({_short(self.value)})"


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing",
        clip_sample=False,
    )  # fmt: skip


def size(samples: Samples | None, real: Samples) -> Size:
    if samples is None or not all(bool(torch.isfinite(x).all()) for x in samples.values()):
        return Size(math.inf, math.inf)
    pairs = [(samples[name].double(), x.double()) for name, x in real.items()]
    return Size(
        max(float(x.var(0).mean() / y.var(0).mean()) for x, y in pairs),
        max(float(x.abs().max() / y.abs().max()) for x, y in pairs),
    )


def swept(sweep: Sweep, path: Path | None = None) -> dict[tuple[int, float], Size]:
    """Every number of steps with every strength, taken from the file where it has the sweep, and else added to it."""
    cells = [(steps, strength) for steps in STEPS for strength in sweep.strengths]
    kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
    if sweep.title in kept:
        return {cell: Size(*sizes) for cell, sizes in zip(cells, kept[sweep.title], strict=True)}
    found = {}
    for steps, strength in tqdm(cells, desc=sweep.title, leave=False):
        try:
            samples = sweep.sample(strength, steps)
        except NotFiniteError:
            samples = None
        found[steps, strength] = size(samples, sweep.real)
    if path is not None:
        write_atomically(path, json.dumps({**kept, sweep.title: list(found.values())}).encode())
    return found


def gaussian_pair(n: int) -> list[Sweep]:
    """Two trajectories of four independent unit normal numbers each."""
    denoisers = {0: UNIT, 1: UNIT}
    generator = torch.Generator().manual_seed(1)
    real = {k: torch.randn(20 * n, 4, generator=generator, dtype=torch.float64) for k in denoisers}

    def pulled(form: str) -> Callable[[float, int], Samples]:
        return lambda strength, steps: sample_syncsde(
            denoisers, {1: Pull(0)}, scheduler(), steps, n, strength=strength, form=form, dtype=torch.float64
        )

    def ours(rho: float, steps: int) -> Samples:
        graph = ps.FactorGraph()
        for k in denoisers:
            graph.add_trajectory(k, 4)
        graph.add_factor("tie", [0, 1], ps.Correlation(rho))
        return ps.sample(graph, denoisers, scheduler(), steps, n, dtype=torch.float64, progress=False).samples

    return [
        Sweep("Gaussian pair: SyncSDE as published", PULLS, pulled("explicit"), real),
        Sweep("Gaussian pair: SyncSDE, implicit", PULLS, pulled("implicit"), real),
        Sweep("Gaussian pair: potentials", CORRELATIONS, ours, real),
    ]


def closed_form(form: str) -> dict[tuple[int, float], float]:
    """Variance of the second of the Gaussian pair: its difference to the first is multiplied step by step."""
    found = {}
    for steps in STEPS:
        alone = float(amplification(scheduler(), steps, 0.0).prod())
        for strength in PULLS:
            left = float(amplification(scheduler(), steps, strength, form).prod())
            found[steps, strength] = (alone - left) ** 2 + left**2
    return found


def six_modes(n: int) -> list[Sweep]:
    """The near copy of benchmarks/mixtures.py: denoisers with six narrow modes each."""
    joint: ModeJoint = joints()[0]
    denoisers = joint.denoisers()
    real = dict(enumerate(joint.draw(20 * n, seed=1).split(2, 1)))
    fitted = ps.fit(joint.graph(), dict(enumerate(joint.draw(5000, seed=2).split(2, 1))))

    def pulled(form: str) -> Callable[[float, int], Samples]:
        return lambda strength, steps: sample_syncsde(
            denoisers, {1: Pull(0, lambda x: x @ joint.maps[0].to(x))}, scheduler(), steps, n,
            strength=strength, form=form, dtype=torch.float64,
        )  # fmt: skip

    def ours(kind: str, c: float) -> Callable[[float, int], Samples]:
        return lambda rho, steps: ps.sample(
            strengthened(fitted, rho), denoisers, scheduler(), steps, n, dtype=torch.float64, progress=False,
            posterior_covariance=kind, noise_correlation=c,
        ).samples  # fmt: skip

    return [
        Sweep("Six modes: SyncSDE as published", PULLS, pulled("explicit"), real),
        Sweep("Six modes: SyncSDE, implicit", PULLS, pulled("implicit"), real),
        Sweep("Six modes: potentials, surrogate C", CORRELATIONS, ours("surrogate", 0.0), real),
        Sweep("Six modes: potentials, denoisers' C", CORRELATIONS, ours("denoiser", 0.0), real),
        Sweep("Six modes: denoisers' C, noise c = .9", CORRELATIONS, ours("denoiser", 0.9), real),
    ]


def photographs(n: int) -> list[Sweep]:
    """Three windows of a canvas; without potentials this is averaging."""
    denoiser = zoo.load("photo-patches")
    crops = zoo.wide_crops(CANVAS, 1000, generator=torch.Generator().manual_seed(0))
    window = (WINDOW, WINDOW)
    plain = ps.wide_canvas(CANVAS, window, STRIDE)
    chain = ps.wide_canvas(CANVAS, window, STRIDE, features=lambda shape: ps.DCT(shape, MODES))
    fitted = ps.fit(chain, {"canvas": crops})
    real = contents(pose(chain), {"canvas": crops})

    def pulled(method: str) -> Callable[[float, int], Samples]:
        return lambda strength, steps: peers.sample(
            method, plain, denoiser, scheduler(), steps, n, strength=strength, progress=False
        ).samples

    def ours(kind: str) -> Callable[[float, int], Samples]:
        return lambda rho, steps: ps.sample(
            strengthened(fitted, rho), denoiser, scheduler(), steps, n, progress=False, posterior_covariance=kind
        ).samples

    return [
        Sweep("Photographs: SyncSDE as published", PULLS, pulled("syncsde"), real),
        Sweep("Photographs: SyncSDE, implicit", PULLS, pulled("syncsde-implicit"), real),
        Sweep("Photographs: canvas, surrogate C", CORRELATIONS, ours("surrogate"), real),
        Sweep("Photographs: canvas, denoisers' C", CORRELATIONS, ours("denoiser"), real),
    ]


def strengthened(fitted: ps.FactorGraph, rho: float) -> ps.FactorGraph:
    """All canonical correlations of all pairs set to `rho`; marginals stay. On a tree any of them go together."""
    stronger: dict[Any, ps.JointGaussian] = {}
    for factor in fitted.factors:
        potential = fitted.potential(factor)
        if not isinstance(potential, ps.JointGaussian):
            continue
        assert potential.covariance is not None
        half = len(potential.covariance) // 2
        a, b = potential.covariance[:half, :half], potential.covariance[half:, half:]
        roots = torch.linalg.cholesky(a), torch.linalg.cholesky(b)
        whitened = torch.linalg.solve(roots[0], potential.covariance[:half, half:])
        left, _, right = torch.linalg.svd(torch.linalg.solve(roots[1], whitened.T).T)
        cross = rho * roots[0] @ left @ right @ roots[1].T
        both = torch.cat([torch.cat([a, cross], 1), torch.cat([cross.T, b], 1)])
        stronger[factor] = ps.JointGaussian(potential.mean, (both + both.T) / 2)
    return fitted.with_potentials(stronger)


def _short(x: float) -> str:
    if not math.isfinite(x):
        return "diverged"
    return f"{x:.0e}".replace("e+", "e") if x >= 1000 else f"{x:.0f}" if x >= 10 else f"{x:.2g}"


def shown(sweep: Sweep, sizes: Mapping[tuple[int, float], Size]) -> str:
    head = "1/lambda" if sweep.strengths == PULLS else "correlation"
    rows: list[list[object]] = [["steps", *(f"{head} {s:g}" for s in sweep.strengths)]]
    rows += [[steps, *(sizes[steps, s] for s in sweep.strengths)] for steps in STEPS]
    return f"{sweep.title}\n\n{table(rows)}"


def draw(sweeps: list[tuple[Sweep, Mapping[tuple[int, float], Size]]], columns: int = 3) -> None:
    """A heat map per sweep: powers of ten of the variance, grey where it is that of real contents."""
    plt = pyplot()
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0.0, "#2166ac"), (1 / 6, "#e9e9e6"), (2 / 6, "#eda878"), (1.0, "#8a2b06")]  # a tenth, one, ten, 1e5
    colours = LinearSegmentedColormap.from_list("size", stops)
    lines = -(-len(sweeps) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.7 * columns, 2.45 * lines), layout="constrained")
    for ax in axes.flat[len(sweeps) :]:
        ax.set_visible(False)
    for ax, (sweep, sizes) in zip(axes.flat, sweeps, strict=False):
        values = [[sizes[steps, s].variance for s in sweep.strengths] for steps in STEPS]
        powers = [[min(5.0, max(-1.0, math.log10(max(v, 1e-9)))) for v in row] for row in values]
        image = ax.imshow(powers, cmap=colours, vmin=-1, vmax=5, aspect="auto")
        for i, row in enumerate(values):
            for j, v in enumerate(row):
                text = f"$10^{{{math.log10(v):.0f}}}$" if 1000 <= v < math.inf else _short(v)
                ink = "white" if powers[i][j] > 2.5 else "#1d1d1b"
                ax.text(j, i, text, ha="center", va="center", fontsize=9, color=ink)
        ax.set_xticks(range(len(sweep.strengths)), [f"{s:g}" for s in sweep.strengths], fontsize=8.5)
        ax.set_yticks(range(len(STEPS)), [str(s) for s in STEPS], fontsize=8.5)
        ax.set_xlabel("1/λ" if sweep.strengths == PULLS else "correlation", fontsize=8.5)
        ax.set_ylabel("steps", fontsize=8.5)
        ax.set_title(sweep.title, fontsize=9, loc="left")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_ticks(range(-1, 6), labels=[".1", "1", "10", "100", "1000", "$10^4$", "$10^5$ or more"])
    bar.set_label("variance of samples, relative to real contents", fontsize=9)
    bar.outline.set_visible(False)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def build(quick: bool) -> str:
    n, few = (20, 1) if quick else (200, 4)
    sweeps = [*gaussian_pair(n), *six_modes(n)] + ([] if quick else photographs(few))
    found = [(sweep, swept(sweep, None if quick else CELLS)) for sweep in sweeps]
    exact = closed_form("explicit")
    rows: list[list[object]] = [["steps", *(f"1/lambda {s:g}" for s in PULLS)]]
    rows += [[steps, *(_short(exact[steps, s]) for s in PULLS)] for steps in STEPS]
    if not quick:
        draw(found)
    head = (
        "Variance of the samples, relative to that of real contents, the largest over trajectories; in brackets the\n"
        "largest absolute value, relative to the largest of real contents. DDIM steps on Stable Diffusion's noise\n"
        f"schedule, seed 0; {n} samples of pairs, {few} of photographs."
    )
    told = f"Gaussian pair: SyncSDE as published, variance in closed form\n\n{table(rows)}"
    return "\n\n\n".join([head, told, *(shown(sweep, sizes) for sweep, sizes in found)])


if __name__ == "__main__":
    main("stability", build)
