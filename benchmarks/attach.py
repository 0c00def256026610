"""What a synchronised step costs beside the network: hook and engine on latents of Stable Diffusion's size."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

import pgm_sync as ps

CHANNELS, SIZE, STRIDE = 4, 64, 48
STEPS = 8


class Loop:
    """The part of a pipeline that counts here: a scheduler, and outputs for it."""

    def __init__(self, outputs: Callable[[Tensor, Any], Tensor]):
        self.scheduler, self.outputs = DDIMScheduler(clip_sample=False), outputs

    def __call__(self, latents: Tensor) -> tuple[Tensor, float]:
        """The last latents, and the median seconds of a step of the scheduler."""
        self.scheduler.set_timesteps(STEPS)
        seconds = []
        for timestep in self.scheduler.timesteps:
            output = self.outputs(latents, timestep)
            start = time.perf_counter()
            latents = self.scheduler.step(output, timestep, latents).prev_sample
            seconds.append(time.perf_counter() - start)
        return latents, statistics.median(seconds)


def windows(count: int, modes: int) -> ps.FactorGraph:
    """A canvas of `count` windows, fitted on noise where cosine modes are coupled: the time does not depend on it."""
    shape = (CHANNELS, SIZE, SIZE + STRIDE * (count - 1))
    features = (lambda window: ps.DCT(window, modes)) if modes else None
    graph = ps.wide_canvas(shape, (SIZE, SIZE), STRIDE, features=features)
    if not modes:
        return graph
    data = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    return ps.fit(graph, {"canvas": data})


def elementwise(count: int) -> ps.FactorGraph:
    return ps.chain_graph(count, (CHANNELS, SIZE, SIZE), ps.Correlation(0.8))


def network(quick: bool) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's U-Net by its published configuration, random weights."""
    torch.manual_seed(0)
    channels = (32, 64, 64, 64) if quick else (320, 640, 1280, 1280)
    return UNet2DConditionModel(
        sample_size=SIZE, block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8
    ).eval()


@torch.no_grad()
def build(quick: bool) -> str:
    unet = network(quick)
    text = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1))
    one = torch.randn(1, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    seconds = []
    for _ in range(2 if quick else 3):
        start = time.perf_counter()
        unet(one, torch.tensor(500), text)
        seconds.append(time.perf_counter() - start)
    forward = statistics.median(seconds)
    parameters = sum(p.numel() for p in unet.parameters())
    del unet
    rows = [["graph", "windows", "stock step", "hooked step", "network, twice per window", "overhead"]]
    graphs: list[tuple[str, Callable[[int], ps.FactorGraph]]] = [
        ("canvas, averaging", lambda n: windows(n, 0)),
        ("canvas, 4 modes per channel, neighbours", lambda n: windows(n, 4)),
        ("chain, every element correlated", elementwise),
    ]
    for count in (2, 4) if quick else (4, 16, 64):
        generator = torch.Generator().manual_seed(3)
        latents, output = (torch.randn(count, CHANNELS, SIZE, SIZE, generator=generator) for _ in range(2))
        for name, build_graph in graphs:
            pipe = Loop(lambda x, t, output=output: output)
            pipe(latents)
            _, stock = pipe(latents)
            with ps.attach(pipe, build_graph(count)):
                pipe(latents)
                _, hooked = pipe(latents)
            network_time = 2 * count * forward  # classifier-free guidance
            times = [f"{1e3 * stock:.1f} ms", f"{1e3 * hooked:.1f} ms", f"{network_time:.1f} s"]
            rows.append([name, str(count), *times, f"{(hooked - stock) / network_time:.2%}"])
    return (
        f"Latents {CHANNELS} x {SIZE} x {SIZE}, U-Net of {parameters / 1e6:.0f} million random weights, "
        f"float32: {forward:.2f} s per row.\nMedian step of DDIM with and without the hook; overhead: what the hook "
        "adds, over the network with\nclassifier-free guidance.\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("attach", build)
