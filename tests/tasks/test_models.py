"""Models by name: embedded ones, and a Stable Diffusion pipeline with random weights."""

from __future__ import annotations

import dataclasses
import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import zoo
from pgm_sync.errors import ParameterError, UnknownNameError, UnsupportedError
from pgm_sync.tasks import photos
from pgm_sync.tasks.models import even_scheduler, from_pipeline, load_model


def test_prompts_of_an_embedded_denoiser_are_its_classes():
    model = load_model("photo-patches")
    assert model.condition(["flower", "china"]).tolist() == [1, 0]
    assert model.condition([None, None]) is None
    with pytest.raises(UnknownNameError, match="photo-patches knows no 'mars'; its classes are 'china'"):
        model.condition(["mars"])
    x = torch.zeros(1, 3, 24, 24)
    assert model.decode(x) is x


def test_names_that_lead_nowhere():
    with pytest.raises(UnknownNameError, match="'patches' is no embedded denoiser .* and no checkpoint"):
        load_model("patches")
    with pytest.raises(UnsupportedError, match="closed form"):
        load_model("photo-patches", guidance=2)
    with pytest.raises(UnsupportedError, match="DDPMPipeline is not of Stable Diffusion's kind"):
        from_pipeline(diffusers.DDPMPipeline(None, diffusers.DDPMScheduler()))


def test_steps_are_even_in_the_logarithm_of_the_ratio():
    scheduler = even_scheduler(-9, 10)
    scheduler.set_timesteps(20)
    kept = scheduler.alphas_cumprod.double()[scheduler.timesteps]
    log_snr = torch.logit(kept)
    assert log_snr[0].item() == pytest.approx(-9, abs=1e-3)
    assert torch.allclose(log_snr.diff(), torch.full((19,), 0.95, dtype=torch.float64), atol=0.01)
    with pytest.raises(ParameterError, match="low=3 must lie below"):
        even_scheduler(3, 1)


def test_the_spread_of_mean_colours_survives_few_steps():
    """Which is decided at a signal-to-noise ratio of 1 / (pixels * variance); against exact draws, n = 400."""
    model, n = load_model("photo-patches"), 400
    graph = ps.FactorGraph()
    graph.add_trajectory("x", model.shape)

    def spread(x):
        return x.mean((1, 2, 3)).std().item()

    made = ps.sample(graph, model.denoiser, model.scheduler, 20, n, progress=False).samples["x"]
    exact = zoo.load("photo-patches").sample(2000, generator=torch.Generator().manual_seed(0))
    error = spread(exact) / math.sqrt(2 * n)
    assert spread(made) == pytest.approx(spread(exact), abs=4 * error)


def test_a_pipeline_as_a_model_samples_what_the_pipeline_does(pipe):
    model = from_pipeline(pipe, guidance=3.0)
    assert (model.shape, model.scale) == ((4, 8, 8), 2)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = ["a house", "two trees"]
    stock = pipe(prompts, latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="latent").images
    graph = ps.FactorGraph()
    graph.add_trajectory("x", model.shape)
    made = ps.sample(
        graph, model.denoiser, model.scheduler, 3, 2, conditions={"x": model.condition(prompts)}, progress=False,
        initial_noise={"x": noise},
    ).samples["x"]  # fmt: skip
    assert torch.allclose(made, stock, atol=1e-4 * stock.abs().max())
    pictures = model.decode(made)
    assert pictures.shape == (2, 3, 16, 16)
    assert model.encode(pictures).shape == (2, 4, 8, 8)


def test_contents_are_encoded_a_few_at_a_time(pipe, folder, monkeypatch):
    """So that thousands of large crops need not be held; each content is that of its own crop."""
    monkeypatch.setattr(photos, "LATENTS", 40)
    sizes = []

    def encode(pictures):
        sizes.append(len(pictures))
        return own.encode(pictures)

    own = from_pipeline(pipe)
    model = dataclasses.replace(own, encode=encode)
    found, labels = photos.contents(model, (8, 12), 2000, "train", torch.Generator().manual_seed(0), folder=folder)
    crops, same = photos.crops((3, 16, 24), 40, "train", torch.Generator().manual_seed(0), folder=folder)
    assert found.shape == (40, 4, 8, 12)
    assert max(sizes) == photos.AT_ONCE < 20 == (labels == 0).sum()
    assert torch.equal(labels, same)
    assert torch.allclose(found, own.encode(crops), atol=1e-5)
    closed, _ = photos.contents(model, (8, 12), 4, "train", torch.Generator().manual_seed(0), folder=folder, margin=8)
    wide, _ = photos.crops((3, 16, 40), 4, "train", torch.Generator().manual_seed(0), folder=folder)
    assert torch.allclose(closed, own.encode(photos.close(wide, 16)), atol=1e-5)
