"""Scales of covariances that are stated wrongly, on the plateaus of Eq. 8's floor too."""

from __future__ import annotations

import functools

import pytest
import torch

import pgm_sync as ps
from pgm_sync.learning import calibrate
from pgm_sync.learning.scale_search import search_scale
from pgm_sync.levels import variance_preserving

COVARIANCE = torch.tensor([[1.0, 0.7], [0.7, 1.0]]).double()
SNRS = (0.3, 0.6, 0.9, 4.0)  # below, no factor near one changes the loss by more than the samples' noise
LEVELS = [variance_preserving(s) for s in SNRS]


class Misstated(ps.GaussianDenoiser):
    """Exact means, and `factor` times the exact covariance."""

    factor = 1.0

    def posterior(self, noisy, level, condition=None, features=None):
        told = super().posterior(noisy, level, condition, features)
        return told._replace(covariance=self.factor * told.covariance)


@functools.cache
def learned(factor, scales="level", heldout=0.2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    denoiser = Misstated(torch.zeros(1), torch.eye(1))
    denoiser.factor = factor
    found = calibrate(
        ps.chain_graph(2, 1, ps.JointGaussian(None, COVARIANCE)), {k: x[:, k : k + 1] for k in (0, 1)},
        denoisers=denoiser, levels=LEVELS, base="denoiser", scales=scales, heldout=heldout,
        batch_size=4000, epochs=1, learning_rate=0.01,
    )  # fmt: skip
    return found, torch.stack([values for _, values in found.posterior_covariance.scales])


@pytest.mark.parametrize(("factor", "scales"), [(1.0, "level"), (2.0, "level"), (2.0, "node")])
def test_scales_undo_a_wrong_factor(factor, scales):
    """Twice the covariance is floored in all directions wherever snr < 1: there the gradient is zero."""
    _, found = learned(factor, scales)
    assert (found * factor - 1).abs().max() < 0.15, found


def test_the_loss_is_that_of_the_exact_covariance():
    """The same samples and noise: learned from a wrong covariance, 95 % of what the wrong factor costs is won back."""
    wrong, right = learned(2.0)[0], learned(1.0)[0]
    cost = wrong.unscaled - right.unscaled
    assert cost > 0.01
    assert min(wrong.heldout) == pytest.approx(right.unscaled, abs=0.05 * cost)


def test_a_search_crosses_a_plateau():
    def loss(x):
        return min(1.0, (x + 1.3) ** 2)  # flat at and around 0

    assert search_scale(loss) == pytest.approx(-1.3, abs=0.02)
    assert search_scale(lambda _: 1.0) == 0.0
    held = torch.linspace(0, 1, 50)
    assert search_scale(loss, check=lambda x: held) == 0.0  # no better on held-out samples
    shift = torch.linspace(-1, 1.2, 50)  # better by .1 +- .09
    assert search_scale(loss, check=lambda x: held - shift * (x != 0)) == 0.0
    assert search_scale(loss, check=lambda x: held - (shift + 0.2) * (x != 0)) == pytest.approx(-1.3, abs=0.02)
    assert search_scale(lambda x: (x - 0.1) ** 2) == pytest.approx(0.1, abs=0.02)
