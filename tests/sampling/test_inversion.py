"""Noise that the sampler turns into given contents."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

import pgm_sync as ps
from pgm_sync.errors import ConvergenceError, ParameterError, UnsupportedError, UnsupportedSchedulerError

VARIANCE = torch.tensor([1.0, 0.5, 2.0])
OWN = ps.GaussianDenoiser(torch.zeros(3), torch.diag(VARIANCE))


def pair(rho=0.8):
    graph = ps.FactorGraph()
    for name in ("a", "b"):
        graph.add_trajectory(name, (3,))
    graph.add_factor("ab", ["a", "b"], ps.Correlation(rho, variance=VARIANCE))
    return graph


def contents(n=4):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(n, 3, generator=generator) for name in ("a", "b")}


SCHEDULERS = {
    "ddim": DDIMScheduler(clip_sample=False),
    "euler": EulerDiscreteScheduler(timestep_spacing="trailing"),
    "flow": FlowMatchEulerDiscreteScheduler(),
}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers' Euler
@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_sampling_from_the_inverse_gives_the_contents_back(name, steps):
    scheduler, wanted = SCHEDULERS[name], contents()
    noise = ps.invert(pair(), OWN, scheduler, wanted, steps, progress=False)
    again = ps.sample(pair(), OWN, scheduler, steps, 4, initial_noise=noise, dtype=torch.float64, progress=False)
    within = 1e-4 if name == "flow" else 1e-6  # it steps in float32
    for key, expected in wanted.items():
        assert torch.allclose(again.samples[key], expected.double(), atol=within)


def test_the_inverse_of_a_linear_sampler_is_its_matrix_inverse():
    """Gaussian denoisers make every step linear; the whole sampler as a matrix, column by column, and solved."""
    scheduler, wanted, steps = DDIMScheduler(clip_sample=False), contents(), 8
    columns = torch.eye(6, dtype=torch.float64)
    basis = {"a": columns[:, :3], "b": columns[:, 3:]}
    made = ps.sample(pair(), OWN, scheduler, steps, 6, initial_noise=basis, dtype=torch.float64, progress=False)
    matrix = torch.cat([made.samples["a"], made.samples["b"]], 1).T
    flat = torch.cat([wanted["a"], wanted["b"]], 1).double()
    expected = torch.linalg.solve(matrix, flat.T).T
    noise = ps.invert(pair(), OWN, scheduler, wanted, steps, progress=False)
    assert torch.allclose(torch.cat([noise["a"], noise["b"]], 1), expected, atol=1e-5)


def test_a_curved_denoiser_and_a_canvas():
    centres = torch.randn(5, 1, 1, 4, generator=torch.Generator().manual_seed(1))
    mixture = ps.EmpiricalDenoiser(centres, bandwidth=0.5)
    graph = ps.wide_canvas((1, 1, 6), (1, 4), 2)
    wanted = torch.randn(2, 1, 1, 6, generator=torch.Generator().manual_seed(2)) * 0.7
    given = {"posterior_covariance": "surrogate"}
    scheduler = DDIMScheduler(clip_sample=False)
    noise = ps.invert(graph, mixture, scheduler, {"canvas": wanted}, 12, progress=False, **given)
    again = ps.sample(
        graph, mixture, scheduler, 12, 2, initial_noise=noise, dtype=torch.float64, progress=False, **given
    )
    assert torch.allclose(again.samples["canvas"], wanted.double(), atol=1e-6)


def test_what_has_no_inverse_is_refused():
    with pytest.raises(UnsupportedSchedulerError, match="DPMSolverMultistepScheduler"):
        ps.invert(pair(), OWN, DPMSolverMultistepScheduler(), contents(), 5, progress=False)
    with pytest.raises(UnsupportedError, match="draws noise at step"):
        ps.invert(pair(), OWN, DDPMScheduler(clip_sample=False), contents(), 5, progress=False)
    with pytest.raises(ParameterError, match="tolerance=0"):
        ps.invert(pair(), OWN, DDIMScheduler(clip_sample=False), contents(), 5, tolerance=0, progress=False)
    with pytest.raises(UnsupportedError, match="DDIMScheduler clips contents"):
        ps.invert(pair(), OWN, DDIMScheduler(), contents(), 5, progress=False)

    def flat(noisy, alpha, sigma):  # every state becomes the same content
        return torch.zeros_like(noisy)

    known = ps.FunctionDenoiser(flat, (3,))
    alone = ps.FactorGraph()
    alone.add_trajectory("a", (3,))
    with pytest.raises(ConvergenceError, match="no state was found that step 4"):
        ps.invert(alone, known, DDIMScheduler(clip_sample=False), {"a": contents()["a"]}, 5, progress=False)
