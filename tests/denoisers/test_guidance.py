"""Networks with conditions, guided and in chunks, against the pipelines of diffusers."""

from __future__ import annotations

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:__array")
LEVEL = ps.NoiseLevel(0.6, 0.8, timestep=torch.tensor(400))


def seeded(build):
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():  # transformers start at zero in places
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def transformer():
    return seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, patch_size=2,
            sample_size=8, num_embeds_ada_norm=1000, attention_bias=True,
        )
    )  # fmt: skip


def text_unet(**more):
    return seeded(
        lambda: diffusers.UNet2DConditionModel(
            block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8, sample_size=8,
            attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
        )
    )  # fmt: skip


def alone(shape):
    graph = ps.FactorGraph()
    graph.add_trajectory("x", shape)
    return graph


def test_a_class_conditional_transformer_samples_as_its_pipeline_does():
    model = transformer()
    pipe = diffusers.DiTPipeline(model, None, diffusers.DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    left = []

    class Watching(diffusers.DDIMScheduler):
        def step(self, *args, **kwargs):
            result = super().step(*args, **kwargs)
            left.append(result.prev_sample)
            return result

    pipe.scheduler = Watching(clip_sample=False)
    with pytest.raises(AttributeError):  # there is no autoencoder to decode with
        pipe([3], guidance_scale=4.0, generator=torch.Generator().manual_seed(5), num_inference_steps=4)
    denoiser = ps.GuidedDenoiser(ps.DiffusersDenoiser(model), 4.0, unconditional=1000)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    result = ps.sample(
        alone((4, 8, 8)), denoiser, diffusers.DDIMScheduler(clip_sample=False), 4, initial_noise={"x": noise},
        conditions=3, progress=False,
    )  # fmt: skip
    expected = left[-1][:1]
    assert torch.allclose(result.samples["x"], expected, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_a_text_conditional_network_samples_as_its_pipeline_does(rescale, generator):
    model, scheduler = text_unet(), diffusers.EulerDiscreteScheduler(steps_offset=1)
    pipe = diffusers.StableDiffusionPipeline(
        None, None, None, model, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    text, empty = torch.randn(2, 1, 5, 8, generator=generator)
    expected = pipe(
        prompt_embeds=text, negative_prompt_embeds=empty, guidance_scale=3.0, guidance_rescale=rescale, height=64,
        width=64, num_inference_steps=5, generator=torch.Generator().manual_seed(5), output_type="latent",
    ).images  # fmt: skip
    network = ps.DiffusersDenoiser(model, (4, 8, 8), condition_argument="encoder_hidden_states")
    denoiser = ps.GuidedDenoiser(network, 3.0, {"encoder_hidden_states": empty}, rescale)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    result = ps.sample(
        alone((4, 8, 8)), denoiser, scheduler, 5, initial_noise={"x": noise}, conditions=text, progress=False
    )
    assert torch.allclose(result.samples["x"], expected, atol=1e-4 * expected.abs().max())


def test_conditions_may_be_nested_and_chunks_change_nothing(generator):
    model = text_unet(
        addition_embed_type="text_time", addition_time_embed_dim=2, projection_class_embeddings_input_dim=17
    )
    states = torch.randn(5, 4, 8, 8, generator=generator)
    condition = {
        "encoder_hidden_states": torch.randn(5, 6, 8, generator=generator),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(1, 5, generator=generator),  # one for all
            "time_ids": torch.arange(30.0).reshape(5, 6),
        },
    }
    whole = ps.DiffusersDenoiser(model, (4, 8, 8)).denoise(states, LEVEL, condition)
    with torch.no_grad():
        added = {
            "text_embeds": condition["added_cond_kwargs"]["text_embeds"].expand(5, -1),
            "time_ids": condition["added_cond_kwargs"]["time_ids"],
        }
        output = model(states, 400, condition["encoder_hidden_states"], added_cond_kwargs=added).sample
    assert torch.allclose(whole, (states - 0.8 * output) / 0.6, atol=1e-5)
    for chunk in (1, 2, 5, 9):
        parts = ps.DiffusersDenoiser(model, (4, 8, 8), chunk=chunk).denoise(states, LEVEL, condition)
        assert torch.allclose(parts, whole, atol=1e-5)


def test_a_chunk_bounds_the_rows_of_a_call(generator):
    model, rows = transformer(), []
    model.register_forward_pre_hook(lambda module, args, kwargs: rows.append(len(args[0])), with_kwargs=True)
    denoiser = ps.DiffusersDenoiser(model, chunk=2)
    denoiser.denoise(torch.randn(5, 4, 8, 8, generator=generator), LEVEL, torch.arange(5))
    assert rows == [2, 2, 1]


def test_a_one_dimensional_network(generator):
    model = seeded(
        lambda: diffusers.UNet1DModel(
            sample_size=16, in_channels=2, out_channels=2, extra_in_channels=0, block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownResnetBlock1D",) * 4, up_block_types=("UpResnetBlock1D",) * 3, act_fn="swish",
            mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock", norm_num_groups=8, freq_shift=1.0,
            layers_per_block=1, time_embedding_type="positional", use_timestep_embedding=True, flip_sin_to_cos=False,
        )
    )  # fmt: skip
    states = torch.randn(3, 2, 16, generator=generator)
    denoiser = ps.DiffusersDenoiser(model, (2, 16))
    with torch.no_grad():
        output = model(states, 400).sample
    assert torch.allclose(denoiser.denoise(states, LEVEL), (states - 0.8 * output) / 0.6, atol=1e-5)


@pytest.mark.parametrize("guided", [False, True])
def test_posterior_covariances_reach_through_conditions_and_guidance(guided, generator):
    """Eq. 4 by reverse products, in four cosine modes, against central differences in float64."""
    model = text_unet().double()
    text, empty = torch.randn(2, 1, 5, 8, generator=generator, dtype=torch.float64)
    denoiser = ps.DiffusersDenoiser(model, (4, 8, 8), condition_argument="encoder_hidden_states")
    if guided:
        denoiser = ps.GuidedDenoiser(denoiser, 2.0, empty)
    features = ps.DCT((4, 8, 8), 1)
    state = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)
    found = ps.JacobianDenoiser(denoiser).posterior(state, LEVEL, text, features).covariance[0]
    step, columns = 1e-4, []
    for k in range(4):
        push = step * features.adjoint(torch.eye(4, dtype=torch.float64)[k].reshape(features.out_shape))
        up, down = (denoiser.denoise(state + s * push, LEVEL, text) for s in (1, -1))
        columns.append(features.apply((up - down) / (2 * step)).flatten())
    expected = 0.64 / 0.6 * torch.stack(columns, 1)
    symmetric = (expected + expected.T) / 2
    assert torch.allclose(found, symmetric, atol=1e-6 * symmetric.abs().max())


@pytest.mark.parametrize("mode", ["reverse", "differences"])
def test_covariances_with_a_condition_per_sample(mode, generator):
    """A dictionary for two samples, against each sample by itself."""
    model = text_unet().double()
    denoiser = ps.JacobianDenoiser(ps.DiffusersDenoiser(model, (4, 8, 8)), mode)
    text = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    state = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    features = ps.DCT((4, 8, 8), 1)
    both = denoiser.posterior(state, LEVEL, {"encoder_hidden_states": text}, features).covariance
    for k in range(2):
        one = denoiser.posterior(state[k : k + 1], LEVEL, {"encoder_hidden_states": text[k : k + 1]}, features)
        assert torch.allclose(both[k], one.covariance[0], atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_derivatives_of_a_guided_transformer(scale, generator):
    """A class-conditional DiT with a learned variance, backwards against differences."""
    own = ps.GuidedDenoiser(ps.DiffusersDenoiser(transformer().double(), (4, 8, 8)), scale, 1000)
    state = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    features, labels = ps.DCT((4, 8, 8), 1), torch.tensor([3, 7])
    found = ps.JacobianDenoiser(own).posterior(state, LEVEL, labels, features).covariance
    expected = ps.JacobianDenoiser(own, "differences", step=1e-4).posterior(state, LEVEL, labels, features).covariance
    assert torch.allclose(found, expected, atol=1e-6 * expected.abs().max())
    assert (found[0] - found[1]).abs().max() > 1e-3 * found.abs().max()


def test_derivatives_with_conditions_made_under_inference_mode(generator):
    model = text_unet()
    state, features = torch.randn(1, 4, 8, 8, generator=generator), ps.DCT((4, 8, 8), 1)
    plain = {"encoder_hidden_states": torch.randn(1, 5, 8, generator=generator)}
    with torch.inference_mode():
        frozen = {key: value.clone() for key, value in plain.items()}
    own = ps.JacobianDenoiser(ps.DiffusersDenoiser(model, (4, 8, 8)))
    expected = own.posterior(state, LEVEL, plain, features).covariance
    assert torch.equal(own.posterior(state, LEVEL, frozen, features).covariance, expected)


def test_guidance_at_scale_one_asks_once():
    asked = []

    def network(noisy, alpha, sigma, condition=None):
        asked.append(condition)
        return noisy

    own = ps.FunctionDenoiser(network, (2,), "epsilon")
    state = torch.ones(1, 2)
    assert torch.equal(ps.GuidedDenoiser(own, 1.0, 7).predict(state, LEVEL, 3), state)
    assert asked == [3]
    ps.GuidedDenoiser(own, 2.0, 7).predict(state, LEVEL, 3)
    assert asked == [3, 3, 7]


def test_sequences_of_tensors_are_cut_and_numbers_handed_over(generator):
    model = text_unet()
    states = torch.randn(3, 4, 8, 8, generator=generator)
    # what a ControlNet adds to a U-Net of two blocks
    shapes = [(4, 8, 8), (4, 8, 8), (4, 4, 4), (8, 4, 4)]
    down = tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)
    condition = {
        "encoder_hidden_states": torch.randn(3, 6, 8, generator=generator),
        "down_block_additional_residuals": down,
        "mid_block_additional_residual": torch.randn(3, 8, 4, 4, generator=generator),
        "cross_attention_kwargs": {"scale": 0.5},
    }
    whole = ps.DiffusersDenoiser(model, (4, 8, 8)).denoise(states, LEVEL, condition)
    with torch.no_grad():
        output = model(states, 400, **condition).sample
    assert torch.allclose(whole, (states - 0.8 * output) / 0.6, atol=1e-5)
    parts = ps.DiffusersDenoiser(model, (4, 8, 8), chunk=2).denoise(states, LEVEL, condition)
    assert torch.allclose(parts, whole, atol=1e-5)


def test_bad_guidance_is_refused():
    network = ps.DiffusersDenoiser(transformer())
    for arguments in ((float("nan"),), (2.0, None, 1.5)):
        with pytest.raises(ParameterError, match="rescale"):
            ps.GuidedDenoiser(network, *arguments)
    with pytest.raises(ParameterError, match="has none"):
        ps.GuidedDenoiser(ps.GaussianDenoiser(torch.zeros(2), torch.eye(2)), 2.0)
    with pytest.raises(ParameterError, match="chunk=0"):
        ps.DiffusersDenoiser(transformer(), chunk=0)
