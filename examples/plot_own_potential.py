"""
A potential of your own
=======================

Three trajectories whose contents must add up: a potential that ties the *sum* of all its ends,
written in a few lines, and sampled.
"""

# %%
# A potential is a frozen dataclass whose ``information`` returns :math:`\log\psi` in information
# form: a precision matrix, a vector, a constant. This one, for any number of ends, is
# :math:`\log\psi = -\tfrac{\lambda}{2} \sum_k (\sum_i x^i_k - \text{total})^2`.

from dataclasses import dataclass

import torch

import pgm_sync as ps
from pgm_sync.potentials import Information


@dataclass(frozen=True, eq=False, repr=False)
class Budget(ps.Potential):
    """The contents of all ends sum to `total`, element by element, with the given precision."""

    total: float
    precision: float
    elementwise = True

    def information(self, shapes):
        ones = torch.ones(len(shapes), dtype=torch.float64)
        strength = torch.tensor(self.precision, dtype=torch.float64)
        return Information(
            precision=strength * torch.outer(ones, ones),
            eta=strength * self.total * ones,
            log_scale=-0.5 * strength * self.total**2,
        )


# %%
# The laws that every potential keeps come as a test class to inherit
# (:doc:`/howto/own_potential`); here a few of them are run by hand.

from pgm_sync.testing import PotentialTests


class TestBudget(PotentialTests):
    shapes = [(3,), (3,), (3,)]

    def create(self):
        return Budget(total=2.0, precision=0.5)

    def log_density(self, contents):
        return -0.5 * 0.5 * (sum(contents) - 2.0).square().sum(1)


tests = TestBudget()
tests.test_log_density_equals_the_oracle()
tests.test_information_is_symmetric_and_float64()
tests.test_save_and_load_gives_the_same_potential()

# %%
# Three smooth curves, say what three sources contribute to a supply of 6 over time. Each has its
# own denoiser, a Gaussian with mean 2 and a smoothness of its own.

time = torch.arange(40, dtype=torch.float64)
widths = {"wind": 2.0, "sun": 5.0, "water": 12.0}
denoisers = {}
for name, width in widths.items():
    covariance = 0.4 * torch.exp(-0.5 * ((time[:, None] - time) / width) ** 2)
    covariance += 1e-4 * torch.eye(40)
    denoisers[name] = ps.GaussianDenoiser(torch.full((40,), 2.0), covariance)
graph = ps.FactorGraph()
for name in widths:
    graph.add_trajectory(name, shape=40)
free = graph.copy()
graph.add_factor("supply", list(widths), Budget(total=6.0, precision=400.0))

# %%
# The potential states no marginals, so the denoisers are asked for their posterior covariances
# (Eq. 4).

from diffusers import DDIMScheduler

results = {
    label: ps.sample(
        chosen,
        denoisers,
        DDIMScheduler(clip_sample=False),
        num_inference_steps=50,
        num_samples=50,
        posterior_covariance="denoiser",
        progress=False,
    ).samples
    for label, chosen in [("independent", free), ("with the budget", graph)]
}

# %%
# One sample of each, stacked.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", sharey=True)
for axis, (label, samples) in zip(axes, results.items(), strict=True):
    curves = [samples[name][0] for name in widths]
    axis.stackplot(time, *curves, labels=list(widths), colors=["#8fb7d9", "#f0c27b", "#2166ac"])
    axis.axhline(6, color="#3c3c3a", lw=1, ls=":")
    axis.set(title=label, xlabel="time", ylim=(0, 8.5), xlim=(0, 39))
axes[1].legend(loc="upper right", ncols=3)
plt.show()

# %%
# The sums keep to the budget, and the curves still vary.

total = {label: sum(samples[name] for name in widths) for label, samples in results.items()}
spread = {label: (t - 6).square().mean().sqrt().item() for label, t in total.items()}
print({label: round(value, 3) for label, value in spread.items()})
assert spread["with the budget"] < 0.1 < spread["independent"]
assert all(results["with the budget"][name].std(0).mean() > 0.3 for name in widths)
