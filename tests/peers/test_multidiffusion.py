"""MultiDiffusion against diffusers' own panorama pipeline: the same numbers, to the last bit."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers.pipelines.deprecated import StableDiffusionPanoramaPipeline

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.denoisers.predicting import PredictingDenoiser
from tests.pipelines import PIPELINES, scheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array")
VARIANTS = [
    "DDIM",
    "DDIM clip",
    "PNDM skip",
    "Euler",
    "Heun",
    "LMS",
    "DPM++ 2M",
    "DPM++ 3M Karras",
    "DEIS",
    "UniPC",
]
QUICK = [
    ("DDIM", False),
    ("DDIM", True),
    ("DPM++ 2M", False),
    ("UniPC", True),
    ("LMS", True),
    ("Euler", False),
]
CASES = [
    pytest.param(v, wrap, marks=() if (v, wrap) in QUICK else pytest.mark.slow)
    for v in VARIANTS
    for wrap in (False, True)
]


class Guided(PredictingDenoiser):
    """Classifier-free guidance as the pipeline computes it: both halves in one batch."""

    def __init__(self, unet, shape, negative, positive, scale):
        super().__init__(shape, "epsilon")
        self.unet, self.text, self.scale = unet, torch.cat([negative, positive]), scale

    def predict(self, noisy, level, condition=None):
        (row,) = level.scale_model_input(noisy)
        free, given = self.unet(
            torch.stack([row, row]), level.timestep, encoder_hidden_states=self.text
        ).sample
        return (free + self.scale * (given - free))[None]


def panorama(unet, variant, wrap, guidance, latents, embeds):
    pipe = StableDiffusionPanoramaPipeline(
        None, None, None, unet, scheduler(variant, steps_offset=1), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.get_views = functools.partial(pipe.get_views, window_size=8, stride=4)
    return pipe(
        height=8 * latents.shape[2], width=8 * latents.shape[3], latents=latents.clone(), circular_padding=wrap,
        num_inference_steps=6, guidance_scale=guidance, output_type="latent", return_dict=False, **embeds,
    )[0]  # fmt: skip


def sampled(graph, denoiser, variant, latents, condition=None):
    result = peers.sample(
        "multidiffusion", graph, denoiser, scheduler(variant, steps_offset=1), 6,
        conditions=condition, initial_noise={"canvas": latents}, progress=False,
    )  # fmt: skip
    return result.samples["canvas"]


@pytest.fixture
def unet():
    return PIPELINES["SD"].build().unet


@pytest.fixture
def embeds(generator):
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {name: torch.randn(1, 7, 8, generator=generator) for name in names}


@pytest.mark.parametrize(("variant", "wrap"), CASES)
def test_it_is_the_panorama_pipeline(variant, wrap, unet, embeds, generator):
    """Every view has a scheduler with a memory of its own there, and here; sums in one order, divided once."""
    latents = torch.randn(1, 4, 8, 20, generator=generator)
    denoiser = ps.DiffusersDenoiser(unet, (4, 8, 8), condition_argument="encoder_hidden_states")
    graph = ps.wide_canvas((4, 8, 20), (8, 8), 4, wrap=wrap)
    with torch.inference_mode():
        expected = panorama(unet, variant, wrap, 1.0, latents, embeds)
        found = sampled(graph, denoiser, variant, latents, embeds["prompt_embeds"])
    assert (found - expected).abs().max() == 0
    assert expected.std() > 0.1


@pytest.mark.parametrize("wrap", [False, True])
def test_with_guidance_and_several_rows_of_views(wrap, unet, embeds, generator):
    """Circular panoramas have one row: the pipeline fails on more."""
    latents = torch.randn(1, 4, 8 if wrap else 12, 16, generator=generator)
    denoiser = Guided(unet, (4, 8, 8), embeds["negative_prompt_embeds"], embeds["prompt_embeds"], 3.0)
    graph = ps.wide_canvas(latents.shape[1:], (8, 8), 4, wrap=wrap)
    assert len(graph.trajectories) == (4 if wrap else 6)
    with torch.inference_mode():
        expected = panorama(unet, "DPM++ 2M", wrap, 3.0, latents, embeds)
        found = sampled(graph, denoiser, "DPM++ 2M", latents)
    assert (found - expected).abs().max() == 0


def test_regions_count_by_their_masks(generator):
    """MultiDiffusion's regions: sums of masked states over the sum of masks, step by step."""
    import diffusers

    masks = torch.rand(3, 1, 4, 4, generator=generator, dtype=torch.float64)
    graph = ps.FactorGraph()
    graph.add_variable("canvas", (1, 4, 4))
    denoisers = {}
    for k in range(3):
        graph.add_trajectory(k, (1, 4, 4))
        graph.add_factor(("see", k), [k, "canvas"], ps.Equality(masks[k] / masks.sum(0)))
        denoisers[k] = ps.FunctionDenoiser(lambda x, a, s, k=k: (x + k).tanh(), (1, 4, 4), "epsilon")
    noise = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
    own = diffusers.DDIMScheduler(clip_sample=False)
    found = peers.sample(
        "multidiffusion", graph, denoisers, own, 10, 2, initial_noise={"canvas": noise}, dtype=torch.float64,
        progress=False,
    ).samples  # fmt: skip
    own.set_timesteps(10)
    z = noise
    for t in own.timesteps:
        steps = [own.step((z + k).tanh(), t, z).prev_sample for k in range(3)]
        z = sum(mask * x for mask, x in zip(masks, steps, strict=True)) / masks.sum(0)
    assert torch.allclose(found["canvas"], z, atol=1e-12)
    assert all(torch.equal(found[k], found["canvas"]) for k in range(3))
