"""Halves of handwritten digits: does one learned covariance make them belong together?"""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

from typing import Any

import torch
from diffusers import DDIMScheduler
from sklearn.datasets import load_digits
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.metrics import energy_distance

BANDWIDTH, TRAIN, STEPS = 0.1, 1000, 50
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("independent", {"couple": False}),
    ("correlated noise alone, c = .7", {"couple": False, "noise_correlation": 0.7}),
    ("learned, surrogate C", {}),
    ("learned, surrogate C, c = .7", {"noise_correlation": 0.7}),
    ("learned, denoisers' C", {"posterior_covariance": "denoiser"}),
    ("learned, denoisers' C, c = .7", {"posterior_covariance": "denoiser", "noise_correlation": 0.7}),
]


def build(quick: bool) -> str:
    n = 200 if quick else 600
    generator = torch.Generator().manual_seed(0)
    digits = torch.tensor(load_digits().images / 8 - 1).float()[:, None]
    digits = digits[torch.randperm(len(digits), generator=generator)]
    train, heldout = digits[:TRAIN], digits[TRAIN:]
    graph = ps.FactorGraph()
    graph.add_trajectory("left", (1, 8, 4))
    graph.add_trajectory("right", (1, 8, 4))
    graph.add_factor("seam", ["left", "right"], ps.JointGaussian())
    halves = {"left": train[..., :4], "right": train[..., 4:]}
    fitted = ps.fit(graph, halves)
    denoisers = {name: ps.EmpiricalDenoiser(x, bandwidth=BANDWIDTH) for name, x in halves.items()}
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    rows: list[list[object]] = [["method", "energy distance to held-out digits", "capped directions"]]
    for name, options in tqdm(METHODS):
        result = ps.sample(fitted, denoisers, scheduler, STEPS, n, 0, progress=False, **options)
        pictures = torch.cat([result.samples["left"], result.samples["right"]], -1)
        rows.append([name, energy_distance(pictures, heldout, scale=1), f"{result.info['capped']:.3f}"])
    noise = BANDWIDTH * torch.randn(n, 1, 8, 8, generator=generator)
    rows.append(
        ["training digits + bandwidth (floor)", energy_distance(train[:n] + noise, heldout, scale=1), ""]
    )
    return (
        f"scikit-learn digits, pixels in [-1, 1], halves of 8x4; {TRAIN} to learn from (kernel denoisers of bandwidth\n"
        f"{BANDWIDTH}, and the covariance), {len(heldout)} held out; {n} samples, {STEPS} DDIM steps, seed 0.\n"
        "Energy distance of Euclidean distances between whole digits, 95 % interval. capped: directions in which the\n"
        "joint posterior was held to the width of the joint prior (Eq. 8).\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("digit_halves", build)
