"""A tiny random UNet as a denoiser: what it denoises is what diffusers' schedulers make of its output."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DModel

import pgm_sync as ps
from pgm_sync.denoisers import DiffusersDenoiser
from pgm_sync.errors import ParameterError, ShapeError
from pgm_sync.testing import DenoiserTests

SHAPE = (3, 8, 8)


def unet(**config) -> UNet2DModel:
    torch.manual_seed(0)
    model = UNet2DModel(
        **{
            "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 32),
            "layers_per_block": 1, "norm_num_groups": 8, "down_block_types": ("DownBlock2D",) * 2,
            "up_block_types": ("UpBlock2D",) * 2, "add_attention": False,
        } | config
    )  # fmt: skip
    return model.eval()


@pytest.fixture(scope="module")
def model() -> UNet2DModel:
    return unet()


@pytest.fixture(scope="module")
def classes() -> UNet2DModel:
    return unet(num_class_embeds=4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def level_of(scheduler, t) -> ps.NoiseLevel:
    alpha = scheduler.alphas_cumprod[t].sqrt().item()
    sigma = (1 - scheduler.alphas_cumprod[t]).sqrt().item()
    return ps.NoiseLevel(alpha, sigma, t)


class TestConformance(DenoiserTests):
    exact = False  # random weights
    tolerance = 1e-5  # a batch and a loop run other kernels

    def create(self):
        return DiffusersDenoiser(unet().double())

    def clean(self, count, generator):
        return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)

    def level(self, alpha, sigma):
        return ps.NoiseLevel(alpha, sigma, timestep=500)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("step", [0, 4, 9])
def test_denoised_is_pred_original_sample(model, kind, step):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[step]
    noisy = normal(2, *SHAPE)
    with torch.no_grad():
        output = model(noisy, t).sample
    expected = scheduler.step(output, t, noisy).pred_original_sample
    denoiser = DiffusersDenoiser(model, prediction_type=kind)
    assert torch.equal(denoiser.predict(noisy, level_of(scheduler, t)), output)
    result = denoiser.denoise(noisy, level_of(scheduler, t))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


# torch, when diffusers hands its tensors to numpy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_scheduler_scales_what_the_model_sees(model, kind):
    scheduler = EulerDiscreteScheduler(prediction_type=kind)
    scheduler.set_timesteps(10)
    t, sigma = scheduler.timesteps[3], scheduler.sigmas[3].item()
    noisy = sigma * normal(2, *SHAPE)
    scaled = scheduler.scale_model_input(noisy, t)
    assert not torch.allclose(scaled, noisy)
    with torch.no_grad():
        output = model(scaled, t).sample
    level = ps.NoiseLevel(1.0, sigma, t, lambda x: scheduler.scale_model_input(x, t))
    result = DiffusersDenoiser(model, prediction_type=kind).denoise(noisy, level)
    expected = scheduler.step(output, t, noisy).pred_original_sample
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


class TestConditions:
    level = ps.NoiseLevel(0.8, 0.6, 300)

    def test_labels_go_to_the_rows_of_a_batch_with_several_dimensions(self, classes):
        denoiser, noisy = DiffusersDenoiser(classes), normal(2, 3, *SHAPE)
        labels = torch.tensor([[0, 1, 2], [3, 2, 1]])
        whole = denoiser.denoise(noisy, self.level, labels)
        for i in range(2):
            for j in range(3):
                one = denoiser.denoise(noisy[i, j], self.level, int(labels[i, j]))
                torch.testing.assert_close(whole[i, j], one, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(whole, denoiser.denoise(noisy, self.level, 0))

    def test_one_label_is_for_all(self, classes):
        denoiser, noisy = DiffusersDenoiser(classes), normal(2, *SHAPE)
        expected = denoiser.denoise(noisy, self.level, torch.tensor([2, 2]))
        assert torch.equal(denoiser.denoise(noisy, self.level, 2), expected)

    def test_labels_that_do_not_fit(self, classes):
        message = r"the condition 'class_labels' of shape \(3,\) does not fit the batch \(2,\)"
        with pytest.raises(ShapeError, match=message):
            DiffusersDenoiser(classes).denoise(normal(2, *SHAPE), self.level, torch.tensor([0, 1, 2]))

    def test_timesteps_per_row(self, model):
        denoiser, noisy = DiffusersDenoiser(model, prediction_type="sample"), normal(2, *SHAPE)
        both = denoiser.denoise(noisy, ps.NoiseLevel(0.8, 0.6, torch.tensor([10, 900])))
        for row, t in zip(range(2), (10, 900), strict=True):
            one = denoiser.denoise(noisy[row], ps.NoiseLevel(0.8, 0.6, t))
            torch.testing.assert_close(both[row], one, rtol=1e-4, atol=1e-4)

    def test_embeddings_under_another_name_in_the_dtype_of_the_model(self):
        seen = {}

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

            def forward(self, sample, timestep, encoder_hidden_states):
                seen.update(rows=sample, timestep=timestep, states=encoder_hidden_states)
                return SimpleNamespace(sample=sample * self.weight)

        denoiser = DiffusersDenoiser(Network(), SHAPE, condition_argument="encoder_hidden_states")
        noisy = normal(2, 3, *SHAPE)
        result = denoiser.predict(noisy, self.level, torch.zeros(1, 3, 5, 7))
        assert seen["rows"].shape == (6, *SHAPE)
        assert seen["rows"].dtype == seen["states"].dtype == torch.bfloat16
        assert seen["states"].shape == (6, 5, 7)
        assert seen["timestep"].tolist() == [300] * 6
        assert result.dtype == torch.float32
        assert torch.equal(result, noisy.bfloat16().float())
        assert not result.requires_grad


def test_a_learned_variance_is_kept_in_the_prediction_and_left_out_of_the_content():
    model = unet(out_channels=6)
    denoiser = DiffusersDenoiser(model, prediction_type="sample")
    noisy, level = normal(2, 2, *SHAPE), ps.NoiseLevel(0.8, 0.6, 5)
    output = denoiser.predict(noisy, level)
    assert output.shape == (2, 2, 6, 8, 8)
    assert torch.equal(denoiser.denoise(noisy, level), output[:, :, :3])


def test_the_model_may_be_half_precision_and_the_state_stays_as_it_was(model):
    half = DiffusersDenoiser(unet().bfloat16(), prediction_type="sample")
    noisy, level = normal(1, *SHAPE), ps.NoiseLevel(0.8, 0.6, 5)
    result = half.denoise(noisy, level)
    assert result.dtype == torch.float32
    whole = DiffusersDenoiser(model, prediction_type="sample").denoise(noisy, level)
    torch.testing.assert_close(result, whole, rtol=0.1, atol=0.1)


class TestConstruction:
    def test_the_shape_is_that_of_the_config(self, model):
        assert DiffusersDenoiser(model).shape == SHAPE
        assert DiffusersDenoiser(unet(sample_size=(8, 16))).shape == (3, 8, 16)
        assert DiffusersDenoiser(model, (3, 16, 16)).shape == (3, 16, 16)
        assert repr(DiffusersDenoiser(model)) == (
            "DiffusersDenoiser(UNet2DModel, shape=(3, 8, 8), prediction_type='epsilon')"
        )

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"shape": (4, 8, 8)}, ShapeError, "shape (4, 8, 8) has 4 channels, UNet2DModel takes 3"),
            (
                {"prediction_type": "v"},
                ParameterError,
                "unknown prediction type 'v'; use one of epsilon, sample",
            ),
        ],
    )
    def test_bad_input(self, model, arguments, error, message):
        with pytest.raises(error, match=re.escape(message)):
            DiffusersDenoiser(model, **arguments)

    def test_a_config_without_a_size(self):
        with pytest.raises(
            ParameterError, match=r"config of UNet2DModel does not tell the size of its samples"
        ):
            DiffusersDenoiser(unet(sample_size=None))
        with pytest.raises(ParameterError, match=r"pass shape=\(channels, height, width\)"):
            DiffusersDenoiser(torch.nn.Linear(1, 1))


def test_a_level_without_timestep(model):
    with pytest.raises(
        ParameterError, match=r"UNet2DModel needs the scheduler's timestep, and the level has non"
    ):
        DiffusersDenoiser(model).denoise(normal(*SHAPE), ps.NoiseLevel(0.8, 0.6))


# torch, when diffusers hands its tensors to numpy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete"])
def test_an_uncoupled_run_equals_the_stock_loop(model, name):
    """One trajectory, no factor: the sampler's result is diffusers' own, from the same noise."""
    make = {
        "DDIM": lambda: DDIMScheduler(clip_sample=False), "EulerDiscrete": EulerDiscreteScheduler
    }[name]  # fmt: skip
    graph = ps.FactorGraph()
    graph.add_trajectory("a", SHAPE)
    arguments = {"scheduler": make(), "num_inference_steps": 4, "num_samples": 2}
    states = list(ps.sampling_steps(graph, DiffusersDenoiser(model), seed=0, **arguments))
    scheduler = make()
    scheduler.set_timesteps(4)
    sample = states[0].noisy["a"]
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = model(scheduler.scale_model_input(sample, t), t).sample
        sample = scheduler.step(output, t, sample).prev_sample
    result = ps.sample(graph, DiffusersDenoiser(model), seed=0, progress=False, **arguments).samples["a"]
    torch.testing.assert_close(result, sample, rtol=1e-4, atol=1e-4)
