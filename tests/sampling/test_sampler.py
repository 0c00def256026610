"""Sampling: the stock run where nothing couples, the exact joint where all is Gaussian, errors before it starts."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    DtypeError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
    UnsupportedSchedulerError,
)

pytestmark = [  # torch, when diffusers hands its tensors to numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SCHEDULERS = {
    "DDIM": (diffusers.DDIMScheduler, {"clip_sample": False}, {}),
    "DDIM clipped": (diffusers.DDIMScheduler, {}, {}),
    "DDIM stochastic": (diffusers.DDIMScheduler, {"clip_sample": False}, {"eta": 1.0}),
    "DDPM": (diffusers.DDPMScheduler, {}, {}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}, {}),
    "Euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}, {}),
    "DPM-Solver++ 2M": (diffusers.DPMSolverMultistepScheduler, {}, {}),
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler, {}, {}),
    "PNDM": (diffusers.PNDMScheduler, {}, {}),
    "PLMS": (diffusers.PNDMScheduler, {"skip_prk_steps": True}, {}),
    "LCM": (diffusers.LCMScheduler, {}, {}),
    "TCD": (diffusers.TCDScheduler, {}, {"eta": 0.3}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}, {}),
    "LMS": (diffusers.LMSDiscreteScheduler, {}, {}),
    "KDPM2": (diffusers.KDPM2DiscreteScheduler, {}, {}),
    "KDPM2 ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, {}, {}),
    "DEIS": (diffusers.DEISMultistepScheduler, {}, {}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}, {}),
    "DPM-Solver singlestep": (diffusers.DPMSolverSinglestepScheduler, {"lower_order_final": True}, {}),
    "SA-Solver": (diffusers.SASolverScheduler, {}, {}),
    "SDE-DPM-Solver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, {}),
    "EDM Euler": (diffusers.EDMEulerScheduler, {}, {}),
    "EDM DPM-Solver": (diffusers.EDMDPMSolverMultistepScheduler, {}, {}),
    "flow Heun": (diffusers.FlowMatchHeunDiscreteScheduler, {}, {}),
    "flow LCM": (diffusers.FlowMatchLCMScheduler, {}, {}),
    "CogVideoX DDIM": (diffusers.CogVideoXDDIMScheduler, {}, {}),
}


class DPMSolverSDEScheduler(diffusers.DDIMScheduler):
    """By its name only: diffusers' needs a package that is not here."""


def scheduler_of(kind):
    cls, config, options = SCHEDULERS[kind]
    return cls(**config), options


def mixture(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return ps.EmpiricalDenoiser(torch.rand(12, *shape, generator=generator) * 2 - 1, bandwidth=0.1)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_without_factors_every_trajectory_is_sampled_alone(kind):
    """Bit for bit, whatever else the graph holds."""
    scheduler, options = scheduler_of(kind)
    denoisers = {"a": mixture((1, 4, 4), 0), "b": mixture((2, 3), 1)}
    both, alone = ps.FactorGraph(), ps.FactorGraph()
    both.add_trajectory("b", (2, 3))
    both.add_trajectory("a", (1, 4, 4))
    alone.add_trajectory("a", (1, 4, 4))
    together = ps.sample(both, denoisers, scheduler, 10, 3, 5, progress=False, **options)
    single = ps.sample(alone, denoisers["a"], scheduler, 10, 3, 5, progress=False, **options)
    assert torch.equal(together.samples["a"], single.samples["a"])
    assert together.samples["a"].std() > 0.1


@pytest.mark.parametrize("kind", ["DDIM", "DDIM clipped", "Euler", "DPM-Solver++ 2M"])
def test_an_uncoupled_network_is_the_stock_loop_bit_for_bit(kind):
    """Oracle: the loop of diffusers' own pipelines, around the same random U-Net."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=4,
    ).eval()  # fmt: skip
    scheduler, _ = scheduler_of(kind)
    noise = torch.randn(2, 1, 8, 8)
    stock = type(scheduler).from_config(scheduler.config)
    stock.set_timesteps(6)
    x = noise * stock.init_noise_sigma
    with torch.no_grad():
        for t in stock.timesteps:
            output = model(stock.scale_model_input(x, t), t).sample
            x = stock.step(output, t, x).prev_sample
    graph = ps.FactorGraph()
    graph.add_trajectory("image", (1, 8, 8))
    result = ps.sample(
        graph, ps.DiffusersDenoiser(model), scheduler, 6, 2, initial_noise={"image": noise}, progress=False
    )
    assert torch.equal(result.samples["image"], x)


def test_the_callers_scheduler_is_left_alone():
    scheduler = diffusers.DPMSolverMultistepScheduler()
    graph = ps.chain_graph(2, (3,), ps.Correlation(0.5))
    ps.sample(graph, mixture((3,), 0), scheduler, 5, progress=False)
    assert scheduler.num_inference_steps is None
    assert scheduler.step_index is None


@pytest.mark.parametrize("kind", ["DDIM", "DDPM"])
def test_a_sample_depends_on_its_own_seed_only(kind):
    scheduler, options = scheduler_of(kind)
    graph = ps.chain_graph(2, (1, 4, 4), ps.Correlation(0.7))
    denoiser = mixture((1, 4, 4), 0)
    many = ps.sample(graph, denoiser, scheduler, 8, 3, 10, progress=False, **options)
    one = ps.sample(graph, denoiser, scheduler, 8, 1, [12], progress=False, **options)
    assert torch.allclose(many.samples[1][2], one.samples[1][0], atol=1e-5)
    assert not torch.allclose(many.samples[1][1], one.samples[1][0], atol=1e-2)
    assert many.info["seeds"] == [10, 11, 12]


def linear_map(graph, denoisers, steps, white, **options):
    """Response of the samples to every unit of initial noise: DDIM with Gaussian denoisers is linear in it."""
    n = sum(size for _, size in white)
    noise, start = {}, 0
    for name, size in white:
        unit = torch.zeros(n, *graph.shape(name), dtype=torch.float64)
        unit.reshape(n, -1)[start : start + size] = torch.eye(size, dtype=torch.float64)
        noise[name], start = unit, start + size
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    return ps.sample(
        graph,
        denoisers,
        scheduler,
        steps,
        n,
        initial_noise=noise,
        dtype=torch.float64,
        progress=False,
        **options,
    )


@pytest.mark.parametrize("noise_correlation", [0.0, 0.6])
def test_gaussian_samples_have_the_joint_covariance(noise_correlation):
    """No Monte Carlo: the sample covariance is exact, and off by a step size that halves when the steps double."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 9, generator=generator, dtype=torch.float64) / 3
    model = root @ root.T + 0.2 * torch.eye(6, dtype=torch.float64)
    graph = ps.chain_graph(2, (3,), ps.JointGaussian(None, model))
    denoisers = {
        k: ps.GaussianDenoiser(torch.zeros(3), model[3 * k : 3 * k + 3, 3 * k : 3 * k + 3]) for k in (0, 1)
    }
    errors = []
    for steps in (25, 50, 100):
        result = linear_map(graph, denoisers, steps, [(0, 3), (1, 3)], noise_correlation=noise_correlation)
        response = torch.cat([result.samples[0], result.samples[1]], 1)
        errors.append(((response.T @ response - model).norm() / model.norm()).item())
    assert errors[0] < 0.15
    assert errors[1] < 0.65 * errors[0]
    assert errors[2] < 0.65 * errors[1]


def test_a_canvas_keeps_the_far_correlation_that_averaging_loses():
    """AR(1) with rho = .95 over 40 pixels, windows of 16: corner to corner .135 in truth."""
    index = torch.arange(40)
    model = (0.95 ** (index[:, None] - index).abs()).double()
    window = ps.GaussianDenoiser(torch.zeros(1, 1, 16).double(), model[:16, :16])
    ends = {}
    for name in ("averaging", "joint"):
        graph = ps.wide_canvas((1, 1, 40), (1, 16), 8)
        if name == "joint":
            graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, model))
        response = linear_map(graph, window, 50, [("canvas", 40)]).samples["canvas"].reshape(40, 40)
        sampled = response.T @ response
        ends[name] = (sampled[0, -1] / (sampled[0, 0] * sampled[-1, -1]).sqrt()).item()
    assert ends["joint"] == pytest.approx(0.95**39, abs=0.005)
    assert abs(ends["averaging"]) < 0.02


@pytest.mark.parametrize("kind", ["DDIM", "DDIM stochastic", "DPM-Solver++ 2M"])
def test_windows_of_a_canvas_agree_to_the_last_bit(kind):
    scheduler, options = scheduler_of(kind)
    graph = ps.wide_canvas((1, 4, 8), (4, 4), 2)
    result = ps.sample(graph, mixture((1, 4, 4), 0), scheduler, 10, 2, progress=False, **options)
    assert result.samples["canvas"].shape == (2, 1, 4, 8)
    assert torch.equal(result.samples["w1"], result.samples["canvas"][..., 2:6])
    assert torch.equal(result.samples["w0"][..., 2:], result.samples["w1"][..., :2])


def test_step_noise_is_as_correlated_as_the_initial_noise():
    """Two uncoupled-content nodes, c = .9, DDPM: what is left of pure noise after one step correlates alike."""
    graph = ps.chain_graph(2, (4,), ps.Correlation(0.95))
    flat = ps.FunctionDenoiser(lambda x, a, s: torch.zeros_like(x), (4,))
    steps = ps.sampling_steps(
        graph, flat, diffusers.DDPMScheduler(clip_sample=False), 10, 3000, noise_correlation=0.9, couple=False
    )
    state = next(steps)
    for x in (state.noisy, {k: state.next[k] for k in (0, 1)}):
        pair = torch.stack([x[0].flatten(), x[1].flatten()]).double()
        rho = torch.corrcoef(pair)[0, 1].item()
        # n = 12,000: five standard errors of Fisher's z
        assert math.atanh(rho) == pytest.approx(math.atanh(0.9 * 0.95), abs=5 / math.sqrt(12_000))


def test_coupled_trajectories_correlate_as_told():
    """Unit Gaussians with rho = .8: correlation of 2,000 x 3 samples, Fisher interval at five standard errors."""
    graph = ps.chain_graph(2, (3,), ps.Correlation(0.8))
    unit = ps.GaussianDenoiser(torch.zeros(3), torch.eye(3))
    for covariance in ("surrogate", "denoiser"):
        result = ps.sample(
            graph, unit, diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), 50, 2000,
            posterior_covariance=covariance, progress=False,
        )  # fmt: skip
        pair = torch.stack([result.samples[0].flatten(), result.samples[1].flatten()]).double()
        assert math.atanh(torch.corrcoef(pair)[0, 1].item()) == pytest.approx(
            math.atanh(0.8), abs=5 / math.sqrt(6000)
        )


def test_the_generator_shows_every_step():
    graph = ps.chain_graph(2, (3,), ps.Correlation(0.5))
    denoiser = mixture((3,), 0)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    states = list(ps.sampling_steps(graph, denoiser, scheduler, 5, 2, 3))
    assert [s.step for s in states] == list(range(5))
    assert torch.is_grad_enabled()
    for before, after in zip(states, states[1:], strict=False):
        assert torch.equal(before.next[0], after.noisy[0])
        assert before.level.snr < after.level.snr
    result = ps.sample(graph, denoiser, scheduler, 5, 2, 3, progress=False)
    assert torch.equal(result.samples[1], states[-1].next[1])
    assert set(result.timing) == {"denoiser", "engine", "scheduler", "total"}
    assert "2 trajectories" in repr(result.graph)


def test_conditions_reach_their_trajectories():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    denoiser = ps.EmpiricalDenoiser(data, labels=[0, 1])
    graph = ps.FactorGraph()
    graph.add_trajectory("low", (2,))
    graph.add_trajectory("high", (2,))
    result = ps.sample(
        graph, denoiser, diffusers.DDIMScheduler(), 5, 2, conditions={"low": 0, "high": 1}, progress=False
    )
    assert result.samples["low"].mean() == pytest.approx(-1, abs=1e-3)
    assert result.samples["high"].mean() == pytest.approx(1, abs=1e-3)


def test_nan_names_the_trajectory_and_the_step():
    graph = ps.chain_graph(2, (3,), ps.Correlation(0.5))

    def fails(x, alpha, sigma):
        return torch.full_like(x, torch.nan) if alpha > 0.5 else x

    denoisers = {0: mixture((3,), 0), 1: ps.FunctionDenoiser(fails, (3,))}
    with pytest.raises(
        NotFiniteError, match=r"denoiser of 1 returned 6 NaN or infinite numbers out of 6 at step \d"
    ):
        ps.sample(graph, denoisers, diffusers.DDIMScheduler(), 10, 2, progress=False)


COUPLED = ps.chain_graph(2, (3,), ps.Correlation(0.5))
D = ps.GaussianDenoiser(torch.zeros(3), torch.eye(3))


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"denoisers": {0: D}}, UnknownNameError, "1 has no denoiser"),
    ({"denoisers": {0: D, 1: D, 2: D}}, UnknownNameError, "2 is no trajectory"),
    ({"denoisers": lambda x: x}, ParameterError, "FunctionDenoiser"),
    ({"denoisers": mixture((4,), 0)}, ShapeError, r"works on shape \(4,\), the trajectory has \(3,\)"),
    ({"scheduler": DPMSolverSDEScheduler()}, UnsupportedSchedulerError, "Brownian tree of its own.*use DPMSolver"),
    ({"scheduler": diffusers.UnCLIPScheduler()}, UnsupportedSchedulerError, "needs the timestep after this one"),
    ({"scheduler": diffusers.IPNDMScheduler()}, UnsupportedSchedulerError, "IPNDMScheduler cannot be synchronised"),
    ({"num_samples": 0}, ParameterError, "num_samples=0"),
    ({"num_inference_steps": 0}, ParameterError, "num_inference_steps=0"),
    ({"seed": [1, 2, 3]}, BatchError, "3 seeds for 2 samples"),
    ({"seed": -1}, ParameterError, "at least 0"),
    ({"dtype": torch.int64}, DtypeError, "floating-point dtype"),
    ({"conditions": {7: 1}}, UnknownNameError, "a condition for 7"),
    ({"etta": 1.0}, ParameterError, r"unknown option 'etta': neither sample\(\) nor DDIMScheduler.step"),
    ({"initial_noise": {0: torch.zeros(2, 3)}}, ShapeError, r"initial_noise for 1 must have shape \(2, 3\), not None"),
    ({"initial_noise": {9: torch.zeros(2, 3)}}, UnknownNameError, "initial_noise for 9"),
    ({"posterior_covariance": "denoiser", "denoisers": ps.FunctionDenoiser(lambda x, a, s: x, (3,))},
     UnsupportedError, "FunctionDenoiser of 0 knows only means"),
    ({"noise_correlation": 1.5}, ParameterError, r"must lie in \[0, 1\)"),
    ({"graph": ps.chain_graph(2, (), ps.Correlation(0.5))}, ShapeError, r"0 has shape \(\).*make it \(1,\)"),
])  # fmt: skip
def test_bad_input_is_refused_before_sampling_starts(change, error, message):
    given = {"graph": COUPLED, "denoisers": D, "scheduler": diffusers.DDIMScheduler(), "num_samples": 2} | change
    with pytest.raises(error, match=message):
        ps.sampling_steps(**given)  # not even a first step


def test_the_result_says_how_much_memory_was_needed():
    """The system's own account of this process; pages are counted a little late."""
    resource = pytest.importorskip("resource")
    graph = ps.FactorGraph()
    graph.add_trajectory("x", (4,))
    denoiser = ps.FunctionDenoiser(lambda noisy, alpha, sigma: noisy + torch.ones(60_000_000).sum() * 0, (4,))
    found = ps.sample(graph, denoiser, diffusers.DDIMScheduler(), 2, progress=False).info["peak_memory"]
    assert found == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.01)
