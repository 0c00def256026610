"""The measures against closed forms and scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from pgm_sync.metrics import energy_distance, far_correlation, seam_discontinuity


def test_far_correlation_is_pearsons(generator):
    pictures = torch.randn(40, 1, 2, 6, generator=generator)
    pictures[..., -2:] += pictures[..., :2].mean((1, 2, 3), keepdim=True)
    found = far_correlation(pictures, 2, 4)
    a, b = (p.flatten(1).mean(1).numpy() for p in (pictures[..., :2], pictures[..., -2:]))
    assert found.value == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-6)
    assert found.samples == 40
    assert found.low < found.value < found.high


def test_its_interval_covers_the_truth(generator):
    """Gaussian pictures of correlation .6: 95 of 100 intervals should hold it."""
    hits = 0
    for _ in range(200):
        x = torch.randn(60, 2, generator=generator)
        x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
        found = far_correlation(x[:, None, None], 1, 1)
        hits += found.low < 0.6 < found.high
    assert 180 <= hits <= 199  # 190 expected, standard deviation 3


def test_seams_are_found_where_they_are(generator):
    smooth = torch.randn(30, 3, 4, 12, generator=generator)
    assert seam_discontinuity(smooth, [4, 8]).value == pytest.approx(1, abs=0.1)
    stairs = torch.arange(12.0).expand(30, 1, 4, 12).clone()
    stairs[..., 4:] += 2  # the step into column 4 is 3, all others are 1
    found = seam_discontinuity(stairs, [4])
    assert found.value == pytest.approx(3)
    assert found.high - found.low == pytest.approx(0, abs=1e-9)


def test_energy_distance_of_numbers_is_scipys(generator):
    x, y = torch.randn(25, generator=generator), 1 + torch.randn(35, generator=generator)
    found = energy_distance(x.reshape(25, 1, 1, 1), y.reshape(35, 1, 1, 1))
    biased = stats.energy_distance(x.numpy(), y.numpy()) ** 2  # scipy's is the root of the V-statistic
    within = [torch.cdist(v[:, None], v[:, None]).sum().item() for v in (x, y)]
    unbiased = biased + within[0] * (1 / 25**2 - 1 / (25 * 24)) + within[1] * (1 / 35**2 - 1 / (35 * 34))
    assert found.value == pytest.approx(unbiased, abs=1e-5)


def test_energy_distance_of_equal_distributions_is_nothing(generator):
    values = [
        energy_distance(
            torch.randn(30, 1, 2, 3, generator=generator), torch.randn(50, 1, 2, 3, generator=generator)
        ).value
        for _ in range(60)
    ]
    mean = sum(values) / 60
    assert abs(mean) < 4 * torch.tensor(values).std().item() / math.sqrt(60)


def test_two_pictures_give_no_interval():
    found = seam_discontinuity(torch.rand(2, 1, 1, 4), [2])
    assert math.isnan(found.low)
    assert found.samples == 2
