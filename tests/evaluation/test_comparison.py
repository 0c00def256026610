"""Means, paired differences and standings against scipy, and by simulation."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError
from pgm_sync.evaluation import (
    Estimate,
    Measurement,
    difference,
    elements,
    energy_distance,
    far_correlation,
    frechet_distance,
    mean,
    ratio,
    seam_gradient,
    share,
    standings,
)


def test_a_mean_has_students_interval(generator):
    x = torch.randn(12, generator=generator).double()
    expected = stats.ttest_1samp(x.numpy(), 0).confidence_interval()
    assert mean(x)[:3] == pytest.approx((float(x.mean()), expected.low, expected.high))
    assert mean(x).values.tolist() == x.tolist()


def test_a_mean_over_groups_is_as_sure_as_its_groups(generator):
    x = torch.randn(9, generator=generator).double()
    grouped = mean(x.repeat_interleave(4), torch.arange(9).repeat_interleave(4))
    assert grouped[:3] == pytest.approx(mean(x)[:3])
    assert len(grouped.values) == 9


def test_a_share_is_wilsons():
    interval = stats.binomtest(7, 9).proportion_ci(method="wilson")
    assert share(torch.tensor([1.0] * 7 + [0.0] * 2))[:3] == pytest.approx(
        (7 / 9, interval.low, interval.high)
    )


def test_a_ratio_covers_the_truth(generator):
    hits = 0
    for _ in range(200):
        b = 1 + torch.rand(30, generator=generator).double()
        hits += (
            (found := ratio(1.5 * b + 0.3 * torch.randn(30, generator=generator), b)).low < 1.5 < found.high
        )
    assert 180 <= hits <= 199  # 190 expected, standard deviation 3


@given(st.integers(3, 20), st.integers(0, 10**6))
def test_values_add_up_to_the_estimate(n, seed):
    """The mean of what a measurement keeps is its value, and their spread its interval."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.rand(n, generator=g).double(), 1 + torch.rand(n, generator=g).double()
    pictures = torch.rand(n, 1, 2, 6, generator=g)
    for found in (mean(a), ratio(a, b), seam_gradient(pictures, [2]), far_correlation(pictures, 2)):
        assert float(found.values.mean()) == pytest.approx(found.value)
    found = ratio(a, b)
    error = float(found.values.std()) / math.sqrt(n)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=1e-3, abs=1e-9)


def test_a_paired_difference_is_scipys(generator):
    hard = 3 * torch.randn(20, generator=generator).double()
    a, b = hard + 1 + 0.1 * torch.randn(20, generator=generator), hard
    test = stats.ttest_rel(a.numpy(), b.numpy())
    expected = test.confidence_interval()
    found = difference(mean(a), mean(b))
    assert found[:3] == pytest.approx((float((a - b).mean()), expected.low, expected.high))
    assert (found.pairing, found.significant) == ("samples", True)
    assert difference(mean(b), mean(a))[:3] == pytest.approx((-found.value, -found.high, -found.low))


def test_an_unpaired_difference_is_put_together(generator):
    """Of symmetric intervals, half widths add up in squares: Welch's interval when samples are many."""
    a, b = (
        torch.randn(400, generator=generator).double(),
        0.3 + torch.randn(300, generator=generator).double(),
    )
    expected = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).confidence_interval()
    found = difference(mean(a), mean(b))
    assert found.pairing == "none"
    assert found[1:3] == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_draws_of_one_resampling_pair(generator):
    """Two methods on the same seeds: the paired interval holds the difference, and is narrower."""
    hits = narrower = 0
    for k in range(40):
        z, y = (torch.randn(60, 2, generator=generator).double() for _ in range(2))
        a, b = (frechet_distance(x, y, elements, draws=60, seed=k) for x in (z + 0.6, z + 0.1))
        found = difference(a, b)
        assert found.pairing == "draws"
        hits += found.low < 2 * (0.36 - 0.01) < found.high
        alone = difference(Estimate(*a), Estimate(*b))
        assert alone.pairing == "none"
        narrower += found.high - found.low < alone.high - alone.low
    assert hits >= 34  # 38 expected
    assert narrower >= 36
    other = frechet_distance(z, y, elements, draws=60, seed=k + 1)
    assert difference(a, other).pairing == "none"


def test_equal_methods_are_tied_and_unequal_ones_found(generator):
    """Energy distances of two samplers with a common part: ties at equal quality, wins at unequal quality."""
    false = found = 0
    for k in range(60):
        z, y = (torch.randn(60, 2, generator=generator).double() for _ in range(2))
        jitter = torch.randn(60, 2, generator=generator).double()
        methods = {"a": z, "b": 0.8 * z + 0.6 * jitter, "c": z + 1.0}
        table = standings({m: energy_distance(x, y, draws=100, seed=k) for m, x in methods.items()}, "lower")
        false += {table["a"].status, table["b"].status} != {"best", "tied with best"}
        found += table["c"].status == "worse" and table["c"].rank == 3
    assert false <= 8  # 3 expected
    assert found >= 54


def test_standings_by_hand():
    hard = torch.linspace(0, 9, 30).double()
    wobble = 0.5 * (-1.0) ** torch.arange(30)
    estimates = {"far": mean(hard + 2), "near": mean(hard + 0.05 + wobble), "first": mean(hard)}
    table = standings(estimates, "lower")
    assert [(r.method, r.rank, r.status) for r in table] == [
        ("first", 1, "best"), ("near", 1, "tied with best"), ("far", 3, "worse"),
    ]  # fmt: skip
    assert table["far"].difference[:3] == pytest.approx((2, 2, 2))
    assert [r.method for r in standings(estimates, "higher")] == ["far", "near", "first"]
    assert "tied with best" in str(table)


def test_rounding_makes_no_winner():
    """Shifts of every sample by less than float32 resolves are no difference, and larger ones are."""
    values = torch.linspace(1, 3, 50, dtype=torch.float64)
    shifts = {"a": 0.0, "b": 1e-6, "c": 1e-4}
    found = standings({name: mean(values + shift) for name, shift in shifts.items()}, "lower")
    assert [(row.method, row.rank) for row in found] == [("a", 1), ("b", 1), ("c", 3)]
    assert [row.status for row in found] == ["best", "tied with best", "worse"]
    assert found["b"].difference.low > 0


def test_a_value_to_meet(generator):
    """Real pictures have 1: .9 is as near as 1.1, and 1.4 is not."""
    noise = 0.05 * torch.randn(50, generator=generator).double()
    noise -= noise.mean()
    estimates = {"over": mean(1.11 - noise), "under": mean(0.9 - noise), "off": mean(1.4 + noise)}
    table = standings(estimates, 1.0)
    assert [(r.method, r.status) for r in table] == [
        ("under", "best"),
        ("over", "tied with best"),
        ("off", "worse"),
    ]
    assert table["off"].difference.value == pytest.approx(0.3)
    unpaired = standings({m: Estimate(*e) for m, e in estimates.items()}, 1.0)
    assert [r.status for r in unpaired] == [r.status for r in table]
    around = standings({"a": Estimate(1.0, 0.8, 1.2, 9), "b": Estimate(1.5, 1.4, 1.6, 9)}, 1.0)
    assert around["b"].difference.low == pytest.approx(
        0.5 - math.hypot(0.1, 0.2)
    )  # |value - 1| lies in [0, .2]


def test_estimates_without_interval_are_never_worse():
    table = standings({"a": mean(torch.tensor([1.0])), "b": mean(torch.tensor([2.0]))}, "lower")
    assert [(r.rank, r.status) for r in table] == [(1, "best"), (1, "tied with best")]
    assert math.isnan(table["b"].difference.high)


def test_a_measurement_survives_pickling():
    kept = pickle.loads(pickle.dumps(Measurement(0.5, 0.2, 0.8, 3, torch.tensor([0.1]), None, "name")))
    assert (kept, kept.values.tolist(), kept.resampling) == ((0.5, 0.2, 0.8, 3), [pytest.approx(0.1)], "name")
    assert isinstance(kept, Measurement)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: mean(torch.zeros(2, 2)), ShapeError, r"one number per sample needed, got shape \(2, 2\)"),
    (lambda: mean(torch.tensor([1.0, math.nan])), NotFiniteError, "1 of 2 are NaN or infinite, sample 1 first"),
    (lambda: share(torch.tensor([0.5])), ParameterError, "hits are 0 or 1, got 0.5"),
    (lambda: ratio(torch.ones(2), torch.ones(3)), ShapeError, "2 numerators and 3 denominators"),
    (lambda: ratio(torch.ones(2), torch.zeros(2)), ParameterError, "nothing to compare with"),
    (lambda: standings({}, "lower"), ShapeError, "no method"),
    (lambda: standings({"a": Estimate(1, 0, 2, 3)}, "smaller"), ParameterError, "better='smaller'"),
    (lambda: standings({"a": Estimate(math.nan, 0, 2, 3)}, "lower"), NotFiniteError, "method 'a'"),
    (lambda: difference(Estimate(math.inf, 0, 2, 3), Estimate(1, 0, 2, 3)), NotFiniteError, "value inf"),
])  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
