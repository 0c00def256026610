"""Eq. 1 for two trajectories of one number: what the denoisers know, the dependence, and their product."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.inference import dense_joint
from pgm_sync.inspection.plots import correlation_colours

rho = 0.75
coupling = dense_joint(ps.chain_graph(2, 1, ps.Correlation(rho)))  # log of g / (g_1 g_2), quadratic
line = torch.linspace(-3, 3, 301, dtype=torch.float64)
x, y = torch.meshgrid(line, line, indexing="ij")


def mixture(weights, means, variances):
    w, m, v = (torch.tensor(t, dtype=torch.float64) for t in (weights, means, variances))
    return (w * torch.exp(-0.5 * (line[:, None] - m) ** 2 / v) / (2 * torch.pi * v).sqrt()).sum(1)


first = mixture([0.5, 0.5], [-0.95, 0.95], [0.1, 0.1])  # variance 1: two modes
second = mixture([0.3, 0.4, 0.3], [-1.22, 0.0, 1.22], [0.1, 0.1, 0.1])  # about 1: three modes
product = first[:, None] * second
ratio = coupling.log_density(torch.stack([x, y], -1))
joint = product * ratio.exp()
joint = joint / joint.sum() / (line[1] - line[0]) ** 2

figure, axes = plt.subplots(1, 4, figsize=(11.2, 2.9), width_ratios=[1, 1, 1, 1.25])
for axis, values, title in [(axes[0], product, r"$p_1\,p_2$: the denoisers"), (axes[2], joint, "Eq. 1")]:
    axis.contourf(
        line, line, values.T, levels=torch.linspace(0.02, 1, 9) * values.max(), cmap="Blues", extend="max"
    )
    axis.set_title(title)
shown = axes[1].contourf(
    line, line, ratio.T.clamp(-3, 3), levels=torch.linspace(-3, 3, 13), cmap=correlation_colours()
)
axes[1].set_title(r"$\log g/(g_1 g_2)$: dependence")
figure.colorbar(shown, ax=axes[1], shrink=0.75, ticks=[-3, 0, 3])
for axis in axes[:3]:
    axis.set(aspect="equal", xlabel="$x^1$", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4))
axes[0].set_ylabel("$x^2$")
step = line[1] - line[0]
for own, after, colour, name in [
    (first, joint.sum(1) * step, "C0", "1"),
    (second, joint.sum(0) * step, "C1", "2"),
]:
    axes[3].plot(line, own, ":", color=colour, lw=1.3, label=f"$p_{name}$")
    axes[3].plot(line, after, color=colour, label=f"Eq. 1, of {name}")
axes[3].set(xlabel="content", title="marginals", xlim=(-2.4, 2.4), ylim=(0, 1.12))
axes[3].legend(loc="upper center", ncol=2, columnspacing=1.2, handlelength=1.4)
