"""Step noise supplied from outside equals the stock scheduler given the same numbers."""

from __future__ import annotations

import threading

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from pgm_sync.errors import ShapeError
from pgm_sync.sampling.step_noise import step_noise

# torch, when diffusers hands its tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (2, 1, 4, 4)
STOCHASTIC = [
    ("DDPM", {}, {}),
    ("DDIM", {}, {"eta": 1.0}),
    ("EulerAncestralDiscrete", {}, {}),
    ("EulerDiscrete", {}, {"s_churn": 2.0}),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, {}),
]
DETERMINISTIC = [
    ("DDIM", {}),
    ("EulerDiscrete", {}),
    ("HeunDiscrete", {}),
    ("DPMSolverMultistep", {}),
    ("UniPCMultistep", {}),
    ("FlowMatchEulerDiscrete", {}),
]


def run(name, config, arguments, step):
    """Five steps with a fixed made-up model; `step` calls the scheduler's."""
    scheduler = getattr(diffusers, f"{name}Scheduler")(**config)
    scheduler.set_timesteps(5)
    sample = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, t)
        sample = step(scheduler, torch.sin(sample), t, sample, **arguments).prev_sample
    return sample


@pytest.mark.parametrize(("name", "config", "arguments"), STOCHASTIC)
def test_recorded_noise_reproduces_the_stock_run(name, config, arguments):
    stock = torch.Generator().manual_seed(7)
    ours = torch.Generator().manual_seed(7)
    asked = []

    def draw(shape):
        asked.append(shape)
        return torch.randn(shape, generator=ours)

    def supplied(scheduler, output, t, sample, **kwargs):
        with step_noise(scheduler, draw):
            return scheduler.step(output, t, sample, **kwargs)

    expected = run(name, config, arguments, lambda s, *a, **k: s.step(*a, generator=stock, **k))
    result = run(name, config, arguments, supplied)
    assert set(asked) == {SHAPE}
    assert torch.equal(result, expected)


def test_the_supplied_noise_wins_over_a_generator():
    zero = run("DDPM", {}, {}, lambda s, *a: stepped(s, a, lambda shape: torch.zeros(shape)))
    again = run(
        "DDPM", {}, {"generator": torch.Generator().manual_seed(3)},
        lambda s, *a, **k: stepped(s, a, lambda shape: torch.zeros(shape), **k),
    )  # fmt: skip
    assert torch.equal(zero, again)


def stepped(scheduler, arguments, draw, **kwargs):
    with step_noise(scheduler, draw):
        return scheduler.step(*arguments, **kwargs)


@pytest.mark.parametrize(("name", "config"), DETERMINISTIC)
def test_deterministic_steps_never_ask(name, config):
    def draw(shape):
        raise AssertionError("a deterministic step asked for noise")

    run(name, config, {}, lambda s, *a: stepped(s, a, draw))


def test_shared_noise_moves_trajectories_alike():
    def shared(shape):
        return torch.randn(shape[1:], generator=torch.Generator().manual_seed(0)).expand(shape)

    scheduler = diffusers.DDPMScheduler()
    scheduler.set_timesteps(5)
    sample = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(1)).expand(SHAPE)
    with step_noise(scheduler, shared):
        after = scheduler.step(torch.zeros(SHAPE), scheduler.timesteps[0], sample).prev_sample
    assert torch.equal(after[0], after[1])


def test_half_precision_gets_its_own_dtype():
    scheduler = diffusers.DDPMScheduler()
    scheduler.set_timesteps(5)
    sample = torch.zeros(SHAPE, dtype=torch.bfloat16)
    with step_noise(scheduler, torch.ones):
        assert scheduler.step(sample, scheduler.timesteps[0], sample).prev_sample.dtype == torch.bfloat16


def test_restored_after_use_and_after_an_exception():
    original = scheduling_ddpm.randn_tensor
    scheduler = diffusers.DDPMScheduler()
    with step_noise(scheduler, torch.zeros):
        assert scheduling_ddpm.randn_tensor is not original
    assert scheduling_ddpm.randn_tensor is original
    with pytest.raises(RuntimeError, match="inside"), step_noise(scheduler, torch.zeros):
        raise RuntimeError("inside")
    assert scheduling_ddpm.randn_tensor is original


def test_nested_contexts_innermost_wins():
    scheduler = diffusers.DDPMScheduler()
    with step_noise(scheduler, torch.zeros):
        with step_noise(scheduler, torch.ones):
            assert scheduling_ddpm.randn_tensor((2,)).tolist() == [1, 1]
        assert scheduling_ddpm.randn_tensor((2,)).tolist() == [0, 0]


def test_other_threads_keep_their_own_noise_however_contexts_interleave():
    original = scheduling_ddpm.randn_tensor
    scheduler = diffusers.DDPMScheduler()
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def worker():
        seen.append(scheduling_ddpm.randn_tensor((64,)).tolist())  # no context of its own: stock noise
        with step_noise(scheduler, torch.ones):
            entered.set()
            assert leave.wait(10)
            seen.append(scheduling_ddpm.randn_tensor((2,)).tolist())

    thread = threading.Thread(target=worker)
    with step_noise(scheduler, torch.zeros):
        thread.start()
        assert entered.wait(10)
        assert scheduling_ddpm.randn_tensor((2,)).tolist() == [0, 0]
    leave.set()  # the first context closes before the second
    thread.join(10)
    assert any(seen[0])
    assert seen[1] == [1, 1]
    assert scheduling_ddpm.randn_tensor is original


def test_wrong_shape_is_a_named_error():
    scheduler = diffusers.DDPMScheduler()
    scheduler.set_timesteps(5)
    sample = torch.zeros(SHAPE)
    with step_noise(scheduler, lambda shape: torch.zeros(1)):
        with pytest.raises(ShapeError, match=r"\(2, 1, 4, 4\), draw returned \(1,\)"):
            scheduler.step(sample, scheduler.timesteps[0], sample)


def test_subclasses_defined_elsewhere_are_covered():
    class Hooked(diffusers.DDPMScheduler):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    scheduler = Hooked()
    scheduler.set_timesteps(5)
    asked = []
    with step_noise(scheduler, lambda shape: asked.append(shape) or torch.zeros(shape)):
        scheduler.step(torch.zeros(SHAPE), scheduler.timesteps[0], torch.zeros(SHAPE))
    assert asked == [SHAPE]
