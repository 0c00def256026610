"""What a Gaussian potential cannot say, and what it does to marginals that are not Gaussian."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.score import joint_mixture

generator = torch.Generator().manual_seed(0)
figure, axes = plt.subplots(1, 4, figsize=(11.2, 2.8), width_ratios=[1, 1, 1.1, 1.1])

# A parabola: dependence without correlation.
a = torch.randn(4000, 1, generator=generator)
b = (a**2 - 1) / 2**0.5 + 0.15 * torch.randn(4000, 1, generator=generator)
fitted = ps.fit(ps.chain_graph(2, 1), {0: a, 1: b})
first, second = (ps.MixtureDenoiser.fit(x, components=6, seed=0) for x in (a, b))
drawn = joint_mixture(fitted, {0: first, 1: second}).sample(1500, generator=generator)
rho = ps.correlations(fitted)[0].rho
shared = {"s": 2.5, "alpha": 0.4, "lw": 0}
axes[0].scatter(a[:1500], b[:1500], color="C3", **shared)
axes[0].set(title="contents", xlabel="$x^1$", ylabel="$x^2$")
axes[1].scatter(*drawn.T, color="C0", **shared)
axes[1].set(title=rf"Eq. 1, fitted: $\rho = {rho:.2f}$", xlabel="$x^1$")
for axis in axes[:2]:
    axis.set(xlim=(-3.3, 3.3), ylim=(-1.6, 6))

# Marginals of Eq. 1, when contents have two modes and the potential is strong.
line = torch.linspace(-1.8, 1.8, 241, dtype=torch.float64)
for weight, colour in [(0.5, "C0"), (0.7, "C2"), (0.85, "C1")]:
    apart = (0.9 / (weight * (1 - weight))) ** 0.5  # unit variance
    means = torch.tensor([[-(1 - weight) * apart], [weight * apart]])
    modes = ps.MixtureDenoiser([weight, 1 - weight], means, torch.full((2, 1, 1), 0.1))
    found = []
    rhos = torch.linspace(0, 0.98, 13).tolist()
    for rho in rhos:
        if rho == 0:
            found.append(weight)
            continue
        joint = joint_mixture(ps.chain_graph(2, 1, ps.Correlation(rho)), {0: modes, 1: modes})
        x = joint.sample(4000, generator=torch.Generator().manual_seed(1))[:, 0]
        found.append((x < means.mean()).double().mean().item())
    axes[2].plot(rhos, found, color=colour, label=f"denoiser: {weight}")
    axes[2].axhline(weight, color=colour, ls=":", lw=1)
axes[2].set(xlabel=r"$\rho$ of the potential", title="share of the larger mode", ylim=(0.1, 1.02))
axes[2].legend(loc="lower left")

# How wrong one Gaussian is for a posterior between two modes: its error in the joint mean, by their distance.
level = ps.NoiseLevel(0.8, 0.6)
for rho, colour in [(0.5, "C0"), (0.8, "C2"), (0.95, "C1")]:
    errors, separations = [], torch.linspace(0.05, 0.98, 9).tolist()
    for share in separations:  # of the variance that is between modes
        modes = ps.MixtureDenoiser(
            [0.5, 0.5], [[-(share**0.5)], [share**0.5]], [[[1 - share]], [[1 - share]]]
        )
        graph = ps.chain_graph(2, 1, ps.Correlation(rho))
        exact, field = joint_mixture(graph, {0: modes, 1: modes}), ps.JointDenoiser(graph, "denoiser")
        x = exact.sample(2000, generator=torch.Generator().manual_seed(2))
        x = level.alpha * x + level.sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        noisy = {0: x[:, :1], 1: x[:, 1:]}
        own, covariances = field.ask({0: modes, 1: modes}, noisy, level)
        joint = field(noisy, own, level, covariances).mean
        best = exact.denoise(x, level)
        errors.append((torch.cat([joint[0], joint[1]], 1) - best).square().mean().sqrt().item())
    axes[3].plot(separations, errors, color=colour, label=rf"$\rho = {rho}$")
axes[3].set(xlabel="share of variance between two modes", title="error of Eq. 6, rms", ylim=(0, None))
axes[3].legend(loc="upper left")
