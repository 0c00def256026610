"""A video longer than its model knows: overlapping windows of frames of AnimateDiff or Wan.

    python long_video.py "waves rolling onto a beach" --frames 48
    python long_video.py "waves rolling onto a beach" --model wan --frames 60

The rows of one call are windows; windows share the latents of the frames in which they overlap. With Wan four frames
of the video are one frame of its latents, so 60 frames of latents are ten seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pgm_sync as ps


def frame_graph(shape: tuple[int, int, int], frames: int, window: int, stride: int) -> ps.FactorGraph:
    """Windows of `window` frames every `stride` frames; `shape` is (channels, height, width) of the latents."""
    channels, height, width = shape
    graph = ps.FactorGraph()
    graph.add_variable("video", (channels, frames, height, width))
    starts = [*range(0, frames - window, stride), frames - window]
    for k, start in enumerate(starts):
        name = f"w{k}"
        view = ps.Crop((channels, frames, height, width), (start, 0, 0), (window, height, width))
        graph.add_trajectory(name, view.out_shape)
        graph.add_factor(f"see {name}", [name, "video"], ps.Equality(), maps=[None, view])
    return graph


def film(pipe: Any, graph: ps.FactorGraph, seed: int = 0, **call: Any) -> Tensor:
    """Frames ``(frames, 3, height, width)`` in [-1, 1]; `call` has a row per window."""
    _, window, height, width = graph.shape(graph.trajectories[0])
    in_time = getattr(pipe, "vae_scale_factor_temporal", 1)
    in_space = pipe.vae_scale_factor_spatial if in_time > 1 else pipe.vae_scale_factor
    with ps.attach(pipe, graph) as attached:
        latents = pipe(
            num_frames=(window - 1) * in_time + 1, height=height * in_space, width=width * in_space,
            output_type="latent", generator=torch.Generator().manual_seed(seed), **call,
        ).frames  # fmt: skip
        video = attached.samples(latents)["video"]
    return _decoded(pipe.vae, video) if in_time > 1 else ps.decode_latents(pipe.vae, video[0].movedim(1, 0))


@torch.no_grad()
def _decoded(vae: Any, video: Tensor) -> Tensor:
    """Of a VAE that compresses time; its latents are normalised per channel."""
    mean, std = (
        torch.tensor(values).reshape(1, -1, 1, 1, 1).to(video)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    latents = (video * std + mean).to(device=vae.device, dtype=vae.dtype)
    return vae.decode(latents, return_dict=False)[0][0].movedim(1, 0).float().clamp(-1, 1)


def main() -> None:
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, WanPipeline
    from diffusers.utils import export_to_gif

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--model", choices=("animatediff", "wan"), default="animatediff")
    parser.add_argument("--frames", type=int, default=48, help="of the latents")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("long_video.gif"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.model == "wan":
        pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
        graph = frame_graph((16, 60, 104), options.frames, window=21, stride=15)
    else:
        adapter = MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2")
        pipe = AnimateDiffPipeline.from_pretrained("SG161222/Realistic_Vision_V5.1_noVAE", motion_adapter=adapter)
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False, timestep_spacing="linspace", beta_schedule="linear"
        )
        graph = frame_graph((4, 64, 64), options.frames, window=16, stride=12)
    pipe.to(device)
    prompts = [options.prompt] * len(graph.trajectories)
    frames = film(pipe, graph, options.seed, prompt=prompts, num_inference_steps=options.steps)
    export_to_gif(list((frames / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()), str(options.out))


if __name__ == "__main__":
    main()
