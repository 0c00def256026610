"""Pipelines of diffusers with tiny random weights: no hub, no tokenizer, text embeddings drawn instead.

`PIPELINES[name]` builds one and calls it for a batch of trajectories that differ in their prompts. A call returns the
latents (or pictures, where a pipeline works on pixels) that the last step left, before any decoder.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch

import pgm_sync as ps

STEPS = 4
diffusers.utils.logging.set_verbosity_error()
logging.getLogger("diffusers").setLevel(logging.ERROR)


class Tiny(NamedTuple):
    """One pipeline, and what `attach` has to be told about it."""

    build: Callable[[], Any]
    call: Callable[..., Any]  # (pipe, number of trajectories, generator, **more) -> tensor
    shape: tuple[int, ...]  # of a trajectory
    schedulers: tuple[str, ...]  # the VARIANTS that it takes; the first is one that it is used with
    axis: int = 0
    layout: Any = None
    rows: int = 3

    def graph(self, coupled: bool) -> ps.FactorGraph:
        """All rows equal, or no factor at all."""
        graph = ps.FactorGraph()
        for k in range(self.rows):
            graph.add_trajectory(f"row {k}", self.shape)
            if coupled and k:
                graph.add_factor(("same", k), [f"row {k - 1}", f"row {k}"], ps.Equality())
        return graph

    def run(self, pipe: Any, seed: int = 0, **more: Any) -> torch.Tensor:
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(seed)  # some schedulers draw from the global generator
            return self.call(pipe, self.rows, torch.Generator().manual_seed(seed), **more)

    def attach(self, pipe: Any, graph: ps.FactorGraph, **more: Any) -> Any:
        return ps.attach(pipe, graph, axis=self.axis, layout=self.layout, **more)


# ---------------------------------------------------------------------------------------------- schedulers

_NO_CLIP = {"clip_sample": False}
_V = {"prediction_type": "v_prediction"}
_RECTIFIED = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPM": ("DDPM", _NO_CLIP),
    "DDPM clip": ("DDPM", {"clip_sample": True}),
    "DDPM sample": ("DDPM", {"prediction_type": "sample", **_NO_CLIP}),
    "DDPM v": ("DDPM", {**_V, **_NO_CLIP}),
    "DDPM thresholding": ("DDPM", {"thresholding": True, "sample_max_value": 1.5}),
    "DDPM learned": ("DDPM", {"variance_type": "learned_range", "thresholding": True}),
    "DDPMParallel": ("DDPMParallel", _NO_CLIP),
    "DDIM": ("DDIM", _NO_CLIP),
    "DDIM clip": ("DDIM", {"clip_sample": True, "clip_sample_range": 0.8}),
    "DDIM sample": ("DDIM", {"prediction_type": "sample", **_NO_CLIP}),
    "DDIM v": ("DDIM", {**_V, **_NO_CLIP}),
    "DDIM v zero snr": (
        "DDIM",
        {**_V, **_NO_CLIP, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    "DDIM thresholding": ("DDIM", {"thresholding": True, "sample_max_value": 1.5}),
    "DDIMParallel": ("DDIMParallel", _NO_CLIP),
    "PNDM": ("PNDM", {}),
    "PNDM skip": ("PNDM", {"skip_prk_steps": True}),
    "LCM": ("LCM", {}),
    "TCD": ("TCD", {}),
    "Euler": ("EulerDiscrete", {}),
    "Euler v": ("EulerDiscrete", {**_V, "timestep_spacing": "leading"}),
    "Euler sample": ("EulerDiscrete", {"prediction_type": "sample"}),
    "Euler Karras": ("EulerDiscrete", {"use_karras_sigmas": True}),
    "Euler ancestral": ("EulerAncestralDiscrete", {}),
    "Euler ancestral v": ("EulerAncestralDiscrete", _V),
    "Heun": ("HeunDiscrete", {}),
    "Heun v": ("HeunDiscrete", _V),
    "Heun clip": ("HeunDiscrete", {"clip_sample": True}),
    "LMS": ("LMSDiscrete", {}),
    "LMS v": ("LMSDiscrete", _V),
    "KDPM2": ("KDPM2Discrete", {}),
    "KDPM2 ancestral": ("KDPM2AncestralDiscrete", {}),
    "DPM++ SDE": ("DPMSolverSDE", {"noise_sampler_seed": 0}),
    "DPM++ 2M": ("DPMSolverMultistep", {}),
    "DPM++ 2M v": ("DPMSolverMultistep", _V),
    "DPM++ 3M Karras": ("DPMSolverMultistep", {"solver_order": 3, "use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM 2M": ("DPMSolverMultistep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "DPM++ 2M thresholding": ("DPMSolverMultistep", {"thresholding": True, "sample_max_value": 1.5}),
    "DPM++ 2S": ("DPMSolverSinglestep", {"lower_order_final": True}),
    "DEIS": ("DEISMultistep", {}),
    "UniPC": ("UniPCMultistep", {}),
    "UniPC v": ("UniPCMultistep", _V),
    "UniPC epsilon": ("UniPCMultistep", {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    "SA": ("SASolver", {}),
    "EDM Euler": ("EDMEuler", {}),
    "EDM DPM++ 2M": ("EDMDPMSolverMultistep", {}),
    "CogVideoX DDIM": ("CogVideoXDDIM", {**_V, "timestep_spacing": "trailing"}),
    "CogVideoX DPM": ("CogVideoXDPM", {**_V, "timestep_spacing": "trailing"}),
    "flow Euler": ("FlowMatchEulerDiscrete", {}),
    "flow Euler shift": ("FlowMatchEulerDiscrete", {"shift": 3.0}),
    "flow Euler stochastic": ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}),
    "flow Euler Karras": ("FlowMatchEulerDiscrete", {"use_karras_sigmas": True}),
    "flow Heun": ("FlowMatchHeunDiscrete", {}),
    "flow LCM": ("FlowMatchLCM", {}),
    "LTX ancestral": ("LTXEulerAncestralRF", {}),
    "flow DPM++ 2M": ("DPMSolverMultistep", {**_RECTIFIED, "flow_shift": 3.0}),
    "flow DPM++ 2S": ("DPMSolverSinglestep", {**_RECTIFIED, "lower_order_final": True}),
    "flow DEIS": ("DEISMultistep", _RECTIFIED),
    "flow UniPC": ("UniPCMultistep", {**_RECTIFIED, "flow_shift": 3.0}),
    "flow SA": ("SASolver", _RECTIFIED),
}


def scheduler(variant: str, **more: Any) -> Any:
    name, config = VARIANTS[variant]
    return getattr(diffusers, f"{name}Scheduler")(**config, **more)


def _variants(*names: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """All variants of these schedulers."""
    return tuple(v for v, (name, _) in VARIANTS.items() if name in names and v not in without)


# What pipelines take: a pipeline's own loop decides.
_TIMESTEPS = _variants("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "PNDM", "LCM", "TCD", "CogVideoXDDIM",
                       without=("DDPM learned",))  # fmt: skip
_SIGMAS = _variants("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete",
                    "KDPM2AncestralDiscrete", "DPMSolverSDE", "EDMEuler", "EDMDPMSolverMultistep")  # fmt: skip
_SOLVERS = _variants("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver")
_FLOW = _variants("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM", "LTXEulerAncestralRF")
SCALED = (*_TIMESTEPS, *_SIGMAS, *_SOLVERS)  # have init_noise_sigma
ANY = (*_FLOW, *SCALED)
WAN = (*_FLOW, *_SIGMAS, *_SOLVERS)  # steps by index, not by the value of the timestep
FLUX = _variants("FlowMatchEulerDiscrete", "FlowMatchLCM") + ("flow UniPC",)  # gives sigmas of its own
IF = _variants("DDPM", "DDPMParallel", "DPMSolverMultistep", "DPMSolverSinglestep", "SASolver")  # variance_type
SEEDED = tuple(  # steps with generator=
    v for v in ANY
    if "generator" in inspect.signature(getattr(diffusers, f"{VARIANTS[v][0]}Scheduler").step).parameters
)  # fmt: skip
COGVIDEO = ("CogVideoX DPM", *SCALED)
CLIPPED_AGAIN = _variants("DDIM", "DDIMParallel", "CogVideoXDDIM")  # steps with use_clipped_model_output=


def _from(first: str, variants: tuple[str, ...]) -> tuple[str, ...]:
    return (first, *(v for v in variants if v != first))


# ----------------------------------------------------------------------------------------------- pipelines


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _tiny(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _seeded(build: Callable[[], Any]) -> Callable[[], Any]:
    """The same weights in every process, and one pipeline per process: a test sets the scheduler it wants."""

    @functools.lru_cache(maxsize=1)
    def built() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _tiny(build())

    return built


def _unet(**more: Any) -> Any:
    config = {
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
    }
    return diffusers.UNet2DConditionModel(**{**config, **more})


def _embeds(pipe: Any, n: int, tokens: int = 7, width: int = 8, guided: bool = True, **more: Any) -> dict[str, Any]:
    """Text embeddings, different for every trajectory."""
    dtype = next(m for m in (getattr(pipe, "unet", None), getattr(pipe, "transformer", None)) if m is not None).dtype
    out = {"prompt_embeds": _randn(n, tokens, width, seed=1), **more}
    if guided:
        out["negative_prompt_embeds"] = _randn(1, tokens, width, seed=2).expand(n, -1, -1)
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in out.items()}


def _first(result: Any) -> torch.Tensor:
    return result[0]


def _stable_diffusion() -> Any:
    return diffusers.StableDiffusionPipeline(
        None, None, None, _unet(), scheduler("DDIM", steps_offset=1), None, None, requires_safety_checker=False
    )


def _call(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    given = {
        "height": 64, "width": 64, "num_inference_steps": STEPS, "output_type": "latent", "return_dict": False,
        "guidance_scale": 3.0, "generator": generator, **_embeds(pipe, n), **more,
    }  # fmt: skip
    return _first(pipe(**given))


def _sdxl() -> Any:
    unet = _unet(
        addition_embed_type="text_time", addition_time_embed_dim=2, projection_class_embeddings_input_dim=12 + 5
    )
    return diffusers.StableDiffusionXLPipeline(
        None, None, None, None, None, unet, scheduler("Euler"), add_watermarker=False
    )


def _call_sdxl(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    pooled = {"pooled_prompt_embeds": _randn(n, 5, seed=3), "negative_pooled_prompt_embeds": _randn(n, 5, seed=4)}
    return _call(pipe, n, generator, **{k: v.to(pipe.unet.dtype) for k, v in pooled.items()}, **more)


def _sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=5, out_channels=4,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer, scheduler("flow Euler"), None, None, None, None, None, None, None
    )


def _call_sd3(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    dtype = pipe.transformer.dtype
    pooled = {"pooled_prompt_embeds": _randn(n, 5, seed=3), "negative_pooled_prompt_embeds": _randn(n, 5, seed=4)}
    return _call(pipe, n, generator, **{k: v.to(dtype) for k, v in pooled.items()}, **more)


def _flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=5, axes_dims_rope=[2, 2, 4], guidance_embeds=True,
    )  # fmt: skip
    return diffusers.FluxPipeline(scheduler("flow Euler"), None, None, None, None, None, transformer)


def _call_flux(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    embeds = _embeds(pipe, n, guided=False, pooled_prompt_embeds=_randn(n, 5, seed=3))
    given = {
        "height": 64, "width": 64, "num_inference_steps": STEPS, "output_type": "latent", "return_dict": False,
        "generator": generator, **embeds, **more,
    }  # fmt: skip
    return _first(pipe(**given))


def _pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=2, caption_channels=8,
        in_channels=4, out_channels=8, cross_attention_dim=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
    )  # fmt: skip
    return diffusers.PixArtAlphaPipeline(None, None, None, transformer, scheduler("DPM++ 2M"))


def _call_pixart(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    mask = torch.ones(n, 7)
    return _call(
        pipe, n, generator, prompt_attention_mask=mask, negative_prompt_attention_mask=mask, negative_prompt=None,
        use_resolution_binning=False, **more,
    )  # fmt: skip


def _deepfloyd() -> Any:
    unet = _unet(
        in_channels=3, out_channels=6, sample_size=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    return diffusers.IFPipeline(
        None, None, unet, scheduler("DDPM learned"), None, None, None, requires_safety_checker=False
    )


def _call_deepfloyd(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    given = {
        "height": 8, "width": 8, "num_inference_steps": STEPS, "output_type": "pt", "return_dict": False,
        "generator": generator, **_embeds(pipe, n), **more,
    }  # fmt: skip
    return _first(pipe(**given))


def _unconditional(kind: str) -> Callable[[], Any]:
    def build() -> Any:
        unet = diffusers.UNet2DModel(
            block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, sample_size=8, in_channels=3,
            out_channels=3, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        return getattr(diffusers, f"{kind}Pipeline")(unet, scheduler(kind))

    return build


def _call_unconditional(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    """The pictures before they are clamped, which the pipeline does not return: what the last step left."""
    left: list[torch.Tensor] = []
    unwatched = pipe.scheduler.step

    @functools.wraps(unwatched)
    def step(*args: Any, **kwargs: Any) -> Any:
        result = unwatched(*args, **kwargs)
        left.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    pipe.scheduler.step = step
    try:
        pipe(batch_size=n, num_inference_steps=STEPS, generator=generator, output_type="pt", **more)
    finally:
        del pipe.scheduler.step
    return left[-1]


def _controlnet() -> Any:
    unet = _unet()
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4,) * 4)
    for parameter in control.parameters():  # its zero convolutions would leave it without a say
        torch.nn.init.normal_(parameter, std=0.2)
    return diffusers.StableDiffusionControlNetPipeline(
        None, None, None, unet, control, scheduler("UniPC"), None, None, requires_safety_checker=False
    )


def _call_controlnet(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    image = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    return _call(pipe, n, generator, image=image, **more)


def _image_to_image() -> Any:
    return diffusers.StableDiffusionImg2ImgPipeline(
        _vae(), None, None, _unet(), scheduler("DDIM", steps_offset=1), None, None, requires_safety_checker=False
    )


def _vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=[4] * 4, down_block_types=["DownEncoderBlock2D"] * 4, latent_channels=4,
        up_block_types=["UpDecoderBlock2D"] * 4, norm_num_groups=2, layers_per_block=1,
    )  # fmt: skip


def _call_image_to_image(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    image = _randn(1, 4, 8, 8, seed=6).expand(n, -1, -1, -1).to(pipe.unet.dtype)  # latents need no encoder
    given = {"image": image, "strength": 0.75, "num_inference_steps": 6, "height": None, "width": None, **more}
    given = {k: v for k, v in given.items() if v is not None}
    return _without_size(pipe, n, generator, **given)


def _without_size(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    given = {
        "output_type": "latent", "return_dict": False, "guidance_scale": 3.0, "generator": generator,
        **_embeds(pipe, n), **more,
    }  # fmt: skip
    return _first(pipe(**given))


def _inpaint() -> Any:
    return diffusers.StableDiffusionInpaintPipeline(
        _vae(), None, None, _unet(), scheduler("DDIM", steps_offset=1), None, None, requires_safety_checker=False
    )


def _call_inpaint(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :40] = 1
    return _call(pipe, n, generator, image=image, mask_image=mask, strength=1.0, **more)


def _animatediff() -> Any:
    adapter = diffusers.MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    return diffusers.AnimateDiffPipeline(None, None, None, _unet(), adapter, scheduler("DDIM"))


def _call_animatediff(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    return _call(pipe, 1, generator, num_frames=n, **more)


def _video_diffusion() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=8,
        num_attention_heads=2, projection_class_embeddings_input_dim=24, addition_time_embed_dim=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=[32] * 4, down_block_types=["DownEncoderBlock2D"] * 4, latent_channels=4,
        layers_per_block=1,
    )  # fmt: skip
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=8, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=64,
                         intermediate_size=8, patch_size=16)
    )  # fmt: skip
    processor = CLIPImageProcessor(crop_size=64, size=64)
    start = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=700.0, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        interpolation_type="linear", steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(vae, encoder, unet, start, processor)


def _call_video_diffusion(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    given = {
        "image": image, "num_frames": n, "height": 64, "width": 64, "num_inference_steps": STEPS,
        "output_type": "latent", "return_dict": False, "generator": generator, **more,
    }  # fmt: skip
    return _first_of_videos(pipe(**given))


def _first_of_videos(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result[0]


def _cogvideo() -> Any:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=8, num_layers=1, sample_width=8, sample_height=8, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=7,
    )  # fmt: skip
    return diffusers.CogVideoXPipeline(None, None, None, transformer, scheduler("CogVideoX DDIM"))


def _call_cogvideo(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    return _call(pipe, 1, generator, num_frames=4 * n - 3, max_sequence_length=7, **more)


def _wan() -> Any:
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8,
        freq_dim=16, ffn_dim=16, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    return diffusers.WanPipeline(None, None, None, scheduler("flow UniPC"), transformer)


def _call_wan(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    return _call(pipe, 1, generator, num_frames=4 * n - 3, max_sequence_length=7, **more)


def _sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
        sample_size=8,
    )  # fmt: skip
    return diffusers.SanaPipeline(None, None, None, transformer, scheduler("flow DPM++ 2M"))


def _call_sana(pipe: Any, n: int, generator: torch.Generator, **more: Any) -> torch.Tensor:
    mask = torch.ones(n, 7)
    return _call(
        pipe, n, generator, height=256, width=256, prompt_attention_mask=mask, negative_prompt=None,
        negative_prompt_attention_mask=mask, use_resolution_binning=False, **more,
    )  # fmt: skip


SHAPE = (4, 8, 8)
PIPELINES = {
    name: tiny._replace(build=_seeded(tiny.build))
    for name, tiny in {
        "SD": Tiny(_stable_diffusion, _call, SHAPE, _from("DDIM", SCALED)),
        "SDXL": Tiny(_sdxl, _call_sdxl, SHAPE, _from("Euler", SCALED)),
        "SD3": Tiny(_sd3, _call_sd3, SHAPE, ANY),
        "Flux": Tiny(_flux, _call_flux, SHAPE, FLUX, layout=ps.Tokens(SHAPE)),
        "PixArt": Tiny(_pixart, _call_pixart, SHAPE, _from("DPM++ 2M", SCALED)),
        "IF": Tiny(_deepfloyd, _call_deepfloyd, (3, 8, 8), _from("DDPM learned", IF)),
        "DDPM": Tiny(_unconditional("DDPM"), _call_unconditional, (3, 8, 8), SEEDED),
        "DDIM": Tiny(_unconditional("DDIM"), _call_unconditional, (3, 8, 8), CLIPPED_AGAIN),
        "ControlNet": Tiny(_controlnet, _call_controlnet, SHAPE, _from("UniPC", SCALED)),
        "img2img": Tiny(_image_to_image, _call_image_to_image, SHAPE, _from("DDIM", SCALED)),
        "inpaint": Tiny(_inpaint, _call_inpaint, SHAPE, _from("PNDM skip", SCALED)),
        "AnimateDiff": Tiny(_animatediff, _call_animatediff, SHAPE, _from("LMS", SCALED), axis=2),
        "SVD": Tiny(_video_diffusion, _call_video_diffusion, SHAPE, _from("Euler v", SCALED), axis=1),
        "CogVideoX": Tiny(_cogvideo, _call_cogvideo, SHAPE, _from("CogVideoX DDIM", COGVIDEO), axis=1),
        "Wan": Tiny(_wan, _call_wan, SHAPE, _from("flow UniPC", WAN), axis=2),
        "Sana": Tiny(_sana, _call_sana, SHAPE, _from("flow DPM++ 2M", ANY)),
    }.items()
}
