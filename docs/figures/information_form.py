"""Evidence times a factor that is no density: their product is one."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps

rho = 0.8
graph = ps.chain_graph(2, 1, ps.Correlation(rho))
joint = ps.infer(graph, {0: (1.2, 2.0), 1: (-0.2, 1.2)}).joint([0, 1])
zero = torch.zeros((), dtype=torch.float64)
own = torch.tensor([2.0, 1.2], dtype=torch.float64)  # the evidence's precisions
evidence = ps.Gaussian(own.diag(), own * torch.tensor([1.2, -0.2]).double(), zero)
factor = ps.Gaussian(joint.precision - evidence.precision, joint.eta - evidence.eta, zero)

line = torch.linspace(-3, 3, 151, dtype=torch.float64)
x, y = torch.meshgrid(line, line, indexing="xy")
points = torch.stack([x, y], -1)

figure, axes = plt.subplots(1, 3, figsize=(8.8, 2.9), sharex=True, sharey=True)
for axis, gaussian, title in zip(
    axes, [evidence, factor, joint], ["evidence", r"factor $\psi$ (Eq. 2)", "their product"], strict=True
):
    value = gaussian.log_density(points)
    value = value - value.max() if gaussian is not factor else value
    levels = [-8, -6, -4.5, -3, -2, -1, -0.5, -0.1] if gaussian is not factor else 13
    shown = axis.contour(line, line, value, levels=levels, cmap="Blues" if gaussian is not factor else "coolwarm",
                         linewidths=1.1, linestyles="solid", vmin=-9 if gaussian is not factor else None)  # fmt: skip
    eigenvalues = torch.linalg.eigvalsh(gaussian.precision)
    axis.set_title(title + f"\neigenvalues {eigenvalues[0]:.2f} and {eigenvalues[1]:.2f}")
    axis.set(xlabel="$x_1$", aspect="equal")
    if gaussian is not factor:
        axis.plot(*gaussian.mean, "o", color="C1", ms=4)
axes[0].set_ylabel("$x_2$")
