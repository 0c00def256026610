"""Weights of windows on a canvas, and what the canvas keeps of far correlation."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.peers import gaussian_weights
from pgm_sync.tasks.models import even_scheduler

width, window, stride = 40, 16, 8
place = torch.arange(width, dtype=torch.float64)
truth = 0.98 ** (place[:, None] - place).abs()
denoiser = ps.GaussianDenoiser(torch.zeros(1, 1, window).double(), truth[:window, :window])
graph = ps.wide_canvas((1, 1, width), (1, window), stride)

figure, axes = plt.subplots(1, 3, figsize=(9.8, 2.8), width_ratios=[1.1, 1.1, 1])
starts = range(0, width - window + 1, stride)
seen = sum((place >= start) & (place < start + window) for start in starts)
weighted = gaussian_weights(graph)
for k, start in enumerate(starts):
    inside = slice(start, start + window)
    axes[0].plot(place[inside], 1 / seen[inside], color=f"C{k}", lw=1.3, label="equal" if k == 0 else None)
    weight = weighted.potential(f"see w{k}").weight.flatten()
    axes[0].plot(place[inside], weight, "--", color=f"C{k}", lw=1.3, label="Gaussian" if k == 0 else None)
axes[0].set(
    xlabel="pixel of the canvas",
    ylabel="weight $w_i$",
    title="4 windows: a partition of unity",
    ylim=(0, 1.3),
)
axes[0].legend(loc="upper center", ncol=2)

unit = torch.eye(width, dtype=torch.float64).reshape(width, 1, 1, width)
sampled = {}
for label, prior in [("averaged (Eq. 12)", False), ("Eq. 11", True)]:
    if prior:
        graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, truth))
    options = {"initial_noise": {"canvas": unit}, "dtype": torch.float64, "progress": False}
    result = ps.sample(graph, denoiser, even_scheduler(), 40, width, **options)
    response = result.samples["canvas"].reshape(width, width)
    covariance = response.T @ response
    sampled[label] = covariance / (covariance.diagonal()[:, None] * covariance.diagonal()).sqrt()
axes[1].plot(place, truth[0], color="C3", ls=":", label="truth")
for (label, correlation), colour in zip(sampled.items(), ["C1", "C0"], strict=True):
    axes[1].plot(place, correlation[0], color=colour, label=label)
axes[1].set(xlabel="pixel", ylabel="correlation with pixel 0", title="along the canvas", ylim=(0, 1.05))
axes[1].legend(loc="lower left")
image = torch.tril(sampled["averaged (Eq. 12)"]) + torch.triu(sampled["Eq. 11"], 1)
shown = axes[2].imshow(image, cmap="Blues", vmin=0, vmax=1)
axes[2].set(title="Eq. 11 above, Eq. 12 below", xticks=[0, 39], yticks=[0, 39])
figure.colorbar(shown, ax=axes[2], shrink=0.85, label="correlation")
