"""Langevin steps and resampling: stationary laws in closed form, and Eq. 1's mixture reached where it is known."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, UnsupportedSchedulerError
from pgm_sync.metrics import proportion
from pgm_sync.sampling.resampling import forward
from pgm_sync.score.exact import joint_mixture, noise_covariance

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MODEL = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
UNIT = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))


def ddim():
    return diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def gaussian_pair():
    return ps.chain_graph(2, (1,), ps.JointGaussian(None, MODEL))


@pytest.mark.parametrize("c", [0.0, 0.8])
@pytest.mark.parametrize("level", [ps.NoiseLevel(0.6, 0.8), ps.NoiseLevel(1.0, 3.0), ps.NoiseLevel(0.7, 0.3)])
def test_langevin_keeps_the_gaussian_marginal_up_to_its_step_size(level, c):
    """No Monte Carlo: steps are linear, so covariances propagate exactly. Held against the scalar formula per mode."""
    joint = ps.JointDenoiser(gaussian_pair(), "surrogate", c)
    unit = torch.eye(2, dtype=torch.float64)
    noisy = {k: unit[:, k : k + 1] for k in (0, 1)}
    carried = joint(noisy, {k: UNIT.denoise(x, level) for k, x in noisy.items()}, level).carried
    zero = [torch.zeros(2, 1, dtype=torch.float64)] * 2
    noise = torch.tensor([[1, 0.9 * c], [0.9 * c, 1]], dtype=torch.float64)
    # Both matrices have the eigenvectors (1, 1) and (1, -1)
    basis = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    r = torch.tensor([1 + 0.9 * c, 1 - 0.9 * c], dtype=torch.float64)
    v = level.alpha**2 * torch.tensor([1.9, 0.1], dtype=torch.float64) + level.sigma**2 * r
    marginal = basis @ torch.diag(v) @ basis
    errors = []
    for h in (0.4, 0.2, 0.1):
        step = ps.Langevin(1, h).step(list(noisy.values()), carried, zero, level)
        response = torch.cat(step, 1).T
        covariance = marginal
        for _ in range(2000):
            covariance = response @ covariance @ response.T + 2 * h * level.sigma**2 * noise
        expected = v / (1 - h * level.sigma**2 * r / (2 * v))
        assert torch.allclose(covariance, basis @ torch.diag(expected) @ basis, rtol=1e-9, atol=1e-12)
        errors.append((covariance - marginal).norm() / marginal.norm())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.06


def two_modes():
    """Scalar trajectories with modes at -1 and 1; Eq. 1 makes their signs agree more often than not."""
    graph = ps.chain_graph(2, (1,), ps.Correlation(0.5))
    mixture = ps.MixtureDenoiser([0.4, 0.6], [[-1.0], [1.0]], [[[0.25]], [[0.25]]])
    return graph, {0: mixture, 1: mixture}


def agreement(samples):
    return proportion(int((samples[0] * samples[1] > 0).sum()), len(samples[0]))


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_langevin_samples_the_annealed_product(c):
    """At one level, for long, against its density summed on a grid: four moments at five standard errors."""
    graph, denoisers = two_modes()
    level = ps.NoiseLevel(0.8, 0.6)
    joint = ps.JointDenoiser(graph, "annealed", c)
    noise = noise_covariance(graph, c)
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    model = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal
    log_density = normal(torch.zeros(2).double(), level.alpha**2 * model + level.sigma**2 * noise).log_prob(grid)
    spread = math.sqrt(level.alpha**2 * 0.25 + level.sigma**2)
    for x in grid.T:
        own = [torch.distributions.Normal(level.alpha * m, spread).log_prob(x) for m in (-1.0, 1.0)]
        log_density += torch.logaddexp(own[0] + math.log(0.4), own[1] + math.log(0.6)) + x**2 / 2  # over N(0, 1)
    density = torch.softmax(log_density, 0)
    generator = torch.Generator().manual_seed(0)
    root, n = torch.linalg.cholesky(noise), 4000
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    corrector = ps.Langevin(1, 0.1)
    for _ in range(250):
        noisy = {k: x[:, k : k + 1] for k in (0, 1)}
        means = joint(noisy, {k: denoisers[k].denoise(v, level) for k, v in noisy.items()}, level).carried
        white = torch.randn(n, 2, generator=generator, dtype=torch.float64) @ root.T
        x = torch.cat(corrector.step(list(noisy.values()), means, white.split(1, 1), level), 1)
    moments = {"mean": lambda x: x[:, 0], "variance": lambda x: x[:, 0] ** 2,
               "product": lambda x: x[:, 0] * x[:, 1], "squares": lambda x: (x[:, 0] * x[:, 1]) ** 2}  # fmt: skip
    for name, moment in moments.items():
        got, expected = moment(x), (density * moment(grid)).sum()
        assert abs(got.mean() - expected) < 5 * got.std() / math.sqrt(n), name


def test_annealed_langevin_approaches_eq_1():
    """Du et al.: the share of agreeing signs goes to that of the closed-form joint as the chains get longer."""
    graph, denoisers = two_modes()
    exact = joint_mixture(graph, denoisers).sample(400_000, generator=torch.Generator().manual_seed(0))
    truth = agreement(exact.T).value
    found = []
    for corrector in (None, ps.Langevin(2, 1.0), ps.Langevin(24, 1.0, noisiest=2.0)):
        result = ps.sample(
            graph, denoisers, ddim(), 20, 2000, posterior_covariance="annealed", corrector=corrector, progress=False
        )
        found.append(agreement(result.samples))
    assert found[0].high < found[1].value < found[2].value
    assert found[1].high < truth
    # Slow to the end: the last levels no longer mix
    assert found[2].low < truth
    assert truth - found[2].value < 0.3 * (truth - found[0].value)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (ps.NoiseLevel(0.8, 0.6), ps.NoiseLevel(0.28, 0.96)),
        (ps.NoiseLevel(1.0, 0.5), ps.NoiseLevel(1.0, 4.0)),
        (ps.NoiseLevel(0.9, 0.1), ps.NoiseLevel(0.3, 0.7)),
    ],
    ids=["VP", "VE", "flow"],
)
def test_the_way_up_gives_the_noisier_marginal(low, high):
    """The kernel is linear: x_0 and the noise go through it separately, and variances add."""
    one, zero = [torch.ones(1, dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    (kept,), (added,) = forward(one, zero, low, high), forward(zero, one, low, high)
    assert math.isclose(low.alpha * kept.item(), high.alpha)
    assert math.isclose((low.sigma * kept.item()) ** 2 + added.item() ** 2, high.sigma**2)


SCHEDULERS = {
    "DDIM": (ddim, {}),
    "DDPM": (lambda: diffusers.DDPMScheduler(clip_sample=False), {}),
    "Euler": (lambda: diffusers.EulerDiscreteScheduler(timestep_spacing="linspace"), {}),
    "Euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler, {}),
}


@pytest.mark.parametrize("option", [{"corrector": ps.Langevin(2, 0.2)}, {"resample": ps.Resample(3, 2)}], ids=str)
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_pure_noise_keeps_the_level_of_every_scheduler(kind, option):
    """Without content x_t = sigma eps at every step of every scheduler: variance and correlation at five errors.

    Langevin's variance follows ``V <- (1 - h)^2 V + 2 h sigma^2``; schedulers rescale it by the next sigma.
    """
    make, options = SCHEDULERS[kind]
    graph = ps.chain_graph(2, (16,), ps.Correlation(0.9))
    nothing = ps.FunctionDenoiser(lambda x, a, s: torch.zeros_like(x), (16,))
    n, ratio = 250 * 16, 1.0
    steps = ps.sampling_steps(
        graph, nothing, make(), 6, 250, noise_correlation=0.8, couple=False, dtype=torch.float64, **option, **options
    )
    for state in steps:
        if "corrector" in option:
            for _ in range(2):
                ratio = 0.64 * ratio + 0.4
        pair = torch.stack([state.noisy[k].flatten() for k in (0, 1)])
        # Stochastic schedulers forget part of the ratio: between its value and 1
        low, high = min(ratio, 1.0), max(ratio, 1.0)
        variance = pair.square().mean(1) / state.level.sigma**2
        slack = 5 * math.sqrt(2 / n)
        if kind in ("Euler", "Euler ancestral", "flow") and state.step == 0:
            slack += 0.05  # these start from sigma, or from sqrt(sigma^2 + 1)
        assert (variance > low * (1 - slack)).all()
        assert (variance < high * (1 + slack)).all()
        rho = torch.corrcoef(pair)[0, 1].item()
        assert math.atanh(rho) == pytest.approx(math.atanh(0.72), abs=5 / math.sqrt(n))


def test_off_means_unchanged_and_counts_are_right():
    graph, denoisers = two_modes()
    plain = ps.sample(graph, denoisers, ddim(), 6, 3, eta=1.0, progress=False)
    once = ps.sample(graph, denoisers, ddim(), 6, 3, eta=1.0, resample=ps.Resample(times=1), progress=False)
    assert all(torch.equal(plain.samples[k], once.samples[k]) for k in (0, 1))
    assert plain.info["denoiser_evaluations"] == 12
    states = list(ps.sampling_steps(graph, denoisers, ddim(), 6, 3, resample=ps.Resample(3, 2)))
    levels = [s.timestep.item() for s in states]
    assert levels[:6] == levels[:2] * 3
    assert len(states) == states[-1].num_steps == 14  # blocks (0, 1) and (2, 3) three times, (4, 5) once
    assert states[-1].evaluations == 14
    few = ps.sample(graph, denoisers, ddim(), 6, 3, corrector=ps.Langevin(4, noisiest=1.0), progress=False)
    corrected = sum(1 for s in states[:2] + states[6:8] + states[12:] if s.level.sigma <= s.level.alpha)
    assert 0 < corrected < 6
    assert few.info["denoiser_evaluations"] == 2 * (6 + 4 * corrected)


@pytest.mark.parametrize("option", [{"corrector": ps.Langevin(2)}, {"resample": ps.Resample(2, 2)}])
def test_a_sample_depends_on_its_own_seed_only(option):
    graph, denoisers = two_modes()
    options = {"dtype": torch.float64, "noise_correlation": 0.5, "progress": False, **option}
    many = ps.sample(graph, denoisers, ddim(), 8, 3, 10, **options)
    one = ps.sample(graph, denoisers, ddim(), 8, 1, [12], **options)
    assert torch.allclose(many.samples[1][2], one.samples[1][0], atol=1e-10)
    assert not torch.allclose(many.samples[1][1], one.samples[1][0], atol=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ps.Langevin(0), "steps=0 must be a positive integer"),
        (lambda: ps.Langevin(1, 2.0), "step_size=2.0 must lie between 0 and 2"),
        (lambda: ps.Langevin(1, 0.1, 1.0, 2.0), "finest=2.0 and noisiest=1.0"),
        (lambda: ps.Resample(0), "times=0 must be a positive integer"),
        (lambda: ps.Resample(2, 0), "jump=0 must be a positive integer"),
        (
            lambda: ps.sample(*two_modes(), ddim(), 4, corrector=3),
            "corrector=3 is not a Langevin",
        ),
        (
            lambda: ps.sample(*two_modes(), ddim(), 4, resample=ps.Langevin()),
            "is not a Resample",
        ),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@pytest.mark.parametrize("option", [{"corrector": ps.Langevin()}, {"resample": ps.Resample()}])
def test_multistep_schedulers_are_refused(option):
    graph, denoisers = two_modes()
    with pytest.raises(UnsupportedSchedulerError, match="DPMSolverMultistepScheduler extrapolates"):
        ps.sample(graph, denoisers, diffusers.DPMSolverMultistepScheduler(), 4, **option)
