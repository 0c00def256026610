"""Asking the denoisers again, against the exact joint posterior."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import NotFiniteError, ParameterError, UnsupportedError

LEVEL = ps.NoiseLevel(0.8, 0.6)


def pair(covariance: torch.Tensor, size: int) -> ps.FactorGraph:
    graph = ps.FactorGraph()
    graph.add_trajectory("a", size)
    graph.add_trajectory("b", size)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(torch.zeros(2 * size), covariance))
    return graph


def noisy(size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {name: torch.randn(100, size, generator=generator, dtype=torch.float64) for name in "ab"}


def joint_mean(joint, denoisers, states, level=LEVEL, tilt=None):
    own, covariances = joint.ask(denoisers, states, level)
    first = joint(states, own, level, covariances)
    if tilt is None:
        return first.mean
    return tilt(joint, states, first, level, own, lambda noisy: joint.ask(denoisers, noisy, level)).mean


def test_gaussian_denoisers_give_the_exact_posterior_mean_however_often_they_are_asked(generator):
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
    for kind, c, tilt in (
        ("surrogate", 0, None), ("surrogate", 0, ps.Tilt(2)), ("denoiser", 0, ps.Tilt(1, 0.7)),
        ("denoiser", 0, ps.Tilt(2)),
    ):  # fmt: skip
        joint = ps.JointDenoiser(pair(covariance, 3), kind, c)
        found = joint_mean(joint, denoisers, states, tilt=tilt)
        assert torch.allclose(torch.cat([found["a"], found["b"]], 1), expected, atol=1e-8)


@pytest.mark.parametrize(("kind", "c"), [("surrogate", 0.0), ("surrogate", 0.6), ("denoiser", 0.0)])
def test_the_tilt_of_a_joint_mean_is_eta_less_k_times_it(kind, c, generator):
    """h of the engine against the coupling as a matrix, and Eq. 6 with a tilt against a dense solve."""
    covariance = torch.tensor([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]], dtype=torch.float64)
    graph = ps.FactorGraph()
    for name in "abc":
        graph.add_trajectory(name, 1)
    graph.add_factor("all", "abc", ps.JointGaussian(torch.tensor([0.3, -0.2, 0.5]), covariance))
    joint = ps.JointDenoiser(graph, kind, c)
    coupling = torch.linalg.inv(covariance) - torch.eye(3)
    eta = torch.linalg.solve(covariance, torch.tensor([0.3, -0.2, 0.5]).double()) - torch.tensor([0.3, -0.2, 0.5])
    states = {n: torch.randn(5, 1, generator=generator, dtype=torch.float64) for n in "abc"}
    means = {n: torch.randn(5, 1, generator=generator, dtype=torch.float64) for n in "abc"}
    tilt = {n: torch.randn(5, 1, generator=generator, dtype=torch.float64) for n in "abc"}
    spread = {n: torch.full((5, 1, 1), 0.2, dtype=torch.float64) for n in joint.needs_covariance}
    inverse = torch.eye(3).double() / 0.2 if spread else torch.eye(3).double() * (1 + LEVEL.snr)
    eta = eta.expand(5, 3)
    if c:
        extra = torch.linalg.inv(joint.noise.covariance) - torch.eye(3)
        coupling = coupling + LEVEL.snr * extra
        eta = eta + LEVEL.snr / LEVEL.alpha * torch.cat(list(states.values()), 1) @ extra
    m, h = torch.cat(list(means.values()), 1), torch.cat(list(tilt.values()), 1)
    found = joint(states, means, LEVEL, spread, tilt)
    expected = torch.linalg.solve(inverse + coupling, (m @ inverse - h + eta).mT).mT
    assert torch.allclose(torch.cat([found.mean[n] for n in "abc"], 1), expected, atol=1e-10)
    implied = torch.cat([found.tilt[n] for n in "abc"], 1)
    assert torch.allclose(implied, eta - expected @ coupling, atol=1e-10)


def test_mixtures_come_closer_to_the_exact_joint_posterior(generator):
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
    for tilt in (None, ps.Tilt()):
        found = joint_mean(joint, dict.fromkeys("ab", denoiser), states, tilt=tilt)
        error.append((torch.cat([found["a"], found["b"]], 1) - exact).square().mean().item())
    assert error[1] < 0.5 * error[0]


def test_a_posterior_times_an_exponential_is_the_posterior_at_a_shifted_state(generator):
    """What asking again rests on, by quadrature."""
    denoiser = ps.MixtureDenoiser([0.3, 0.7], [[-1.0], [1.0]], [[[0.1]], [[0.3]]])
    x, state, h = torch.linspace(-6, 6, 4001).double(), 0.4, 1.3
    density = 0.3 / 0.1**0.5 * torch.exp(-((x + 1) ** 2) / 0.2) + 0.7 / 0.3**0.5 * torch.exp(-((x - 1) ** 2) / 0.6)
    weights = density * torch.exp(-((state - 0.8 * x) ** 2) / 0.72 + h * x)
    shifted = torch.tensor([[state + 0.36 / 0.8 * h]]).double()
    assert denoiser.denoise(shifted, LEVEL).item() == pytest.approx(((weights * x).sum() / weights.sum()).item())


def test_answers_out_of_reach_leave_eq_6(generator):
    denoiser = ps.MixtureDenoiser([0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    covariance = 1.04 * torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double()
    joint, states = ps.JointDenoiser(pair(covariance, 1)), noisy(1, generator)
    plain, far, near = (
        joint_mean(joint, dict.fromkeys("ab", denoiser), states, tilt=t)
        for t in (None, ps.Tilt(), ps.Tilt(reach=1e-9))
    )
    assert torch.equal(near["a"], plain["a"])
    assert not torch.equal(far["a"], plain["a"])


def test_sampling_asks_every_denoiser_once_more_per_step():
    class Counting(ps.MixtureDenoiser):
        asked = 0

        def denoise(self, noisy, level, condition=None):
            Counting.asked += 1
            return super().denoise(noisy, level, condition)

    denoiser = Counting([0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    graph = pair(1.04 * torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double(), 1)
    scheduler = DDIMScheduler(clip_sample=False)
    plain = ps.sample(graph, denoiser, scheduler, 10, 8, progress=False)
    Counting.asked = 0
    tilted = ps.sample(graph, denoiser, scheduler, 10, 8, progress=False, tilt=ps.Tilt(2))
    assert Counting.asked == tilted.info["denoiser_evaluations"] == 60
    assert not torch.equal(plain.samples["a"], tilted.samples["a"])


def test_bad_tilts_are_refused():
    for options in ({"times": 0}, {"times": True}, {"step": 0}, {"step": 1.5}, {"reach": 0}):
        with pytest.raises(ParameterError, match="Tilt"):
            ps.Tilt(**options)
    graph = pair(torch.eye(2).double(), 1)
    denoiser, scheduler = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1)), DDIMScheduler(clip_sample=False)
    with pytest.raises(ParameterError, match="not a Tilt"):
        ps.sample(graph, denoiser, scheduler, 2, tilt=1)
    with pytest.raises(UnsupportedError, match="annealed"):
        ps.sample(graph, denoiser, scheduler, 2, tilt=ps.Tilt(), posterior_covariance="annealed")
    canvas = ps.wide_canvas((1, 1, 6), (1, 4), (1, 2))
    window = ps.GaussianDenoiser(torch.zeros(1, 1, 4), torch.eye(4))
    with pytest.raises(UnsupportedError, match="canvas"):
        ps.sample(canvas, window, scheduler, 2, tilt=ps.Tilt())


def test_nan_of_a_second_answer_names_trajectory_and_step():
    class Breaks(ps.GaussianDenoiser):
        asked = 0

        def denoise(self, noisy, level, condition=None):
            Breaks.asked += 1
            mean = super().denoise(noisy, level, condition)
            return mean * float("nan") if Breaks.asked == 3 else mean  # the first to be asked again

    graph = pair(torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(), 1)
    denoiser = Breaks(torch.zeros(1), torch.eye(1))
    with pytest.raises(NotFiniteError, match="'a' .* step 0"):
        ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 2, progress=False, tilt=ps.Tilt())
