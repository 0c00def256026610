"""Regions and edits with networks, checkpoints and pictures of one's own, and regions derived from prompts."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.errors import ParameterError
from pgm_sync.tasks import region_pictures
from pgm_sync.tasks.edit import Edit
from pgm_sync.tasks.mask import Mask
from pgm_sync.tasks.models import from_pipeline
from pgm_sync.tasks.regions import derived_region
from pgm_sync.tasks.run import sample_method


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(region_pictures, "LEARN_FROM", 280)
    monkeypatch.setattr(region_pictures, "HELD_OUT", 60)
    monkeypatch.setattr(region_pictures, "READ", 700)


def value(task, name, results):
    return next(measure for measure in task.measures() if measure.name == name).of(results).value


def test_regions_of_an_embedded_network():
    task = tasks.load("mask", model="photo-unet", prompts=("gravel", "flower", "china"))
    results = sample_method(task, "learned", 8, 4, progress=False)
    assert results.content.shape == (8, 3, 32, 32)
    assert [measure.name for measure in task.measures()] == ["mean colours", "prompts"]
    other = tasks.load("mask", model="photo-unet", prompts=("rocket", "coffee", "tissue"))
    assert value(task, "prompts", results) > value(other, "prompts", results)
    assert task.reference() is None


def test_what_is_learned_holds_around_the_prompts():
    """Each trajectory has the mean of its class, and correlations are of what is left."""
    task = tasks.load("mask", model="photo-unet", prompts=("china", "rocket"))
    data, _ = task.subject.data()
    contents, labels = task.subject._training
    for name, label in (("background", 0), ("region 1", 5)):
        assert torch.allclose(data[name].mean(0), contents[labels == label].mean(0), atol=1e-4)
        rest = data[name] - data[name].mean(0)
        for k in labels.unique():
            assert rest[labels == k].mean(0).abs().max() < 1e-4
    rows = ps.correlations(task.scene.learned)
    assert max(row.rho for row in rows) > 0.3  # one photograph's parts are bright together


def test_regions_of_a_checkpoint(pipe, folder):
    """Contents are latents of half the size; what the background says of a region is learned from a folder."""
    task = Mask(model=from_pipeline(pipe, guidance=2.0), data=folder, prompts=("sea", "boat", "isle"))
    assert task.scene.graph.shape("picture") == (4, 8, 8)
    results = sample_method(task, "learned", 2, 2, progress=False)
    assert task.pictures(results.content).shape == (2, 3, 16, 16)
    assert np.isfinite(value(task, "mean colours", results))
    rho = [abs(row.rho) for row in ps.correlations(task.scene.learned)]
    assert max(rho) > 0.3  # each picture of the folder has one grey, of which this network's norms leave a part
    with pytest.raises(ParameterError, match="needs pictures to learn from: data=FOLDER"):
        _ = Mask(model=from_pipeline(pipe)).scene


def test_an_edit_with_a_checkpoint(pipe, folder, tmp_path):
    Image.fromarray(np.full((48, 96, 3), 80, dtype="uint8")).save(tmp_path / "picture.png")
    model, prompts = from_pipeline(pipe), ("a sea", "a boat", "a whale")
    task = Edit(model=model, data=folder, prompts=prompts, source=str(tmp_path / "picture.png"))
    results = sample_method(task, "learned", 2, 3, progress=False)
    assert task.pictures(results.content).shape == (2, 3, 16, 16)
    alone = sample_method(task, "learned", 2, 3, progress=False, couple=False)
    known = "background"  # and so not moved by the region, whatever a network of random weights makes of that
    assert torch.allclose(results.samples[known], alone.samples[known], atol=1e-3)
    assert not torch.allclose(results.samples["region 1"], alone.samples["region 1"], atol=1e-2)
    assert value(task, "background", results) == pytest.approx(value(task, "background", alone), abs=0.1)
    assert value(task, "background SSIM", results) <= 1
    other = Edit(model=model, data=folder, prompts=prompts)  # a picture of the folder for every sample
    assert other.sources([0, 1]).shape == (2, 4, 8, 8)


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*requires torchvision")
@pytest.mark.parametrize("seed", range(4))
def test_a_derived_region_is_diffedits(pipe, seed):
    """Of diffusers' own pipeline, element by element, from the same noises."""
    edit = diffusers.StableDiffusionDiffEditPipeline(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, pipe.scheduler, None, None,
        diffusers.DDIMInverseScheduler(), requires_safety_checker=False,
    )  # fmt: skip
    edit.set_progress_bar_config(disable=True)
    content = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    theirs = edit.generate_mask(
        content, target_prompt="a dog", source_prompt="cats", num_maps_per_mask=6, mask_encode_strength=0.5,
        mask_thresholding_ratio=1.5, num_inference_steps=50, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    strength = (int(pipe.scheduler.timesteps[25]) + 0.5) / 1000
    model, draws = from_pipeline(pipe, guidance=3.0), torch.Generator().manual_seed(5)
    ours = derived_region(model, content[0], "cats", "a dog", draws, 6, strength, 1.5)
    assert 0 < ours.mean() < 1
    assert np.array_equal(ours.numpy(), theirs[0])


def test_an_edit_derives_its_region(pipe, folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype("uint8")
    Image.fromarray(noise).save(tmp_path / "picture.png")
    given = {"model": from_pipeline(pipe), "data": folder, "prompts": ("a sea", "cats", "a dog"), "region": "derived"}
    task = Edit(source=str(tmp_path / "picture.png"), **given)
    assert 0.02 < task.masks["region 1"].mean() < 0.9
    assert sample_method(task, "learned", 1, 2, progress=False).content.shape == (1, 4, 8, 8)
    with pytest.raises(ParameterError, match="is that of one picture: pass source=FILE"):
        Edit(**given)
    with pytest.raises(ParameterError, match="strength=1"):
        derived_region(task._model, task._source, "cats", "a dog", torch.Generator(), strength=1)


@pytest.fixture
def halves(tmp_path):
    """Masks of the left third, and of the right one, soft at their borders, and one that is nearly nothing."""
    across = np.linspace(0, 1, 60)[None].repeat(60, 0)
    shown = {"left": across < 1 / 3, "right": across > 2 / 3, "middle": abs(across - 0.5) < 0.3, "rest": across > 0.32}
    paths = {}
    for name, inside in {**shown, "dot": across < 0.01}.items():
        paths[name] = str(tmp_path / f"{name}.png")
        Image.fromarray((255 * inside).astype("uint8")).resize((48, 48)).save(paths[name])
    return paths


def test_regions_of_files(halves):
    task = tasks.load("mask", regions=(halves["left"], halves["right"]))
    assert list(task.masks) == ["background", "region 1", "region 2"]
    assert torch.allclose(sum(task.masks.values()), torch.ones(24, 24, dtype=torch.float64))
    assert task.masks["region 1"][:, :7].min() > 0.99
    assert task.masks["region 2"][:, :12].max() < 0.01
    over = tasks.load("mask", regions=(halves["left"], halves["middle"]))  # which share from .2 to .33
    assert over.masks["region 1"][12, 6] == over.masks["region 2"][12, 6] == 0.5
    assert over.masks["region 1"][12, 2] == over.masks["region 2"][12, 12] == 1
    assert over.masks["background"].min() >= 0
    results = sample_method(task, "learned", 3, 4, progress=False)
    assert results.content.shape == (3, 3, 24, 24)
    assert np.isfinite(value(task, "energy distance", results))


def test_masks_of_any_size_are_weights(tmp_path):
    """Resizing rounds a little beyond black and white."""
    y, x = np.mgrid[:256, :256]
    files = []
    for k, (across, down, radius) in enumerate(((65, 130, 60), (195, 100, 55))):
        inside = (x - across) ** 2 + (y - down) ** 2 < radius**2
        files.append(str(tmp_path / f"{k}.png"))
        Image.fromarray((255 * inside).astype("uint8")).save(files[-1])
    masks = torch.stack(list(tasks.load("mask", regions=tuple(files)).masks.values()))
    assert (masks.min(), masks.max()) == (0, 1)
    assert torch.allclose(masks.sum(0), torch.ones(24, 24, dtype=torch.float64))
    shares = masks.mean((1, 2))[1:] * 256**2 / np.pi
    assert shares.sqrt().tolist() == pytest.approx([60, 55], abs=1)


def test_regions_that_do_not_fit(halves):
    with pytest.raises(ParameterError, match="3 prompts for a background and 1 regions"):
        tasks.load("mask", regions=halves["left"])
    with pytest.raises(ParameterError, match="give the files of their masks"):
        tasks.load("mask", prompts=("china",) * 7)
    with pytest.raises(ParameterError, match=r"dot.png' covers 0 % of the picture"):
        _ = tasks.load("mask", prompts=("china", "flower"), regions=halves["dot"]).masks
    with pytest.raises(ParameterError, match=r"left.png' covers 0 % of the picture"):
        _ = tasks.load("mask", regions=(halves["left"], halves["left"])).masks
    with pytest.raises(ParameterError, match=r"the background that regions leave' covers 0 %"):
        _ = tasks.load("mask", regions=(halves["left"], halves["rest"])).masks
    with pytest.raises(ParameterError, match="an edit has one region: region=FILE"):
        tasks.load("edit", regions=halves["left"])


def test_regions_are_read_by_clip(pipe, folder, clip, halves):
    """The box around each region, and the whole picture, against cosines of what is shown."""
    task = Mask(model=from_pipeline(pipe), data=folder, prompts=("sea", "boat"), regions=halves["left"], clip=clip)
    results = sample_method(task, "learned", 2, 2, progress=False)
    shown = task.pictures(results.content) * 2 - 1
    inside = (task.masks["region 1"] > 0.5).any(0).nonzero().flatten()
    assert inside[0] == 0
    box = shown[..., : 2 * (int(inside[-1]) + 1)]
    sea, boat = clip.texts(["sea", "boat"])
    expected = (clip(shown) @ sea + clip(box) @ boat) / 2
    assert value(task, "CLIP", results) == pytest.approx(expected.mean().item(), abs=1e-6)
