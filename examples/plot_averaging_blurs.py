"""
Why averaging blurs
===================

An attraction makes trajectories similar by shrinking them; a correlation makes them similar and
leaves each one's own distribution alone. Both are sampled here at the same correlation.
"""

# %%
# The clean content is a smooth random curve of 24 points with unit variance. Both trajectories
# have the exact denoiser for it.

import torch

import pgm_sync as ps

time = torch.arange(24, dtype=torch.float64)
kernel = torch.exp(-0.5 * ((time[:, None] - time) / 3) ** 2) + 1e-3 * torch.eye(24)
denoiser = ps.GaussianDenoiser(torch.zeros(24), kernel)

# %%
# ``Attraction`` is a spring of precision :math:`\lambda` between matching points. Along an
# eigenvector of the kernel with variance :math:`\kappa` it causes the correlation
# :math:`\lambda\kappa/(1+\lambda\kappa)`. The learned kind of potential is given those very
# correlations, with the variances of the kernel kept.

spring = 20.0
cross = kernel @ torch.linalg.solve(torch.eye(24) + spring * kernel, spring * kernel)
both = torch.cat([torch.cat([kernel, cross], 1), torch.cat([cross, kernel], 1)])
potentials = {
    "attraction": ps.Attraction(spring),
    "correlation": ps.JointGaussian(covariance=(both + both.T) / 2),
}

# %%
# Sample 300 pairs with each, from the same noise.

from diffusers import DDIMScheduler

samples = {}
for label, potential in potentials.items():
    graph = ps.chain_graph(2, shape=24, potential=potential)
    result = ps.sample(
        graph,
        denoiser,
        DDIMScheduler(clip_sample=False),
        num_inference_steps=50,
        num_samples=300,
        posterior_covariance="denoiser",
        progress=False,
    )
    samples[label] = torch.stack([result.samples[0], result.samples[1]], 1)  # (300, 2, 24)

# %%
# Three pairs of each (one colour a pair), and the standard deviation over samples at every point.
# Pairs agree equally well; the attracted ones are flatter. In a picture that is a loss of
# contrast and detail: blur.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.7), layout="constrained")
for axis, (label, pairs) in zip(axes, samples.items(), strict=False):
    for k, colour in zip([1, 4, 8], ["C0", "C1", "C2"], strict=True):
        axis.plot(pairs[k, 0], color=colour)
        axis.plot(pairs[k, 1], color=colour, ls="--")
    axis.set(title=label, ylim=(-3.2, 3.2), xlabel="point")
for (label, pairs), colour in zip(samples.items(), ["C1", "C0"], strict=True):
    axes[2].plot(pairs.flatten(0, 1).std(0), color=colour, label=label)
axes[2].axhline(1, color="C3", lw=1, ls=":", label="each by itself")
axes[2].set(title="standard deviation", ylim=(0, 1.3), xlabel="point")
axes[2].legend(loc="lower left")
plt.show()

# %%
# In numbers, with the prediction of the theory (:doc:`/theory/averaging`) beside each.


def measure(pairs: torch.Tensor) -> tuple[float, float]:
    """Variance of each, and correlation of the two, over all points."""
    variance = pairs.square().mean().item()
    return variance, (pairs[:, 0] * pairs[:, 1]).mean().item() / variance


eigenvalues = torch.linalg.eigvalsh(kernel)
strength = spring * eigenvalues
attracted = eigenvalues * (1 + strength) / (1 + 2 * strength)
predicted = {"attraction": attracted, "correlation": eigenvalues}
predicted = {label: variances.sum().item() / 24 for label, variances in predicted.items()}
for label, pairs in samples.items():
    variance, correlation = measure(pairs)
    print(f"{label}: rho {correlation:.2f}, variance {variance:.2f}, predicted {predicted[label]:.2f}")
    assert abs(variance - predicted[label]) < 0.06
assert measure(samples["attraction"])[0] < 0.6 < 0.9 < measure(samples["correlation"])[0]
