"""Digits from halves: independent, the learned correlations, together."""

import matplotlib.pyplot as plt
import torch
from diffusers import DDIMScheduler
from sklearn.datasets import load_digits

import pgm_sync as ps

digits = torch.tensor(load_digits().images[:, None], dtype=torch.float32) / 8 - 1
halves = {"left": digits[..., :4], "right": digits[..., 4:]}
graph = ps.FactorGraph()
for name in halves:
    graph.add_trajectory(name, shape=(1, 8, 4))
graph.add_factor("seam", ["left", "right"], ps.JointGaussian())
fitted = ps.fit(graph, halves)
denoisers = {name: ps.EmpiricalDenoiser(half, bandwidth=0.08) for name, half in halves.items()}


def sheet(**options):
    result = ps.sample(fitted, denoisers, DDIMScheduler(clip_sample=False), 50, num_samples=15, seed=3,
                       progress=False, **options)  # fmt: skip
    whole = torch.cat([result.samples["left"], result.samples["right"]], -1)[:, 0]
    tiles = torch.nn.functional.pad(whole, (1, 1, 1, 1), value=-0.8).reshape(3, 5, 10, 10)
    return torch.kron(tiles.permute(0, 2, 1, 3).reshape(30, 50), torch.ones(12, 12))  # browsers blur pixels


figure, axes = plt.subplots(1, 3, figsize=(8.8, 2.3), width_ratios=[50, 36, 50])
seam = fitted.potential("seam")
scale = seam.covariance.diagonal().rsqrt()
correlation = seam.covariance[:32, 32:] * scale[:32, None] * scale[32:]
axes[0].imshow(sheet(couple=False), cmap="gray_r", vmin=-1, vmax=1)
axes[0].set_title("halves sampled one by one")
axes[2].imshow(sheet(posterior_covariance="denoiser"), cmap="gray_r", vmin=-1, vmax=1)
axes[2].set_title("sampled together")
for axis in (axes[0], axes[2]):
    axis.axis("off")

# A line joins pixels of the two halves whose correlation is among the strongest.
axis = axes[1]
colours = {True: "#c8501a", False: "#2166ac"}
for k in correlation.abs().flatten().topk(30).indices.tolist():
    i, j = divmod(k, 32)
    colour = colours[correlation.flatten()[k].item() > 0]
    axis.plot([i % 4, 5.5 + j % 4], [i // 4, j // 4], color=colour, lw=1.1, alpha=0.8)
for x0 in (0, 5.5):
    x, y = [x0 + i % 4 for i in range(32)], [i // 4 for i in range(32)]
    axis.plot(x, y, "o", ms=3.5, color="#3c3c3a", mfc="white")
axis.set_title("learned potential")
axis.text(1.5, 8.3, "left", ha="center", fontsize=8)
axis.text(7, 8.3, "right", ha="center", fontsize=8)
axis.set(xlim=(-0.6, 9.1), ylim=(8.6, -0.6), aspect="equal")
axis.axis("off")
