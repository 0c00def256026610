"""Run by test_processes.py, once per process: python _two_processes.py RANK|accelerate STORE OUT WHAT."""

from __future__ import annotations

import os
import sys

import accelerate
import torch
import torch.distributed as dist
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

import pgm_sync as ps


def graph() -> ps.FactorGraph:
    return ps.chain_graph(3, (2,), ps.Correlation(0.8))


def denoisers(dies_at: int | None = None) -> dict[int, ps.FunctionDenoiser]:
    asked = 0

    def denoise(noisy, alpha, sigma):
        nonlocal asked
        asked += 1
        if asked == dies_at:
            os._exit(3)
        return noisy * alpha * (1 + 0.1 * noisy.tanh())

    return dict.fromkeys(range(3), ps.FunctionDenoiser(denoise, (2,)))


def run(distributed: bool, dies_at: int | None = None) -> dict[int, torch.Tensor]:
    return ps.sample(
        graph(), denoisers(dies_at), DDIMScheduler(clip_sample=False), 8, num_samples=4, progress=False, eta=1.0,
        noise_correlation=0.5, distributed=distributed,
    ).samples  # fmt: skip


def attached(distributed: bool) -> dict[int, torch.Tensor]:
    """Windows on a canvas, by a diffusers pipeline with stochastic steps: a generator for each window."""
    windows = ps.wide_canvas((1, 8, 16), (8, 8), 4)
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    pipe = DDIMPipeline(network.double(), DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    with ps.attach(pipe, windows, on_step=lambda state: last.append(state), distributed=distributed) as attachment:
        last: list[ps.SamplingState] = []
        names = attachment.trajectories
        generators = [torch.Generator().manual_seed(graph_seed) for graph_seed in map(SEEDS.get, names)]
        pipe(len(names), generators, eta=1.0, num_inference_steps=6, output_type="np")
        own = torch.cat([last[-1].next[name] for name in names])
        return {**attachment.samples(own), "rows": torch.tensor(len(names))}


SEEDS = {"w0": 3, "w1": 4, "w2": 5}

if __name__ == "__main__":
    rank, store, out, what = sys.argv[1:]
    if rank == "accelerate":  # has set up the environment, and PartialState makes the group
        rank = accelerate.PartialState(cpu=True).process_index
    else:
        rank = int(rank)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    result = attached(True) if what == "attached" else run(True, 5 if what == "dies" and rank == 1 else None)
    torch.save(result, f"{out}{rank}")
    dist.destroy_process_group()
