"""A wide picture from a checkpoint that only knows square ones: Stable Diffusion 1.5, 2.1, XL, 3 or Flux.

    python wide.py stable-diffusion-v1-5/stable-diffusion-v1-5 "a mountain range at dawn" --folder my_panoramas
    python wide.py black-forest-labs/FLUX.1-dev "a mountain range at dawn" --window 1024 --width 3072

Windows share the latents where they overlap. With a folder of wide pictures, correlations between their latents are
learned as well, so that windows far apart go together; they are one small file, `wide.safetensors`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pgm_sync as ps


def window_graph(
    pipe: Any, height: int, width: int, window: int, stride: int, modes: int = 4, wrap: bool = False
) -> ps.FactorGraph:
    """Windows of `window` pixels every `stride` pixels on a canvas of latents; unfitted factors over cosine modes."""
    scale, channels = pipe.vae_scale_factor, pipe.vae.config.latent_channels
    return ps.wide_canvas(
        (channels, height // scale, width // scale),
        window=(height // scale, window // scale),
        stride=(height // scale, stride // scale),
        features=(lambda shape: ps.DCT(shape, modes)) if modes else None,
        wrap=wrap,
    )


def learn(pipe: Any, graph: ps.FactorGraph, pictures: Tensor) -> ps.FactorGraph:
    """Correlations of the latents of `pictures`, ``(n, 3, height, width)`` in [-1, 1]."""
    return ps.fit(graph, {"canvas": ps.encode_images(pipe.vae, pictures)})


def paint(pipe: Any, graph: ps.FactorGraph, wrap: int = 0, seed: int = 0, **call: Any) -> Tensor:
    """A picture ``(1, 3, height, width)`` in [-1, 1]; `call` is what the pipeline is called with, a row per window.

    Columns of latents that `wrap` says are decoded twice, for panoramas of 360 degrees.
    """
    shape = graph.shape(graph.trajectories[0])
    packed = "Flux" in type(pipe).__name__
    scale = pipe.vae_scale_factor
    with ps.attach(pipe, graph, layout=ps.Tokens(shape) if packed else None) as attached:
        generator = torch.Generator().manual_seed(seed)
        size = {"height": shape[1] * scale, "width": shape[2] * scale}
        latents = pipe(output_type="latent", generator=generator, **size, **call).images
        canvas = attached.samples(latents)["canvas"]
    return ps.decode_latents(pipe.vae, canvas, wrap)


def read(folder: Path, height: int, width: int) -> Tensor:
    """All pictures of a folder, resized, ``(n, 3, height, width)`` in [-1, 1]."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    arrays = [np.asarray(Image.open(p).convert("RGB").resize((width, height))) for p in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1


def main() -> None:
    from diffusers import DiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("prompt")
    parser.add_argument("--folder", type=Path, help="wide pictures to learn correlations from")
    parser.add_argument("--graph", type=Path, default=Path("wide.safetensors"), help="where they are kept")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--circular", action="store_true", help="360 degrees")
    parser.add_argument("--out", type=Path, default=Path("wide.png"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe = DiffusionPipeline.from_pretrained(options.checkpoint, torch_dtype=dtype).to(device)
    window, width = options.window, options.width
    learned = options.folder is not None or options.graph.exists()
    if options.graph.exists():
        graph = ps.FactorGraph.load(options.graph)
    else:
        graph = window_graph(pipe, window, width, window, window * 3 // 4, 4 if learned else 0, options.circular)
        if options.folder is not None:
            graph = learn(pipe, graph, read(options.folder, window, width))
            graph.save(options.graph)
            print(ps.correlations(graph))
    count = len(graph.trajectories)
    wrap = graph.shape("canvas")[2] // 8 if options.circular else 0
    picture = paint(
        pipe, graph, wrap, options.seed, prompt=[options.prompt] * count, num_inference_steps=options.steps
    )[0]
    Image.fromarray(((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(options.out)
    print(f"{options.out}: {count} windows")


if __name__ == "__main__":
    main()
