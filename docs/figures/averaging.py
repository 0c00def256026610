"""Agreement by attraction, by averaging and by correlation: what it costs each trajectory."""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pgm_sync as ps
from pgm_sync.tasks.models import even_scheduler

figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.8), width_ratios=[1, 1, 1.15])


def measured(potential):
    posterior = ps.infer(ps.chain_graph(2, 1, potential), {0: (0.0, 1.0), 1: (0.0, 1.0)})
    return posterior.correlation(0, 1).item(), posterior.variance[0].item()


axis = axes[0]
rhos, line = np.linspace(0.05, 0.95, 10), np.linspace(0, 1, 100)
axis.plot(line, 1 / (1 + line), color="C1", label=r"attraction, $1/(1+\rho)$")
axis.plot(*zip(*[measured(ps.Attraction(r / (1 - r))) for r in rhos], strict=True), "o", color="C1", ms=4)
axis.plot(line, np.ones(100), color="C0", label="correlation, 1")
axis.plot(*zip(*[measured(ps.Correlation(r)) for r in rhos], strict=True), "o", color="C0", ms=4)
axis.set(xlabel=r"correlation $\rho$", ylabel="variance of each", ylim=(0, 1.1), title="two trajectories")
axis.legend(loc="lower left")

axis = axes[1]
counts, rho = [2, 3, 4, 6, 8, 12, 16], 0.8
for potential, colour, label in [
    (ps.Attraction, "C1", "all pairs attract"),
    (ps.Correlation, "C0", "star of correlations"),
]:
    variances = []
    for n in counts:
        # A strength that leaves neighbours correlated with .8: rho = lam / (1 + lam) on a complete graph.
        if potential is ps.Attraction:
            graph = ps.complete_graph(n, 1, ps.Attraction(rho / (1 - rho)))
        else:
            graph = ps.star_graph(n - 1, 1, ps.Correlation(rho))
        posterior = ps.infer(graph, dict.fromkeys(graph.trajectories, (0.0, 1.0)))
        variances.append(posterior.variance[graph.trajectories[-1]].item())
    axis.semilogx(counts, variances, "o-", color=colour, ms=4, label=label)
axis.semilogx(counts, [1 / n for n in counts], ":", color="C3", label="$1/N$: one number, counted N times")
axis.set(xlabel="trajectories $N$", title=r"more of them, $\rho = 0.8$", ylim=(0, 1.1))
axis.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
axis.minorticks_off()
axis.legend(loc="center right", bbox_to_anchor=(1, 0.68))

# A canvas of smooth curves, averaged over overlapping windows whose denoisers are exact.
width, window, stride = 40, 16, 4
place = torch.arange(width, dtype=torch.float64)
truth = 0.98 ** (place[:, None] - place).abs()
denoiser = ps.GaussianDenoiser(torch.zeros(1, 1, window).double(), truth[:window, :window])


def variance(graph, name, size):
    """Of every pixel of samples. The sampler is linear: unit noises give its matrix."""
    unit = torch.eye(size, dtype=torch.float64).reshape(size, 1, 1, size)
    result = ps.sample(graph, denoiser, even_scheduler(), 30, size, initial_noise={name: unit}, dtype=torch.float64,
                       progress=False)  # fmt: skip
    return result.samples[name].reshape(size, size).square().sum(0)


axis = axes[2]
lone = ps.FactorGraph()
lone.add_trajectory("window", (1, 1, window))
graph = ps.wide_canvas((1, 1, width), (1, window), stride)
averaged = variance(graph, "canvas", width)
graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, truth))
joint = variance(graph, "canvas", width)
axis.plot(place, averaged, color="C1", label="averaged (Eq. 12)")
axis.plot(place, joint, color="C0", label="with the Gaussian of the canvas (Eq. 11)")
axis.axhline(
    variance(lone, "window", window).mean(), color="C3", ls=":", label="a window by itself, as many steps"
)
axis.set(
    xlabel="pixel of the canvas", ylabel="variance of samples", ylim=(0, 1.1), title="7 windows on a canvas"
)
axis.legend(loc="lower center")
