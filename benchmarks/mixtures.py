"""Mixtures whose modes must fit each other, two to four trajectories, beside a hand-set pull over its whole range."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

from typing import Any, NamedTuple

import torch
from _mixtures import SPREAD, TURN, ModeJoint, best_linear_map, joints, stacked
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.errors import NotFiniteError
from pgm_sync.metrics import energy_distance, proportion
from pgm_sync.peers import Pull, sample_syncsde
from pgm_sync.score import joint_mixture

EVALUATIONS = 100  # of every denoiser per sample, for every method
STRENGTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.8, 1.6, 5.0, 50.0)  # 1/lambda
HELDOUT = 400  # pairs that choose c
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
NAMES = {"surrogate": "surrogate C", "denoiser": "denoisers' C", "annealed": "annealed product"}


class Run(NamedTuple):
    """One row: options of `ps.sample`, and the steps that keep the number of evaluations the same for all."""

    name: str
    options: dict[str, Any]
    steps: int = EVALUATIONS


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def runs(chosen: dict[str, float]) -> list[Run]:
    """All rows of the toolkit, given the noise correlation chosen for each posterior covariance."""
    rows = [
        Run("independent", {"couple": False}),
        Run("correlated noise alone, c = .9", {"couple": False, "noise_correlation": 0.9}),
    ]
    for kind in ("surrogate", "denoiser"):
        for c in sorted({0.0, chosen[kind], 0.9}):
            mark = " (chosen)" if c == chosen[kind] else ""
            options = {"posterior_covariance": kind, "noise_correlation": c}
            rows.append(Run(f"learned, {NAMES[kind]}, c = {c:g}{mark}", options))
    four = EVALUATIONS // 4
    best = {"posterior_covariance": "denoiser", "noise_correlation": chosen["denoiser"]}
    langevin, half = ps.Langevin(3, 1.0), EVALUATIONS // 2
    for kind in ("surrogate", "denoiser"):
        for c in (0.0, 0.9):
            options = {"posterior_covariance": kind, "noise_correlation": c, "tilt": ps.Tilt()}
            rows.append(Run(f"asked again, {NAMES[kind]}, c = {c:g}", options, half))
    rows += [
        Run("  chosen c, 3 Langevin steps per level", {**best, "corrector": langevin}, four),
        Run("  chosen c, every level 4 times", {**best, "resample": ps.Resample(4)}, four),
        Run("annealed product, 3 Langevin steps", {"posterior_covariance": "annealed", "corrector": langevin}, four),
    ]
    return rows


class Judge:
    """Measures samples against the truth of a joint; one row of text each."""

    def __init__(self, joint: ModeJoint, n: int):
        self.joint, self.truth = joint, joint.draw(n, seed=2)

    def __call__(self, name: str, x: Tensor) -> list[object]:
        fit, modes = proportion(*self.joint.compatibility(x)), self.joint.mode_error(x)
        return [
            name,
            f"{fit.value:.3f} [{fit.low:.3f}, {fit.high:.3f}]",
            f"{modes.value:.3f} [{modes.low:.3f}, {modes.high:.3f}]",
            str(energy_distance(x, self.truth)).partition(" (")[0],
        ]


def syncsde_rows(joint: ModeJoint, data: Tensor, judge: Judge, n: int) -> tuple[list[list[object]], str]:
    """The strengths that are best by energy distance and by modes, chosen on the truth itself; and the range tried."""
    denoisers = joint.denoisers()
    given = {
        "true map": list(joint.maps),
        "linear fit": [best_linear_map(data, i, i + 1) for i in range(joint.size - 1)],
    }

    def sample(maps: str, strength: float, form: str, count: int) -> Tensor:
        pulls = {i + 1: Pull(i, lambda state, m=m: state @ m) for i, m in enumerate(given[maps])}
        result = sample_syncsde(
            denoisers, pulls, scheduler(), EVALUATIONS, count, strength=strength, form=form, dtype=torch.float64
        )
        return stacked(result)

    tried: dict[tuple[str, float, str], tuple[float, float]] = {}
    diverged: list[float] = []
    for maps in given:
        for strength in STRENGTHS:
            # Below 1 the two forms agree to a few per cent
            for form in ("implicit",) if strength < 0.5 else ("implicit", "explicit"):
                try:
                    x = sample(maps, strength, form, n // 4)
                except NotFiniteError:
                    diverged.append(strength)
                    continue
                if x.abs().max() > 100:
                    diverged.append(strength)
                    continue
                distance = energy_distance(x, judge.truth[: n // 4]).value
                tried[maps, strength, form] = (distance, joint.mode_error(x, draws=2).value)
    rows = []
    for which, what in enumerate(("distance", "modes")):
        maps, strength, form = min(tried, key=lambda key: tried[key][which])
        x = sample(maps, strength, form, n)
        rows.append(judge(f"SyncSDE, best {what}: {maps}, 1/lambda {strength:g}, {form}", x))
    note = f"; explicit diverges from 1/lambda = {min(diverged):g} on" if diverged else ""
    return rows, note


def part(joint: ModeJoint, n: int, bar: tqdm) -> str:
    data = joint.draw(5000, seed=1)
    fitted = ps.fit(joint.graph(), dict(enumerate(data.split(2, 1))))
    denoisers = joint.denoisers()
    heldout = dict(enumerate(joint.draw(HELDOUT, seed=5).split(2, 1)))
    chosen = {
        kind: ps.choose_noise_correlation(
            fitted, denoisers, heldout, correlations=CORRELATIONS, posterior_covariance=kind
        ).best
        for kind in ("surrogate", "denoiser")
    }
    judge = Judge(joint, n)
    rows: list[list[object]] = [["method", "compatible", "error of modes", "energy distance"]]
    for name, options, steps in runs(chosen):
        bar.set_postfix_str(f"{joint.title}: {name}")
        result = ps.sample(
            fitted, denoisers, scheduler(), steps, n, 0, dtype=torch.float64, progress=False, **options
        )
        rows.append(judge(name, stacked([result.samples[i] for i in range(joint.size)])))
    pulled, note = syncsde_rows(joint, data, judge, n)
    exact = joint_mixture(fitted, denoisers).sample(n, generator=torch.Generator().manual_seed(0))
    rows += [*pulled, judge("Eq. 1 itself (closed form)", exact), judge("true joint (floor)", joint.draw(n, seed=3))]
    bar.update()
    title = f"{joint.title.upper()}: {joint.relation}; true share of compatible modes {joint.share:.3f}{note}"
    return f"{title}\n\n{table(rows)}"


def head(n: int) -> str:
    """What the table shows."""
    few = EVALUATIONS // 4
    strengths = ", ".join(f"{s:g}" for s in STRENGTHS)
    return f"""\
Contents of two numbers per trajectory: modes on the unit circle, spread {SPREAD}, each circle turned by {TURN}
degrees against the last (not in NEGATIVE). Covariance learned from 5,000 joint contents, exact denoisers, {n}
samples, DDIM, seed 0. {EVALUATIONS} evaluations of every denoiser per sample for every method: {EVALUATIONS} steps,
{EVALUATIONS // 2} when asked again, or {few} with four evaluations each. c chosen by the likelihood bound on
{HELDOUT} held-out contents.
Compatible: share of samples whose modes fit, Wilson's interval. Error of modes: total variation between the
mode tables of samples and truth, mean over edges, bootstrap interval; that of perfect samples is in the last
row. Energy distance of root-mean-square distances, 95 % interval. SyncSDE: the best of 1/lambda in
{strengths}; both forms from .5 on; told the true
map or a linear fit; chosen by these very measures."""


def build(quick: bool) -> str:
    n = 600 if quick else 3000
    chosen = joints()[:2] if quick else joints()
    with tqdm(total=len(chosen)) as bar:
        parts = [part(joint, n, bar) for joint in chosen]
    return "\n\n\n".join([head(n), *parts])


if __name__ == "__main__":
    main("mixtures", build)
