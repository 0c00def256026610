"""Every built-in potential keeps the laws of `PotentialTests`, against densities of torch.distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pgm_sync.potentials import (
    Attraction,
    Correlation,
    Evidence,
    Information,
    JointGaussian,
    Potential,
    Quadratic,
)
from pgm_sync.testing import PotentialTests


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(n: int) -> torch.Tensor:
    a = normal(n, n + 2, seed=3)
    return a @ a.T / n


class TestAttraction(PotentialTests):
    shapes = [(2, 3), (2, 3)]

    def create(self):
        return Attraction(precision=1.7)

    def log_density(self, contents):
        first, second = contents
        return -1.7 / 2 * (first - second).square().flatten(1).sum(1)


class TestAttractionPerElement(PotentialTests):
    shapes = [(2, 3), (2, 3)]
    strength = 0.5 + uniform(2, 3)

    def create(self):
        return Attraction(precision=self.strength)

    def log_density(self, contents):
        first, second = contents
        return -(self.strength / 2 * (first - second).square()).flatten(1).sum(1)


class TestQuadratic(PotentialTests):
    shapes = [(2, 3), (2, 3)]
    matrix = torch.tensor([[1.0, 0.4], [0.4, 2.0]], dtype=torch.float64)
    linear = normal(2, 2, 3, seed=4)

    def create(self):
        return Quadratic(self.matrix, self.linear)

    def log_density(self, contents):
        first, second = contents
        square = first.square() + 0.8 * first * second + 2 * second.square()
        return (self.linear[0] * first + self.linear[1] * second - square / 2).flatten(1).sum(1)


class CorrelationOracle(PotentialTests):
    """log N(x, y; ...) - log N(x) - log N(y), element by element, by torch.distributions."""

    shapes = [(2, 2), (2, 2)]
    rho: float | torch.Tensor
    variance: tuple = (1.0, 1.0)
    mean: tuple = (0.0, 0.0)

    def log_density(self, contents):
        rho = torch.as_tensor(self.rho, dtype=torch.float64).expand(2, 2)
        variances = [torch.as_tensor(v, dtype=torch.float64).expand(2, 2) for v in self.variance]
        means = [torch.as_tensor(m, dtype=torch.float64).expand(2, 2) for m in self.mean]
        cross = rho * (variances[0] * variances[1]).sqrt()
        matrix = torch.stack(
            [torch.stack([variances[0], cross], -1), torch.stack([cross, variances[1]], -1)], -2
        )
        joint = MultivariateNormal(torch.stack(means, -1), matrix).log_prob(torch.stack(contents, -1))
        own = [Normal(m, v.sqrt()).log_prob(x) for m, v, x in zip(means, variances, contents, strict=True)]
        return (joint - own[0] - own[1]).flatten(1).sum(1)


class TestCorrelation(CorrelationOracle):
    rho = 0.8

    def create(self):
        return Correlation(0.8)


class TestNegativeCorrelation(CorrelationOracle):
    rho, variance, mean = -0.95, (2.0, 0.3), (1.0, -2.0)

    def create(self):
        return Correlation(-0.95, variance=(2.0, 0.3), mean=(1.0, -2.0))


class TestCorrelationPerElement(CorrelationOracle):
    rho = 2 * uniform(2, 2) - 1
    variance = (0.5 + uniform(2, 2, seed=1),) * 2
    mean = (normal(2, 2, seed=2),) * 2

    def create(self):
        return Correlation(self.rho, variance=self.variance[0], mean=self.mean[0])


class TestNoCorrelation(CorrelationOracle):
    rho = 0.0

    def create(self):
        return Correlation(0.0)


class JointGaussianOracle(PotentialTests):
    mean: torch.Tensor
    matrix: torch.Tensor

    def create(self):
        return JointGaussian(mean=self.mean, covariance=self.matrix)

    def log_density(self, contents):
        flat = [c.flatten(1) for c in contents]
        value = MultivariateNormal(self.mean, self.matrix).log_prob(torch.cat(flat, 1))
        parts = torch.arange(len(self.mean)).split([f.shape[1] for f in flat])
        for part, x in zip(parts, flat, strict=True):
            value = value - MultivariateNormal(self.mean[part], self.matrix[part][:, part]).log_prob(x)
        return value


class TestJointGaussian(JointGaussianOracle):
    shapes = [(2,), (1, 3)]
    mean, matrix = normal(5, seed=1), covariance(5)


class TestJointGaussianOfThree(JointGaussianOracle):
    shapes = [(2,), (1,), (2, 2)]
    mean, matrix = normal(7, seed=1), covariance(7)


class TestJointGaussianWithAnInteraction(PotentialTests):
    """The factor of a graph with loops: psi = exp(-(y-m)' interaction (y-m) / 2 + log_scale)."""

    shapes = [(2,), (2,)]
    ratio = False
    mean, matrix = normal(4, seed=1), covariance(4)
    interaction = covariance(4) - 0.3 * torch.eye(4, dtype=torch.float64)

    def create(self):
        return JointGaussian(self.mean, self.matrix, self.interaction, log_scale=0.25)

    def log_density(self, contents):
        gap = torch.cat(list(contents), 1) - self.mean
        return 0.25 - 0.5 * torch.einsum("ni,ij,nj->n", gap, self.interaction, gap)


class TestEvidence(PotentialTests):
    shapes = [(2, 3)]

    def create(self):
        return Evidence(0.5, precision=4.0)

    def log_density(self, contents):
        return Normal(0.5, 0.5).log_prob(contents[0]).flatten(1).sum(1)


class TestEvidencePerElementWithAMask(PotentialTests):
    shapes = [(2, 3)]
    value, precision = normal(2, 3), 0.5 + uniform(2, 3, seed=1)
    mask = torch.tensor([[True, False, True]])

    def create(self):
        return Evidence(self.value, self.precision, self.mask)

    def log_density(self, contents):
        each = Normal(self.value, self.precision.rsqrt()).log_prob(contents[0])
        return (each * self.mask).flatten(1).sum(1)


@dataclass(frozen=True, eq=False, repr=False)
class SumToZero(Potential):
    """A potential that a user would write: the elements of all ends sum to about zero."""

    width: torch.Tensor
    ends: ClassVar[int | None] = None

    def information(self, shapes: Sequence[tuple[int, ...]]) -> Information:
        ones = torch.ones(sum(torch.Size(s).numel() for s in shapes), dtype=torch.float64)
        zero = torch.zeros((), dtype=torch.float64)
        return Information(torch.outer(ones, ones) / self.width**2, 0 * ones, zero)


class TestAPotentialOfOnesOwn(PotentialTests):
    shapes = [(2,), (3, 1)]

    def create(self):
        return SumToZero(torch.tensor(0.7, dtype=torch.float64))

    def log_density(self, contents):
        total = sum(c.flatten(1).sum(1) for c in contents)
        return -0.5 * (total / 0.7) ** 2


class TestTheSuiteCatches:
    """Laws that a wrong potential breaks."""

    @pytest.fixture
    def suite(self):
        class Suite(TestCorrelation):
            def create(self):
                return Crooked(0.8)

        return Suite()

    @pytest.mark.parametrize(
        "law",
        [
            "test_log_density_equals_the_oracle",
            "test_stated_marginals_are_those_of_the_joint",
            "test_information_is_symmetric_and_float64",
            "test_a_wrong_number_of_ends_is_named",
        ],
    )
    def test_it(self, suite, law):
        with pytest.raises(AssertionError):
            getattr(suite, law)()


@dataclass(frozen=True, eq=False, repr=False)
class Crooked(Correlation):
    def information(self, shapes):
        precision, eta, log_scale = super().information(shapes)
        skew = torch.tensor([[0.0, 0.0], [0.1, 0.0]], dtype=torch.float64)[..., None, None]
        return Information(precision + skew, eta, log_scale)

    def check(self, factor, shapes):
        return None
