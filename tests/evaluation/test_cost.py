"""Costs: evaluations counted by hand, memory and time of known blocks."""

from __future__ import annotations

import time

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.denoisers.predicting import PredictingDenoiser
from pgm_sync.errors import ParameterError, UnsupportedError
from pgm_sync.evaluation import Cost, CostMeter
from pgm_sync.evaluation import cost as module


def test_evaluations_of_a_sampler_are_steps_times_trajectories():
    graph = ps.chain_graph(3, shape=(4,), potential=ps.Correlation(0.5))
    denoiser = ps.GaussianDenoiser(torch.zeros(4), torch.eye(4))
    scheduler = DDIMScheduler(clip_sample=False)
    plain = ps.sample(graph, denoiser, scheduler, 7, num_samples=5, progress=False)
    with CostMeter(num_samples=5) as meter:
        counted = ps.sample(graph, meter.count(denoiser), scheduler, 7, num_samples=5, progress=False)
    assert meter.cost.evaluations == 3 * 7
    assert all(torch.equal(counted.samples[k], plain.samples[k]) for k in range(3))
    with CostMeter(num_samples=5) as meter:
        named = meter.count({0: denoiser, 1: denoiser, 2: ps.JacobianDenoiser(denoiser)})
        ps.sample(graph, named, scheduler, 7, num_samples=5, posterior_covariance="surrogate", progress=False)
    assert meter.cost.evaluations == 3 * 7
    assert named[0] is named[1]
    assert named[2].mode == "reverse"  # what else the denoiser has


def test_guidance_counts_the_network_twice_and_the_denoiser_once():
    class Network(torch.nn.Module):
        def forward(self, x):
            return x

    network = Network()

    class Predicts(PredictingDenoiser):
        def predict(self, noisy, level, condition=None):
            return network(noisy)

    denoiser = Predicts((3,), "epsilon")
    level, noisy = ps.NoiseLevel(alpha=0.6, sigma=0.8), torch.ones(5, 3)
    with (
        CostMeter(num_samples=5) as inner,
        CostMeter(num_samples=5) as outer,
        CostMeter(num_samples=5) as below,
    ):
        guided = ps.GuidedDenoiser(inner.count(denoiser), 2.0)
        below.count(network)
        outer.count(guided).denoise(noisy, level, torch.ones(5))
    assert (inner.cost.evaluations, outer.cost.evaluations, below.cost.evaluations) == (2, 1, 2)
    network(noisy)  # the hook is gone
    assert below.rows == 10


def test_functions_and_what_cannot_be_counted():
    with CostMeter(num_samples=2) as meter:
        double = meter.count(lambda x, scale=2: x * scale)
        assert double(torch.ones(6, 3), scale=3).sum() == 54
        with pytest.raises(UnsupportedError, match="cannot count evaluations of 'network'"):
            meter.count("network")
    assert meter.cost.evaluations == 3
    with CostMeter(num_samples=2) as meter:
        pass
    assert meter.cost.evaluations is None


def test_seconds_and_memory_of_a_known_block():
    with CostMeter(num_samples=4) as meter:
        held = torch.ones(64 * 2**20 // 8, dtype=torch.float64)  # 64 MiB, written to
        time.sleep(0.1)
        del held
    assert 0.1 / 4 <= meter.cost.seconds < 1
    assert 60 * 2**20 < meter.cost.peak_memory < 200 * 2**20


def test_memory_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STATM", tmp_path / "missing")
    assert module.resident() > 10 * 2**20
    with CostMeter(num_samples=1) as meter:
        pass
    assert meter.cost.peak_memory >= 0


def test_a_block_that_fails_has_no_cost():
    meter = CostMeter(num_samples=1)
    with pytest.raises(ZeroDivisionError), meter:
        1 / 0  # noqa: B018
    with pytest.raises(ParameterError, match="once the block"):
        _ = meter.cost


def test_a_meter_needs_samples():
    with pytest.raises(ParameterError, match="num_samples=0"):
        CostMeter(num_samples=0)


def test_costs_print():
    text = str(Cost(21.0, 0.5, 3 * 2**20, 5))
    assert text == "21 evaluations, 0.5 s per joint sample, 3 MiB (cpu)"
    assert str(Cost(None, 0.5, None, 5)).startswith("? evaluations")


@pytest.mark.gpu
def test_memory_on_cuda_is_the_allocators():
    with CostMeter(num_samples=1, device="cuda") as meter:
        held = torch.ones(64 * 2**20, dtype=torch.uint8, device="cuda")
        del held
    assert meter.cost.peak_memory == 64 * 2**20
