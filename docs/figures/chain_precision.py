"""Covariance and precision of a chain."""

import matplotlib.pyplot as plt

import pgm_sync as ps
from pgm_sync.inspection.plots import correlation_colours

graph = ps.chain_graph(12, shape=1, potential=ps.Correlation(0.8))
joint = ps.infer(graph, dict.fromkeys(graph.trajectories, (0.0, 1.0))).joint(graph.trajectories)

figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.9))
for axis, title in zip(axes, ["covariance", "precision"], strict=True):
    matrix = getattr(joint, title)
    most = matrix.abs().max().item()
    shown = axis.imshow(matrix, cmap=correlation_colours(), vmin=-most, vmax=most)
    axis.set_title(title)
    axis.set(xticks=range(0, 12, 3), yticks=range(0, 12, 3))
    axis.spines[:].set_visible(False)
    figure.colorbar(shown, ax=axis, shrink=0.85)
