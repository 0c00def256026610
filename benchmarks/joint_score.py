"""The joint denoiser's field against its closed form, and what corrector steps make of it."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import math
from functools import partial
from typing import Any

import torch
from _mixtures import joints, stacked
from diffusers import DDIMScheduler
from torch import Tensor

import pgm_sync as ps
from pgm_sync.metrics import energy_distance, proportion
from pgm_sync.score import NoisyMixture, joint_mixture, noise_covariance

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
KINDS = ("surrogate", "denoiser", "annealed")
CORRECTED: list[tuple[int, ps.Langevin | None, ps.Resample | None]] = [
    (100, None, None),
    (25, ps.Langevin(3, 1.0), None),
    (25, None, ps.Resample(4)),
    (25, ps.Langevin(15, 1.0), None),
    (25, ps.Langevin(63, 1.0), None),
]


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def build(quick: bool) -> str:
    n = 100 if quick else 1000
    joint = joints()[0]
    parts = joint.draw(5000, seed=1).split(2, 1)
    fitted = ps.fit(joint.graph(), dict(enumerate(parts)))
    denoisers = joint.denoisers()
    mixture = joint_mixture(fitted, denoisers)
    truth = mixture.sample(n, generator=torch.Generator().manual_seed(2))

    def errors(kind: str, c: float, tilt: ps.Tilt | None) -> list[str]:
        noise = noise_covariance(fitted, c)
        exact, root = NoisyMixture(mixture, noise), torch.linalg.cholesky(noise)
        field = ps.JointDenoiser(fitted, kind, c)
        generator = torch.Generator().manual_seed(3)
        out = []
        for sigma in SIGMAS:
            level = ps.NoiseLevel(math.sqrt(1 - sigma**2), sigma)
            white = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
            x = level.alpha * truth + level.sigma * white @ root.T
            noisy = dict(enumerate(x.split(2, 1)))
            own_means, covariances = field.ask(denoisers, noisy, level)
            found = field(noisy, own_means, level, covariances)
            if tilt is not None:
                found = tilt(field, noisy, found, level, own_means, partial(field.ask, denoisers, level=level))
            means = found.mean
            best = exact.denoise(x, level)
            own = stacked(list(own_means.values()))
            error = (stacked([means[0], means[1]]) - best).square().sum()
            out.append(f"{error / (own - best).square().sum():.4f}")
        return out

    field = [["C", "c", *(f"sigma {s:g}" for s in SIGMAS)]]
    for c in (0.0, 0.6, 0.9):
        field += [[kind, f"{c:g}", *errors(kind, c, None)] for kind in KINDS]
        field += [[f"{kind}, asked again", f"{c:g}", *errors(kind, c, ps.Tilt())] for kind in KINDS[:2]]

    def match(x: Tensor) -> str:
        share = proportion(*joint.compatibility(x))
        return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"

    def judged(x: Tensor) -> list[str]:
        return [match(x), str(energy_distance(x, truth)).partition(" (")[0]]

    rows = [["C", "steps", "corrector", "evaluations", "modes match", "energy distance to Eq. 1"]]
    for kind in KINDS:
        for steps, corrector, resample in CORRECTED if kind == "annealed" else CORRECTED[:4]:
            options: dict[str, Any] = {"posterior_covariance": kind, "corrector": corrector, "resample": resample}
            result = ps.sample(
                fitted, denoisers, scheduler(), steps, n, 0, dtype=torch.float64, progress=False, **options
            )
            what = f"Langevin x {corrector.steps}" if corrector else f"{resample.times} times" if resample else ""
            count = str(result.info["denoiser_evaluations"] // 2)
            rows.append([kind, str(steps), what, count, *judged(stacked([result.samples[k] for k in (0, 1)]))])
    whole = ps.FactorGraph()
    whole.add_trajectory("both", (4,))
    for steps in (50, 100, 250, 300, 400):
        result = ps.sample(whole, mixture, scheduler(), steps, n, 0, dtype=torch.float64, progress=False)
        rows.append(["exact joint", str(steps), "", str(steps), *judged(result.samples["both"])])
    again = mixture.sample(20 * n, generator=torch.Generator().manual_seed(4))
    rows.append(["Eq. 1 itself", "", "", "", match(again), ""])
    return (
        "NEAR COPY of benchmarks/mixtures.py with Eq. 1 in closed form. Squared error of the joint denoised contents,\n"
        "as a fraction of that of the trajectories' own (1: no gain from coupling; with noises that correlate the two\n"
        f"states together know more, so rows of one c compare). {n} contents, variance preserving.\n\n"
        + table(field)
        + f"\n\nSamples: {n}, DDIM, independent noise, seed 0, Langevin steps of size 1; 95 % intervals. Step numbers\n"
        "that do not divide 1000 leave DDIM's states off the levels that its next step assumes.\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main("joint_score", build)
