"""Choosing the noise correlation: the bound is the likelihood where denoisers are exact, at every strength."""

from __future__ import annotations

import math

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError, UnknownNameError, UnsupportedError
from pgm_sync.learning.noise import likelihood_bound
from pgm_sync.score.exact import NoisyMixture, joint_mixture, noise_covariance

MEAN = torch.tensor([0.5, -0.3, 0.2, 0.0], dtype=torch.float64)
ROOT = torch.tensor([[1, 0, 0, 0], [0.3, 0.8, 0, 0], [0.6, 0.2, 0.5, 0], [-0.3, 0.6, 0.1, 0.6]]).double()
MODEL = ROOT @ ROOT.T


def gaussian_pair():
    graph = ps.chain_graph(2, (2,), ps.JointGaussian(MEAN, MODEL))
    return graph, {
        k: ps.GaussianDenoiser(MEAN[2 * k : 2 * k + 2], MODEL[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]) for k in (0, 1)
    }


def halves(x):
    return {0: x[:, :2], 1: x[:, 2:]}


@pytest.mark.parametrize("kind", ["surrogate", "denoiser", "annealed"])
def test_on_gaussians_it_is_the_likelihood_for_every_strength(kind):
    """Eq. 9: the joint denoiser is exact, so the bound is flat in c; against torch.distributions."""
    law = torch.distributions.MultivariateNormal(MEAN, MODEL)
    torch.manual_seed(0)
    x = law.sample((50,))
    result = ps.choose_noise_correlation(
        *gaussian_pair(), halves(x), correlations=(0.0, 0.6, 0.95), posterior_covariance=kind
    )
    expected = -law.log_prob(x)
    for bound, error in zip(result.bounds, result.errors, strict=True):
        assert bound == pytest.approx(expected.mean().item(), abs=1e-8)
        assert error == pytest.approx(expected.std().item() / math.sqrt(50), abs=1e-8)
    assert max(map(abs, result.excess)) < 1e-8
    assert result.samples == 50


def modes():
    graph = ps.chain_graph(2, (1,), ps.Correlation(0.8))
    mixture = ps.MixtureDenoiser([0.4, 0.6], [[-1.0], [1.0]], [[[0.1]], [[0.1]]])
    return graph, {0: mixture, 1: mixture}


@pytest.mark.parametrize("c", [0.0, 0.5, 0.9])
def test_with_the_exact_joint_denoiser_it_is_the_likelihood_of_a_mixture(c):
    """The integral of Kong et al. with correlated noise, against the closed-form density; five standard errors."""
    graph, denoisers = modes()
    mixture = joint_mixture(graph, denoisers)
    exact = NoisyMixture(mixture, noise_covariance(graph, c))
    clean = mixture.sample(3000, generator=torch.Generator().manual_seed(1))
    bound = likelihood_bound(
        ps.JointDenoiser(graph, "surrogate", c),
        clean.split(1, 1),
        lambda noisy, level: exact.denoise(torch.cat(noisy, 1), level).split(1, 1),
        None,
        torch.Generator().manual_seed(2),
    )
    expected = -exact.log_density(clean, ps.NoiseLevel(1.0, 1e-6))
    difference = bound - expected
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(3000)
    assert difference.std() / math.sqrt(3000) < 0.03


def test_an_approximate_joint_denoiser_costs_likelihood_and_the_record_is_paired():
    graph, denoisers = modes()
    mixture = joint_mixture(graph, denoisers)
    x = mixture.sample(1000, generator=torch.Generator().manual_seed(1))
    data = {0: x[:, :1], 1: x[:, 1:]}
    options = {"correlations": (0.0, 0.5, 0.9), "seed": 3}
    result = ps.choose_noise_correlation(graph, denoisers, data, **options)
    exact = NoisyMixture(mixture, noise_covariance(graph, 0.0))
    entropy = -exact.log_density(x, ps.NoiseLevel(1.0, 1e-6)).mean().item()
    assert min(result.bounds) > entropy
    assert result.bounds[0] == pytest.approx(min(result.bounds) + result.excess[0])
    place = result.correlations.index(result.best)
    assert result.excess[place] == result.excess_errors[place] == 0
    assert result.excess[0] > 5 * result.excess_errors[0]  # independent noise is the worst here, by a clear margin
    assert max(result.excess_errors) < min(result.errors)
    again = ps.choose_noise_correlation(graph, denoisers, data, **options)
    assert again == result
    assert str(result).splitlines()[0].split() == ["c", "bound", "excess"]


def test_what_no_potential_couples_counts_too():
    """Two of three elements coupled, exact Gaussian denoisers: the likelihood of all three; five standard errors."""
    features = ps.Features(torch.eye(3, dtype=torch.float64)[:2])
    graph = ps.FactorGraph()
    for k in (0, 1):
        graph.add_trajectory(k, (3,))
    graph.add_factor("f", [0, 1], ps.JointGaussian(MEAN, MODEL), [features, features])
    covariance = torch.eye(6, dtype=torch.float64) * 0.3
    coupled = torch.tensor([0, 1, 3, 4])
    covariance[coupled[:, None], coupled] = MODEL
    mean = torch.zeros(6, dtype=torch.float64)
    mean[coupled] = MEAN
    mean[2] = 2.0
    denoisers = {
        k: ps.GaussianDenoiser(mean[3 * k : 3 * k + 3], covariance[3 * k : 3 * k + 3, 3 * k : 3 * k + 3])
        for k in (0, 1)
    }
    law = torch.distributions.MultivariateNormal(mean, covariance)
    torch.manual_seed(0)
    x = law.sample((400,))
    result = ps.choose_noise_correlation(
        graph, denoisers, {0: x[:, :3], 1: x[:, 3:]}, correlations=(0.0, 0.7)
    )
    for bound in result.bounds:
        assert bound == pytest.approx(-law.log_prob(x).mean().item(), abs=0.01)


def test_denoisers_that_know_only_means_are_differentiated():
    graph, denoisers = gaussian_pair()
    torch.manual_seed(0)
    x = halves(torch.distributions.MultivariateNormal(MEAN, MODEL).sample((20,)))

    def mean_of(k):
        return lambda noisy, alpha, sigma: denoisers[k].denoise(noisy, ps.NoiseLevel(alpha, sigma))

    means = {k: ps.FunctionDenoiser(mean_of(k), (2,)) for k in (0, 1)}
    options = {"correlations": (0.0, 0.6)}
    told = ps.choose_noise_correlation(graph, denoisers, x, posterior_covariance="denoiser", **options)
    derived = ps.choose_noise_correlation(graph, means, x, posterior_covariance="jacobian", **options)
    assert derived.bounds == pytest.approx(told.bounds, abs=1e-6)


def test_bad_input_is_named():
    graph, denoisers = gaussian_pair()
    x = halves(torch.randn(5, 4, dtype=torch.float64))
    with pytest.raises(UnknownNameError, match="no denoiser for 1"):
        ps.choose_noise_correlation(graph, {0: denoisers[0]}, x)
    with pytest.raises(UnknownNameError, match="no data for 1"):
        ps.choose_noise_correlation(graph, denoisers, {0: x[0]})
    with pytest.raises(ShapeError, match=r"data of 1 has shape \(4, 2\)"):
        ps.choose_noise_correlation(graph, denoisers, {0: x[0], 1: x[1][:4]})
    with pytest.raises(NotFiniteError, match="data of 0"):
        ps.choose_noise_correlation(graph, denoisers, {0: x[0] * math.nan, 1: x[1]})
    with pytest.raises(ParameterError, match="correlations is empty"):
        ps.choose_noise_correlation(graph, denoisers, x, correlations=())
    with pytest.raises(ParameterError, match="noise_correlation=1"):
        ps.choose_noise_correlation(graph, denoisers, x, correlations=(1.0,))
    loose = ps.FactorGraph()
    loose.add_trajectory(0, (2,))
    with pytest.raises(ParameterError, match="no factor couples"):
        ps.choose_noise_correlation(loose, denoisers, x)
    with pytest.raises(UnsupportedError, match="on a canvas"):
        ps.choose_noise_correlation(ps.wide_canvas((1, 1, 6), (1, 4), 2), denoisers, x)
