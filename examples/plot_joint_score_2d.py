"""
The joint score of two trajectories
===================================

Two trajectories of one number each, so that the joint score is a field in the plane. Two
denoisers that know one coordinate each, plus one potential, give the score of the joint
distribution at every noise level.
"""

# %%
# Each trajectory's content is standard normal; together they have correlation :math:`\rho = 0.9`.
# The denoisers know nothing of that.

import torch

import pgm_sync as ps
from pgm_sync.score import JointDenoiser

rho = 0.9
graph = ps.chain_graph(2, shape=1, potential=ps.Correlation(rho))
denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
joint = JointDenoiser(graph)


def scores(points: torch.Tensor, level: ps.NoiseLevel) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of independent trajectories, and joint ones (Eq. 7), at noisy states ``(n, 2)``."""
    noisy = {0: points[:, :1], 1: points[:, 1:]}
    own = {name: denoiser.denoise(x, level) for name, x in noisy.items()}
    together = joint(noisy, own, level).mean

    def score(mean: dict[int, torch.Tensor]) -> torch.Tensor:
        return torch.cat([ps.score_from_denoised(mean[k], noisy[k], level) for k in (0, 1)], 1)

    return score(own), score(together)


# %%
# For Gaussians the score of the noisy states is known: :math:`-(\alpha^2 \Sigma + \sigma^2
# I)^{-1} x_t`.

covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)


def closed_form(points: torch.Tensor, level: ps.NoiseLevel) -> torch.Tensor:
    noisy = level.alpha**2 * covariance + level.sigma**2 * torch.eye(2, dtype=torch.float64)
    return -points @ torch.linalg.inv(noisy)


# %%
# Three noise levels, from little to much noise. Lines are contours of the noisy joint density.
# The scores of independent trajectories point to the centre, whatever the other trajectory does;
# the joint scores point to the ridge.

import matplotlib.pyplot as plt

grid = torch.linspace(-2.2, 2.2, 9, dtype=torch.float64)
points = torch.cartesian_prod(grid, grid)
fine = torch.linspace(-2.6, 2.6, 120, dtype=torch.float64)
levels = [ps.NoiseLevel(alpha=(1 - s**2) ** 0.5, sigma=s) for s in (0.3, 0.6, 0.9)]

figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.8), sharex=True, sharey=True, layout="constrained")
for level, column in zip(levels, axes.T, strict=True):
    x = torch.cartesian_prod(fine, fine)
    density = torch.exp(0.5 * (closed_form(x, level) * x).sum(1)).reshape(120, 120)
    fields = zip(column, scores(points, level), ["#77777a", "#2166ac"], strict=True)
    for axis, field, colour in fields:
        axis.contour(fine, fine, density.T, levels=5, colors="#c8501a", linewidths=0.7, alpha=0.6)
        field = field / field.norm(dim=1).max()
        axis.quiver(*points.T, *field.T, color=colour, angles="xy", scale=7, width=0.007)
        axis.set_aspect("equal")
    column[0].set_title(rf"$\sigma = {level.sigma}$")
    column[1].set_xlabel("$x_t^1$")
axes[0, 0].set_ylabel("independent\n\n$x_t^2$")
axes[1, 0].set_ylabel("joint\n\n$x_t^2$")
plt.show()

# %%
# The joint score agrees with the closed form at every point and level (Eq. 9).

for level in levels:
    truth = closed_form(points, level)
    independent, together = scores(points, level)
    print(
        f"sigma {level.sigma}: the joint score is off by {(together - truth).abs().max():.1e}, "
        f"independent scores by {(independent - truth).abs().max():.2f}"
    )
    torch.testing.assert_close(together, truth, rtol=1e-9, atol=1e-9)
