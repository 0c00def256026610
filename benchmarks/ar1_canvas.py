"""Long-range correlation on a canvas: every sampler is a linear map of its noise, so covariances are exact."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler

import pgm_sync as ps

RHO, WINDOW, STRIDE, COUNT, STEPS = 0.98, 16, 4, 7, 50
WIDTH = WINDOW + STRIDE * (COUNT - 1)
index = torch.arange(WIDTH)
MODEL = (RHO ** (index[:, None] - index).abs()).double()
PATCH = ps.GaussianDenoiser(torch.zeros(1, 1, WINDOW).double(), MODEL[:WINDOW, :WINDOW])


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def canvas_response(prior: bool) -> torch.Tensor:
    graph = ps.wide_canvas((1, 1, WIDTH), (1, WINDOW), STRIDE)
    if prior:
        graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, MODEL))
    unit = torch.eye(WIDTH, dtype=torch.float64).reshape(WIDTH, 1, 1, WIDTH)
    result = ps.sample(
        graph, PATCH, scheduler(), STEPS, WIDTH, initial_noise={"canvas": unit}, dtype=torch.float64, progress=False
    )
    return result.samples["canvas"].reshape(WIDTH, WIDTH)


def levels() -> list[tuple[float, float]]:
    """(alpha, sigma) of the run's steps, and the clean end."""
    s = scheduler()
    s.set_timesteps(STEPS)
    bars = [s.alphas_cumprod[t].item() for t in s.timesteps] + [s.final_alpha_cumprod.item()]
    return [(b**0.5, (1 - b) ** 0.5) for b in bars]


def gain(size: int, alpha: float, sigma: float) -> torch.Tensor:
    """The exact denoiser of `size` neighbouring pixels, as a matrix."""
    model = MODEL[:size, :size]
    return alpha * model @ torch.linalg.inv(alpha**2 * model + sigma**2 * torch.eye(size, dtype=torch.float64))


def bethe_response() -> torch.Tensor:
    """DiffCollage: scores of the windows minus scores of the overlaps, on the noisy canvas."""
    x = torch.eye(WIDTH, dtype=torch.float64)  # rows: responses
    steps = levels()
    for (alpha, sigma), (alpha_next, sigma_next) in zip(steps, steps[1:], strict=False):
        score = torch.zeros_like(x)
        for k in range(COUNT):
            part = slice(k * STRIDE, k * STRIDE + WINDOW)
            score[:, part] += (alpha * x[:, part] @ gain(WINDOW, alpha, sigma) - x[:, part]) / sigma**2
        for k in range(1, COUNT):
            part = slice(k * STRIDE, (k - 1) * STRIDE + WINDOW)
            overlap = WINDOW - STRIDE
            score[:, part] -= (alpha * x[:, part] @ gain(overlap, alpha, sigma) - x[:, part]) / sigma**2
        epsilon = -sigma * score
        x = alpha_next * (x - sigma * epsilon) / alpha + sigma_next * epsilon
    return x


def windows_response(pull: float) -> torch.Tensor:
    """Windows with noise of their own; window k is drawn to the overlap of window k - 1 (SyncSDE, implicit step)."""
    n = COUNT * WINDOW
    x = torch.eye(n, dtype=torch.float64).reshape(n, COUNT, WINDOW)
    steps = levels()
    for k, ((alpha, sigma), (alpha_next, sigma_next)) in enumerate(zip(steps, steps[1:], strict=False)):
        denoised = x @ gain(WINDOW, alpha, sigma)
        epsilon = (x - alpha * denoised) / sigma
        after = alpha_next * denoised + sigma_next * epsilon
        strength = (alpha_next / alpha - sigma_next / sigma) * pull * (1 - k / STEPS)
        overlap = WINDOW - STRIDE
        for j in range(1, COUNT):  # before the first window nobody pulls; gamma (1/lambda)(t/T) / (1 + the same)
            change = strength / (1 + strength) * (x[:, j, :overlap] - x[:, j - 1, STRIDE:])
            after[:, j, :overlap] = after[:, j, :overlap] - change
        x = after
    canvas = torch.zeros(n, WIDTH, dtype=torch.float64)
    centres = torch.arange(COUNT) * STRIDE + (WINDOW - 1) / 2
    for pixel in range(WIDTH):
        nearest = int((centres - pixel).abs().argmin())
        canvas[:, pixel] = x[:, nearest, pixel - nearest * STRIDE]
    return canvas


METHODS: dict[str, Callable[[], torch.Tensor]] = {
    "independent windows": lambda: windows_response(0.0),
    "averaging (Eq. 12)": lambda: canvas_response(False),
    "SyncSDE, 1/lambda = 5": lambda: windows_response(5.0),
    "DiffCollage (Bethe)": bethe_response,
    "joint (Eq. 11)": lambda: canvas_response(True),
}


def build(quick: bool) -> str:
    rows: list[list[object]] = [["method", "covariance error", "mean variance", "end correlation"]]
    for name, respond in METHODS.items():
        response = respond()
        covariance = response.T @ response
        error = ((covariance - MODEL).norm() / MODEL.norm()).item()
        end = (covariance[0, -1] / (covariance[0, 0] * covariance[-1, -1]).sqrt()).item()
        rows.append([name, f"{error:.3f}", f"{covariance.diagonal().mean():.3f}", f"{end:.3f}"])
    rows.append(["truth", "0", "1.000", f"{MODEL[0, -1]:.3f}"])
    return (
        f"AR(1) canvas of {WIDTH} pixels, rho = {RHO}; {COUNT} windows of {WINDOW}, stride {STRIDE}; exact window\n"
        f"denoisers; {STEPS} DDIM steps; exact covariances (linear maps), no Monte Carlo. Windows with noise of their\n"
        "own are cut at the nearest centre.\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("ar1_canvas", build)
