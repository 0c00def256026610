"""Many windows through one network: time and memory by how many states the network is asked for at once."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import json
import subprocess
import sys

STEPS, SIZE, STRIDE = 2, 32, 24


def measure(windows: int, chunk: int | None, quick: bool) -> None:
    """In a process of its own, as a process does not give back its high-water mark."""
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    import pgm_sync as ps

    torch.manual_seed(0)
    channels = (16, 32, 32, 32) if quick else (64, 128, 256, 256)
    unet = UNet2DConditionModel(
        sample_size=SIZE, block_out_channels=channels, cross_attention_dim=128, attention_head_dim=8, norm_num_groups=8
    ).eval()
    denoiser = ps.DiffusersDenoiser(unet, (4, SIZE, SIZE), "epsilon")
    graph = ps.wide_canvas((4, SIZE, SIZE + STRIDE * (windows - 1)), (SIZE, SIZE), STRIDE)
    text = torch.randn(1, 77, 128)
    run = ps.sample(
        graph, denoiser, DDIMScheduler(clip_sample=False), STEPS, conditions={
            name: {"encoder_hidden_states": text} for name in graph.trajectories
        }, chunk=chunk, progress=False,
    )  # fmt: skip
    print(json.dumps({**run.timing, "peak": run.info["peak_memory"]}))


def build(quick: bool) -> str:
    def ask(windows: int, chunk: int | None) -> dict[str, float]:
        arguments = [sys.executable, __file__, "measure", str(windows), str(chunk or 0), str(int(quick))]
        return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    one, many = ask(1, None), 8 if quick else 64
    rows = [["windows", "chunk", "peak / one window's", "s per window and step", "/ one window's", "engine share"]]
    for count, chunk in [(1, None), (many, None), (many, 4), (many, 16), (many, many)]:
        found = one if count == 1 else ask(count, chunk)
        each, single = found["denoiser"] / count / STEPS, one["denoiser"] / STEPS
        rows.append([
            count, chunk or "-", f"{found['peak'] / one['peak']:.2f}", f"{each:.3f}", f"{each / single:.2f}",
            f"{found['engine'] / found['total']:.1%}",
        ])  # fmt: skip
    return (
        f"A canvas seen through windows of 4 x {SIZE} x {SIZE}, {STEPS} steps, a U-Net like Stable Diffusion's with\n"
        "fewer channels and random weights; a process for each row. Peak: resident memory of the process, the\n"
        f"libraries and the network included ({one['peak'] / 2**20:.0f} MiB for one window).\n\n" + table(rows)
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(int(sys.argv[2]), int(sys.argv[3]) or None, bool(int(sys.argv[4])))
    else:
        main("windows", build)
