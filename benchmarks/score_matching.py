"""Potentials and posterior-covariance scales by joint denoising score matching, on halves of handwritten digits."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import torch
from diffusers import DDIMScheduler
from sklearn.datasets import load_digits

import pgm_sync as ps
from pgm_sync.learning.score_matching import default_levels
from pgm_sync.metrics import energy_distance
from pgm_sync.score import PosteriorCovariance

BANDWIDTH, KNOWN, JOINT, STEPS = 0.1, 600, 600, 50
LEVELS = sorted(default_levels(), key=lambda level: level.snr)


def halves(digits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"left": digits[..., :4], "right": digits[..., 4:]}


def joint_errors(
    graph: ps.FactorGraph, denoisers: dict, data: dict[str, torch.Tensor], kind: str
) -> tuple[torch.Tensor, list[float]]:
    """Squared error of every digit at every level ``(n, L)``, relative to the denoisers alone, and what was capped."""
    joint = ps.JointDenoiser(graph, kind)
    generator = torch.Generator().manual_seed(3)
    found, capped = [], []
    for level in LEVELS:
        noisy, own, told = {}, {}, {}
        for name, x in data.items():
            noisy[name] = level.alpha * x + level.sigma * torch.randn(x.shape, generator=generator)
            if name in joint.needs_covariance:
                own[name], told[name] = denoisers[name].posterior(
                    noisy[name], level, features=joint.needs_covariance[name]
                )
            else:
                own[name] = denoisers[name].denoise(noisy[name], level)
        result = joint(noisy, own, level, told)
        errors = [
            sum((m[n] - data[n]).square().flatten(1).sum(1) for n in data) for m in (result.mean, own)
        ]
        found.append(errors[0] / errors[1].mean())
        capped.append(result.capped)
    return torch.stack(found, 1), capped


def interval(values: torch.Tensor) -> str:
    return f"{values.mean().item():+.4f} +- {1.96 * values.std().item() / len(values) ** 0.5:.4f}"


def build(quick: bool) -> str:
    n, epochs = (60, 1) if quick else (600, 8)
    digits = torch.tensor(load_digits().images / 8 - 1).float()[:, None]
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    known, joint, heldout = digits[:KNOWN], digits[KNOWN : KNOWN + JOINT], digits[KNOWN + JOINT :]
    joint, heldout = (joint[:120], heldout[:100]) if quick else (joint, heldout)
    denoisers = {name: ps.EmpiricalDenoiser(x, bandwidth=BANDWIDTH) for name, x in halves(known).items()}
    graph = ps.FactorGraph()
    graph.add_trajectory("left", (1, 8, 4))
    graph.add_trajectory("right", (1, 8, 4))
    graph.add_factor("seam", ["left", "right"], ps.JointGaussian())
    moments = ps.fit(graph, halves(joint), heldout=0.2)
    common = {"method": "score", "denoisers": denoisers, "patience": 3, "epochs": epochs, "learning_rate": 0.2}
    score = ps.fit(graph, halves(joint), iterations=20 if quick else 200, **common)
    scaled = {
        base: ps.fit(graph, halves(joint), potentials="moments", scales="level", base=base, **common)
        for base in ("surrogate", "denoiser")
    }
    cases = {
        "moments, surrogate": (moments, "surrogate"),
        "score, surrogate": (score, "surrogate"),
        "moments, surrogate scaled": (scaled["surrogate"], "fitted"),
        "moments, denoisers' C": (moments, "denoiser"),
        "moments, denoisers' C scaled": (scaled["denoiser"], "fitted"),
    }
    rows: list[list[object]] = [
        ["fit and posterior covariance", "error", "gain, paired", "energy distance", "95 %", "capped"]
    ]
    by_level: list[list[object]] = [["log snr", *(f"{torch.tensor(v.snr).log().item():.1f}" for v in LEVELS)]]
    base = None
    for title, (fitted, kind) in cases.items():
        errors, capped = joint_errors(fitted, denoisers, halves(heldout), kind)
        base = errors if base is None else base
        result = ps.sample(
            fitted, denoisers, DDIMScheduler(clip_sample=False), STEPS, num_samples=n, seed=0, progress=False,
            posterior_covariance=kind,
        )  # fmt: skip
        samples = torch.cat([result.samples[k] for k in ("left", "right")], -1).flatten(1)
        energy = energy_distance(samples, heldout.flatten(1))
        rows.append([
            title, f"{errors.mean().item():.4f}", interval((base - errors).mean(1)), f"{energy.value:.4f}",
            f"{energy.low:.4f} to {energy.high:.4f}", f"{100 * result.info['capped']:.1f} %",
        ])  # fmt: skip
        by_level.append([title, *(f"{e:.3f}" for e in errors.mean(0).tolist())])
        if kind == "denoiser" or fitted is scaled["denoiser"]:
            by_level.append(["  capped", *(f"{100 * c:.0f} %" for c in capped)])
        if kind == "fitted":
            found = PosteriorCovariance.from_dict(ps.Fit.of(fitted).details["posterior_covariance"])
            assert isinstance(found, ps.Scaled)
            by_level.append(["  scale", *(f"{s:.2f}" for s in found.scales[0][1].tolist())])
    return (
        f"Denoisers know {KNOWN} digits, potentials and scales are fitted on {len(joint)} others, measured on\n"
        f"{len(heldout)} more. Error: of the joint denoiser over that of the denoisers alone, mean over 12 noise\n"
        "levels; gain over the first row, with 95 %; energy distance of "
        f"{n} samples to held-out digits; capped: share of\ndirections, over the run, where Eq. 8 had to act.\n\n"
        + table(rows)
        + "\n\nError by level, what was capped, and the learned scales:\n\n"
        + table(by_level)
    )


if __name__ == "__main__":
    main("score_matching", build)
