"""Variance of each of two coupled trajectories against their correlation."""

import matplotlib.pyplot as plt
import numpy as np

import pgm_sync as ps


def measured(potential):
    graph = ps.chain_graph(2, shape=1, potential=potential)
    posterior = ps.infer(graph, {0: (0.0, 1.0), 1: (0.0, 1.0)})
    return posterior.correlation(0, 1).item(), posterior.variance[0].item()


rhos = np.linspace(0.05, 0.95, 10)
line = np.linspace(0, 1, 100)
figure, axis = plt.subplots(figsize=(4.6, 2.8))
axis.plot(line, 1 / (1 + line), color="C1", label=r"Attraction, $1/(1+\rho)$")
axis.plot(*zip(*[measured(ps.Attraction(r / (1 - r))) for r in rhos], strict=True), "o", color="C1", ms=4)
axis.plot(line, np.ones(100), color="C0", label="Correlation, 1")
axis.plot(*zip(*[measured(ps.Correlation(r)) for r in rhos], strict=True), "o", color="C0", ms=4)
axis.set(xlabel=r"correlation $\rho$", ylabel="variance of each", ylim=(0, 1.1))
axis.legend(loc="lower left")
