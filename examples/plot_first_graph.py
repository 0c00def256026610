"""
A first graph in five minutes
=============================

Three trajectories in a row, correlated through potentials: define the graph, look at it, ask what follows from
evidence, sample it, save it.
"""

# %%
# A graph holds trajectories, each with the shape of its clean content, and factors that join
# them. Here neighbouring trajectories are correlated, element by element, with :math:`\rho =
# 0.8`.

import pgm_sync as ps

graph = ps.FactorGraph()
for name in ["left", "middle", "right"]:
    graph.add_trajectory(name, shape=(1, 4, 4))
graph.add_factor("seam 1", ["left", "middle"], ps.Correlation(0.8))
graph.add_factor("seam 2", ["middle", "right"], ps.Correlation(0.8))
print(graph)

# %%
# It *is* a networkx graph, bipartite between trajectories and factors, so everything of networkx
# works on it.

import networkx as nx

assert nx.is_bipartite(graph)
assert nx.is_tree(graph)
print(nx.shortest_path(graph, "left", "right"))

# %%
# Drawn with the correlations on its edges:

import matplotlib.pyplot as plt

from pgm_sync.inspection.plots import draw_graph

figure, axes = plt.subplots(figsize=(7, 2), layout="constrained")
draw_graph(graph, ps.correlations(graph), ax=axes)
axes.set_ylim(0.7, -0.7)
plt.show()

# %%
# Evidence is a Gaussian about a trajectory, mean and precision: what a denoiser says about its
# clean content. Suppose that the left one is nearly known to be 1 everywhere, and nothing but the
# unit variance is known of the others. Inference passes messages along the graph; its answer is
# exact.

import torch

evidence = {"left": (1.0, 100.0), "middle": (0.0, 1.0), "right": (0.0, 1.0)}
posterior = ps.infer(graph, evidence)
for name in graph.trajectories:
    mean, variance = posterior.mean[name][0, 0, 0], posterior.variance[name][0, 0, 0]
    print(f"{name:>6}: mean {mean:.3f}, variance {variance:.3f}")

# %%
# The mean decays by :math:`\rho` per step along the chain, as regression on the neighbour does.

torch.testing.assert_close(posterior.mean["middle"], 0.8 * posterior.mean["left"])
torch.testing.assert_close(posterior.mean["right"], 0.8 * posterior.mean["middle"])

# %%
# Now observe the left one with growing precision :math:`\pi`. With its unit-variance prior the
# evidence has mean :math:`\pi/(1+\pi)` and precision :math:`1+\pi`. Means rise and variances
# fall, less the further away. A batch of evidence needs one call: batch dimensions stand to the
# left of the shape.

precisions = torch.logspace(-2, 3, 40, dtype=torch.float64)
observed = precisions.reshape(-1, 1, 1, 1)  # (batch, 1, 1, 1) against the shape (1, 4, 4)
sweep = ps.infer(graph, {**evidence, "left": (observed / (1 + observed), 1 + observed)})
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
for name in graph.trajectories:
    axes[0].semilogx(precisions, sweep.mean[name][:, 0, 0, 0], label=name)
    axes[1].semilogx(precisions, sweep.variance[name][:, 0, 0, 0])
axes[0].set(title="mean", xlabel="precision of the observation of 'left'", ylim=(0, 1.05))
axes[1].set(title="variance", xlabel="precision of the observation of 'left'", ylim=(0, 1.05))
axes[0].legend()
plt.show()

# %%
# Sampling is inference at every denoising step, with the denoisers' answers for evidence. A denoiser is any function
# that takes a noisy state :math:`\alpha x_0 + \sigma\varepsilon` and returns the content it expects; this one knows
# standard normal pixels, and nothing of the other trajectories. The scheduler is one of diffusers'.

from diffusers import DDIMScheduler


def denoise(noisy, alpha, sigma):
    return alpha * noisy / (alpha**2 + sigma**2)


denoiser = ps.FunctionDenoiser(denoise, shape=(1, 4, 4))
result = ps.sample(
    graph, denoiser, DDIMScheduler(clip_sample=False), 30, num_samples=200, progress=False
)
pixels = torch.stack(
    [result.samples[name].flatten() for name in graph.trajectories]
)  # (3, 200 * 16)
measured = torch.corrcoef(pixels)
print(measured)

# %%
# Neighbours correlate by .8, and the outer ones by .8 times .8 although no factor joins them. Ten of the samples, a
# column each, show it.

figure, axes = plt.subplots(3, 10, figsize=(8, 2.6), layout="constrained")
for name, line in zip(graph.trajectories, axes, strict=True):
    for picture, axis in zip(result.samples[name], line, strict=False):
        axis.imshow(picture[0], vmin=-2.5, vmax=2.5, cmap="RdBu_r")
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# A graph with its potentials is one file.

import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "row.safetensors"
    graph.save(path)
    again = ps.FactorGraph.load(path)
assert torch.equal(ps.infer(again, evidence).mean["right"], posterior.mean["right"])
assert abs(measured[0, 1] - 0.8) < 0.03
assert abs(measured[0, 2] - 0.64) < 0.05
