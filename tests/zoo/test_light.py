"""Pictures in any light: against the mixture with the light in its covariances, written out."""

from __future__ import annotations

import pytest
import torch

import pgm_sync as ps
from pgm_sync.denoisers import MixtureDenoiser
from pgm_sync.errors import ParameterError
from pgm_sync.levels import NoiseLevel
from pgm_sync.zoo.light import lights, lit

SHAPE = (3, 2, 3)


def spread(brightness, tint):
    """The covariance that a light adds to 18 numbers."""
    channels = brightness**2 * torch.ones(3, 3).double() + tint**2 * torch.eye(3).double()
    return torch.kron(channels, torch.ones(6, 6).double())


@pytest.mark.parametrize("rank", [None, 5])
def test_the_light_is_in_every_covariance(rank):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(200, 18, generator=generator).double() @ torch.randn(18, 18, generator=generator).double()
    own = MixtureDenoiser.fit(data.reshape(-1, *SHAPE) / 4, 2, rank, labels=torch.arange(200) % 2)
    c = own.components
    frame = torch.eye(18, dtype=torch.float64) if c.frame is None else c.frame
    inside = c.basis @ torch.diag_embed(c.variances - c.residual[:, None]) @ c.basis.mT
    inside = inside + c.residual[:, None, None] * torch.eye(c.means.shape[1], dtype=torch.float64)
    beyond = c.outside * (torch.eye(18, dtype=torch.float64) - frame @ frame.T)
    expected = MixtureDenoiser(
        c.log_weights.exp(), (c.center + c.means @ frame.T).reshape(-1, *SHAPE),
        frame @ inside @ frame.T + beyond + spread(0.6, 0.2), labels=own.labels,
    )  # fmt: skip
    found = lit(own, 0.6, 0.2)
    noisy = torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64)
    for sigma in (0.2, 1.0, 5.0):
        level = NoiseLevel(alpha=1.0, sigma=sigma)
        for condition in (None, 1):
            mine, theirs = (d.posterior(noisy, level, condition, ps.DCT(SHAPE, 1)) for d in (found, expected))
            torch.testing.assert_close(mine.mean, theirs.mean, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(mine.covariance, theirs.covariance, rtol=1e-8, atol=1e-8)


def test_lights_vary_as_they_say():
    found = lights(20_000, generator=torch.Generator().manual_seed(0), brightness=0.6, tint=0.2).flatten(1)
    error = 0.4 * (2 / 20_000) ** 0.5  # of a variance of .4
    expected = 0.36 * torch.ones(3, 3) + 0.04 * torch.eye(3)
    assert (torch.cov(found.T) - expected).abs().max() < 4 * error


def test_bad_lights():
    own = MixtureDenoiser([1.0], torch.zeros(1, 2, 2), torch.eye(4)[None])
    with pytest.raises(ParameterError, match="three channels"):
        lit(own)
    with pytest.raises(ParameterError, match="positive"):
        lit(own, brightness=0)
