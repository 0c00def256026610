"""Asking the denoisers again, against the exact joint posterior."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import pgm_sync as ps

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "_self_consistent.py"
LEVEL = ps.NoiseLevel(0.8, 0.6)


@pytest.fixture(scope="module")
def again():
    spec = importlib.util.spec_from_file_location("_self_consistent", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pair(covariance: torch.Tensor, size: int) -> ps.FactorGraph:
    graph = ps.FactorGraph()
    graph.add_trajectory("a", size)
    graph.add_trajectory("b", size)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(torch.zeros(2 * size), covariance))
    return graph


def noisy(size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {name: torch.randn(100, size, generator=generator, dtype=torch.float64) for name in "ab"}


def test_gaussian_denoisers_give_the_exact_posterior_mean_however_often_they_are_asked(again, generator):
    root = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT / 12
    denoisers = {
        name: ps.GaussianDenoiser(torch.zeros(3).double(), covariance[rows, rows])
        for name, rows in (("a", slice(0, 3)), ("b", slice(3, 6)))
    }
    states = noisy(3, generator)
    z = torch.cat([states["a"], states["b"]], 1)
    observed = 0.8**2 * covariance + 0.6**2 * torch.eye(6).double()
    expected = z @ torch.linalg.solve(observed, 0.8 * covariance)
    for kind, times, step in (("surrogate", 0, 1), ("surrogate", 2, 1), ("denoiser", 1, 0.7), ("denoiser", 2, 1)):
        joint = ps.JointDenoiser(pair(covariance, 3), kind)
        found = again.joint_mean(joint, denoisers, states, LEVEL, times, step)
        assert torch.allclose(torch.cat([found["a"], found["b"]], 1), expected, atol=1e-8)


def test_mixtures_come_closer_to_the_exact_joint_posterior(again, generator):
    """Eq. 1 for two modes at -1 and 1 on each side, integrated over a fine grid."""
    denoiser = ps.MixtureDenoiser([0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    covariance = 1.04 * torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double()
    joint, states = ps.JointDenoiser(pair(covariance, 1)), noisy(1, generator)
    x = torch.linspace(-2.5, 2.5, 161).double()
    prior = torch.logsumexp(torch.stack([-((x - m) ** 2) / 0.08 for m in (-1, 1)]), 0)
    coupling = torch.linalg.inv(covariance) - torch.eye(2).double() / 1.04
    grid = torch.cartesian_prod(x, x)
    base = (prior[:, None] + prior).flatten() - 0.5 * ((grid @ coupling) * grid).sum(1)
    z = torch.cat([states["a"], states["b"]], 1)
    likelihood = -((z[:, None] - 0.8 * grid) ** 2).sum(2) / (2 * 0.36)
    exact = torch.softmax(base + likelihood, 1) @ grid
    error = []
    for times in (0, 1):
        found = again.joint_mean(joint, dict.fromkeys("ab", denoiser), states, LEVEL, times)
        error.append((torch.cat([found["a"], found["b"]], 1) - exact).square().mean().item())
    assert error[1] < 0.5 * error[0]


def test_a_posterior_times_an_exponential_is_the_posterior_at_a_shifted_state(again, generator):
    """What asking again rests on, by quadrature."""
    denoiser = ps.MixtureDenoiser([0.3, 0.7], [[-1.0], [1.0]], [[[0.1]], [[0.3]]])
    x, state, h = torch.linspace(-6, 6, 4001).double(), 0.4, 1.3
    density = 0.3 / 0.1**0.5 * torch.exp(-((x + 1) ** 2) / 0.2) + 0.7 / 0.3**0.5 * torch.exp(-((x - 1) ** 2) / 0.6)
    weights = density * torch.exp(-((state - 0.8 * x) ** 2) / 0.72 + h * x)
    shifted = torch.tensor([[state + 0.36 / 0.8 * h]]).double()
    assert denoiser.denoise(shifted, LEVEL).item() == pytest.approx(((weights * x).sum() / weights.sum()).item())
