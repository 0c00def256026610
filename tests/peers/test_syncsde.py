"""SyncSDE against its published formula written out again, and against what it must do in the limits."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedSchedulerError,
)
from pgm_sync.peers import Pull, pulled, sample_syncsde, step_gain

MODEL = torch.tensor([[1.0, 0.8, 0.5], [0.8, 1.2, 0.7], [0.5, 0.7, 0.9]]).double()
DENOISERS = {k: ps.GaussianDenoiser(torch.zeros(3).double(), (1 + 0.3 * k) * MODEL) for k in range(3)}
MASK = torch.tensor([1.0, 1.0, 0.0]).double()
PULLS = {1: Pull(0, lambda x: x.flip(-1), MASK), 2: Pull(1)}


def scheduler(spacing="leading", **config):
    return diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing, **config)


def published(x, steps, strength, implicit, spacing="leading", **config):
    """The update of the paper, from the beta schedule up: nothing of diffusers' step, nothing of the package."""
    betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float32)
    bars = torch.cumprod(1 - betas, 0).double()
    stride = 1000 // steps
    times = [stride * k for k in reversed(range(steps))]
    if spacing == "trailing":
        times = [1000 - 1 - stride * k for k in range(steps)]
    x = list(x)
    for t in times:
        a, b = float(bars[t]), float(bars[t - stride]) if t >= stride else 1.0
        gamma = math.sqrt(b / a) - math.sqrt((1 - b) / (1 - a))
        new = []
        for j, xj in enumerate(x):
            covariance = (1 + 0.3 * j) * MODEL
            posterior = torch.linalg.inv(torch.linalg.inv(covariance) + a / (1 - a) * torch.eye(3))
            clean = xj @ posterior * math.sqrt(a) / (1 - a)
            epsilon = (xj - math.sqrt(a) * clean) / math.sqrt(1 - a)
            stepped = math.sqrt(b) * clean + math.sqrt(1 - b) * epsilon
            if j == 0:
                new.append(stepped)
                continue
            target = x[0].flip(-1) if j == 1 else x[1]
            g = gamma * strength * t / 1000 * (MASK if j == 1 else 1.0)
            new.append(stepped - (g / (1 + g) if implicit else g) * (xj - target))
        x = new
    return x


@pytest.mark.parametrize("form", ["explicit", "implicit"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_it_is_the_published_update(form, spacing, generator):
    noise = {k: torch.randn(4, 3, generator=generator, dtype=torch.float64) for k in range(3)}
    found = sample_syncsde(
        DENOISERS, PULLS, scheduler(spacing), 20, 4, initial_noise=noise, dtype=torch.float64, form=form
    )
    expected = published(noise.values(), 20, 5.0, form == "implicit", spacing)
    for k in range(3):
        assert torch.allclose(found[k], expected[k], atol=2e-5)  # alpha, sigma of diffusers are float32
    alone = sample_syncsde(DENOISERS, {}, scheduler(spacing), 20, 4, initial_noise=noise, dtype=torch.float64)
    assert torch.equal(alone[0], found[0])
    assert not torch.allclose(alone[1], found[1], atol=0.05)


def test_without_a_pull_it_is_plain_sampling():
    """Bit for bit that of a graph without factors, from the same seed."""
    graph = ps.FactorGraph()
    for k in DENOISERS:
        graph.add_trajectory(k, (3,))
    plain = ps.sample(graph, DENOISERS, scheduler(), 10, 5, 7, progress=False).samples
    for pulls, strength in [({}, 5.0), (PULLS, 0.0)]:
        found = sample_syncsde(DENOISERS, pulls, scheduler(), 10, 5, 7, strength=strength)
        assert all(torch.equal(found[k], plain[k]) for k in DENOISERS)


def test_a_strong_implicit_pull_ends_on_the_target_and_the_explicit_one_diverges(generator):
    """PEERS of the field: 20 steps with 1/lambda = 40 blow up; the implicit form cannot leave the interval."""
    unit = ps.GaussianDenoiser(torch.zeros(3).double(), torch.eye(3).double())
    arguments = ({0: unit, 1: unit}, {1: Pull(0)}, scheduler("trailing"), 20, 400)
    implicit = sample_syncsde(*arguments, strength=40.0, form="implicit", dtype=torch.float64)
    explicit = sample_syncsde(*arguments, strength=40.0, form="explicit", dtype=torch.float64)
    correlation = torch.corrcoef(torch.stack([implicit[0].flatten(), implicit[1].flatten()]))[0, 1]
    assert correlation > 0.5
    assert implicit[1].var() < 1.2
    assert explicit[1].var() > 1e6


def test_divergence_names_the_trajectory_and_the_step():
    unit = ps.GaussianDenoiser(torch.zeros(3), torch.eye(3))
    with pytest.raises(NotFiniteError, match=r"explicit update of 'b' diverged at step \d+; .* than 1e\+20"):
        sample_syncsde({"a": unit, "b": unit}, {"b": Pull("a")}, scheduler(), 20, 2, strength=1e20)


def test_the_implicit_step_stays_between_its_ends():
    noisy, target = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 3.0])
    for gain in (0.1, 1.0, 50.0):
        moved = pulled(noisy, noisy, target, gain, form="implicit")
        # stepped = noisy here, so the result solves x = noisy - gain (x - target)
        assert torch.allclose(moved, noisy - gain * (moved - target), atol=1e-5)
    assert torch.equal(pulled(noisy, noisy, target, 1.0), target)
    assert torch.allclose(
        pulled(noisy, noisy, target, 1.0, torch.tensor([0.0, 1.0])), torch.tensor([1.0, 3.0])
    )


def test_the_gain_is_the_step_of_a_unit_score():
    """DDIM moves by (1 - alpha_bar) gamma when the score grows by one: diffusers' own step is the oracle."""
    own = scheduler()
    own.set_timesteps(10)
    t = own.timesteps[3]
    a, b = own.alphas_cumprod[t], own.alphas_cumprod[t - 100]
    x, epsilon = torch.tensor([0.7]), torch.tensor([0.2])
    score = torch.tensor([1.0])
    moved = [own.step(e, t, x).prev_sample for e in (epsilon, epsilon - (1 - a) ** 0.5 * score)]
    assert moved[1] - moved[0] == pytest.approx(float((1 - a) * step_gain(float(a), float(b))), rel=1e-5)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"scheduler": diffusers.EulerDiscreteScheduler()}, UnsupportedSchedulerError, "EulerDiscreteScheduler is not"),
    ({"form": "midpoint"}, ParameterError, "form='midpoint' is not one of explicit, implicit"),
    ({"strength": -1.0}, ParameterError, "strength=-1.0"),
    ({"pulls": {1: Pull(9)}}, UnknownNameError, "the pull of 9 on 1 names 9"),
    ({"pulls": {8: Pull(0)}}, UnknownNameError, "the pull of 0 on 8 names 8"),
    ({"pulls": {1: Pull(0, lambda x: x[:, :2])}}, ShapeError, r"the pull on 1 gives shape \(2, 2\), its state"),
    ({"pulls": {1: Pull(0, mask=torch.ones(7, 1, 3))}}, ShapeError, r"the pull on 1 gives shape \(7, 2, 3\)"),
])  # fmt: skip
def test_bad_input_is_named(change, error, message):
    arguments = {"denoisers": DENOISERS, "pulls": PULLS, "scheduler": scheduler(), "num_samples": 2} | change
    with pytest.raises(error, match=message):
        sample_syncsde(**arguments, num_inference_steps=5)
