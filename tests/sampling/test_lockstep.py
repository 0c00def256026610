"""Pipelines in lockstep: stock results where nothing couples, the exact joint for Gaussians, failures by name."""

from __future__ import annotations

import os
import signal
import threading

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    NotFiniteError,
    ParameterError,
    PipelineError,
    ShapeError,
    StepCountError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.levels import normalised
from pgm_sync.score.joint import JointDenoiser

pytestmark = [  # torch, when diffusers hands its tensors to numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("pgm_sync")] == []


class Loop:
    """A pipeline at its smallest: a scheduler, and a call that steps it around an exact denoiser."""

    running = 0  # calls of denoisers under way, in all pipelines

    def __init__(self, denoiser, scheduler, fails_at=None):
        self.denoiser, self.scheduler, self.fails_at = denoiser, scheduler, fails_at
        self.seen = []

    def __call__(self, num_inference_steps, noise, **options):
        self.scheduler.set_timesteps(num_inference_steps)
        state = noise * float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        for k, timestep in enumerate(self.scheduler.timesteps):
            if hasattr(self.scheduler, "scale_model_input"):
                self.scheduler.scale_model_input(state, timestep)
            where = ps.sampling.coordinates(self.scheduler, timestep)
            assert Loop.running == 0
            Loop.running += 1
            content = self.denoiser.denoise(state, ps.sampling.noise_level(self.scheduler, timestep))
            Loop.running -= 1
            if k == self.fails_at:
                raise RuntimeError("out of memory, say")
            self.seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            output = where.output_from_denoised(content, state)
            state = self.scheduler.step(output, timestep, state, **options, return_dict=False)[0]
        return state


def ddim(**config):
    return diffusers.DDIMScheduler(clip_sample=False, **config)


def covariance_of(size, seed):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.3 * torch.eye(size, dtype=torch.float64)


def gaussian_pair():
    """Contents of 3 and of 2 numbers, jointly Gaussian; their own denoisers, and the joint covariance."""
    joint = covariance_of(5, seed=1)
    mean = torch.arange(5, dtype=torch.float64) / 5
    graph = ps.FactorGraph()
    graph.add_trajectory("left", (3,))
    graph.add_trajectory("right", (2,))
    graph.add_factor("both", ["left", "right"], ps.JointGaussian(mean, joint))
    own = {
        "left": ps.GaussianDenoiser(mean[:3], joint[:3, :3]),
        "right": ps.GaussianDenoiser(mean[3:], joint[3:, 3:]),
    }
    return graph, own, mean, joint


def noise_for(graph, k, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return {n: torch.randn(k, *graph.shape(n), generator=generator, dtype=dtype) for n in graph.trajectories}


def calls_of(pipes, noise, steps):
    steps = steps if isinstance(steps, dict) else dict.fromkeys(pipes, steps)
    return {n: ps.Call(pipe, num_inference_steps=steps[n], noise=noise[n]) for n, pipe in pipes.items()}


# ------------------------------------------------------------------------------------- levels of one's own


def test_levels_of_one_s_own_are_the_exact_joint_posterior():
    """Oracle: the dense posterior of all clean contents given all states, in three kinds of coordinates."""
    joint, mean = covariance_of(6, seed=2), torch.linspace(-1, 1, 6, dtype=torch.float64)
    graph, names = ps.FactorGraph(), ["a", "b", "c"]
    for name in names:
        graph.add_trajectory(name, (2,))
    graph.add_factor("all", names, ps.JointGaussian(mean, joint))
    levels = {
        "a": ps.NoiseLevel(0.6, 0.8), "b": ps.NoiseLevel(1.0, 2.5), "c": ps.NoiseLevel(0.7, 0.3)
    }  # fmt: skip
    noisy = {n: torch.randn(4, 2, dtype=torch.float64) for n in names}
    denoised = {}
    for k, n in enumerate(names):
        part = slice(2 * k, 2 * k + 2)
        denoised[n] = ps.GaussianDenoiser(mean[part], joint[part, part]).denoise(noisy[n], levels[n])
    found = JointDenoiser(graph)(noisy, denoised, levels)
    alpha = torch.tensor([levels[n].alpha for n in names], dtype=torch.float64).repeat_interleave(2)
    sigma = torch.tensor([levels[n].sigma for n in names], dtype=torch.float64).repeat_interleave(2)
    state = torch.cat([noisy[n] for n in names], 1)
    gain = joint @ alpha.diag() @ torch.linalg.inv(alpha.diag() @ joint @ alpha.diag() + (sigma**2).diag())
    expected = mean + (state - alpha * mean) @ gain.T
    assert torch.allclose(torch.cat([found.mean[n] for n in names], 1), expected, atol=1e-10)


@pytest.mark.parametrize("posterior_covariance", ["surrogate", "annealed"])
def test_one_ratio_in_other_coordinates_is_one_level(posterior_covariance):
    graph, own, *_ = gaussian_pair()
    level, options = ps.NoiseLevel(0.6, 0.8), {"noise_correlation": 0.5}
    joint = JointDenoiser(graph, posterior_covariance, **options)
    noisy = noise_for(graph, 3)
    denoised = {n: own[n].denoise(noisy[n], level) for n in own}
    plain = joint(noisy, denoised, level)
    exploding = ps.NoiseLevel(1.0, 0.8 / 0.6)
    mixed = joint({**noisy, "right": noisy["right"] / 0.6}, denoised, {"left": level, "right": exploding})
    assert all(torch.allclose(mixed.mean[n], plain.mean[n], atol=1e-12) for n in own)
    assert not torch.allclose(plain.mean["right"], denoised["right"], atol=1e-2)


def test_levels_that_do_not_fit_are_refused_by_name():
    graph, own, *_ = gaussian_pair()
    states, levels = noise_for(graph, 1), {"left": ps.NoiseLevel(0.6, 0.8), "right": ps.NoiseLevel(0.8, 0.6)}
    with pytest.raises(
        UnsupportedError, match="'left' has a signal-to-noise ratio of 0.5625 and 'right' one of 1.778"
    ):
        JointDenoiser(graph, noise_correlation=0.5)(states, states, levels)
    with pytest.raises(UnknownNameError, match="'right' has none"):
        JointDenoiser(graph)(states, states, {"left": levels["left"]})


def test_a_flow_starts_at_no_signal_at_all():
    level, scale = normalised(ps.NoiseLevel(0.0, 1.0))
    assert (level.alpha, level.sigma, scale) == (0.0, 1.0, 1.0)


# ------------------------------------------------------------------------------------- exact denoisers


@pytest.mark.parametrize("options", [{}, {"noise_correlation": 0.6}], ids=["independent", "correlated"])
def test_lockstep_of_loops_is_sample(options):
    graph, own, *_ = gaussian_pair()
    noise = noise_for(graph, 5)
    expected = ps.sample(
        graph, own, ddim(), 8, 5, initial_noise=noise, dtype=torch.float64, progress=False, **options
    )
    white = noise
    # sample correlates the noise that it is given; latents that a pipeline is given stay as they are
    if options:
        white = ps.sampling.hook.follow(JointDenoiser(graph, **options), noise)
    pipes = {n: Loop(own[n], ddim()) for n in own}
    found = ps.synchronize(calls_of(pipes, white, 8), graph, progress=False, **options)
    for n in own:
        assert torch.allclose(found[n], expected.samples[n], atol=1e-9)
        assert pipes[n].scheduler.num_inference_steps is None  # a copy was stepped
    assert found.info["steps"] == {"left": 8, "right": 8}


@pytest.mark.parametrize(
    ("align", "counts"), [(None, {"left": 50, "right": 50}), ("level", {"left": 50, "right": 30})]
)
def test_other_schedulers_sample_the_joint_gaussian(align, counts):
    """Oracle: the response to white noise of samplers that are linear in it is a root of the covariance."""
    graph, own, mean, joint = gaussian_pair()
    unit = torch.eye(5, dtype=torch.float64)
    noise = {
        "left": torch.cat([0 * unit[:1, :3], unit[:, :3]]),
        "right": torch.cat([0 * unit[:1, 3:], unit[:, 3:]]),
    }
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0}
    errors = {}
    for couple in (True, False):
        pipes = {
            "left": Loop(own["left"], diffusers.DPMSolverMultistepScheduler()),
            "right": Loop(own["right"], diffusers.UniPCMultistepScheduler(**flow)),
        }
        found = ps.synchronize(
            calls_of(pipes, noise, counts), graph, align=align, couple=couple, progress=False
        )
        assert found.info["steps"] == counts
        ends = torch.cat([found["left"], found["right"]], 1)
        response = ends[1:] - ends[0]
        assert torch.allclose(ends[0], mean, atol=0.01)
        errors[couple] = (response.T @ response - joint).abs().max().item()
    assert errors[True] < 0.02
    assert errors[False] > 0.2


def test_aligned_by_level_the_noisiest_moves_next():
    graph, own, *_ = gaussian_pair()
    pipes = {n: Loop(own[n], ddim(timestep_spacing="trailing")) for n in own}
    states = []
    calls = calls_of(pipes, noise_for(graph, 2), {"left": 4, "right": 2})
    found = ps.synchronize(calls, graph, align="level", on_step=states.append, progress=False)
    assert [s.moving for s in states] == [["left", "right"], ["left"], ["left", "right"], ["left"]]
    assert found.info["steps"] == {"left": 4, "right": 2}
    assert found.info["joint_denoisings"] == 4
    # over: what it delivered stays, and says what it is
    assert torch.equal(states[-1].denoised["right"], found["right"])
    assert torch.allclose(states[-1].joint["right"], found["right"], atol=1e-4)


def test_a_finished_one_is_known_to_those_that_go_on():
    """Oracle: the mean of one content given the other, of a Gaussian."""
    graph, own, mean, joint = gaussian_pair()
    pipes = {n: Loop(own[n], ddim(timestep_spacing="trailing")) for n in own}
    # the only step of "right" ends on its joint mean, and all steps of "left" but one come after it
    calls = calls_of(pipes, noise_for(graph, 2), {"left": 50, "right": 1})
    states = []
    ps.synchronize(calls, graph, align="level", on_step=states.append, progress=False)
    s = states[1]
    level, content = s.levels["left"], s.joint["right"]
    both = torch.block_diag(joint[:3, :3], 0 * joint[3:, 3:])
    both[:3, 3:], both[3:, :3], both[3:, 3:] = joint[:3, 3:], joint[3:, :3], joint[3:, 3:]
    alpha = torch.tensor([level.alpha] * 3 + [1.0] * 2, dtype=torch.float64).diag()
    noise = torch.tensor([level.sigma**2] * 3 + [1e-12] * 2, dtype=torch.float64).diag()
    seen = torch.cat([s.noisy["left"], content], 1)
    gain = both @ alpha @ torch.linalg.inv(alpha @ both @ alpha + noise)
    expected = mean + (seen - mean @ alpha) @ gain.T
    assert torch.allclose(s.joint["left"], expected[:, :3], atol=1e-4)


def test_stochastic_schedulers_share_their_noise_on_a_canvas():
    graph = ps.FactorGraph()
    for name in ("left", "right"):
        graph.add_trajectory(name, (2, 4))
    graph.add_factor("same", ["left", "right"], ps.Equality())
    own = ps.EmpiricalDenoiser(torch.randn(6, 2, 4, dtype=torch.float64), bandwidth=0.2)
    pipes = {n: Loop(own, ddim()) for n in graph.trajectories}
    noise = torch.randn(3, 2, 4, dtype=torch.float64)
    ends = {}
    for shared in (True, False):
        calls = {
            n: ps.Call(pipe, 6, noise=noise, eta=1.0, generator=torch.Generator().manual_seed(k))
            for k, (n, pipe) in enumerate(pipes.items())
        }
        states = []
        found = ps.synchronize(calls, graph, shared_noise=shared, on_step=states.append, progress=False)
        assert torch.allclose(found["left"], found["right"], atol=1e-5)
        ends[shared] = (states[3].noisy["left"] - states[3].noisy["right"]).abs().max().item()
    assert ends[True] == 0
    assert ends[False] > 0.1


def test_latents_of_trajectories_and_canvases_come_back():
    graph = ps.wide_canvas((1, 2, 6), (2, 4), 2)
    own = ps.EmpiricalDenoiser(torch.randn(6, 1, 2, 4, dtype=torch.float64), bandwidth=0.2)
    calls = {
        name: ps.Call(
            Loop(own, ddim()), 5, noise=torch.randn(2, 1, 2, 4, dtype=torch.float64), eta=1.0,
            generator=torch.Generator().manual_seed(k),
        )
        for k, name in enumerate(graph.trajectories)
    }  # fmt: skip
    found = ps.synchronize(calls, graph, progress=False)
    assert set(found.samples) == {"canvas", "w0", "w1"}
    canvas = found.samples["canvas"]
    assert canvas.shape == (2, 1, 2, 6)
    assert torch.allclose(canvas[..., :4], found["w0"], atol=1e-9)
    assert torch.allclose(canvas[..., 2:], found["w1"], atol=1e-9)
    assert torch.equal(found.samples["w1"], found["w1"])


def test_noise_that_only_one_draws_is_refused_by_name():
    graph, own, *_ = gaussian_pair()
    pipes, noise = {n: Loop(own[n], ddim()) for n in own}, noise_for(graph, 2)
    calls = calls_of(pipes, noise, 4)
    calls["left"].kwargs["eta"] = 1.0
    with pytest.raises(
        UnsupportedError, match="'left' draws noise after 0 steps .* but 'right' is at its step 1"
    ):
        ps.synchronize(calls, graph, noise_correlation=0.5, progress=False)


def test_canvases_need_one_level_and_say_at_which_step():
    graph = ps.FactorGraph()
    for name in ("left", "right"):
        graph.add_trajectory(name, (3,))
    graph.add_factor("same", ["left", "right"], ps.Equality())
    own = ps.GaussianDenoiser(torch.zeros(3), torch.eye(3))
    pipes = {"left": Loop(own, ddim()), "right": Loop(own, ddim(timestep_spacing="trailing"))}
    with pytest.raises(UnsupportedError, match=r"step 0: trajectories with shared .* 'left' has .* 'right'"):
        ps.synchronize(calls_of(pipes, noise_for(graph, 1), 4), graph, progress=False)


# ------------------------------------------------------------------------------------- failures


def failing(change=None, **options):
    graph, own, *_ = gaussian_pair()
    pipes = {n: Loop(own[n], ddim()) for n in own}
    before = {n: pipe.scheduler for n, pipe in pipes.items()}
    calls = calls_of(pipes, noise_for(graph, 2), 4)
    if change is not None:
        calls = change(pipes, calls) or calls
    try:
        return ps.synchronize(calls, graph, **{"progress": False, **options})
    finally:
        assert all(pipe.scheduler is before[n] for n, pipe in pipes.items())
        Loop.running = 0


@pytest.mark.parametrize("step", [0, 2])
def test_a_failure_names_its_trajectory(step):
    def change(pipes, calls):
        pipes["right"].fails_at = step

    with pytest.raises(
        PipelineError, match=f"of 'right' .* failed at its step {step}: RuntimeError: out"
    ) as e:
        failing(change)
    assert isinstance(e.value.__cause__, RuntimeError)
    assert (e.value.name, e.value.step) == ("right", step)


def test_numbers_that_are_not_finite_name_trajectory_and_step():
    def change(pipes, calls):
        calls["left"].kwargs["noise"][1, 0] = torch.nan

    with pytest.raises(NotFiniteError, match="output for 'left' has 3 NaN .* at step 0"):
        failing(change)


def test_numbers_of_steps_that_differ_are_refused_by_name():
    def change(pipes, calls):
        calls["right"].kwargs["num_inference_steps"] = 3

    with pytest.raises(
        StepCountError, match=r"'right' ended after 3 steps while 'left' is at its step 3; .*align="
    ):
        failing(change)


def test_a_pipeline_that_never_steps_is_refused():
    def change(pipes, calls):
        calls["right"].kwargs["num_inference_steps"] = 3
        pipes["right"].second = ddim()

    with pytest.raises(StepCountError, match="'right' ended without a step of its 'second'"):
        failing(change, schedulers={"right": "second"})


@pytest.mark.parametrize("where", ["in a pipeline", "between pipelines"])
def test_an_interrupt_ends_all(where):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)

    class Interrupted(Loop):
        def __call__(self, *args, **options):
            denoise, left = self.denoiser.denoise, iter(range(2))

            class Denoiser:
                def denoise(self, *given):
                    if next(left, None) is None:
                        interrupt()
                    return denoise(*given)

            self.denoiser = Denoiser()
            return super().__call__(*args, **options)

    def change(pipes, calls):
        if where == "in a pipeline":
            pipe = pipes["left"]
            calls["left"].pipe = pipes["left"] = Interrupted(pipe.denoiser, pipe.scheduler)

    with pytest.raises(KeyboardInterrupt):
        failing(change, on_step=interrupt if where == "between pipelines" else None)


def test_calls_that_do_not_fit_the_graph():
    graph, own, *_ = gaussian_pair()
    pipe = Loop(own["left"], ddim())
    both = {"left": ps.Call(pipe), "right": ps.Call(pipe)}
    cases = [
        ({"left": ps.Call(pipe)}, {}, UnknownNameError, "'right' is missing"),
        ({**both, "up": ps.Call(pipe)}, {}, UnknownNameError, "calls: 'up' is no trajectory"),
        ({**both, "right": pipe}, {}, ParameterError, "that of 'right' is a Loop; write Call"),
        ([pipe, pipe], {}, ParameterError, "calls is no dictionary"),
        (both, {"align": "time"}, ParameterError, "align='time' is neither"),
        (both, {"schedulers": {"left": "other"}}, ParameterError, "Loop.other is no scheduler"),
        (both, {"posterior_covariance": "denoiser"}, UnsupportedError, "only shows its guided output"),
        (both, {"layouts": {"right": ps.Identity((3,))}}, ShapeError, "that of 'right' takes"),
    ]  # fmt: skip
    for calls, options, error, message in cases:
        with pytest.raises(error, match=message):
            ps.synchronize(calls, graph, progress=False, **options)


def test_latents_that_do_not_fit_the_trajectories():
    graph, own, *_ = gaussian_pair()
    noise = noise_for(graph, 2)
    wrong = calls_of({n: Loop(own["left"], ddim()) for n in own}, {**noise, "right": noise["left"]}, 4)
    with pytest.raises(
        ShapeError, match=r"pipeline of 'right' steps latents of shape \(2, 3\), its .* needs \(k, 2\)"
    ):
        ps.synchronize(wrong, graph, progress=False)
    fewer = calls_of({n: Loop(own[n], ddim()) for n in own}, {**noise, "left": noise["left"][:1]}, 4)
    with pytest.raises(BatchError, match="'left' has 1 rows and that of 'right' has 2"):
        ps.synchronize(fewer, graph, progress=False)


# ------------------------------------------------------------------------------------- the caller's modes


@pytest.mark.parametrize("mode", ["plain", "no_grad", "inference_mode"])
def test_pipelines_run_in_the_caller_s_modes(mode):
    graph, own, *_ = gaussian_pair()
    pipes = {n: Loop(own[n], ddim()) for n in own}
    calls = calls_of(pipes, noise_for(graph, 2), 3)
    if mode == "plain":
        ps.synchronize(calls, graph, progress=False)
    else:
        with getattr(torch, mode)():
            ps.synchronize(calls, graph, progress=False)
    expected = {"plain": (True, False), "no_grad": (False, False), "inference_mode": (False, True)}[mode]
    assert set(pipes["left"].seen) == {expected}


def test_autocast_reaches_the_networks_and_not_the_engine():
    graph, own, *_ = gaussian_pair()
    noise, seen = noise_for(graph, 2, torch.float32), []

    class Asked(Loop):
        def __call__(self, *args, **options):
            seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
            return super().__call__(*args, **options)

    found = {}
    for autocast in (False, True):
        pipes = {n: Asked(FixedDenoiser(), ddim()) for n in own}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found[autocast] = ps.synchronize(calls_of(pipes, noise, 4), graph, progress=False)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert all(torch.equal(found[True][n], found[False][n]) for n in own)


class FixedDenoiser:
    def denoise(self, noisy, level):
        return noisy.clamp(-1, 1)


def test_one_pipeline_in_two_calls():
    graph = ps.chain_graph(2, (3,), ps.Correlation(0.8))
    own = ps.GaussianDenoiser(torch.zeros(3), torch.eye(3))
    noise = noise_for(graph, 2, torch.float32)
    pipe = Loop(own, diffusers.DPMSolverMultistepScheduler())
    other = Loop(own, diffusers.DPMSolverMultistepScheduler())
    once = ps.synchronize(calls_of({0: pipe, 1: pipe}, noise, 5), graph, progress=False)
    apart = ps.synchronize(calls_of({0: pipe, 1: other}, noise, 5), graph, progress=False)
    assert all(torch.equal(once[n], apart[n]) for n in (0, 1))
    assert list(once) == [0, 1]
    assert "LockstepResult({0: 5 steps, 1: 5 steps}, " in repr(once)


def test_precisions_may_differ():
    """Contents are combined in the wider one, and what is not coupled survives the way there and back."""
    graph, own, *_ = gaussian_pair()
    noise = noise_for(graph, 2)
    noise["left"] = noise["left"].float()
    alone = {n: Loop(own[n], ddim())(4, noise[n]) for n in own}
    for couple in (False, True):
        calls = calls_of({n: Loop(own[n], ddim()) for n in own}, noise, 4)
        found = ps.synchronize(calls, graph, couple=couple, progress=False)
        assert {n: x.dtype for n, x in found.items()} == {"left": torch.float32, "right": torch.float64}
        assert all(torch.equal(found[n], alone[n]) is not couple for n in own)


def test_a_scheduler_that_outlives_its_run_is_stock():
    graph, own, *_ = gaussian_pair()
    pipes, noise = {n: Loop(own[n], ddim()) for n in own}, noise_for(graph, 2)
    kept = []
    calls = calls_of(pipes, noise, 4)
    ps.synchronize(calls, graph, on_step=lambda _: kept.append(pipes["left"].scheduler), progress=False)
    assert type(kept[0]).__name__ == "DDIMScheduler"
    assert torch.equal(
        Loop(own["left"], kept[0])(4, noise["left"]), Loop(own["left"], ddim())(4, noise["left"])
    )


def test_one_bar_of_the_steps_of_all(capsys):
    graph, own, *_ = gaussian_pair()
    calls = calls_of({n: Loop(own[n], ddim()) for n in own}, noise_for(graph, 1), 3)
    ps.synchronize(calls, graph)
    assert "lockstep" in capsys.readouterr().err
    ps.synchronize(calls, graph, progress=False)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------- pipelines of diffusers


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unet(**more):
    config = {
        "block_out_channels": (4, 8), "layers_per_block": 1, "sample_size": 8, "in_channels": 4, "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 2,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 8, "attention_head_dim": 2,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**config, **more}).eval()


def stable_diffusion(scheduler, vae=None):
    scheduler.register_to_config(steps_offset=1)
    return diffusers.StableDiffusionPipeline(
        vae, None, None, unet(), scheduler, None, None, requires_safety_checker=False
    )


def four_pipelines():
    """Stable Diffusion, XL and 3, and Flux: other networks, schedulers, sizes of latents and layouts."""
    torch.manual_seed(0)
    xl = unet(
        addition_embed_type="text_time", addition_time_embed_dim=2, projection_class_embeddings_input_dim=17
    )
    sd3 = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=5, out_channels=4,
    )  # fmt: skip
    flux = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=5, axes_dims_rope=[2, 2, 4], guidance_embeds=True,
    )  # fmt: skip
    flow = diffusers.FlowMatchEulerDiscreteScheduler
    return {
        "sd": stable_diffusion(ddim()),
        "xl": diffusers.StableDiffusionXLPipeline(
            None, None, None, None, None, xl, diffusers.EulerDiscreteScheduler(), add_watermarker=False
        ),
        "sd3": diffusers.StableDiffusion3Pipeline(sd3.eval(), flow(shift=3.0), *[None] * 7),
        "flux": diffusers.FluxPipeline(flow(), None, None, None, None, None, flux.eval()),
        "unipc": stable_diffusion(diffusers.UniPCMultistepScheduler()),
    }


SIZES = {"sd": (64, 64), "xl": (64, 96), "sd3": (48, 64), "flux": (64, 64), "unipc": (64, 64)}  # in pixels


def call(name, pipe, **more):
    height, width = SIZES[name]
    given = {
        "height": height, "width": width, "num_inference_steps": 4, "output_type": "latent", "return_dict": False,
        "generator": torch.Generator().manual_seed(5), "prompt_embeds": randn(1, 7, 8, seed=1), "guidance_scale": 3.0,
    }  # fmt: skip
    if name != "flux":
        given["negative_prompt_embeds"] = randn(1, 7, 8, seed=2)
    if name in ("xl", "sd3"):
        given["negative_pooled_prompt_embeds"] = randn(1, 5, seed=4)
    if name in ("xl", "sd3", "flux"):
        given["pooled_prompt_embeds"] = randn(1, 5, seed=3)
    return ps.Call(pipe, **{**given, **more})


def latents(name):
    height, width = SIZES[name]
    return 4, height // 8, width // 8


LAYOUTS = {"flux": ps.Tokens((4, 8, 8))}


def test_without_factors_every_pipeline_gives_its_stock_result():
    """Bit for bit, with guidance, in other latent spaces and at other noise levels."""
    pipes = four_pipelines()
    graph = ps.FactorGraph()
    expected = {}
    for name, pipe in pipes.items():
        graph.add_trajectory(name, latents(name))
        pipe.set_progress_bar_config(disable=True, ncols=70)
        stock = call(name, pipe)
        expected[name] = pipe(**stock.kwargs)[0]
    before = {name: pipe.scheduler for name, pipe in pipes.items()}
    found = ps.synchronize({n: call(n, p) for n, p in pipes.items()}, graph, layouts=LAYOUTS, progress=False)
    for name, pipe in pipes.items():
        assert torch.equal(found[name][0], expected[name])
        assert pipe.scheduler is before[name]
        assert pipe._progress_bar_config == {"disable": True, "ncols": 70}
    assert found.info["steps"] == dict.fromkeys(pipes, 4)
    assert found.info["schedulers"]["xl"] == "EulerDiscreteScheduler"


def test_maps_tie_latents_of_other_sizes(capsys):
    """Channel means that all but agree in the end, of four networks that by themselves do not."""
    pipes = four_pipelines()
    graph = ps.FactorGraph()
    for name in pipes:
        graph.add_trajectory(name, latents(name))
    names = list(pipes)
    maps = {n: ps.ChannelMeans(latents(n)) for n in names}  # orthonormal: a mean times the root of the area
    same = ps.Correlation(0.9999, variance=16.0)
    for a, b in zip(names, names[1:], strict=False):
        graph.add_factor((a, b), [a, b], same, maps=[maps[a], maps[b]])
    spread = {}
    for couple in (False, True):
        calls = {n: call(n, p, num_inference_steps=8) for n, p in pipes.items()}
        found = ps.synchronize(calls, graph, layouts=LAYOUTS, couple=couple, progress=False)
        ends = {n: LAYOUTS[n].adjoint(found[n][0]) if n in LAYOUTS else found[n][0] for n in names}
        means = torch.stack([maps[n].apply(ends[n]).flatten() for n in names])
        spread[couple] = (means - means.mean(0)).abs().max().item()
    assert spread[False] > 1.0
    assert spread[True] < 0.05 * spread[False]
    assert capsys.readouterr().err == ""  # no bars of the pipelines' own


def test_equal_latents_of_two_networks_end_equal():
    """One canvas, two networks, two solvers at the same levels, whose noise is drawn from two generators."""
    torch.manual_seed(0)
    pipes = {
        "a": stable_diffusion(ddim(timestep_spacing="trailing")),
        "b": stable_diffusion(diffusers.EulerDiscreteScheduler(timestep_spacing="trailing")),
    }
    graph = ps.FactorGraph()
    for name in pipes:
        graph.add_trajectory(name, (4, 8, 8))
    graph.add_factor("same", list(pipes), ps.Equality())
    calls = {
        n: call("sd", pipe, generator=torch.Generator().manual_seed(k), num_images_per_prompt=2)
        for k, (n, pipe) in enumerate(pipes.items())
    }
    states = []
    found = ps.synchronize(calls, graph, on_step=states.append, progress=False)
    assert found["a"][0].shape == (2, 4, 8, 8)
    assert torch.allclose(found["a"][0], found["b"][0], atol=1e-5 * found["a"][0].abs().max().item())
    first = {n: x / normalised(states[0].levels[n])[1] for n, x in states[0].noisy.items()}
    assert torch.allclose(first["a"], first["b"], atol=1e-4)  # one noise


def test_half_precision_ends_equal():
    torch.manual_seed(0)
    pipes = {n: stable_diffusion(ddim()).to(torch.bfloat16) for n in "ab"}
    graph = ps.FactorGraph()
    for name in pipes:
        graph.add_trajectory(name, (4, 8, 8))
    graph.add_factor("same", list(pipes), ps.Equality())
    keys = ("prompt_embeds", "negative_prompt_embeds")
    embeds = {key: randn(1, 7, 8, seed=k).bfloat16() for k, key in enumerate(keys)}
    found = ps.synchronize({n: call("sd", p, **embeds) for n, p in pipes.items()}, graph, progress=False)
    assert found["a"][0].dtype == torch.bfloat16
    assert torch.equal(found["a"][0], found["b"][0])


def test_counts_that_pipelines_state_are_compared_at_the_first_step():
    torch.manual_seed(0)
    pipes = {n: stable_diffusion(ddim()) for n in "ab"}
    graph = ps.FactorGraph()
    for name in pipes:
        graph.add_trajectory(name, (4, 8, 8))
    calls = {"a": call("sd", pipes["a"]), "b": call("sd", pipes["b"], num_inference_steps=7)}
    seen = []
    with pytest.raises(StepCountError, match=r"different numbers of steps \('a' 4, 'b' 7\)"):
        ps.synchronize(calls, graph, on_step=seen.append, progress=False)
    assert seen == []
    found = ps.synchronize(calls, graph, align="level", progress=False)
    assert found.info["steps"] == {"a": 4, "b": 7}


def test_callbacks_and_decoders_run_where_they_do():
    """A picture from a decoder, and a callback of the pipeline's own that stops it: refused, not half a run."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[4] * 4, down_block_types=["DownEncoderBlock2D"] * 4, latent_channels=4,
        up_block_types=["UpDecoderBlock2D"] * 4, norm_num_groups=2, layers_per_block=1,
    )  # fmt: skip
    pipes = {n: stable_diffusion(ddim(), vae) for n in "ab"}
    graph = ps.FactorGraph()
    for name in pipes:
        graph.add_trajectory(name, (4, 8, 8))
    calls = {n: call("sd", pipe, output_type="pt") for n, pipe in pipes.items()}
    assert ps.synchronize(calls, graph, progress=False)["a"][0].shape == (1, 3, 64, 64)

    def stop(pipe, step, timestep, given):
        pipe._interrupt = step == 1
        return given

    calls["b"].kwargs["callback_on_step_end"] = stop
    with pytest.raises(
        StepCountError, match="'b' ended by an interrupt after 2 steps while 'a' is at its step 2"
    ):
        ps.synchronize(calls, graph, progress=False)
