"""How large samples become: SyncSDE's update against the closed form of its factors, and potentials of any strength."""

from __future__ import annotations

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import ParameterError, UnsupportedSchedulerError
from pgm_sync.peers import Pull, amplification, sample_syncsde

UNIT = ps.GaussianDenoiser(torch.zeros(2).double(), torch.eye(2).double())
UNITS = {0: UNIT, 1: UNIT}
BASIS = {0: torch.eye(2).double()[:, :1] * torch.ones(2), 1: torch.eye(2).double()[:, 1:] * torch.ones(2)}


def scheduler():
    """Stable Diffusion's noise schedule."""
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing",
        clip_sample=False,
    )  # fmt: skip


def sampled_variance(steps, strength, form):
    """Of the drawn trajectory, exactly: samples are linear in the two noises, and these are the coefficients."""
    found = sample_syncsde(
        UNITS, {1: Pull(0)}, scheduler(), steps, 2, strength=strength, form=form, initial_noise=BASIS,
        dtype=torch.float64,
    )  # fmt: skip
    return float(found[1][:, 0].square().sum())


def predicted_variance(steps, strength, form):
    """The difference of the two starts as that of two noises, and every step multiplies it."""
    alone = float(amplification(scheduler(), steps, 0.0).prod())
    left = float(amplification(scheduler(), steps, strength, form).prod())
    return (alone - left) ** 2 + left**2


@pytest.mark.parametrize("steps", [3, 5, 20, 50])
@pytest.mark.parametrize("strength", [1.0, 5.0, 40.0, 80.0])
def test_the_explicit_update_is_as_large_as_its_factors_say_and_the_implicit_one_stays(steps, strength):
    explicit = predicted_variance(steps, strength, "explicit")
    assert sampled_variance(steps, strength, "explicit") == pytest.approx(explicit, rel=2e-3)
    implicit = sampled_variance(steps, strength, "implicit")
    assert implicit == pytest.approx(predicted_variance(steps, strength, "implicit"), rel=1e-3)
    assert 0.2 < implicit < 1.05


def test_the_divergence_that_is_known():
    """Variance 1e16 at 20 steps with 1/lambda = 40; the default strength is unstable at 5 steps and fine at 50."""
    assert 1e16 < predicted_variance(20, 40.0, "explicit") < 1e17
    assert predicted_variance(5, 5.0, "explicit") > 10
    assert predicted_variance(50, 5.0, "explicit") < 1
    assert (amplification(scheduler(), 50, 5.0).abs() < 1).all()


def test_strength_0_is_what_ddim_makes_of_a_gaussian():
    """diffusers' own steps, with the noise that a Gaussian of variance 1/4 predicts."""
    own, state = scheduler(), torch.ones(1).double()
    own.set_timesteps(12)
    for t in own.timesteps:
        kept = own.alphas_cumprod[t].double()
        clean = kept.sqrt() * 0.25 / (kept * 0.25 + 1 - kept) * state
        state = own.step((state - kept.sqrt() * clean) / (1 - kept).sqrt(), t, state).prev_sample
    found = amplification(scheduler(), 12, 0.0, variance=0.25).prod()
    assert state.item() == pytest.approx(float(found), rel=1e-4)


@given(steps=st.integers(1, 40), rho=st.floats(-0.9999, 0.9999))
@settings(deadline=None, max_examples=15)
def test_potentials_of_any_strength_keep_the_variance(steps, rho):
    """Eq. 9: sum and difference are denoised exactly, as Gaussians of variances 1 + rho and 1 - rho."""
    graph = ps.FactorGraph()
    for name in UNITS:
        graph.add_trajectory(name, 2)
    graph.add_factor("tie", [0, 1], ps.Correlation(rho))
    result = ps.sample(
        graph, UNITS, scheduler(), steps, 2, initial_noise=BASIS, dtype=torch.float64, progress=False
    )
    coefficients = torch.stack([result.samples[k][:, 0] for k in UNITS])  # by noise
    total, gap = (float(amplification(scheduler(), steps, 0.0, variance=1 + s * rho).prod()) for s in (1, -1))
    half = torch.tensor([[total + gap, total - gap], [total - gap, total + gap]], dtype=torch.float64) / 2
    assert torch.allclose(coefficients, half, atol=1e-4)
    assert (coefficients.square().sum(1) < 1.05).all()


@pytest.mark.parametrize("kind", ["surrogate", "denoiser"])
@given(steps=st.integers(3, 30), rho=st.floats(0, 0.9999), c=st.sampled_from([0.0, 0.9]))
@settings(deadline=None, max_examples=8)
def test_potentials_of_any_strength_keep_modes_in_place(kind, steps, rho, c):
    """Two denoisers of four narrow modes, where a posterior is wider than the prior in some direction."""
    centres = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    spread = (0.02 * torch.eye(2).double()).expand(4, 2, 2)
    modes = ps.MixtureDenoiser([0.25] * 4, centres, spread)
    own = 1.02 * torch.eye(2).double()
    both = torch.cat([torch.cat([own, rho * own], 1), torch.cat([rho * own, own], 1)])
    graph = ps.FactorGraph()
    for name in UNITS:
        graph.add_trajectory(name, 2)
    graph.add_factor("tie", [0, 1], ps.JointGaussian(None, both))
    found = ps.sample(
        graph, modes, scheduler(), steps, 100, posterior_covariance=kind, noise_correlation=c, progress=False
    ).samples
    for x in found.values():
        assert torch.isfinite(x).all()
        assert 0.35 < float(x.var(0).mean()) / 1.02 < 1.4  # three plain DDIM steps leave .46
        assert x.abs().max() < 3


def test_bad_input_is_named():
    with pytest.raises(UnsupportedSchedulerError, match="EulerDiscreteScheduler is not"):
        amplification(diffusers.EulerDiscreteScheduler(), 5)
    with pytest.raises(ParameterError, match="form='midpoint'"):
        amplification(scheduler(), 5, form="midpoint")
