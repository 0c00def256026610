"""The field of Eq. 6 against the exact joint denoiser, and what asking again repairs."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.score import NoisyMixture, joint_mixture

graph = ps.chain_graph(2, 1, ps.Correlation(0.9))
modes = ps.MixtureDenoiser([0.5, 0.5], [[-0.95], [0.95]], [[[0.0975]], [[0.0975]]])
denoisers = {0: modes, 1: modes}
mixture = joint_mixture(graph, denoisers)
exact = NoisyMixture(mixture, torch.eye(2, dtype=torch.float64))
sigmas = torch.linspace(0.1, 0.98, 12).tolist()
truth = mixture.sample(1500, generator=torch.Generator().manual_seed(0))
noise = torch.randn(truth.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def denoised(field, tilt, x, level):
    noisy = {0: x[:, :1], 1: x[:, 1:]}
    own, covariances = field.ask(denoisers, noisy, level)
    found = field(noisy, own, level, covariances)
    if tilt is not None:
        found = tilt(field, noisy, found, level, own, lambda states: field.ask(denoisers, states, level))
    return torch.cat([found.mean[0], found.mean[1]], 1), torch.cat([own[0], own[1]], 1)


kinds = {
    "surrogate C": ("surrogate", None, "C0"),
    "denoisers' C": ("denoiser", None, "C2"),
    "surrogate, asked again": ("surrogate", ps.Tilt(), "C1"),
}
figure, axes = plt.subplots(1, 3, figsize=(9.8, 3.0), width_ratios=[1.35, 1, 1])
for label, (kind, tilt, colour) in kinds.items():
    field, errors = ps.JointDenoiser(graph, kind), []
    for sigma in sigmas:
        level = ps.NoiseLevel((1 - sigma**2) ** 0.5, sigma)
        x = level.alpha * truth + level.sigma * noise
        joint, own = denoised(field, tilt, x, level)
        best = exact.denoise(x, level)
        errors.append(((joint - best).square().sum() / (own - best).square().sum()).item())
    axes[0].plot(sigmas, errors, "o-", ms=3, color=colour, label=label)
axes[0].axhline(1, color="C3", ls=":", lw=1)
axes[0].set(
    xlabel=r"$\sigma$", ylabel="squared error", title="error of the field; 1: uncoupled", ylim=(0, 1.1)
)
axes[0].legend(loc="upper right", bbox_to_anchor=(1, 0.92))

level = ps.NoiseLevel(0.8, 0.6)
line = torch.linspace(-1.7, 1.7, 12, dtype=torch.float64)
points = torch.cartesian_prod(line, line)
best = exact.denoise(points, level)
fine = torch.linspace(-1.9, 1.9, 90, dtype=torch.float64)
density = exact.log_density(torch.cartesian_prod(fine, fine), level).exp().reshape(90, 90)
for axis, (title, kind, tilt) in zip(
    axes[1:],
    [("Eq. 6, surrogate C", "surrogate", None), ("asked again", "surrogate", ps.Tilt())],
    strict=True,
):
    joint, _ = denoised(ps.JointDenoiser(graph, kind), tilt, points, level)
    axis.contour(fine, fine, density.T, levels=4, colors="C3", linewidths=0.6)
    style = {"angles": "xy", "scale_units": "xy", "scale": 4, "width": 0.006}
    axis.quiver(*points.T, *(best - points / level.alpha).T, color="C3", **style)
    axis.quiver(*points.T, *(joint - points / level.alpha).T, color="C0" if tilt is None else "C1", **style)
    axis.set(aspect="equal", title=title, xlabel="$x_t^1$")
axes[1].set_ylabel("$x_t^2$")
