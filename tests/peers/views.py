"""Shared content in plain matrices, and networks that predict noise, for loops that write published updates out."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import torch
from scipy import sparse

import pgm_sync as ps

SCHEDULERS = {
    "DDIM": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "Euler": diffusers.EulerDiscreteScheduler,
    "DPM++ 2M": diffusers.DPMSolverMultistepScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
    "Heun": diffusers.HeunDiscreteScheduler,
}


def alpha_sigma(scheduler, index):
    """Of the state before step number `index`, as diffusers keeps it."""
    if isinstance(scheduler, diffusers.DDIMScheduler):
        bar = scheduler.alphas_cumprod[scheduler.timesteps[index]].double()
        return bar.sqrt().item(), (1 - bar).sqrt().item()
    sigma = scheduler.sigmas[index].double()
    if isinstance(scheduler, (diffusers.EulerDiscreteScheduler, diffusers.HeunDiscreteScheduler)):
        return 1.0, sigma.item()
    alpha = 1 / (1 + sigma**2).sqrt()
    return alpha.item(), (sigma * alpha).item()


class Network(torch.nn.Module):
    """Predicts noise from a state and a timestep, a little differently for each view."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def noise(self, x, t):
        row = x.flatten(1)
        return (0.9 * x + 0.2 * (self.k + 1) * (row.roll(1, 1).reshape(x.shape) + t / 1000).sin()).tanh()

    def forward(self, rows, timestep):
        return SimpleNamespace(sample=self.noise(rows, timestep.reshape(-1, *[1] * (rows.ndim - 1))))


def denoiser(k, shape):
    return ps.DiffusersDenoiser(Network(k), shape)


def windows():
    """Three windows of 4 x 4 on 4 x 8, the last moved back to the border; their 0/1 matrices."""
    graph = ps.wide_canvas((1, 4, 9), (4, 4), 3)
    columns = torch.arange(36).reshape(4, 9)
    eye = torch.eye(36, dtype=torch.float64)
    lefts = (0, 3, 5)
    return graph, {f"w{k}": eye[columns[:, left : left + 4].flatten()] for k, left in enumerate(lefts)}


def textured(generator):
    """Three views of 3 x 3, of which 7 pixels each look up an atlas of 20 texels bilinearly; the rest is theirs.

    Returns the graph, the pixels that look up and their matrices, and how much each pixel counts.
    """
    graph = ps.FactorGraph()
    graph.add_variable("atlas", (20,))
    matrices, weights = {}, {}
    for k in range(3):
        name = f"view {k}"
        graph.add_trajectory(name, (1, 3, 3))
        mask = torch.ones(9, dtype=torch.bool)
        mask[[k, 8 - k]] = False
        matrix = torch.zeros(7, 20, dtype=torch.float64)
        for row in range(7):
            at = torch.randperm(20, generator=generator)[:4]
            shares = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
            matrix[row, at] = shares / shares.sum()
        lookup = ps.SparseMap.from_scipy(sparse.coo_array(matrix.numpy()), (20,), (7,))
        weights[name] = torch.rand(7, generator=generator, dtype=torch.float64) + 0.1
        graph.add_factor(
            ("texture", k),
            [name, "atlas"],
            ps.Attraction(weights[name]),
            maps=[ps.Mask((1, 3, 3), mask.reshape(1, 3, 3)), lookup],
        )
        matrices[name] = (mask.nonzero().flatten(), matrix)
    return graph, matrices, weights
