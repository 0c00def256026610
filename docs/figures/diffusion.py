"""Score, denoised content and posterior covariance of a mixture, at three noise levels."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps

modes = ps.MixtureDenoiser([0.35, 0.65], [[-1.2], [0.8]], [[[0.05]], [[0.12]]])
weights, means, variances = torch.tensor([0.35, 0.65]), torch.tensor([-1.2, 0.8]), torch.tensor([0.05, 0.12])
states = torch.linspace(-2.6, 2.6, 241, dtype=torch.float64)[:, None]

figure, axes = plt.subplots(2, 3, figsize=(8.8, 4.6), sharex=True, sharey="row")
for column, sigma in zip(axes.T, [0.25, 0.6, 0.9], strict=True):
    level = ps.NoiseLevel(alpha=(1 - sigma**2) ** 0.5, sigma=sigma)
    spread = level.alpha**2 * variances + sigma**2
    density = (
        weights * torch.exp(-0.5 * (states - level.alpha * means) ** 2 / spread) / (6.2832 * spread).sqrt()
    ).sum(1)
    found = modes.posterior(states, level)
    score = ps.score_from_denoised(found.mean, states, level)[:, 0]
    x, mean, deviation = states[:, 0], found.mean[:, 0], found.covariance[:, 0, 0].sqrt()
    column[0].fill_between(x, density, color="C3", alpha=0.25, lw=0)
    column[0].plot(x, density, color="C3", lw=1, label="density $p_t$")
    column[0].plot(x, score / 8, color="C0", label=r"score / 8")
    column[0].axhline(0, color="C3", lw=0.5)
    column[0].set(title=rf"$\sigma = {sigma}$, snr $= {level.snr:.2g}$", ylim=(-1.1, 1.1))
    column[1].plot(x, x / level.alpha, ":", color="C3", lw=1, label=r"$x_t/\alpha$")
    column[1].plot(x, mean, color="C1", label="denoised $m$")
    column[1].fill_between(
        x, mean - deviation, mean + deviation, color="C1", alpha=0.2, lw=0, label=r"$\pm\sqrt{C}$"
    )
    column[1].set(xlabel="noisy state $x_t$", ylim=(-2, 2))
axes[0, 0].legend(loc="upper right")
axes[1, 0].legend(loc="upper left")
