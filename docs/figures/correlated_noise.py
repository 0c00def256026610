"""Where samples start, and where they end, by the strength of the noises' correlation."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.score import joint_mixture
from pgm_sync.tasks.models import even_scheduler

places = torch.linspace(-1.5, 1.5, 4)[:, None]
modes = ps.MixtureDenoiser([0.25] * 4, places, torch.full((4, 1, 1), 0.01))
variance = places.var(correction=0).item() + 0.01
graph = ps.chain_graph(2, 1, ps.Correlation(0.98, variance=variance))

figure, axes = plt.subplots(2, 4, figsize=(9.4, 4.5), sharex="row", sharey="row")
shared = {"s": 3, "alpha": 0.5, "lw": 0}
for column, c in zip(axes.T, [0.0, 0.6, 0.95], strict=False):
    steps = list(ps.sampling_steps(graph, modes, even_scheduler(), 40, 600, 0, noise_correlation=c))
    column[0].scatter(steps[0].noisy[0], steps[0].noisy[1], color="C3", **shared)
    a, b = steps[-1].next[0], steps[-1].next[1]
    agree = ((a - b).abs() < 0.5).float().mean().item()
    column[1].scatter(a, b, color="C0", **shared)
    column[0].set_title(f"c = {c:g}: start")
    column[1].set_title(f"end: {agree:.0%} in the same mode")
exact = joint_mixture(graph, {0: modes, 1: modes}).sample(600, generator=torch.Generator().manual_seed(0))
axes[1, 3].scatter(*exact.T, color="C2", **shared)
agree = ((exact[:, 0] - exact[:, 1]).abs() < 0.5).double().mean().item()
axes[1, 3].set_title(f"Eq. 1 itself: {agree:.0%}")
axes[0, 3].axis("off")
for axis in axes.flat:
    axis.set_aspect("equal")
axes[0, 0].set_ylabel("$x^2$, noise")
axes[1, 0].set(ylabel="$x^2$, content", xlabel="$x^1$")
