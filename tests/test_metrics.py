"""The measures against closed forms and scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError
from pgm_sync.metrics import (
    energy_distance,
    energy_gap_closed,
    far_correlation,
    gap_closed,
    proportion,
)


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


def gaussian_energy_distance(shift, deviation):
    """Closed form for N(0, 1) and N(shift, deviation^2), by the mean of a folded normal."""

    def folded(mean, sd):
        tail = stats.norm.cdf(-mean / sd)
        return sd * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * sd**2)) + mean * (1 - 2 * tail)

    cross = folded(shift, math.hypot(1, deviation))
    return 2 * cross - folded(0, math.sqrt(2)) - folded(0, math.sqrt(2) * deviation)


@pytest.mark.parametrize(
    ("shift", "deviation", "n", "m"),
    [(0, 1, 40, 40), (0, 1, 30, 90), (0.15, 1, 60, 60), (0.3, 1, 60, 60), (0, 1.3, 80, 40), (1, 1, 60, 60)],
)
def test_energy_distances_intervals_cover_the_truth(shift, deviation, n, m, generator):
    """From no difference, where the statistic degenerates and jackknife intervals miss it, to a large one."""
    truth = gaussian_energy_distance(shift, deviation)
    below = above = 0
    for _ in range(300):
        x = torch.randn(n, 1, generator=generator)
        y = shift + deviation * torch.randn(m, 1, generator=generator)
        found = energy_distance(x, y)
        assert found.low <= found.value <= found.high
        below += found.high < truth - 1e-12
        above += found.low > truth + 1e-12
    # 300 trials at .025 a side: 7.5 expected, standard deviation 2.7
    assert below <= 18
    assert above <= 18


def test_energy_distance_does_not_grow_with_the_dimension(generator):
    """Repeating every element leaves root mean square distances, and so everything, as they are."""
    x, y = torch.randn(30, 3, generator=generator), 0.5 + torch.randn(20, 3, generator=generator)
    once, twice = energy_distance(x, y), energy_distance(x.repeat(1, 4), y.repeat(1, 4))
    assert twice == pytest.approx(once, abs=1e-9)
    euclidean = energy_distance(x, y, scale=1)
    assert euclidean.value == pytest.approx(math.sqrt(3) * once.value)
    with pytest.raises(ParameterError, match="scale=0 must be positive"):
        energy_distance(x, y, scale=0)


def test_energy_distance_finds_a_shift(generator):
    found = energy_distance(
        torch.randn(60, 3, generator=generator), 1 + torch.randn(60, 3, generator=generator)
    )
    assert found.low > 0


def test_energy_distance_keeps_its_digits_far_from_the_origin(generator):
    x, y = torch.randn(30, 2, generator=generator).double(), torch.randn(20, 2, generator=generator).double()
    assert energy_distance(x + 1e6, y + 1e6).value == pytest.approx(energy_distance(x, y).value, abs=1e-8)


def test_energy_distance_of_constants():
    same = energy_distance(torch.ones(5, 2), torch.ones(6, 2))
    assert same[:3] == (0, 0, 0)
    apart = energy_distance(torch.zeros(5, 2), torch.ones(6, 2))
    assert apart[:3] == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(("x", "y", "error", "message"), [
    (torch.zeros(5, 2), torch.zeros(5, 3), ShapeError, r"\(5, 2\) and \(5, 3\) do not compare"),
    (torch.zeros(1, 2), torch.zeros(5, 2), ShapeError, "got 1 and 5"),
    (torch.full((5, 2), math.nan), torch.zeros(5, 2), NotFiniteError, "NaN"),
])  # fmt: skip
def test_samples_that_do_not_compare(x, y, error, message):
    with pytest.raises(error, match=message):
        energy_distance(x, y)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (970, 1000)])
def test_proportion_is_wilsons(successes, n):
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert proportion(successes, n)[:3] == pytest.approx((successes / n, interval.low, interval.high))


def test_a_proportion_of_nothing_is_refused():
    with pytest.raises(ParameterError, match="0 successes in 0 trials"):
        proportion(0, 0)
    with pytest.raises(ParameterError, match="8 successes in 7 trials"):
        proportion(8, 7)


def test_groups_widen_the_interval_of_a_far_correlation(generator):
    """Ten copies of each of 12 pictures hold no more than 12: the interval that knows covers, the other does not."""
    knows = ignores = 0
    for _ in range(200):
        x = torch.randn(12, 2, generator=generator)
        x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
        pictures, groups = x.repeat(10, 1)[:, None, None], torch.arange(12).repeat(10)
        grouped = far_correlation(pictures, 1, groups=groups)
        plain = far_correlation(pictures, 1)
        assert grouped.value == plain.value
        knows += grouped.low < 0.6 < grouped.high
        ignores += plain.low < 0.6 < plain.high
    assert knows >= 178  # 190 expected, standard deviation 3
    assert ignores < 120


def test_columns_that_are_not_there():
    with pytest.raises(ShapeError, match="no 3 columns from 0 and from 4 on"):
        far_correlation(torch.zeros(5, 1, 1, 6), 3, 4)
    with pytest.raises(ShapeError, match=r"\(4,\) group labels for 5 pictures"):
        far_correlation(torch.rand(5, 1, 1, 6), 3, groups=[0, 0, 1, 1])


def test_gap_closed_agrees_with_scipys_bootstrap(generator):
    baseline = 2 + torch.rand(60, generator=generator)
    method, oracle = (baseline - gain + 0.2 * torch.randn(60, generator=generator) for gain in (0.6, 0.8))
    found = gap_closed(baseline, method, oracle, draws=4000)
    losses = [x.double().numpy() for x in (baseline, method, oracle)]

    def ratio(b, m, o, axis=-1):
        return (b.mean(axis) - m.mean(axis)) / (b.mean(axis) - o.mean(axis))

    expected = stats.bootstrap(losses, ratio, paired=True, method="percentile", n_resamples=4000, rng=0)
    assert found.value == pytest.approx(ratio(*losses))
    assert found[1:3] == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_gap_closed_covers_the_truth(generator):
    """Truth .75 and 40 groups of 3 with a common part: of 300 intervals 285 should hold it."""
    hits = 0
    groups = torch.arange(120) // 3
    for k in range(300):
        gains = 1 + torch.randn(40, 2, generator=generator)[groups]
        baseline = torch.randn(120, generator=generator)
        found = gap_closed(baseline, baseline - gains[:, 0] * 0.75, baseline - gains[:, 1], groups, 400, k)
        hits += found.low < 0.75 < found.high
    assert 267 <= hits <= 296  # .89 to .987


def test_energy_gap_closed_is_the_ratio_of_energy_distances(generator):
    heldout = torch.randn(90, 2, generator=generator)
    baseline, method, oracle = (torch.randn(50, 2, generator=generator) + s for s in (2, 1, 0.2))
    e = [energy_distance(x, heldout).value for x in (baseline, method, oracle)]
    found = energy_gap_closed(baseline, method, oracle, heldout)
    assert found.value == pytest.approx((e[0] - e[1]) / (e[0] - e[2]), abs=1e-6)
    # Normals shifted by s have, for small s, energy distances like s^2: about .75 of the way
    assert 0.6 < found.low < found.value < found.high < 0.95


def test_energy_gap_closed_covers_the_truth(generator):
    """Of 100 intervals, 95 should hold the ratio of the limits, found from 4,000 samples."""
    many = torch.randn(4000, 2, generator=generator)
    e = [energy_distance(torch.randn(4000, 2, generator=generator) + s, many).value for s in (1.5, 0.8, 0.0)]
    truth = (e[0] - e[1]) / (e[0] - e[2])
    hits = 0
    for k in range(100):
        baseline, method, oracle = (torch.randn(40, 2, generator=generator) + s for s in (1.5, 0.8, 0.0))
        found = energy_gap_closed(baseline, method, oracle, torch.randn(60, 2, generator=generator), draws=200, seed=k)
        hits += found.low < truth < found.high
    assert 87 <= hits <= 99


def test_no_gap_is_said():
    loss = torch.arange(1.0, 9.0)
    with pytest.raises(ParameterError, match="no gap to close"):
        gap_closed(loss, loss, 1.1 * loss)
    with pytest.raises(ShapeError, match="group labels"):
        gap_closed(loss, loss, 0.5 * loss, groups=[0, 1])
    with pytest.raises(NotFiniteError):
        gap_closed(loss, loss * torch.nan, 0.5 * loss)
    with pytest.raises(ShapeError, match="do not compare"):
        energy_gap_closed(loss[:, None], loss[:, None], loss[:4, None], loss[:, None])
