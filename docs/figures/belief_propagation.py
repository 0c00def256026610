"""Belief propagation: one message at a time, the schedules, and the variances on loops."""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9))

# News at the left end of a chain, passed on from neighbour to neighbour.
n = 8
chain = ps.chain_graph(n, shape=1, potential=ps.Attraction(8.0))
evidence = {0: (1.0, 20.0), **dict.fromkeys(range(1, n), (0.0, 0.2))}
network = bp.network(chain, evidence)
messages = bp.init(network)
axis = axes[0]
for sent in range(n):
    if sent in (0, 1, 2, 4, 7):
        mean = [bp.beliefs(network, messages).mean[k].item() for k in range(n)]
        axis.plot(range(n), mean, "o-", ms=3, lw=1, color=plt.cm.Blues(0.35 + 0.09 * sent), label=f"{sent} sent")
    if sent < n - 1:
        messages = bp.step(network, messages, (sent, sent + 1))
exact = ps.infer(chain, evidence)
axis.plot(range(n), [exact.mean[k].item() for k in range(n)], "x", color="C1", ms=6, label="exact")
axis.set(xlabel="node", ylabel="mean", title="one message at a time, to the right", ylim=(-0.05, 1.42))
axis.legend(ncol=3, loc="upper center", handlelength=1.2, columnspacing=1.0)

# The same fixed point by three orders.
axis = axes[1]
grid = ps.grid_graph(8, 8, shape=1, potential=ps.Attraction(2.0))
generator = torch.Generator().manual_seed(0)
evidence = {k: (torch.randn(1, generator=generator, dtype=torch.float64), 1.0) for k in grid.trajectories}
network = bp.network(grid, evidence)
for schedule in ["flooding", "sequential", "residual"]:
    trace = bp.run(network, schedule, tolerance=1e-10).trace
    sent = np.cumsum([row.messages for row in trace]) / len(network.edges)
    axis.semilogy(sent, [row.residual for row in trace], label=schedule)
axis.set(xlabel="messages sent per edge", ylabel="residual", title="8 × 8 grid", xlim=(0, 60))
axis.legend()

# Means are exact at the end, variances are not.
axis = axes[2]
rings = {"ring of 8": nx.cycle_graph(8), "grid 4 × 4": nx.grid_2d_graph(4, 4), "complete, 8": nx.complete_graph(8)}
for name, nodes in rings.items():
    radii, ratios = [], []
    for strength in np.geomspace(0.02, 25, 18):
        laplacian = strength * nx.laplacian_matrix(nodes).toarray()
        scale = 1 / np.sqrt(1 + laplacian.diagonal())
        walks = np.abs(scale[:, None] * (laplacian - np.diag(laplacian.diagonal())) * scale)
        result = bp.run(
            bp.network(
                ps.from_trajectory_graph(nodes, 1, ps.Attraction(float(strength))),
                dict.fromkeys(nodes, (1.0, 1.0)),
            ),
            tolerance=1e-4,
            max_iterations=5000,
        )
        radii.append(np.linalg.eigvalsh(walks).max())
        ratios.append(np.mean([row.variance_ratio for row in bp.compare_with_exact(result)]))
    axis.plot(radii, ratios, label=name)
axis.set(xlabel=r"walk radius $\rho(|R|)$", ylabel="variance / exact", title="variances on loops", ylim=(0, 1.04))
axis.legend(loc="lower left")
