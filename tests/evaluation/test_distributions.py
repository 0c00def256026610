"""Distances of distributions against scipy and scikit-learn, and their intervals against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.metrics.pairwise import polynomial_kernel

from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError
from pgm_sync.evaluation import (
    elements,
    embed,
    frechet_distance,
    kernel_distance,
    pooled_pixels,
    sliced_wasserstein,
)


def normals(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def scipys_frechet(x, y):
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    overlap = np.trace(linalg.sqrtm(a @ b)).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(a) + np.trace(b) - 2 * overlap


def test_sliced_wasserstein_of_numbers_is_scipys(generator):
    x, y = normals(generator, 25, 1), 1 + normals(generator, 35, 1)
    expected = stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sliced_wasserstein(x, y, draws=0).value == pytest.approx(expected)


def test_its_draws_are_scipys_with_weights(generator):
    x, y = normals(generator, 8, 1), normals(generator, 6, 1)
    found = sliced_wasserstein(x, y, draws=30, seed=4)
    again = torch.Generator().manual_seed(4)
    expected = []
    for picked in (torch.randint(8, (30, 8), generator=again), torch.randint(6, (30, 6), generator=again)):
        expected.append(picked)
    distances = torch.tensor(
        [stats.wasserstein_distance(x[i, 0].numpy(), y[j, 0].numpy()) for i, j in zip(*expected, strict=True)]
    )
    assert torch.allclose(found.draws, distances - distances.mean() + found.value)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6))
def test_sliced_wasserstein_is_a_distance(n, m, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = normals(g, n, 3), normals(g, m, 3)
    there, back = (sliced_wasserstein(a, b, projections=8, draws=0).value for a, b in ((x, y), (y, x)))
    assert there == pytest.approx(back)
    assert sliced_wasserstein(x, x.flip(0), projections=8, draws=0).value == pytest.approx(0, abs=1e-12)
    moved = sliced_wasserstein(x + 5, y + 5, projections=8, draws=0).value
    assert moved == pytest.approx(there)


def test_projections_approach_the_mean_over_the_sphere(generator):
    """A shift by v projects to |cos| |v|, whose mean over the circle is 2 / pi."""
    x = normals(generator, 10, 2)
    found = sliced_wasserstein(x, x + torch.tensor([3.0, 0.0]), projections=4000, draws=0)
    assert found.value == pytest.approx(3 * 2 / math.pi, rel=0.02)


@pytest.mark.parametrize("d", [3, 60])
def test_frechet_distance_is_the_formula_with_scipys_root(generator, d):
    """With more and with fewer samples than features."""
    x, y = normals(generator, 40, d), 0.5 + 1.3 * normals(generator, 50, d)
    assert frechet_distance(x, y, elements, draws=0).value == pytest.approx(scipys_frechet(x, y), rel=1e-6)


def test_frechet_distance_of_given_moments(generator):
    """Diagonal covariances: sum of squared differences of means and of deviations."""
    x = normals(generator, 500, 3)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T.cov()), x.T, upper=False
    ).T  # moments 0 and I, exactly
    y = x * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 1.0, 3.0])
    assert frechet_distance(x, y, elements, draws=0).value == pytest.approx(0 + 1 + 9 + 0 + 1 + 0.25)


def test_frechet_draws_are_distances_of_resampled_sets(generator):
    x, y = normals(generator, 12, 2), normals(generator, 9, 2)
    found = frechet_distance(x, y, elements, draws=25, seed=7)
    again = torch.Generator().manual_seed(7)
    i = torch.randint(12, (25, 12), generator=again)
    j = torch.randint(9, (25, 9), generator=again)
    expected = torch.tensor([scipys_frechet(x[a], y[b]) for a, b in zip(i, j, strict=True)])
    assert torch.allclose(found.draws, expected - expected.mean() + found.value, atol=1e-6)


def test_extrapolation_takes_the_bias_away(generator):
    """Equal distributions, truth 0: the plug-in value is above it every time, the extrapolated one on both sides."""
    plain, corrected = [], []
    for _ in range(25):
        x, y = normals(generator, 60, 2), normals(generator, 60, 2)
        plain.append(frechet_distance(x, y, elements, draws=0).value)
        corrected.append(frechet_distance(x, y, elements, extrapolate=True, draws=50).value)
    assert min(plain) > 0
    error = torch.tensor(corrected).std().item() / math.sqrt(25)
    assert abs(sum(corrected) / 25) < 4 * error < sum(plain) / 25


def test_frechet_interval_covers_the_truth(generator):
    """Of normals shifted by .5 in 2 dimensions, .5 in all: of 40 intervals 38 should hold it."""
    hits = 0
    for k in range(40):
        x, y = 0.5 + normals(generator, 100, 2), normals(generator, 100, 2)
        found = frechet_distance(x, y, elements, extrapolate=True, draws=80, seed=k)
        hits += found.low < 0.5 < found.high
    assert hits >= 34


def test_kernel_distance_is_that_of_scikit_learns_kernel(generator):
    x, y = normals(generator, 20, 5), 0.4 + normals(generator, 30, 5)
    k, own, between = (
        polynomial_kernel(a.numpy(), b.numpy()) for a, b in ((x, x), (y, y), (x, y))
    )  # 3, 1/d, 1
    expected = (
        (k.sum() - np.trace(k)) / (20 * 19) + (own.sum() - np.trace(own)) / (30 * 29) - 2 * between.mean()
    )
    assert kernel_distance(x, y, elements).value == pytest.approx(expected)


@pytest.mark.parametrize(("shift", "truth"), [(0.0, 0.0), (0.5, 1.890625)])
def test_kernel_interval_covers_the_truth(generator, shift, truth):
    """Truth: squared differences of the moments of order 1, 2, 3, times 3/2, 3/4, 1/8 (the kernel, multiplied out)."""
    below = above = 0
    for _ in range(120):
        found = kernel_distance(
            shift + normals(generator, 60, 2), normals(generator, 60, 2), elements, draws=0
        )
        below += found.high < truth - 1e-12
        above += found.low > truth + 1e-12
    assert below <= 11  # 3 expected; the cube's skewness costs some
    assert above <= 9


def test_the_truth_of_that_test():
    """The moments of a normal at mu, covariance I: mu, I + mu mu', mu^3 + 3 sym(mu I)."""

    def moments(s):
        mu, eye = torch.full((2,), s), torch.eye(2)
        third = torch.einsum("i,j,k->ijk", mu, mu, mu)
        third = third + sum(
            torch.einsum(f"{a},{b}->ijk", mu, eye) for a, b in (("i", "jk"), ("j", "ik"), ("k", "ij"))
        )
        return mu, eye + torch.outer(mu, mu), third

    gaps = [(a - b).square().sum() for a, b in zip(moments(0.5), moments(0.0), strict=True)]
    assert float(1.5 * gaps[0] + 0.75 * gaps[1] + gaps[2] / 8) == pytest.approx(1.890625)


def test_kernel_draws_have_the_spread_of_the_estimate(generator):
    """Where distributions differ, the deviation over draws is that over new samples."""

    def sets():
        return 1 + normals(generator, 60, 2), normals(generator, 60, 2)

    values = torch.tensor([kernel_distance(*sets(), elements, draws=0).value for _ in range(150)])
    spreads = [kernel_distance(*sets(), elements).draws.std() for _ in range(15)]
    assert float(torch.stack(spreads).mean()) == pytest.approx(float(values.std()), rel=0.25)


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance, sliced_wasserstein])
def test_samples_of_one_group_count_as_one(generator, distance):
    """Five copies of each of 20 samples, by group, are as uncertain as the 20."""
    x, y = 1 + normals(generator, 20, 2), normals(generator, 40, 2)
    copies, groups = x.repeat_interleave(5, 0), torch.arange(20).repeat_interleave(5)
    once = distance(x, y, elements)
    knows, ignores = distance(copies, y, elements, groups=groups), distance(copies, y, elements)
    assert knows.high - knows.low == pytest.approx(once.high - once.low, rel=0.05)
    assert ignores.high - ignores.low < 0.9 * (once.high - once.low)
    if distance is kernel_distance:  # no pair of copies: the same number
        assert knows[:3] == pytest.approx(once[:3])


def test_features_are_asked_in_parts(generator):
    sizes = []

    def network(pictures):
        sizes.append(len(pictures))
        assert not torch.is_grad_enabled()
        return pictures.mean((2, 3))

    pictures = torch.randn(7, 3, 4, 4, generator=generator)
    found = embed(pictures, network, batch=3)
    assert sizes == [3, 3, 1]
    assert torch.allclose(found, pictures.mean((2, 3)).double())


def test_a_feature_may_be_one_number(generator):
    pictures = torch.randn(7, 3, 4, 4, generator=generator)
    found = embed(pictures, lambda part: part.mean((1, 2, 3)), batch=3)
    assert torch.equal(found, pictures.mean((1, 2, 3)).double()[:, None])


def test_pixels_are_pooled(generator):
    pictures = torch.randn(2, 3, 16, 24, generator=generator)
    found = pooled_pixels(pictures, size=8).reshape(2, 3, 8, 8)
    assert torch.allclose(found[0, 1, 2, 3], pictures[0, 1, 4:6, 9:12].mean())
    assert torch.equal(pooled_pixels(pictures[..., :8, :8]), pictures[..., :8, :8].flatten(1))


GOOD = torch.zeros(5, 2)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: frechet_distance(GOOD, torch.zeros(5, 3)), ShapeError, r"\(5, 2\) and \(5, 3\) do not compare"),
    (lambda: kernel_distance(torch.zeros(1, 2), GOOD), ShapeError, "2 samples of each kind, got 1 and 5"),
    (lambda: kernel_distance(torch.full((5, 2), math.nan), GOOD), NotFiniteError, "5 of 5 samples"),
    (lambda: kernel_distance(GOOD, GOOD, groups=[0, 1]), ShapeError, "group labels for 5"),
    (lambda: kernel_distance(GOOD, GOOD, groups=[0] * 5), ShapeError, "independent samples of each kind, got 1"),
    (lambda: frechet_distance(GOOD, GOOD, lambda x: x[0]), ShapeError, "a row per sample"),
    (lambda: frechet_distance(GOOD, GOOD, extrapolate=True, draws=3), ParameterError, "needs 20 draws"),
    (lambda: sliced_wasserstein(GOOD, GOOD, projections=0), ParameterError, "projections=0"),
    (lambda: sliced_wasserstein(GOOD, GOOD, draws=-1), ParameterError, "draws=-1"),
    (lambda: embed(GOOD, batch=0), ParameterError, "batch=0"),
    (lambda: embed(torch.zeros(0, 2)), ShapeError, "nothing to measure"),
])  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
