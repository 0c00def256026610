"""The laws of the information-form Gaussian, against torch.distributions and pyro.ops.gaussian."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.ops.gaussian import Gaussian as PyroGaussian
from torch.distributions import MultivariateNormal

from pgm_sync.errors import CovarianceError, NotFiniteError, ShapeError
from pgm_sync.gaussian import Gaussian, cholesky, require_finite, require_symmetric

assert_close = torch.testing.assert_close


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(*shape: int, seed: int = 0) -> torch.Tensor:
    a = normal(*shape, shape[-1], seed=seed)
    return a @ a.mT / shape[-1] + 0.3 * torch.eye(shape[-1], dtype=torch.float64)


def random(n: int, seed: int, batch: tuple[int, ...] = ()) -> Gaussian:
    """Unnormalised, and proper."""
    return Gaussian(
        definite(*batch, n, seed=seed), normal(*batch, n, seed=seed + 1), normal(*batch, seed=seed + 2)
    )


@st.composite
def split(draw):
    """A Gaussian over n variables, and two disjoint sets of positions that make up all of them."""
    n = draw(st.integers(2, 6))
    order = draw(st.permutations(range(n)))
    k = draw(st.integers(1, n - 1))
    batch = draw(st.sampled_from([(), (3,), (2, 3)]))
    return (
        random(n, draw(st.integers(0, 999)), batch),
        torch.tensor(order[:k]),
        torch.tensor(sorted(order[k:])),
    )


def pyro_order(g: Gaussian, *parts: torch.Tensor) -> PyroGaussian:
    """pyro marginalises and conditions the last variables: bring `parts` into this order."""
    return g.to_pyro().event_permute(torch.cat(parts))


@given(st.integers(1, 6), st.integers(0, 999), st.sampled_from([(), (4,), (2, 3)]))
def test_moments(n, seed, batch):
    mean, covariance = normal(*batch, n, seed=seed), definite(*batch, n, seed=seed)
    g = Gaussian.from_moments(mean, covariance)
    assert_close(g.mean, mean)
    assert_close(g.covariance, covariance)
    assert_close(g.log_normalizer, torch.zeros(batch, dtype=torch.float64))
    x = normal(*batch, n, seed=seed + 1)
    assert_close(g.log_density(x), MultivariateNormal(mean, covariance).log_prob(x))


@given(st.integers(1, 6), st.integers(0, 999))
def test_addition_multiplies_densities(n, seed):
    f, g, x = random(n, seed), random(n, seed + 10), normal(5, n, seed=seed)
    assert_close((f + g).log_density(x), f.log_density(x) + g.log_density(x))
    assert type(f + g) is Gaussian


@given(split())
def test_marginalising_integrates_the_others_out(case):
    g, rest, keep = case
    marginal = g.marginalize(keep)
    expected = pyro_order(g, rest, keep).marginalize(left=len(rest))
    assert_close(marginal.precision, expected.precision)
    assert_close(marginal.eta, expected.info_vec)
    assert_close(marginal.log_scale, expected.log_normalizer)
    assert_close(marginal.mean, g.mean[..., keep])
    assert_close(marginal.covariance, g.covariance[..., keep[:, None], keep])
    assert_close(marginal.log_normalizer, g.log_normalizer)


@given(split())
def test_conditioning_fixes_variables(case):
    g, index, keep = case
    value, x = normal(*g.eta.shape[:-1], len(index), seed=5), normal(*g.eta.shape[:-1], len(keep), seed=6)
    whole = torch.empty_like(g.eta)
    whole[..., index], whole[..., keep] = value, x
    conditioned = g.condition(index, value)
    assert_close(conditioned.log_density(x), g.log_density(whole))
    expected = pyro_order(g, keep, index).condition(value)
    assert_close(conditioned.eta, expected.info_vec)
    assert_close(conditioned.log_scale, expected.log_normalizer)


@given(split(), st.integers(0, 99))
def test_marginalising_and_conditioning_commute(case, seed):
    g, rest, keep = case
    if len(keep) < 2:
        return
    index, others = keep[:1], keep[1:]
    value = normal(*g.eta.shape[:-1], 1, seed=seed)
    first = g.marginalize(torch.cat([index, others])).condition(torch.tensor([0]), value)
    fixed = g.condition(index, value)
    left = [i for i in range(g.eta.shape[-1]) if i != index.item()]  # what is left, in order
    second = fixed.marginalize(torch.tensor([left.index(k) for k in others.tolist()]))
    for a, b in zip(first, second, strict=True):
        assert_close(a, b)


def test_keeping_everything_is_a_permutation_and_integrating_everything_the_normaliser():
    g, order = random(3, 0), torch.tensor([2, 0, 1])
    assert_close(g.marginalize(order).precision, g.precision[order[:, None], order])
    assert_close(g.marginalize(order).log_scale, g.log_scale)
    nothing = g.marginalize(torch.tensor([], dtype=torch.int64))
    assert nothing.eta.shape == (0,)
    assert_close(nothing.log_scale, g.log_normalizer)


def test_an_improper_density_still_has_values_and_conditions():
    pair = Gaussian(
        torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double(), torch.zeros(2).double(), torch.zeros(())
    )
    assert pair.log_density(torch.tensor([3.0, 3.0]).double()) == 0
    conditioned = pair.condition(torch.tensor([1]), torch.tensor([2.0]).double())
    assert conditioned.mean.item() == pytest.approx(2.0)
    for ask in ("mean", "covariance", "log_normalizer"):
        with pytest.raises(CovarianceError, match=r"the precision \(2 x 2\) is not positive definite"):
            getattr(pair, ask)


def test_the_variables_integrated_out_must_be_proper():
    flat = Gaussian(torch.diag(torch.tensor([1.0, 0.0])), torch.zeros(2), torch.zeros(()))
    message = re.escape(
        "the precision of the variables integrated out (1 x 1) is not positive definite: "
        "its smallest eigenvalue is 0"
    )
    with pytest.raises(CovarianceError, match=message) as caught:
        flat.marginalize(torch.tensor([0]))
    assert caught.value.smallest_eigenvalue == 0
    assert flat.marginalize(torch.tensor([1])).precision.item() == 0


def test_to_pyro_and_back():
    g, x = random(3, 4, (2,)), normal(2, 3)
    assert_close(g.to_pyro().log_density(x), g.log_density(x))
    assert_close(g.to_pyro().event_logsumexp(), g.log_normalizer)
    assert all(torch.equal(a, b) for a, b in zip(Gaussian.from_pyro(g.to_pyro()), g, strict=True))


def test_gradients():
    mean, root = normal(2).requires_grad_(), normal(2, 2, seed=1).requires_grad_()
    x = normal(2, seed=2)

    def value(mean, root):
        g = Gaussian.from_moments(mean, root @ root.T + torch.eye(2).double())
        return g.log_density(x), g.marginalize(torch.tensor([0])).mean, (g + g).log_normalizer

    assert torch.autograd.gradcheck(value, (mean, root))


class TestChecks:
    def test_cholesky_names_the_matrix_and_its_eigenvalue(self):
        with pytest.raises(
            CovarianceError, match=r"the thing \(2 x 2\) is not positive definite: its smallest ei"
        ):
            cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "the thing")
        with pytest.raises(NotFiniteError, match="the thing has 1 NaN or infinite entries out of 4"):
            cholesky(torch.tensor([[1.0, 0.0], [float("nan"), 1.0]]), "the thing")

    def test_from_moments_needs_a_positive_definite_covariance(self):
        with pytest.raises(CovarianceError, match=r"the covariance \(2 x 2\) is not positive definite"):
            Gaussian.from_moments(torch.zeros(2), torch.zeros(2, 2))

    def test_symmetry(self):
        require_symmetric(torch.eye(3), "S")
        with pytest.raises(ShapeError, match=r"S of shape \(2, 3\) is not square"):
            require_symmetric(torch.zeros(2, 3), "S")
        with pytest.raises(CovarianceError, match="S is not symmetric: entries differ by up to 0.1"):
            require_symmetric(torch.tensor([[1.0, 0.1], [0.0, 1.0]]), "S")

    def test_finiteness(self):
        require_finite(torch.zeros(3), "x")
        bad = torch.tensor([[0.0, 1.0], [float("inf"), float("nan")]])
        with pytest.raises(
            NotFiniteError, match=r"x has 2 NaN or infinite entries out of 4, the first at \(1, 0\)"
        ):
            require_finite(bad, "x")
