"""The symbols of one denoising step, on two trajectories of one number."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps

rho, level = 0.9, ps.NoiseLevel(alpha=0.6, sigma=0.8)
graph = ps.chain_graph(2, 1, ps.Correlation(rho))
denoiser = ps.GaussianDenoiser(torch.zeros(1).double(), torch.eye(1).double())
noisy = {0: torch.tensor([[1.3]]).double(), 1: torch.tensor([[-0.5]]).double()}
own = {name: denoiser.denoise(x, level) for name, x in noisy.items()}
joint = ps.JointDenoiser(graph)(noisy, own, level).mean
covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
posterior = torch.linalg.inv(torch.linalg.inv(covariance) + level.snr * torch.eye(2))  # Eq. 9

line = torch.linspace(-2.4, 2.4, 121, dtype=torch.float64)
points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def ellipses(axis, mean, spread, colour, label):
    density = ps.Gaussian.from_moments(mean, spread).log_density(points)
    axis.contour(
        line,
        line,
        density - density.max(),
        levels=[-2, -0.5],
        colors=colour,
        linewidths=1.2,
        linestyles="solid",
    )
    axis.plot(*mean, "o", color=colour, ms=5, label=label)


figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.1), sharex=True, sharey=True)
m, best, state = (torch.cat([x[0], x[1]], 1)[0] for x in (own, joint, noisy))
zero = torch.zeros(2, dtype=torch.float64)
ellipses(axes[0], zero, covariance, "C3", r"$g = N(\mu, \Sigma)$")
axes[0].set_title("clean contents: the potential")
axes[1].plot(*(state / level.alpha), "s", color="black", ms=4, label=r"$x_t/\alpha$")
ellipses(axes[1], m, torch.eye(2).double() / (1 + level.snr), "C1", "$m_i$, $C_i$")
axes[1].set_title("each denoiser by itself")
ellipses(axes[2], m, torch.eye(2).double() / (1 + level.snr), "#e9bda0", "$m_i$, $C_i$")
ellipses(axes[2], best, posterior, "C0", r"$m^{\mathrm{joint}}$, $\Lambda^{-1}$")
axes[2].annotate("", best, m, arrowprops={"arrowstyle": "->", "lw": 1.2})
axes[2].set_title("together (Eq. 5 and 6)")
for axis in axes:
    axis.set(aspect="equal", xlabel="trajectory 1")
    axis.legend(loc="upper left")
axes[0].set_ylabel("trajectory 2")
