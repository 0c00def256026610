"""The texture of a mesh by Stable Diffusion with a depth ControlNet: views of one atlas of latents.

    python texture.py mug.obj "a mug of blue and white porcelain" --views 8

The rows of one call are views; those that look at one texel of the atlas share its latent and its noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pgm_sync as ps
from pgm_sync.tasks import texture as tx


def depth_images(surface: tx.Surface, cameras: list[tx.Camera], scale: int) -> Tensor:
    """Control images ``(views, 3, h, w)`` in [0, 1], `scale` times as fine as the cameras of the latents."""
    fine = [tx.Camera(c.position, c.target, c.field_of_view, (scale * c.resolution[0], scale * c.resolution[1]), c.up)
            for c in cameras]  # fmt: skip
    return torch.stack([tx.depth_image(view).expand(3, -1, -1) for view in tx.cast_all(surface, fine).values()])


def paint(
    pipe: Any, surface: tx.Surface, cameras: list[tx.Camera], size: int, seed: int = 0, **call: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """A texture ``(3, size, size)`` and the decoded views, both in [0, 1]; `call` has a row per view.

    The cameras have the resolution of the latents. On latents the atlas only ties views to each other; the texture is
    made of the decoded views.
    """
    channels, scale = pipe.unet.config.in_channels, pipe.vae_scale_factor
    graph = tx.texture_graph(surface, cameras, view=(channels, *cameras[0].resolution))
    with ps.attach(pipe, graph):
        latents = pipe(
            image=depth_images(surface, cameras, scale), output_type="latent",
            generator=torch.Generator().manual_seed(seed), **call,
        ).images  # fmt: skip
    pictures = (ps.decode_latents(pipe.vae, latents).float().cpu() / 2 + 0.5).clamp(0, 1)
    views = dict(zip(graph.trajectories, pictures, strict=True))
    return tx.project_views(surface, cameras, views, (size, size)).float().clamp(0, 1), views


def main() -> None:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UniPCMultistepScheduler

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--checkpoint", default="stable-diffusion-v1-5/stable-diffusion-v1-5")
    parser.add_argument("--control", default="lllyasviel/control_v11f1p_sd15_depth")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024, help="of the texture, in texels")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("textured.glb"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    control = ControlNetModel.from_pretrained(options.control)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(options.checkpoint, controlnet=control).to(device)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    surface = tx.load_surface(options.mesh)
    cameras = tx.ring_cameras(surface, options.views, elevation=15, resolution=(64, 64))
    prompts = [f"{options.prompt}, {side} view" for side in _sides(options.views)]
    texture, _ = paint(pipe, surface, cameras, options.size, options.seed, prompt=prompts,
                       num_inference_steps=options.steps)  # fmt: skip
    tx.save_textured(surface, texture, options.out)
    frames = tx.turntable(surface, texture, frames=24, resolution=(256, 256))
    tx.save_turntable(frames, options.out.with_suffix(".gif"))


def _sides(count: int) -> list[str]:
    """What each of a ring of cameras looks at, the first one the front."""
    names = ("front", "side", "back", "side")
    return [names[round(4 * k / count) % 4] for k in range(count)]


if __name__ == "__main__":
    main()
