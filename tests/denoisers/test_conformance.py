"""Every denoiser keeps the laws of `DenoiserTests`, against data drawn by hand and closed forms."""

from __future__ import annotations

import pytest
import torch

from pgm_sync.denoisers import (
    Denoiser,
    EmpiricalDenoiser,
    FunctionDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
)
from pgm_sync.testing import DenoiserTests


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_posterior(noisy, mean, covariance, alpha, sigma):
    """m + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha m), flattened."""
    state = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance), dtype=covariance.dtype)
    gap = noisy.flatten(-mean.ndim) - alpha * mean.flatten()
    gain = alpha * torch.linalg.solve(state, covariance)  # both symmetric and commuting
    return (mean.flatten() + gap @ gain).reshape(noisy.shape)


class TestGaussian(DenoiserTests):
    mean = normal(1, 2, 2)
    root = normal(4, 4, seed=1)

    @property
    def covariance(self):
        return self.root @ self.root.T / 4

    def create(self):
        return GaussianDenoiser(self.mean, self.covariance)

    def clean(self, count, generator):
        noise = torch.randn(count, self.root.shape[1], generator=generator, dtype=torch.float64)
        return self.mean + (noise @ self.root.T / 2).reshape(count, *self.mean.shape)

    def posterior_mean(self, noisy, level):
        return gaussian_posterior(noisy, self.mean, self.covariance, level.alpha, level.sigma)


class TestSingularGaussian(TestGaussian):
    """Content on a plane: without noise it is found again on the plane."""

    root = normal(4, 2, seed=1)

    @property
    def covariance(self):
        return self.root @ self.root.T / 4


class TestGaussianOfOneNumber(TestGaussian):
    mean, root = torch.tensor([1.5]).double(), torch.tensor([[3.0]]).double()


WEIGHTS = torch.tensor([0.2, 0.5, 0.3]).double()
MEANS = 2 * normal(3, 3, seed=2)
ROOTS = 0.6 * normal(3, 3, 3, seed=3)


class TestMixture(DenoiserTests):
    def create(self):
        return MixtureDenoiser(WEIGHTS, MEANS, ROOTS @ ROOTS.mT)

    def clean(self, count, generator):
        k = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
        noise = torch.randn(count, 3, 1, generator=generator, dtype=torch.float64)
        return MEANS[k] + (ROOTS[k] @ noise).squeeze(-1)

    def posterior_mean(self, noisy, level):
        """Bayes over the components, each by its own Gaussian closed form."""
        alpha, sigma, eye = level.alpha, level.sigma, torch.eye(3).double()
        logits, means = [], []
        for w, m, r in zip(WEIGHTS, MEANS, ROOTS, strict=True):
            state = torch.distributions.MultivariateNormal(alpha * m, alpha**2 * r @ r.T + sigma**2 * eye)
            logits.append(w.log() + state.log_prob(noisy))
            means.append(gaussian_posterior(noisy, m, r @ r.T, alpha, sigma))
        return (torch.softmax(torch.stack(logits), 0)[..., None] * torch.stack(means)).sum(0)


class TestMixtureOfOneClass(TestMixture):
    """condition=1 keeps the components of class 1, at their share of its weight."""

    condition = 1

    def create(self):
        weights = torch.cat([WEIGHTS / 2, torch.tensor([0.5])])
        means = torch.cat([MEANS, torch.full((1, 3), 50.0).double()])
        covariances = torch.cat([ROOTS @ ROOTS.mT, torch.eye(3)[None].double()])
        return MixtureDenoiser(weights, means, covariances, labels=[1, 1, 1, 0])


class TestMixtureInAFrame(DenoiserTests):
    """Components in a subspace of rank 2, isotropic outside; sampled by its parameters, checked by Bayes."""

    def create(self):
        data = self.draw(300, torch.Generator().manual_seed(5))
        return MixtureDenoiser.fit(data, components=2, rank=2)

    def draw(self, count, generator):
        side = torch.randint(2, (count, 1), generator=generator) * 2 - 1
        noise = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        return noise * torch.tensor([1.0, 0.5, 0.2, 0.2]) + side * torch.tensor([2.0, 0, 0, 0])

    def dense(self):
        """The fitted mixture as weights, means and full covariances."""
        c = self.create().components
        within = c.basis @ torch.diag_embed(c.variances) @ c.basis.mT
        rest = torch.eye(4).double() - c.frame @ c.frame.T
        return (
            c.log_weights.exp(),
            c.center + c.means @ c.frame.T,
            c.frame @ within @ c.frame.T + c.outside * rest,
        )

    def clean(self, count, generator):
        weights, means, covariances = self.dense()
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, 4, 1, generator=generator, dtype=torch.float64)
        return means[k] + (torch.linalg.cholesky(covariances)[k] @ noise).squeeze(-1)

    def posterior_mean(self, noisy, level):
        return MixtureDenoiser(*self.dense()).denoise(noisy, level)


class TestEmpirical(DenoiserTests):
    data = normal(12, 1, 3, seed=4)

    def create(self):
        return EmpiricalDenoiser(self.data)

    def clean(self, count, generator):
        return self.data[torch.randint(len(self.data), (count,), generator=generator)]

    def posterior_mean(self, noisy, level):
        distance = (noisy.unsqueeze(-3) - level.alpha * self.data).square().flatten(-2).sum(-1)
        weights = torch.softmax(-distance / (2 * level.sigma**2), -1)
        return torch.einsum("...k,kij->...ij", weights, self.data)


class TestEmpiricalWithABandwidth(DenoiserTests):
    data = normal(12, 1, 3, seed=4)
    width = 0.3

    def create(self):
        return EmpiricalDenoiser(self.data, bandwidth=self.width)

    def clean(self, count, generator):
        chosen = self.data[torch.randint(len(self.data), (count,), generator=generator)]
        return chosen + self.width * torch.randn(chosen.shape, generator=generator, dtype=torch.float64)

    def posterior_mean(self, noisy, level):
        covariances = (self.width**2 * torch.eye(3).double()).expand(12, 3, 3)
        mixture = MixtureDenoiser(torch.full((12,), 1 / 12).double(), self.data, covariances)
        return mixture.denoise(noisy, level)


class TestEmpiricalOfOneClass(TestEmpirical):
    condition = 3

    def create(self):
        data = torch.cat([self.data, self.data + 9])
        return EmpiricalDenoiser(data, labels=torch.tensor([3] * 12 + [5] * 12))


class FunctionTests(DenoiserTests):
    """The denoiser of N(0, 2 I), predicting one thing or another; alpha and sigma may be per element."""

    prediction_type: str

    def create(self):
        return FunctionDenoiser(self.function, (2,), self.prediction_type)

    def function(self, noisy, alpha, sigma):
        if isinstance(alpha, torch.Tensor):
            alpha, sigma = alpha.to(noisy)[..., None], sigma.to(noisy)[..., None]
        clean = 2 * alpha * noisy / (2 * alpha**2 + sigma**2)
        return self.predicted(clean, (noisy - alpha * clean) / sigma, alpha, sigma)

    def clean(self, count, generator):
        return 2**0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)

    def posterior_mean(self, noisy, level):
        return 2 * level.alpha * noisy / (2 * level.alpha**2 + level.sigma**2)


class TestSampleFunction(FunctionTests):
    prediction_type = "sample"

    def predicted(self, clean, noise, alpha, sigma):
        return clean


class TestEpsilonFunction(FunctionTests):
    prediction_type = "epsilon"

    def predicted(self, clean, noise, alpha, sigma):
        return noise


class TestVelocityFunction(FunctionTests):
    prediction_type = "v_prediction"

    def predicted(self, clean, noise, alpha, sigma):
        return (alpha * noise - sigma * clean) / (alpha**2 + sigma**2) ** 0.5


class TestFlowFunction(FunctionTests):
    prediction_type = "flow_prediction"

    def predicted(self, clean, noise, alpha, sigma):
        return noise - clean


class Shrinking(Denoiser):
    """A denoiser that a user would write: N(0, I) content, mean only."""

    shape = (2, 2)

    def __init__(self, wrong: str = ""):
        self.wrong = wrong

    def denoise(self, noisy, level, condition=None):
        from pgm_sync.denoisers.checks import check_noisy
        from pgm_sync.levels import expand

        check_noisy(self, noisy)
        alpha, sigma = (expand(v, noisy, 2) for v in (level.alpha, level.sigma))
        gain = alpha / (alpha**2 + sigma**2)
        if self.wrong == "gain":
            gain = gain * 1.1
        if self.wrong == "batch":
            return gain * noisy + 0 * noisy.mean() + (noisy - noisy.mean(0, keepdim=True)) * 0.1
        if self.wrong == "level":
            gain = gain.flatten()[0] if gain.ndim else gain
        return (gain * noisy).float() if self.wrong == "dtype" else gain * noisy


class TestADenoiserOfOnesOwn(DenoiserTests):
    wrong = ""

    def create(self):
        return Shrinking(self.wrong)

    def clean(self, count, generator):
        return torch.randn(count, 2, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ("gain", "test_its_errors_are_uncorrelated_with_the_state"),
        ("gain", "test_without_noise_the_content_is_what_is_seen"),
        ("batch", "test_a_batch_equals_a_loop"),
        ("level", "test_each_element_may_have_a_level_of_its_own"),
        ("dtype", "test_float32_and_float64_are_kept"),
    ],
)
def test_the_suite_catches(wrong, law):
    suite = TestADenoiserOfOnesOwn()
    suite.wrong = wrong
    with pytest.raises(AssertionError):
        getattr(suite, law)()
