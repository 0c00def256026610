"""Textures by networks and by checkpoints: latents of views, a depth ControlNet, prompts."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, UnsupportedError
from pgm_sync.tasks.models import ControlledUNet, from_pipeline, load_model
from pgm_sync.tasks.run import sample_method, write_run
from pgm_sync.tasks.texture import cast_all, contents, depth_image
from pgm_sync.tasks.texture.task import Texture


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(contents, "LEARN_FROM", 140)
    monkeypatch.setattr(contents, "HELD_OUT", 40)
    monkeypatch.setattr(contents, "OF_LATENTS", 20)


@pytest.fixture(scope="session")
def controlled(pipe):
    """The pipeline with a depth ControlNet of random weights."""
    torch.manual_seed(1)
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 4))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made = diffusers.StableDiffusionControlNetPipeline(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, net.eval(), pipe.scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def test_a_pipeline_with_a_controlnet_samples_what_the_pipeline_does(controlled):
    """Guided: the control image stays where the text goes."""
    model = from_pipeline(controlled, guidance=3.0)
    assert model.controlled
    draws = torch.Generator().manual_seed(0)
    noise, control = torch.randn(2, 4, 8, 8, generator=draws), torch.rand(2, 3, 16, 16, generator=draws)
    prompts = ["a mug", "two mugs"]
    stock = controlled(
        prompts, control, latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="latent"
    ).images
    graph = ps.FactorGraph()
    graph.add_trajectory("x", model.shape)
    given = {"x": {**model.condition(prompts), "controlnet_cond": control}}
    made = ps.sample(
        graph, model.denoiser, model.scheduler, 3, 2, conditions=given, progress=False, initial_noise={"x": noise}
    ).samples["x"]
    assert torch.allclose(made, stock, atol=1e-4 * stock.abs().max())
    other = {"x": {**given["x"], "controlnet_cond": 1 - control}}
    moved = ps.sample(
        graph, model.denoiser, model.scheduler, 3, 2, conditions=other, progress=False, initial_noise={"x": noise}
    ).samples["x"]
    assert not torch.allclose(moved, made, atol=1e-2)


def test_control_of_what_has_none(controlled):
    with pytest.raises(UnsupportedError, match="photo-patches knows no ControlNet"):
        load_model("photo-patches", control="organisation/depth")
    several = diffusers.MultiControlNetModel([controlled.controlnet, controlled.controlnet])
    with pytest.raises(UnsupportedError, match="MultiControlNetModel is not one ControlNet"):
        ControlledUNet(controlled.unet, several)


def test_a_texture_by_a_checkpoint(controlled, folder, few, tmp_path):
    """Latents of views share those of the atlas; the result is of decoded views, and colours its files."""
    task = Texture(model=from_pipeline(controlled, guidance=2.0), data=folder, prompt="a mug", views=6)
    assert task.scene.graph.shape("view 0") == (4, 8, 8)
    given = task.conditions([0, 1])
    fine = cast_all(task.surface, task.cameras)
    assert given["view 1"]["controlnet_cond"].shape == (2, 3, 16, 16)
    coarse = torch.nn.functional.avg_pool2d(given["view 1"]["controlnet_cond"][:1, :1], 2)
    seen = torch.from_numpy(fine["view 1"].visible)
    assert torch.corrcoef(torch.stack([coarse[0, 0][seen], depth_image(fine["view 1"])[seen]]))[0, 1] > 0.9
    sides = ("front", "side", "side", "back", "side", "side")
    assert task._texts == {f"view {k}": f"a mug, {side} view" for k, side in enumerate(sides)}

    results = sample_method(task, "learned", 2, 2, progress=False)
    assert results.content.shape == (2, 6, 3, 16, 16)
    values = {m.name: m.of(results).value for m in task.measures() if m.name != "back and front"}
    assert values["disagreement"] == pytest.approx(0, abs=1e-8)
    assert values["energy distance"] > 0
    alone = sample_method(task, "independent", 2, 2, progress=False)
    assert {m.name: m.of(alone).value for m in task.measures() if m.name == "disagreement"}["disagreement"] > 1e-3
    assert task.pictures(results.content).shape == (2, 3, 32, 128)
    names = {path.name for path in write_run(task, "learned", results, 2, tmp_path / "run")}
    assert {"mesh.glb", "turntable.gif"} <= names
    with pytest.raises(ParameterError, match="needs pictures to learn from: data=FOLDER"):
        _ = Texture(model=from_pipeline(controlled)).scene


def test_texels_of_decoded_views_are_those_of_the_pictures_they_show(controlled, folder, few):
    """One grey per picture of the folder: every texel has it, whatever the view, and textures are all of it."""
    task = Texture(model=from_pipeline(controlled), data=folder, views=4)
    views = torch.linspace(-0.8, 0.8, 5)[:, None, None, None, None].expand(5, 4, 3, 16, 16)
    texels = task.contents.texels(views)
    assert texels.shape == (5, 3, len(task.atlas.shown))
    assert torch.allclose(texels, views[:, 0, :, 0, :1].expand_as(texels), atol=1e-6)
    shown = task.textures(views)
    assert torch.allclose(shown, (views[:, 0, :, :1, :1] / 2 + 0.5).expand_as(shown), atol=1e-6)


def test_what_checkpoints_learn_is_of_simulated_textures(controlled, folder, few):
    """Pictures of the folder have one grey each: so do all views of a texture, before they are encoded."""
    task = Texture(model=from_pipeline(controlled), data=folder, views=3)
    shown, photos = task.contents._simulated(8, "train", torch.Generator().manual_seed(0))
    seen = torch.stack([torch.from_numpy(v.visible) for v in task.contents.fine.values()])
    greys = torch.stack([shown[k, :, 0][seen].mean() for k in range(8)])
    for k in photos.unique():
        assert greys[photos == k].std() < 0.03
    assert greys.std() > 0.1
    data, groups = task.contents.joint(torch.Generator().manual_seed(0))
    assert list(data) == ["view 0", "view 1", "view 2"]
    assert (data["view 0"].shape, len(groups)) == ((20, 4, 8, 8), 20)
    assert np.isfinite(ps.correlations(task.scene.learned)[0].rho)


def test_a_class_is_what_simulated_textures_are_of(few):
    task = Texture(prompt="rocket", views=4)
    assert set(task.conditions([3])["view 2"].tolist()) == {5}
    data, photos = task.contents.joint(torch.Generator().manual_seed(0))
    other, _ = Texture(prompt="flower", views=4).contents.joint(torch.Generator().manual_seed(0))
    assert photos.unique().tolist() == [0]
    assert not torch.allclose(data["atlas"].mean(0), other["atlas"].mean(0), atol=0.1)
    results = sample_method(task, "learned", 4, 3, progress=False)
    assert np.isfinite(task.measures()[0].of(results).value)


def test_renders_are_read_by_clip(few, clip):
    task = Texture(prompt="flower", views=4, clip=clip)
    results = sample_method(task, "learned", 2, 2, progress=False)
    sides = (task.pictures(results.content) * 2 - 1).unflatten(-1, (4, 48)).unbind(-2)
    expected = torch.stack([clip(side) @ clip.texts(["flower"])[0] for side in sides]).mean().item()
    found = {measure.name: measure.of(results).value for measure in task.measures()}
    assert found["CLIP"] == pytest.approx(expected, abs=1e-6)
    assert "CLIP" not in [measure.name for measure in Texture(views=4, clip=clip).measures()]
