"""The functions of examples/checkpoints on pipelines with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import diffusers
import pytest
import torch
from PIL import Image

import pgm_sync as ps
from tests.pipelines import PIPELINES, _vae

# torch, when diffusers hands its tensors to numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array")
FOLDER = Path(__file__).resolve().parents[1] / "examples" / "checkpoints"
UNET = {
    "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "cross_attention_dim": 8,
    "attention_head_dim": 2, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


def recipe(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def autoencoder():
    return diffusers.AutoencoderKL(
        block_out_channels=[4, 4], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4,
    ).eval()  # fmt: skip


def embeds(rows, seed=0):
    text = torch.randn(rows, 5, 8, generator=torch.Generator().manual_seed(seed))
    return {"prompt_embeds": text, "negative_prompt_embeds": torch.zeros_like(text)}


@pytest.fixture(scope="module")
def stable_diffusion():
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, **UNET).eval()
    return quiet(
        diffusers.StableDiffusionPipeline(
            autoencoder(), None, None, unet, diffusers.DDIMScheduler(clip_sample=False, steps_offset=1), None, None,
            requires_safety_checker=False,
        )
    )  # fmt: skip


def test_a_folder_of_pictures_becomes_a_wide_one(stable_diffusion, tmp_path, generator):
    wide = recipe("wide")
    for k in range(12):
        pixels = (torch.rand(32, 64, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    pictures = wide.read(tmp_path, 32, 64)
    assert pictures.shape == (12, 3, 32, 64)
    unfitted = wide.window_graph(stable_diffusion, 32, 64, 32, 16, modes=1)
    wide.learn(stable_diffusion, unfitted, pictures).save(tmp_path / "wide.safetensors")
    graph = ps.FactorGraph.load(tmp_path / "wide.safetensors")
    assert len(ps.correlations(graph)) == 2 * 4  # two seams, one mode per latent channel
    call = {"num_inference_steps": 4, **embeds(1)}
    call |= {k: v.expand(3, -1, -1) for k, v in embeds(1).items()}
    learned = wide.paint(stable_diffusion, graph, **call)
    averaged = wide.paint(stable_diffusion, wide.window_graph(stable_diffusion, 32, 64, 32, 16, modes=0), **call)
    assert learned.shape == averaged.shape == (1, 3, 32, 64)
    assert not torch.equal(learned, averaged)
    again = wide.paint(stable_diffusion, graph, **call)
    assert torch.equal(learned, again)


def test_a_circular_panorama(stable_diffusion):
    wide = recipe("wide")
    graph = wide.window_graph(stable_diffusion, 32, 64, 32, 16, modes=0, wrap=True)
    assert len(graph.trajectories) == 4
    picture = wide.paint(stable_diffusion, graph, 4, num_inference_steps=2, **embeds(4))
    assert picture.shape == (1, 3, 32, 64)


def test_flux_packs_its_latents():
    wide = recipe("wide")
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=5, axes_dims_rope=[2, 2, 4], guidance_embeds=True,
    )  # fmt: skip
    pipe = quiet(
        diffusers.FluxPipeline(
            diffusers.FlowMatchEulerDiscreteScheduler(), autoencoder(), None, None, None, None, transformer.eval()
        )
    )
    graph = wide.window_graph(pipe, 32, 64, 32, 16, modes=0)
    text = {"prompt_embeds": embeds(3)["prompt_embeds"], "pooled_prompt_embeds": torch.zeros(3, 5)}
    assert wide.paint(pipe, graph, num_inference_steps=2, **text).shape == (1, 3, 32, 64)


@pytest.mark.parametrize("name", ["SDXL", "SD3"])
def test_a_wide_picture_of_others(name):
    wide, pipe = recipe("wide"), PIPELINES[name].build()
    scheduler, pipe.vae = pipe.scheduler, _vae().eval()
    graph = wide.window_graph(pipe, 64, 128, 64, 32, modes=0)
    pooled = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    text = {**embeds(3), "pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": torch.zeros(3, 5)}
    try:
        picture = wide.paint(pipe, graph, num_inference_steps=2, **text)
    finally:
        pipe.vae = None
    assert picture.shape == (1, 3, 64, 128)
    assert torch.isfinite(picture).all()
    assert pipe.scheduler is scheduler


def test_regions(stable_diffusion):
    regions = recipe("regions")
    mask = regions.box(8, 16, (4, 2, 12, 6), soft=1)
    assert mask.max() == 1
    assert mask[0, 0] == 0
    assert 0 < mask[1, 4] < 1
    graph = regions.region_graph((4, 8, 16), {"background": (1 - mask).clamp_min(0.1), "house": mask})
    call = {"num_inference_steps": 2, "guidance_scale": 3.0}
    picture = regions.paint(stable_diffusion, graph, **call, **embeds(2))
    assert picture.shape == (1, 3, 16, 32)
    with ps.attach(stable_diffusion, graph) as attached:
        x = stable_diffusion(
            height=16, width=32, output_type="latent", generator=torch.Generator().manual_seed(0), **call, **embeds(2)
        ).images
    assert torch.allclose(x[0], x[1], atol=1e-4 * x.abs().max())  # one picture
    assert torch.allclose(ps.decode_latents(stable_diffusion.vae, attached.samples(x)["canvas"]), picture, atol=1e-5)


def deepfloyd(cls, channels, **more):
    torch.manual_seed(0)
    config = UNET | {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    }
    unet = diffusers.UNet2DConditionModel(sample_size=16, in_channels=channels, out_channels=6, **config, **more)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    extra = {"image_noising_scheduler": diffusers.DDPMScheduler()} if channels == 6 else {}
    return quiet(
        cls(
            tokenizer=None, text_encoder=None, unet=unet.eval(), scheduler=scheduler, safety_checker=None,
            feature_extractor=None, watermarker=None, requires_safety_checker=False, **extra,
        )
    )  # fmt: skip


def test_an_ambiguous_image_in_two_stages():
    ambiguous = recipe("ambiguous")
    first = deepfloyd(diffusers.IFPipeline, 3)
    second = deepfloyd(diffusers.IFSuperResolutionPipeline, 6, class_embed_type="timestep")
    call = {"num_inference_steps": 3, **embeds(2)}
    small = ambiguous.paint(first, 16, **call)
    large = ambiguous.paint(second, 32, 0, small, **call)
    assert small.shape == (1, 3, 16, 16)
    assert large.shape == (1, 3, 32, 32)
    with ps.attach(first, ambiguous.turned_graph(16)):
        x = first(height=16, width=16, output_type="pt", generator=torch.Generator().manual_seed(0), **call).images
    assert torch.allclose(x[1], x[0].rot90(2, (-2, -1)), atol=1e-5)  # learned variance and step noise included


def test_a_long_video():
    long_video = recipe("long_video")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, **UNET)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    pipe = quiet(
        diffusers.AnimateDiffPipeline(
            autoencoder(), None, None, unet, adapter, diffusers.DDIMScheduler(clip_sample=False)
        )
    )
    graph = long_video.frame_graph((4, 8, 8), frames=10, window=4, stride=3)
    assert len(graph.trajectories) == 3
    frames = long_video.film(pipe, graph, num_inference_steps=2, **embeds(3))
    assert frames.shape == (10, 3, 16, 16)


def test_a_long_video_of_a_model_that_compresses_time():
    """The latents of two windows, and their decoding against the pipeline's own for one window."""
    long_video = recipe("long_video")
    torch.manual_seed(0)
    pipe = quiet(
        diffusers.WanPipeline(
            None, None,
            diffusers.AutoencoderKLWan(
                base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
            ),
            diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
            diffusers.WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
                text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
            ),
        )
    )  # fmt: skip
    graph = long_video.frame_graph((16, 2, 2), frames=5, window=3, stride=2)
    assert len(graph.trajectories) == 2
    frames = long_video.film(pipe, graph, num_inference_steps=2, guidance_scale=1.0, **embeds(2))
    assert frames.shape == (17, 3, 16, 16)
    one = long_video.frame_graph((16, 2, 2), frames=3, window=3, stride=2)
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, **embeds(1)}
    found = long_video.film(pipe, one, seed=4, **call)
    stock = pipe(
        num_frames=9, height=16, width=16, generator=torch.Generator().manual_seed(4), output_type="pt", **call
    ).frames[0]
    assert torch.allclose(found / 2 + 0.5, stock, atol=1e-5)


def test_a_texture_by_a_depth_controlnet():
    """Views of a ball; those that show one texel agree on its latent, and the texture has been seen in the views."""
    tx = pytest.importorskip("pgm_sync.tasks.texture")
    recipe_ = recipe("texture")
    trimesh = pytest.importorskip("trimesh")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=12, in_channels=4, out_channels=4, **UNET)
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4))
    for parameter in control.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = diffusers.UniPCMultistepScheduler()
    pipe = quiet(
        diffusers.StableDiffusionControlNetPipeline(
            autoencoder(), None, None, unet.eval(), control.eval(), scheduler, None, None,
            requires_safety_checker=False,
        )
    )  # fmt: skip
    surface = tx.load_surface(trimesh.creation.icosphere(2))
    cameras = tx.ring_cameras(surface, 3, resolution=(12, 12))
    depths = recipe_.depth_images(surface, cameras, 2)
    assert depths.shape == (3, 3, 24, 24)
    assert (depths.amin(), depths.amax()) == (0, 1)
    texture, views = recipe_.paint(pipe, surface, cameras, 32, num_inference_steps=2, **embeds(3))
    assert texture.shape == (3, 32, 32)
    assert list(views) == ["view 0", "view 1", "view 2"]
    assert all(view.shape == (3, 24, 24) for view in views.values())
    assert texture.std() > 0
    assert recipe_._sides(4) == ["front", "side", "back", "side"]
