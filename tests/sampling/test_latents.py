"""Encoding and decoding against what pipelines of diffusers do."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

import pgm_sync as ps
from pgm_sync.errors import ParameterError, ShapeError


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=[4, 4], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, scaling_factor=0.3, shift_factor=0.1,
    ).eval()  # fmt: skip


def test_decoding_is_that_of_the_pipeline(vae, generator):
    latents = torch.randn(3, 4, 8, 12, generator=generator)
    with torch.no_grad():  # as StableDiffusion3Pipeline and FluxPipeline
        expected = vae.decode(latents / 0.3 + 0.1).sample.clamp(-1, 1)
    assert torch.allclose(ps.decode_latents(vae, latents), expected, atol=1e-6)
    assert torch.allclose(ps.decode_latents(vae, latents, chunk=1), expected, atol=1e-5)


def test_a_wrapped_decoding_does_not_know_where_the_picture_begins(vae, generator):
    latents = torch.randn(1, 4, 8, 24, generator=generator)
    turned = ps.decode_latents(vae, latents.roll(12, -1), wrap=12).roll(-24, -1)
    straight = ps.decode_latents(vae, latents, wrap=12)
    assert straight.shape == (1, 3, 16, 48)
    # Group norms see the border columns twice, in other places: not equal to rounding, but far closer than without
    assert (turned - straight).abs().max() < 0.2 * (
        ps.decode_latents(vae, latents.roll(12, -1)).roll(-24, -1) - ps.decode_latents(vae, latents)
    ).abs().max()


def test_the_circular_panorama_pipeline_decodes_alike(vae, generator):
    from diffusers.pipelines.deprecated.stable_diffusion_panorama import (
        pipeline_stable_diffusion_panorama as module,
    )

    class Holder:
        vae_scale_factor = 2

    Holder.vae = AutoencoderKL.from_config({**vae.config, "shift_factor": None}).eval()
    latents = torch.randn(1, 4, 8, 24, generator=generator)
    with torch.no_grad():
        expected = module.StableDiffusionPanoramaPipeline.decode_latents_with_padding(Holder, latents, 8)
    assert torch.allclose(ps.decode_latents(Holder.vae, latents, wrap=8), expected.clamp(-1, 1), atol=1e-6)


def test_encoding_is_in_the_units_of_the_states(vae, generator):
    images = torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1
    with torch.no_grad():
        expected = (vae.encode(images).latent_dist.mode() - 0.1) * 0.3
    assert torch.allclose(ps.encode_images(vae, images, chunk=2), expected, atol=1e-6)
    half = AutoencoderKL.from_config(vae.config).to(torch.bfloat16)
    assert ps.encode_images(half, images).dtype == torch.float32
    with pytest.raises(ShapeError):
        ps.encode_images(vae, images[0])
    with pytest.raises(ShapeError):
        ps.decode_latents(vae, images[0])
    with pytest.raises(ParameterError, match="wrap=20"):
        ps.decode_latents(vae, torch.zeros(1, 4, 8, 12), wrap=20)


def test_channel_statistics_of_a_config(generator):
    vae = AutoencoderKL(
        block_out_channels=[4], down_block_types=["DownEncoderBlock2D"], up_block_types=["UpDecoderBlock2D"],
        norm_num_groups=2, latent_channels=2, scaling_factor=0.5, latents_mean=[0.1, -0.2], latents_std=[2.0, 3.0],
    ).eval()  # fmt: skip
    latents = torch.randn(1, 2, 8, 8, generator=generator)
    mean, std = torch.tensor([0.1, -0.2]).reshape(1, 2, 1, 1), torch.tensor([2.0, 3.0]).reshape(1, 2, 1, 1)
    with torch.no_grad():  # as StableDiffusionXLPipeline
        expected = vae.decode(latents * std / 0.5 + mean).sample.clamp(-1, 1)
    assert torch.allclose(ps.decode_latents(vae, latents), expected, atol=1e-6)
