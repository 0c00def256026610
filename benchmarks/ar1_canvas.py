"""Long-range correlation on a canvas: every sampler is a linear map of its noise, so covariances are exact."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.peers import Pull, bethe_windows, gaussian_weights, overlaps, sample, sample_syncsde

RHO, WINDOW, STRIDE, COUNT, STEPS = 0.98, 16, 4, 7, 50
WIDTH = WINDOW + STRIDE * (COUNT - 1)
OVERLAP = WINDOW - STRIDE
index = torch.arange(WIDTH)
MODEL = (RHO ** (index[:, None] - index).abs()).double()
# Stable Diffusion's noise schedule, as its pipelines configure DDIM
SCHEDULER = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
    set_alpha_to_one=False, steps_offset=1,
)  # fmt: skip


def exact(shape: tuple[int, ...]) -> ps.GaussianDenoiser:
    """What is true of neighbouring pixels."""
    size = shape[-1]
    return ps.GaussianDenoiser(torch.zeros(shape).double(), MODEL[:size, :size])


def whole(graph: ps.FactorGraph, denoiser: ps.Denoiser) -> Tensor:
    """Response of the canvas ``(noise, pixel)`` to every unit of its noise."""
    unit = torch.eye(WIDTH, dtype=torch.float64).reshape(WIDTH, 1, 1, WIDTH)
    result = ps.sample(
        graph,
        denoiser,
        SCHEDULER,
        STEPS,
        WIDTH,
        initial_noise={"canvas": unit},
        dtype=torch.float64,
        progress=False,
    )
    return result.samples["canvas"].reshape(WIDTH, WIDTH)


def averaged(weighted: bool = False, prior: bool = False) -> Tensor:
    graph = ps.wide_canvas((1, 1, WIDTH), (1, WINDOW), STRIDE)
    if weighted:
        graph = gaussian_weights(graph)
    if prior:
        graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, MODEL))
    return whole(graph, exact((1, 1, WINDOW)))


def bethe() -> Tensor:
    graph = ps.FactorGraph()
    graph.add_trajectory("canvas", (1, 1, WIDTH))
    return whole(graph, bethe_windows((1, 1, WIDTH), WINDOW, STRIDE, exact))


def windows_only(draws: int) -> Tensor:
    """The Bethe sum where overlaps are asked of denoisers of whole windows, `draws` for each overlap."""
    graph = ps.wide_canvas((1, 1, WIDTH), (1, WINDOW), STRIDE)
    beside = [(*overlap.name, k) for overlap in overlaps(graph) for k in range(draws)]
    unit = torch.eye(WIDTH + WINDOW * len(beside), dtype=torch.float64)
    parts = unit[:, WIDTH:].split(WINDOW, 1)
    noise = {name: part.reshape(-1, 1, 1, WINDOW) for name, part in zip(beside, parts, strict=True)}
    noise["canvas"] = unit[:, :WIDTH].reshape(-1, 1, 1, WIDTH)
    result = sample(
        "diffcollage", graph, exact((1, 1, WINDOW)), SCHEDULER, STEPS, len(unit), draws=draws,
        initial_noise=noise, dtype=torch.float64, progress=False,
    )  # fmt: skip
    return result.samples["canvas"].reshape(-1, WIDTH)


def windows(strength: float, form: str = "explicit", shared: bool = False) -> Tensor:
    """Windows with states of their own; each is drawn to its predecessor where they overlap, and pasted over it.

    Their initial noise is their own, or `shared`: cut from one canvas of noise.
    """
    size = WIDTH if shared else COUNT * WINDOW
    starts = [k * (STRIDE if shared else WINDOW) for k in range(COUNT)]
    unit = torch.eye(size, dtype=torch.float64)
    mask = (torch.arange(WINDOW) < OVERLAP).double()
    samples = sample_syncsde(
        dict.fromkeys(range(COUNT), exact((WINDOW,))),
        {k: Pull(k - 1, lambda x: x.roll(-STRIDE, -1), mask) for k in range(1, COUNT)},
        SCHEDULER, STEPS, size, strength=strength, form=form, dtype=torch.float64,
        initial_noise={k: unit[:, s : s + WINDOW] for k, s in enumerate(starts)},
    )  # fmt: skip
    canvas = torch.zeros(size, WIDTH, dtype=torch.float64)
    for k, window in samples.items():
        canvas[:, k * STRIDE : k * STRIDE + WINDOW] = window
    return canvas


METHODS: dict[str, Callable[[], Tensor]] = {
    "independent windows": lambda: windows(0.0),
    "averaging (Eq. 12)": averaged,
    "Gaussian-weighted averaging": lambda: averaged(weighted=True),
    "SyncSDE, own noise": lambda: windows(5.0),
    "SyncSDE, own noise, implicit": lambda: windows(5.0, "implicit"),
    "SyncSDE, shared noise": lambda: windows(5.0, shared=True),
    "SyncSDE, shared noise, implicit": lambda: windows(5.0, "implicit", shared=True),
    "DiffCollage (Bethe)": bethe,
    "DiffCollage, windows only": lambda: windows_only(1),
    "DiffCollage, windows only, 16 draws": lambda: windows_only(16),
    "joint (Eq. 11)": lambda: averaged(prior=True),
}


def build(quick: bool) -> str:
    rows: list[list[object]] = [["method", "covariance error", "mean variance", "end correlation"]]
    for name, respond in tqdm(METHODS.items()):
        response = respond()
        covariance = response.T @ response
        error = ((covariance - MODEL).norm() / MODEL.norm()).item()
        end = (covariance[0, -1] / (covariance[0, 0] * covariance[-1, -1]).sqrt()).item()
        rows.append([name, f"{error:.3f}", f"{covariance.diagonal().mean():.3f}", f"{end:.3f}"])
    rows.append(["truth", "0", "1.000", f"{MODEL[0, -1]:.3f}"])
    return (
        f"AR(1) canvas of {WIDTH} pixels, rho = {RHO}; {COUNT} windows of {WINDOW}, stride {STRIDE}; exact window\n"
        f"denoisers; {STEPS} DDIM steps on Stable Diffusion's noise schedule; SyncSDE with 1/lambda = 5. Exact\n"
        "covariances (linear maps), no Monte Carlo. Windows with states of their own are pasted, the later on top.\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main("ar1_canvas", build)
