"""How sure a denoiser is: its own covariance, and the surrogate's."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps

modes = ps.MixtureDenoiser(
    [0.15, 0.85], [[-2.32], [0.41]], [[[0.05]], [[0.05]]]
)  # of mean zero and variance one
states = torch.linspace(-2.6, 1.6, 201, dtype=torch.float64)[:, None]
figure, axes = plt.subplots(1, 4, figsize=(10.4, 2.7), width_ratios=[1, 1, 1, 1.15])
for axis, sigma in zip(axes, [0.25, 0.6, 0.9], strict=False):
    level = ps.NoiseLevel(alpha=(1 - sigma**2) ** 0.5, sigma=sigma)
    own = modes.posterior(states, level).covariance[:, 0, 0]
    axis.fill_between(states[:, 0], own, 1, where=own > 1, color="C1", alpha=0.3, lw=0)
    axis.plot(states[:, 0], own, color="C1", label="denoiser's own $C$")
    axis.axhline(1 / (1 + level.snr), color="C0", label="surrogate")
    axis.axhline(1, color="C3", ls=":", lw=1, label="prior (Eq. 8)")
    axis.set(title=rf"$\sigma = {sigma}$", xlabel="noisy state $x_t$", ylim=(0, 2.1))
axes[0].set_ylabel("posterior variance")
axes[0].legend(loc="upper left")

# The posterior itself, for a state between the modes: a Gaussian has to stand for this.
axis, level = axes[3], ps.NoiseLevel(alpha=0.8, sigma=0.6)
line = torch.linspace(-3.4, 2.2, 561, dtype=torch.float64)
prior = (
    torch.tensor([0.15, 0.85]) * torch.exp(-10 * (line[:, None] - torch.tensor([-2.32, 0.41])) ** 2)
).sum(1)
for state, colour in [(-1.0, "C1"), (0.3, "C2")]:
    density = prior * torch.exp(-0.5 * (state - level.alpha * line) ** 2 / level.sigma**2)
    density = density / density.sum() / (line[1] - line[0])
    found = modes.posterior(torch.tensor([[state]], dtype=torch.float64), level)
    mean, variance = found.mean.item(), found.covariance.item()
    axis.plot(line, density, color=colour, label=f"$x_t = {state}$")
    gaussian = torch.exp(-0.5 * (line - mean) ** 2 / variance) / (6.2832 * variance) ** 0.5
    axis.plot(line, gaussian, "--", color=colour, lw=1)
axis.set(title=r"posterior, $\sigma = 0.6$", xlabel="content $x_0$", ylim=(0, 2.2))
axis.legend(loc="upper left", title="dashed: its Gaussian", title_fontsize=8)
