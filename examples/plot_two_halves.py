"""
Two halves of a digit
=====================

The main job in small: cut digits into halves, give each half a denoiser of its own, learn the
potential between them, look at it, and sample the halves together.
"""

# %%
# scikit-learn's digits have 8 by 8 pixels. A left and a right half are two trajectories; an
# unfitted :py:obj:`JointGaussian <pgm_sync.potentials.JointGaussian>` joins them.

import torch
from sklearn.datasets import load_digits

import pgm_sync as ps

images = torch.tensor(load_digits().images, dtype=torch.float32)
digits = images[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
train, heldout = digits[order[:900]], digits[order[900:]]


def halves(whole: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"left": whole[..., :4], "right": whole[..., 4:]}


graph = ps.FactorGraph()
graph.add_trajectory("left", shape=(1, 8, 4))
graph.add_trajectory("right", shape=(1, 8, 4))
graph.add_factor("seam", ["left", "right"], ps.JointGaussian())

# %%
# Fit it to whole digits. The record tells what the edge is worth on samples that were kept back:
# log-likelihood per sample of the Gaussian model, with the edge and without.

fitted = ps.fit(graph, halves(train))
record = ps.Fit.of(fitted)
print(f"with the edge {record.heldout:.2f}, without {record.details['heldout_independent']:.2f}")

# %%
# The strongest correlations between matching pixels. (All pairs of pixels count for the mutual
# information.)

table = ps.correlations(fitted)
for row in sorted(table, key=lambda row: -abs(row.rho))[:5]:
    print(f"{row.mode:>12}: rho {row.rho:+.2f} [{row.low:+.2f}, {row.high:+.2f}]")
print(f"mutual information {table.mutual_information['seam']:.2f} nats")

# %%
# Each half has its own denoiser, exact for the training halves blurred a little. It has never
# seen which left half belongs to which right half.

denoisers = {
    name: ps.EmpiricalDenoiser(half, bandwidth=0.1) for name, half in halves(train).items()
}

# %%
# Sample without the potential, with it and the surrogate posterior covariance (the same for every
# sample), and with the denoisers' own (Eq. 4).

from diffusers import DDIMScheduler


def sample(**options) -> torch.Tensor:
    scheduler = DDIMScheduler(clip_sample=False)
    options = {"num_samples": 250, "progress": False, **options}
    result = ps.sample(fitted, denoisers, scheduler, 20, **options)
    return torch.cat([result.samples["left"], result.samples["right"]], -1)


pictures = {
    "independent": sample(couple=False),
    "surrogate covariance": sample(),
    "denoisers' covariance": sample(posterior_covariance="denoiser"),
    "held-out digits": heldout,
}

# %%
# A line of digits per way of sampling.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(4, 1, figsize=(7, 4.6), layout="constrained")
for axis, (label, images) in zip(axes, pictures.items(), strict=True):
    tiles = torch.nn.functional.pad(images[:14, 0], (1, 1, 1, 1), value=-1.0)
    axis.imshow(torch.cat(list(tiles), 1), cmap="gray_r", vmin=-1, vmax=1)
    axis.set_title(label)
    axis.axis("off")
plt.show()

# %%
# Measured by the energy distance to the held-out digits (0 for equal distributions; over pairs of
# different samples).


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.flatten(1), b.flatten(1)

    def within(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return (2 * torch.cdist(a, b).mean() - within(a) - within(b)).item()


del pictures["held-out digits"]
distance = {label: energy_distance(images, heldout) for label, images in pictures.items()}
for label, value in distance.items():
    print(f"{label:>22}: {value:.3f}")

# %%
# With the learned potential, the halves together are closer to real digits than independent
# halves are.

together = [distance["surrogate covariance"], distance["denoisers' covariance"]]
assert max(together) < 0.75 * distance["independent"]
