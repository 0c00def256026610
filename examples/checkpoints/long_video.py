"""A video longer than a motion module knows: overlapping windows of frames of AnimateDiff.

    python long_video.py "waves rolling onto a beach" --frames 48

The rows of one call are windows of 16 frames; windows share the latents of the frames in which they overlap.
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
    scale = pipe.vae_scale_factor
    with ps.attach(pipe, graph) as attached:
        latents = pipe(
            num_frames=window, height=height * scale, width=width * scale, output_type="latent",
            generator=torch.Generator().manual_seed(seed), **call,
        ).frames  # fmt: skip
        video = attached.samples(latents)["video"][0]
    return ps.decode_latents(pipe.vae, video.movedim(1, 0))


def main() -> None:
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
    from diffusers.utils import export_to_gif

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--checkpoint", default="SG161222/Realistic_Vision_V5.1_noVAE")
    parser.add_argument("--adapter", default="guoyww/animatediff-motion-adapter-v1-5-2")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("long_video.gif"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapter = MotionAdapter.from_pretrained(options.adapter)
    pipe = AnimateDiffPipeline.from_pretrained(options.checkpoint, motion_adapter=adapter).to(device)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, timestep_spacing="linspace", beta_schedule="linear"
    )
    graph = frame_graph((4, 64, 64), options.frames, window=16, stride=12)
    prompts = [options.prompt] * len(graph.trajectories)
    frames = film(pipe, graph, options.seed, prompt=prompts, num_inference_steps=options.steps)
    export_to_gif(list((frames / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()), str(options.out))


if __name__ == "__main__":
    main()
