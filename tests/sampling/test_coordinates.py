"""Noise coordinates against the schedulers' own steps and forward processes."""

from __future__ import annotations

import copy
import inspect
import types

import diffusers
import pytest
import torch

from pgm_sync.errors import ParameterError, UnsupportedSchedulerError
from pgm_sync.sampling.coordinates import clipping, coordinates, initial_scale, noise_level, prediction_type

# torch, when diffusers hands its tensors to numpy.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

VP = ["DDPM", "DDPMParallel", "DDIM", "DDIMParallel"]
VE = ["EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete"]
DPM = ["DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep"]
BASIC = ["epsilon", "sample", "v_prediction"]
FLOW = ["FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM", "LTXEulerAncestralRF"]


def make(name, prediction="epsilon", **config):
    cls = getattr(diffusers, f"{name}Scheduler")
    known = inspect.signature(cls.__init__).parameters
    if "prediction_type" in known:
        config.setdefault("prediction_type", prediction)
    if prediction == "flow_prediction" and "use_flow_sigmas" in known:
        config["use_flow_sigmas"] = True
    for key in ("clip_sample", "clip_denoised"):
        if key in known:
            config.setdefault(key, False)
    if name == "DPMSolverSinglestep":
        config["lower_order_final"] = True
    return cls(**config)


# DEIS, SASolver, PNDM and TCD stop at a non-zero sigma, so a run does not end on the clean content; see below.
RUNS = [
    *[(name, kind, {}) for name in VP + VE + DPM[:3] for kind in BASIC
      if (name, kind) != ("EulerAncestralDiscrete", "sample")],
    *[(name, kind, {}) for name in ("CogVideoXDDIM", "CogVideoXDPM", "LCM") for kind in BASIC],
    *[(name, kind, {}) for name in ("KDPM2Discrete", "KDPM2AncestralDiscrete") for kind in ("epsilon", "v_prediction")],
    *[(name, kind, {}) for name in ("EDMEuler", "EDMDPMSolverMultistep") for kind in ("epsilon", "v_prediction")],
    ("EDMEuler", "v_prediction", {"sigma_data": 1.0, "sigma_schedule": "exponential"}),
    ("RePaint", "epsilon", {}),
    ("CMStochasticIterative", "sample", {}),
    *[(name, "flow_prediction", {}) for name in DPM[:3] + FLOW],
    ("DPMSolverMultistep", "epsilon", {"algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverMultistep", "v_prediction", {"use_karras_sigmas": True, "solver_order": 3}),
    ("DDIM", "v_prediction", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("EulerDiscrete", "v_prediction", {"timestep_spacing": "leading"}),
    ("FlowMatchEulerDiscrete", "flow_prediction", {"shift": 3.0}),
    ("FlowMatchEulerDiscrete", "flow_prediction", {"stochastic_sampling": True}),
    ("FlowMatchEulerDiscrete", "flow_prediction", {"invert_sigmas": True}),
]  # fmt: skip
NOISY_END = [
    *[(name, kind, {}) for name in ("DEISMultistep", "SASolver", "TCD") for kind in BASIC],
    ("PNDM", "epsilon", {}),
    ("PNDM", "epsilon", {"skip_prk_steps": True}),
    *[("UnCLIP", kind, {}) for kind in ("epsilon", "sample")],
]


def take(scheduler, timesteps, index, output, sample, memory):
    """One step, with what some schedulers want beside: the next sample, and the content read where `step` tells it."""
    name, t = type(scheduler).__name__, timesteps[index]
    following = timesteps[index + 1] if index + 1 < len(timesteps) else None
    if name == "CogVideoXDPMScheduler":
        back = timesteps[index - 1] if index else None
        sample, memory["old"] = scheduler.step(output, memory.get("old"), t, back, sample, return_dict=False)
        return sample, memory["old"]
    if not hasattr(scheduler, "register_to_config"):  # not diffusers' own
        return scheduler.step(output, t, sample)[0], None
    nothing = torch.zeros_like(sample)
    extra = {"RePaintScheduler": (nothing, nothing), "UnCLIPScheduler": (following,)}.get(name, ())
    result = scheduler.step(output, t, sample, *extra)
    return result.prev_sample, getattr(result, "pred_original_sample", None)


def run_to_point(scheduler, dtype):
    """The final sample beside the clean content that every output meant, and the sigma of every state."""
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(2, 3, 4, 4, generator=generator, dtype=dtype)
    sample = torch.randn(2, 3, 4, 4, generator=generator, dtype=dtype) * initial_scale(scheduler)
    sigmas, memory, timesteps = [], {}, list(scheduler.timesteps)
    for index, t in enumerate(timesteps):
        noise_level(scheduler, t).scale_model_input(sample)
        at = coordinates(scheduler, t)
        sigmas.append(at.sigma / (at.alpha**2 + at.sigma**2) ** 0.5)
        output = at.output_from_denoised(point, sample)
        # The rounding of `output` and `sample` comes back divided by alpha.
        rounding = 4 * torch.finfo(torch.float32).eps * max(sample.abs().max().item(), 1)
        rounding = max(rounding / max(at.alpha, 1e-3) if at.prediction_type == "epsilon" else rounding, 1e-6)
        assert (at.denoised_from_output(output, sample) - point).abs().max() <= rounding
        sample, read = take(scheduler, timesteps, index, output, sample, memory)
        if read is not None:
            assert (read - point).abs().max() <= rounding
    return sample, point, sigmas


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("name", "kind", "config"), RUNS)
def test_point_mass_run_ends_on_the_point(name, kind, config, dtype, tolerance):
    sample, point, _ = run_to_point(make(name, kind, **config), dtype)
    if name in ("LCM", "CMStochasticIterative"):
        tolerance = 1e-5  # their boundary condition leaves a share of about 1e-6 of the state in the content
    assert (sample - point).abs().max() <= tolerance


@pytest.mark.parametrize(("name", "kind", "config"), NOISY_END)
def test_runs_that_stop_at_a_noise_level_end_within_it(name, kind, config):
    """Their last states are five standard deviations of the noise of the last level away from the point, at most."""
    sample, point, sigmas = run_to_point(make(name, kind, **config), torch.float64)
    assert 0 < (sample - point).abs().max() <= 5 * sigmas[-1]
    assert sigmas[-1] < 0.3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_preconditioned_outputs_are_read_as_the_scheduler_does(kind):
    scheduler = make("EDMEuler", kind)
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    output, sample = torch.randn(2, 1, 2, 3, 3, generator=generator, dtype=torch.float64)
    for index, t in enumerate(scheduler.timesteps):
        scheduler._step_index = index
        at = coordinates(scheduler, t)
        read = scheduler.precondition_outputs(sample, output, scheduler.sigmas[index])
        assert torch.allclose(at.denoised_from_output(output, sample), read, atol=1e-6)
        assert at.prediction_type == f"preconditioned {kind}"


def test_trigonometric_flow_is_read_as_the_scheduler_does():
    scheduler = make("SCM", "trigflow")
    scheduler.set_timesteps(2)
    generator = torch.Generator().manual_seed(0)
    output, sample = torch.randn(2, 1, 2, 3, 3, generator=generator)
    for t in scheduler.timesteps[:-1]:
        at = coordinates(scheduler, t)
        _, read = scheduler.step(output, t, sample, return_dict=False)
        assert torch.allclose(at.denoised_from_output(output, sample), read, atol=1e-6)


@pytest.mark.parametrize("name", VP)
@pytest.mark.parametrize("kind", BASIC)
def test_float64_steps_read_exactly_the_denoised_content(name, kind):
    scheduler = make(name, kind)
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    sample, denoised = torch.randn(2, 1, 2, 3, 3, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps:
        output = coordinates(scheduler, t).output_from_denoised(denoised, sample)
        read = scheduler.step(output, t, sample).pred_original_sample
        assert (read - denoised).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", [*BASIC, "flow_prediction"])
@pytest.mark.parametrize("name", DPM)
def test_multistep_solvers_read_the_denoised_content(name, kind):
    scheduler = make(name, kind)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(0)
    generator = torch.Generator().manual_seed(0)
    sample, denoised = torch.randn(2, 1, 2, 3, 3, generator=generator, dtype=torch.float64)
    for index, t in enumerate(scheduler.timesteps):
        scheduler._step_index = index
        at = coordinates(scheduler, t)
        read = scheduler.convert_model_output(at.output_from_denoised(denoised, sample), sample=sample)
        if name == "DEISMultistep":  # converts to the noise
            read = (sample - at.sigma * read) / at.alpha
        assert (read - denoised).abs().max() <= 1e-6


@pytest.mark.parametrize("name", [*VP, *VE, *DPM, "PNDM", "LCM", "TCD", "UnCLIP", "SASolver", "EDMEuler",
                                  "EDMDPMSolverMultistep", "FlowMatchEulerDiscrete"])  # fmt: skip
def test_agrees_with_the_forward_process(name):
    scheduler = make(name)
    scheduler.set_timesteps(12)
    add = getattr(scheduler, "add_noise", None)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t in scheduler.timesteps:
        at = coordinates(scheduler, t)
        if add is None:
            alpha = scheduler.scale_noise(one, t[None], zero)
            sigma = scheduler.scale_noise(zero, t[None], one)
        else:
            alpha, sigma = add(one, zero, t[None]), add(zero, one, t[None])
        assert at.alpha == pytest.approx(alpha.item(), rel=1e-6)
        assert at.sigma == pytest.approx(sigma.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["EulerDiscrete", "HeunDiscrete", "FlowMatchEulerDiscrete"])
def test_looking_leaves_the_scheduler_as_it_was(name):
    scheduler = make(name)
    scheduler.set_timesteps(5)
    before = state(scheduler)
    first = coordinates(scheduler, scheduler.timesteps[0])
    clipping(scheduler), initial_scale(scheduler)
    assert scheduler.step_index is None
    assert state(scheduler) == before
    assert first.sigma == scheduler.sigmas[0].item()


def state(scheduler):
    return {key: copy.deepcopy(value) for key, value in vars(scheduler).items() if not torch.is_tensor(value)}


def test_image_to_image_begin_index_is_respected():
    scheduler = make("EulerDiscrete")
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2)
    assert coordinates(scheduler, scheduler.timesteps[2]).sigma == scheduler.sigmas[2].item()


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_initial_scale_is_that_of_the_stock_pipelines(spacing):
    euler = make("EulerDiscrete", timestep_spacing=spacing)
    euler.set_timesteps(5)
    sigma = euler.sigmas[0].item()
    expected = (sigma**2 + 1) ** 0.5 if spacing == "leading" else sigma
    assert initial_scale(euler) == pytest.approx(expected, rel=1e-6)
    assert initial_scale(make("DDIM")) == initial_scale(make("FlowMatchEulerDiscrete")) == 1.0


def test_noise_level_carries_timestep_and_input_scaling():
    scheduler = make("EulerDiscrete")
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    level = noise_level(scheduler, t)
    sample = torch.randn(1, 2, generator=torch.Generator().manual_seed(0))
    assert level.timestep is t
    assert torch.equal(level.scale_model_input(sample), scheduler.scale_model_input(sample, t))
    flow = make("FlowMatchEulerDiscrete")
    flow.set_timesteps(5)
    assert torch.equal(noise_level(flow, flow.timesteps[0]).scale_model_input(sample), sample)


# --- corrections --------------------------------------------------------------------------------


def halfway(name, **config):
    scheduler = make(name, **config)
    scheduler.set_timesteps(10)
    return scheduler, scheduler.timesteps[5]


@pytest.mark.parametrize("kind", BASIC)
def test_correct_moves_what_step_reads_and_keeps_the_rest_bit_for_bit(kind):
    scheduler, t = halfway("DDIM", prediction=kind)
    at = coordinates(scheduler, t)
    generator = torch.Generator().manual_seed(0)
    output, sample, delta = torch.randn(3, 2, 1, 4, 4, generator=generator)
    delta[0] = 0
    corrected = at.correct(output, delta)
    assert torch.equal(corrected[0], output[0])
    before = scheduler.step(output, t, sample).pred_original_sample
    after = scheduler.step(corrected, t, sample).pred_original_sample
    assert torch.allclose(after - before, delta, atol=2e-6)
    assert at.correct(output, torch.zeros_like(delta)) is output


def test_correct_works_in_float32_for_half_precision_outputs():
    scheduler, t = halfway("DDIM")
    at = coordinates(scheduler, t)
    output = torch.full((1, 1, 2, 2), 1.0, dtype=torch.bfloat16)
    corrected = at.correct(output, torch.full((1, 1, 2, 2), 1e-4))
    assert corrected.dtype == torch.float32
    assert torch.allclose(corrected, 1 + torch.full((1, 1, 2, 2), 1e-4) / at.c_m, atol=1e-7)


def test_learned_variance_half_is_passed_through():
    scheduler, t = halfway("DDPM", variance_type="learned_range")
    at = coordinates(scheduler, t)
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 6, 4, 4, generator=generator)
    sample, target = torch.randn(2, 2, 3, 4, 4, generator=generator)
    corrected = at.replace(output, sample, at.denoised_from_output(output, sample), target)
    assert torch.equal(corrected[:, 3:], output[:, 3:])
    assert torch.allclose(scheduler.step(corrected, t, sample).pred_original_sample, target, atol=1e-5)


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "HeunDiscrete"])
def test_clipped_content_is_shown_and_the_joint_one_is_read(name):
    scheduler, t = halfway(name, clip_sample=True, clip_sample_range=0.7)
    at, clip = coordinates(scheduler, t), clipping(scheduler)
    generator = torch.Generator().manual_seed(0)
    output, sample = torch.randn(2, 2, 1, 4, 4, generator=generator)
    shown = clip(at.denoised_from_output(output, sample))
    assert torch.allclose(
        shown, copy.deepcopy(scheduler).step(output, t, sample).pred_original_sample, atol=1e-5
    )
    assert (shown.abs() == 0.7).any()
    joint = shown.clone()
    joint[0] = 0.5 * shown[0]
    replaced = at.replace(output, sample, shown, joint)
    assert torch.equal(replaced[1], output[1])
    assert torch.allclose(scheduler.step(replaced, t, sample).pred_original_sample, joint, atol=1e-5)


@pytest.mark.parametrize("name", ["DDIM", "DPMSolverMultistep", "UniPCMultistep"])
def test_thresholding_is_shown(name):
    scheduler, t = halfway(name, thresholding=True, sample_max_value=2.0)
    at, threshold = coordinates(scheduler, t), clipping(scheduler)
    generator = torch.Generator().manual_seed(0)
    output, sample = 2 * torch.randn(2, 2, 1, 4, 4, generator=generator)
    denoised = at.denoised_from_output(output, sample)
    if name == "DDIM":
        read = scheduler.step(output, t, sample).pred_original_sample
    else:
        scheduler._init_step_index(t)
        read = scheduler.convert_model_output(output, sample=sample)
    assert not torch.allclose(denoised, read, atol=0.1)
    assert torch.allclose(threshold(denoised), read, atol=1e-5)


@pytest.mark.parametrize("name", ["DDPM", "DDIM"])
def test_a_joint_content_is_read_through_thresholding(name):
    """Also where some elements stay: kept unthresholded, they would set the threshold for all."""
    scheduler, t = halfway(name, thresholding=True, sample_max_value=2.0)
    at, threshold = coordinates(scheduler, t), clipping(scheduler)
    generator = torch.Generator().manual_seed(0)
    output, sample = 2 * torch.randn(2, 2, 1, 4, 4, generator=generator)
    shown = threshold(at.denoised_from_output(output, sample))
    joint = shown.clone()
    joint[0, 0, 1] = 0.5 * shown[0, 0, 1]
    replaced = at.replace(output, sample, shown, joint)
    assert torch.equal(replaced[1], output[1])
    assert torch.allclose(scheduler.step(replaced, t, sample).pred_original_sample, joint, atol=1e-5)


def test_no_clipping_where_step_does_none():
    assert clipping(make("DDIM")) is None
    assert clipping(make("EulerDiscrete")) is None
    assert clipping(make("FlowMatchEulerDiscrete")) is None


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "why"), [
    ("IPNDM", "first state has no signal"), ("DDIMInverse", "it adds noise"), ("VQDiffusion", "states are tokens"),
])  # fmt: skip
def test_what_cannot_work_is_refused_by_name(name, why):
    cls = getattr(diffusers, f"{name}Scheduler")
    scheduler = cls(num_vec_classes=4) if name == "VQDiffusion" else cls()
    for function in (prediction_type, initial_scale, lambda s: coordinates(s, 0)):
        with pytest.raises(UnsupportedSchedulerError, match=f"{name}Scheduler.*{why}.*DDIMScheduler") as caught:
            function(scheduler)
        assert caught.value.scheduler == f"{name}Scheduler"


class Own:
    """Somebody's scheduler: a cosine schedule in its own words, no base class, deterministic."""

    init_noise_sigma, offset = 1.0, 0.0

    def __init__(self):
        self.config = types.SimpleNamespace(prediction_type="v_prediction")

    def set_timesteps(self, count, device=None):
        self.timesteps = torch.linspace(999, 0, count + 1)[:-1]
        self.stride = 999 / count

    def _level(self, t):
        angle = (t / 999 * 0.98 + 0.01) * torch.pi / 2 if t > 0 else torch.zeros(())
        return torch.cos(torch.as_tensor(angle)), torch.sin(torch.as_tensor(angle))

    def add_noise(self, clean, noise, timesteps):
        alpha, sigma = self._level(timesteps[0])
        return alpha * clean + sigma * noise

    def step(self, output, t, sample, return_dict=True):
        alpha, sigma = self._level(t)
        clean = alpha * sample - sigma * output + self.offset
        noise = (sample - alpha * clean) / sigma
        after, left = self._level(max(t - self.stride, torch.zeros(())))
        return (after * clean + left * noise,)


def test_other_schedulers_are_probed():
    scheduler = Own()
    sample, point, _ = run_to_point(scheduler, torch.float64)
    assert (sample - point).abs().max() < 1e-6
    t = scheduler.timesteps[3]
    at = coordinates(scheduler, t)
    assert (at.alpha, at.sigma) == pytest.approx([float(v) for v in scheduler._level(t)])


def test_other_schedulers_whose_step_means_something_else_are_refused():
    scheduler = Own()
    scheduler.offset = 1.0
    with pytest.raises(UnsupportedSchedulerError, match="Own has no known.*content of 0.37.*it ended on 1.37"):
        prediction_type(scheduler)
    scheduler = Own()
    scheduler.step = lambda *_, **__: 1 / 0
    with pytest.raises(UnsupportedSchedulerError, match="trying its step failed with ZeroDivisionError"):
        prediction_type(scheduler)
    with pytest.raises(UnsupportedSchedulerError, match="neither add_noise nor scale_noise"):
        prediction_type(types.SimpleNamespace(config=types.SimpleNamespace()))


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("DDIM", "flow_prediction", {}),
        ("EulerAncestralDiscrete", "sample", {}),
        ("DDPM", "banana", {}),
        ("DPMSolverMultistep", "flow_prediction", {"use_flow_sigmas": False}),
        ("DPMSolverMultistep", "v_prediction", {"use_flow_sigmas": True}),
    ],
)
def test_unknown_prediction_type_is_refused_by_name(name, kind, config):
    scheduler = getattr(diffusers, f"{name}Scheduler")(prediction_type=kind, **config)
    scheduler.set_timesteps(5)
    with pytest.raises(UnsupportedSchedulerError, match=f"{name}.*{kind}.*works with .*epsilon") as caught:
        coordinates(scheduler, scheduler.timesteps[0])
    assert caught.value.prediction_type == kind


def test_epsilon_at_zero_signal_is_refused():
    scheduler = make("DDIM", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    with pytest.raises(UnsupportedSchedulerError, match="DDIMScheduler at timestep 999: .*alpha = 0"):
        coordinates(scheduler, scheduler.timesteps[0])


def test_used_up_schedule_is_a_named_error():
    scheduler = make("EulerDiscrete")
    scheduler.set_timesteps(2)
    sample = torch.zeros(1, 1, 2, 2)
    for t in scheduler.timesteps:
        scheduler.scale_model_input(sample, t)
        sample = scheduler.step(sample, t, sample).prev_sample
    with pytest.raises(ParameterError, match="all of its 2 steps; call set_timesteps"):
        coordinates(scheduler, scheduler.timesteps[0])


def test_subclasses_are_recognised():
    class Hooked(diffusers.DDIMScheduler):
        pass

    scheduler = Hooked(clip_sample=True)
    scheduler.set_timesteps(5)
    stock = make("DDIM")
    stock.set_timesteps(5)
    t = scheduler.timesteps[1]
    assert coordinates(scheduler, t) == coordinates(stock, t)
    assert clipping(scheduler)(torch.tensor([3.0])).item() == 1.0
