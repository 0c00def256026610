"""Potentials from moments and from joint denoising score matching, on halves of handwritten digits."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import torch
from diffusers import DDIMScheduler
from sklearn.datasets import load_digits

import pgm_sync as ps
from pgm_sync.metrics import energy_distance

BANDWIDTH, KNOWN, JOINT, STEPS = 0.1, 600, 600, 50


def halves(digits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"left": digits[..., :4], "right": digits[..., 4:]}


def joint_error(graph: ps.FactorGraph | None, denoisers: dict, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """Squared error of every digit ``(n)``, relative to the denoisers alone at each level, averaged over levels."""
    from pgm_sync.learning.score_matching import default_levels

    joint = None if graph is None else ps.JointDenoiser(graph)
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(len(data["left"]))
    levels = default_levels()
    for level in levels:
        noisy = {
            n: level.alpha * x + level.sigma * torch.randn(x.shape, generator=generator)
            for n, x in data.items()
        }
        own = {n: denoisers[n].denoise(x, level) for n, x in noisy.items()}
        mean = own if joint is None else joint(noisy, own, level).mean
        errors = [sum((m[n] - data[n]).square().flatten(1).sum(1) for n in data) for m in (mean, own)]
        total += errors[0] / errors[1].mean()
    return total / len(levels)


def build(quick: bool) -> str:
    n = 100 if quick else 600
    digits = torch.tensor(load_digits().images / 8 - 1).float()[:, None]
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    known, joint, heldout = digits[:KNOWN], digits[KNOWN : KNOWN + JOINT], digits[KNOWN + JOINT :]
    denoisers = {name: ps.EmpiricalDenoiser(x, bandwidth=BANDWIDTH) for name, x in halves(known).items()}
    graph = ps.FactorGraph()
    graph.add_trajectory("left", (1, 8, 4))
    graph.add_trajectory("right", (1, 8, 4))
    graph.add_factor("seam", ["left", "right"], ps.JointGaussian())
    fits = {
        "moments": ps.fit(graph, halves(joint)),
        "score": ps.fit(
            graph, halves(joint), method="score", denoisers=denoisers, iterations=20 if quick else 200
        ),
    }
    rows: list[list[object]] = [["fit", "joint denoising error", "95 %", "energy distance", "95 %"]]
    base = joint_error(fits["moments"], denoisers, halves(heldout))
    for name, fitted in fits.items():
        error = joint_error(fitted, denoisers, halves(heldout))
        spread = 1.96 * error.std().item() / len(error) ** 0.5
        result = ps.sample(
            fitted, denoisers, DDIMScheduler(clip_sample=False), STEPS, num_samples=n, seed=0, progress=False
        )
        samples = torch.cat([result.samples[k] for k in ("left", "right")], -1).flatten(1)
        energy = energy_distance(samples, heldout.flatten(1))
        rows.append([
            name, f"{error.mean().item():.4f}", f"+- {spread:.4f}", f"{energy.value:.4f}",
            f"{energy.low:.4f} to {energy.high:.4f}",
        ])  # fmt: skip
    difference = base - joint_error(fits["score"], denoisers, halves(heldout))
    spread = 1.96 * difference.std().item() / len(difference) ** 0.5
    return (
        f"Denoisers know {KNOWN} digits, potentials are fitted on {JOINT} others, measured on {len(heldout)} more.\n"
        "Joint denoising error: of the joint denoiser over that of the denoisers alone, mean over 12 noise\n"
        f"levels; energy distance of {n} samples to held-out digits.\n\n"
        + table(rows)
        + f"\n\nerror of moments - error of score, paired: {difference.mean().item():.4f} +- {spread:.4f}"
    )


if __name__ == "__main__":
    main("score_matching", build)
