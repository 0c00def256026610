"""Run by test_processes.py, once per process: python _two_processes.py RANK STORE OUT WHAT."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from diffusers import DDIMScheduler

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


if __name__ == "__main__":
    rank, store, out, what = int(sys.argv[1]), *sys.argv[2:]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.save(run(True, dies_at=5 if what == "dies" and rank == 1 else None), f"{out}{rank}")
    dist.destroy_process_group()
