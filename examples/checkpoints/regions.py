"""One picture, a prompt for every region of it, with any text-to-image checkpoint of Stable Diffusion.

    python regions.py stable-diffusion-v1-5/stable-diffusion-v1-5 "a calm sea" "a lighthouse:600,100,800,500"

The first prompt is the background's; every other one has a box left,top,right,bottom in pixels, with soft edges.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

import pgm_sync as ps


def region_graph(shape: tuple[int, int, int], masks: Mapping[str, Tensor]) -> ps.FactorGraph:
    """A trajectory per region, all of the same latents; masks ``(height, width)`` >= 0 are the weights of Eq. 10."""
    total = torch.stack(list(masks.values())).sum(0)
    graph = ps.FactorGraph()
    graph.add_variable("canvas", shape)
    for name, mask in masks.items():
        graph.add_trajectory(name, shape)
        weight = (mask / total).expand(shape)
        graph.add_factor(f"see {name}", [name, "canvas"], ps.Equality(weight))
    return graph


def box(height: int, width: int, place: tuple[int, int, int, int], soft: int = 2) -> Tensor:
    """A mask that is 1 inside left, top, right, bottom, and falls to 0 within `soft` latents of the edge."""
    left, top, right, bottom = place
    mask = torch.zeros(1, 1, height, width)
    mask[..., top:bottom, left:right] = 1
    return avg_pool2d(mask, 2 * soft + 1, 1, soft, count_include_pad=False)[0, 0]


def paint(pipe: Any, graph: ps.FactorGraph, seed: int = 0, **call: Any) -> Tensor:
    """A picture ``(1, 3, height, width)`` in [-1, 1]; `call` has one row per region."""
    _, height, width = graph.shape("canvas")
    scale = pipe.vae_scale_factor
    with ps.attach(pipe, graph) as attached:
        latents = pipe(
            height=height * scale, width=width * scale, output_type="latent",
            generator=torch.Generator().manual_seed(seed), **call,
        ).images  # fmt: skip
        canvas = attached.samples(latents)["canvas"]
    return ps.decode_latents(pipe.vae, canvas)


def main() -> None:
    from diffusers import DiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("background")
    parser.add_argument("region", nargs="+", help="prompt:left,top,right,bottom")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("regions.png"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = DiffusionPipeline.from_pretrained(options.checkpoint).to(device)
    scale, channels = pipe.vae_scale_factor, pipe.vae.config.latent_channels
    height, width = (n // scale for n in options.size)
    masks = {}
    for text in options.region:
        prompt, _, numbers = text.rpartition(":")
        left, top, right, bottom = (round(int(n) / scale) for n in numbers.split(","))
        masks[prompt] = box(height, width, (left, top, right, bottom))
    masks = {options.background: (1 - sum(masks.values())).clamp_min(0.05), **masks}
    graph = region_graph((channels, height, width), masks)
    picture = paint(pipe, graph, options.seed, prompt=list(masks), num_inference_steps=options.steps)[0]
    Image.fromarray(((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(options.out)


if __name__ == "__main__":
    main()
