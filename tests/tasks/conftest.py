"""What several tests of tasks run on."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def pipe(tokenizer):
    """Stable Diffusion with random weights and a tokenizer of single characters."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = len(tokenizer)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=words, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=[4, 4], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
    made = diffusers.StableDiffusionPipeline(
        vae.eval(), CLIPTextModel(config).eval(), tokenizer, unet.eval(), scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for k in range(4):
        grey = 40 + 50 * k
        pixels = np.clip(grey + generator.normal(0, 20, (40, 120, 3)), 0, 255).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return str(tmp_path)
