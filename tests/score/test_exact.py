"""Eq. 1 of Gaussian mixtures as a mixture: held against numerical integration and autograd."""

from __future__ import annotations

import math

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import CovarianceError, UnknownNameError, UnsupportedError
from pgm_sync.score.exact import NoisyMixture, component_moments, joint_mixture, noise_covariance

MODEL = torch.tensor([[1.2, 0.7], [0.7, 0.9]], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)


def pair():
    """Two scalar trajectories: two modes and three, coupled with mean and covariance."""
    graph = ps.chain_graph(2, (1,), ps.JointGaussian(MEAN, MODEL))
    denoisers = {
        0: ps.MixtureDenoiser([0.3, 0.7], [[-1.0], [1.2]], [[[0.05]], [[0.2]]]),
        1: ps.MixtureDenoiser([0.2, 0.5, 0.3], [[-1.0], [0.1], [1.0]], [[[0.04]], [[0.1]], [[0.05]]]),
    }
    return graph, denoisers


def normal(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def eq1_on_a_grid(points=401, width=5.0):
    """Eq. 1 written out and summed numerically, with torch.distributions for g; (grid, density)."""
    axis = torch.linspace(-width, width, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = [
        0.3 * normal(grid[:, 0], -1.0, 0.05) + 0.7 * normal(grid[:, 0], 1.2, 0.2),
        0.2 * normal(grid[:, 1], -1.0, 0.04)
        + 0.5 * normal(grid[:, 1], 0.1, 0.1)
        + 0.3 * normal(grid[:, 1], 1.0, 0.05),
    ]
    g = torch.distributions.MultivariateNormal(MEAN, MODEL).log_prob(grid).exp()
    own = [normal(grid[:, k], MEAN[k].item(), MODEL[k, k].item()) for k in (0, 1)]
    density = p[0] * p[1] * g / (own[0] * own[1])
    return grid, density / density.sum()


def test_the_joint_mixture_is_eq_1():
    grid, density = eq1_on_a_grid()
    joint = joint_mixture(*pair())
    weights, means, covariances = component_moments(joint)
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None, :])
    assert torch.allclose(mean, density @ grid, atol=1e-9)
    assert torch.allclose(second, (grid.T * density) @ grid, atol=1e-9)


@pytest.mark.parametrize("c", [0.0, 0.8])
def test_the_exact_joint_denoiser_is_bayes_rule(c):
    """E[x_0 | x_t] by summing over the grid; and Tweedie's formula with noise covariance R, by autograd."""
    grid, density = eq1_on_a_grid()
    graph, denoisers = pair()
    noise = noise_covariance(graph, c)
    rho = 0.7 / math.sqrt(1.2 * 0.9)
    assert torch.allclose(noise, torch.tensor([[1, c * rho], [c * rho, 1]], dtype=torch.float64), atol=1e-12)
    noisy_joint = NoisyMixture(joint_mixture(graph, denoisers), noise)
    level = ps.NoiseLevel(0.6, 0.8)
    for x in torch.tensor([[0.4, -1.0], [0.0, 0.3]], dtype=torch.float64):
        observed = torch.distributions.MultivariateNormal(level.alpha * grid, level.sigma**2 * noise)
        weight = density * observed.log_prob(x).exp()
        expected = weight @ grid / weight.sum()
        assert torch.allclose(noisy_joint.denoise(x[None], level)[0], expected, atol=1e-8)
        state = x.clone()[None].requires_grad_()
        (score,) = torch.autograd.grad(noisy_joint.log_density(state, level).sum(), state)
        tweedie = (state + level.sigma**2 * score @ noise) / level.alpha
        assert torch.allclose(tweedie[0].detach(), expected, atol=1e-8)
        assert torch.allclose(noisy_joint.log_density(x[None], level)[0], weight.sum().log(), atol=1e-8)


def annealed_log_density(graph, denoisers, noise, level):
    """log prod_i p_i,t g_t / prod_i g_i,t from torch.distributions alone, as a function of x (n, 2)."""
    def value(x):
        alpha, sigma = level.alpha, level.sigma
        total = torch.distributions.MultivariateNormal(
            alpha * MEAN, alpha**2 * MODEL + sigma**2 * noise
        ).log_prob(x)
        for k, denoiser in denoisers.items():
            weights, means, covariances = component_moments(denoiser)
            own = torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(weights),
                torch.distributions.Normal(
                    alpha * means[:, 0], (alpha**2 * covariances[:, 0, 0] + sigma**2).sqrt()
                ),
            )
            g = torch.distributions.Normal(alpha * MEAN[k], (alpha**2 * MODEL[k, k] + sigma**2).sqrt())
            total = total + own.log_prob(x[:, k]) - g.log_prob(x[:, k])
        return total

    return value


@pytest.mark.parametrize("c", [0.0, 0.8])
@pytest.mark.parametrize("alpha", [0.1, 0.6, 0.99])
def test_annealed_is_the_score_of_the_annealed_product(alpha, c):
    graph, denoisers = pair()
    level = ps.NoiseLevel(alpha, math.sqrt(1 - alpha**2))
    noise = noise_covariance(graph, c)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(annealed_log_density(graph, denoisers, noise, level)(x).sum(), x)
    expected = (x + level.sigma**2 * score @ noise).detach() / level.alpha
    noisy = {k: x.detach()[:, k : k + 1] for k in (0, 1)}
    denoised = {k: denoisers[k].denoise(noisy[k], level) for k in (0, 1)}
    result = ps.JointDenoiser(graph, "annealed", c)(noisy, denoised, level)
    assert torch.allclose(torch.cat([result.mean[0], result.mean[1]], 1), expected, atol=1e-9)


def test_annealed_in_features_leaves_the_rest_alone():
    """Two of four elements coupled: the others keep their own denoised content to the last bit but rounding."""
    rows = torch.eye(4, dtype=torch.float64)[:2]
    graph = ps.FactorGraph()
    for k in (0, 1):
        graph.add_trajectory(k, (4,))
    covariance = torch.eye(4, dtype=torch.float64) + 0.5 * torch.eye(4, dtype=torch.float64).roll(2, 0)
    features = ps.Features(rows)
    graph.add_factor("f", [0, 1], ps.JointGaussian(None, covariance), [features, features])
    level = ps.NoiseLevel(0.6, 0.8)
    noisy = {k: torch.randn(3, 4, generator=torch.Generator().manual_seed(k)).double() for k in (0, 1)}
    denoised = {k: 0.5 * x.tanh() for k, x in noisy.items()}
    result = ps.JointDenoiser(graph, "annealed", 0.5)(noisy, denoised, level)
    for k in (0, 1):
        assert torch.allclose(result.mean[k][:, 2:], denoised[k][:, 2:], atol=1e-14)
        assert not torch.allclose(result.mean[k][:, :2], denoised[k][:, :2], atol=1e-3)


def test_annealed_equals_the_exact_joint_on_gaussians():
    """There the annealed product is the diffused joint (Eq. 9)."""
    graph = ps.chain_graph(2, (1,), ps.JointGaussian(MEAN, MODEL))
    denoisers = {k: ps.GaussianDenoiser(MEAN[k : k + 1], MODEL[k : k + 1, k : k + 1]) for k in (0, 1)}
    level = ps.NoiseLevel(0.6, 0.8)
    noisy = {k: torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None] * (k + 1) for k in (0, 1)}
    denoised = {k: denoisers[k].denoise(noisy[k], level) for k in (0, 1)}
    means = [ps.JointDenoiser(graph, kind, 0.4)(noisy, denoised, level).mean for kind in ("surrogate", "annealed")]
    for k in (0, 1):
        assert torch.allclose(means[0][k], means[1][k], atol=1e-12)


def test_what_has_no_closed_form_is_named():
    graph, denoisers = pair()
    with pytest.raises(UnknownNameError, match="no denoiser for 1"):
        joint_mixture(graph, {0: denoisers[0]})
    with pytest.raises(UnsupportedError, match="hidden variable"):
        joint_mixture(_with_hidden(), denoisers)
    wide = {k: ps.MixtureDenoiser([1.0], [[0.0]], [[[50.0]]]) for k in (0, 1)}
    strong = ps.chain_graph(2, (1,), ps.Correlation(0.95))
    with pytest.raises(CovarianceError, match="so wide"):
        joint_mixture(strong, wide)
    with pytest.raises(UnsupportedError, match="a prior on the canvas"):
        ps.JointDenoiser(_views_with_potentials(), "annealed")


def _with_hidden():
    graph, _ = pair()
    graph.add_variable("style", (1,))
    return graph


def _views_with_potentials():
    graph = ps.wide_canvas((1, 1, 6), (1, 4), 2)
    graph.add_factor("f", ["w0", "w1"], ps.Correlation(0.5))
    return graph
