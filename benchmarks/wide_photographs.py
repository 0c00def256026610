"""Wide pictures of photographs from a patch denoiser: learned potentials against the field's heuristics."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync import zoo
from pgm_sync.metrics import energy_distance, far_correlation
from pgm_sync.peers import gaussian_weights
from pgm_sync.peers.projection import projection

SHAPE, WINDOW, STRIDE, STEPS, CROPS = (3, 24, 96), 24, 18, 60, 2000


def off_grid(pictures: Tensor) -> Tensor:
    """Windows half way between the graph's, so that each straddles a seam; one per picture, in turn."""
    starts = [s + STRIDE // 2 for s in range(0, SHAPE[2] - WINDOW - STRIDE // 2, STRIDE)]
    return torch.stack([p[..., (s := starts[k % len(starts)]) : s + WINDOW] for k, p in enumerate(pictures)])


def build(quick: bool) -> str:
    n = 60 if quick else 200
    generator = torch.Generator().manual_seed(0)
    crops, photos = zoo.wide_crops(SHAPE, CROPS, "train", generator=generator, return_photos=True)
    reference = zoo.wide_crops(SHAPE, 500, "test", generator=generator)
    floor = zoo.wide_crops(SHAPE, n, "test", generator=generator)
    window = (WINDOW, WINDOW)
    averaging = ps.wide_canvas(SHAPE, window, STRIDE)
    unfitted = ps.wide_canvas(SHAPE, window, STRIDE, features=lambda s: ps.DCT(s, 4), neighbours="all")
    learned = ps.fit(unfitted, {"canvas": crops}, groups=photos)
    alone = ps.FactorGraph()
    for name in averaging.trajectories:
        alone.add_trajectory(name, averaging.shape(name))
    denoiser, scheduler = (
        zoo.load("photo-patches"),
        DDIMScheduler(clip_sample=False, timestep_spacing="trailing"),
    )
    methods = {
        "independent windows": (alone, {}),
        "averaging": (averaging, {}),
        "Gaussian-weighted averaging": (gaussian_weights(averaging), {}),
        "learned, surrogate C": (learned, {}),
        "learned, denoiser's C": (learned, {"posterior_covariance": "denoiser"}),
    }
    far = SHAPE[2] - WINDOW
    rows: list[list[object]] = [
        ["method", "far correlation", "whole canvases", "off-grid windows", "engine share"]
    ]

    def add(name: str, pictures: Tensor, share: str = "") -> None:
        rows.append([
            name,
            *(
                f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]"
                for e in (
                    far_correlation(pictures, WINDOW, far),
                    energy_distance(pictures, reference),
                    energy_distance(off_grid(pictures), off_grid(reference)),
                )
            ),
            share,
        ])  # fmt: skip

    for name, (graph, options) in tqdm(methods.items()):
        result = ps.sample(graph, denoiser, scheduler, STEPS, n, 0, progress=False, **options)
        cut = projection(averaging).composed(result.samples, "nearest")[0] if graph is alone else None
        pictures = result.samples["canvas"] if cut is None else cut
        add(name, pictures, f"{result.timing['engine'] / result.timing['total']:.0%}")
    add("held-out photographs (floor)", floor)
    return (
        f"Canvas {SHAPE}, windows of {WINDOW}, stride {STRIDE}; denoiser photo-patches; {n} pictures, {STEPS} DDIM\n"
        f"steps, seed 0; potentials over 4 cosine modes per channel learned from {CROPS} crops of the training bands.\n"
        f"far correlation: mean brightness of the first and last {WINDOW} columns, over pictures. Energy distances to\n"
        "500 held-out crops (root-mean-square), 95 % intervals; off-grid windows straddle seams.\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main("wide_photographs", build)
