"""The embedded networks: their files, their laws as denoisers, and how good they are against what their cards say."""

from __future__ import annotations

import json
import math
import re
import shutil

import diffusers
import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import pgm_sync as ps
from pgm_sync import zoo
from pgm_sync.denoisers import DiffusersDenoiser, GuidedDenoiser
from pgm_sync.errors import ParameterError, SavedFileError, ShapeError, UnknownNameError
from pgm_sync.levels import NoiseLevel
from pgm_sync.testing import DenoiserTests
from pgm_sync.zoo import cards, trained
from pgm_sync.zoo.classifier import Classifier, accuracy
from pgm_sync.zoo.data import STYLES, energy, physics_residual
from pgm_sync.zoo.recipes import NAMES, recipe

PICTURE_NAMES = ["glyph-unet", "photo-unet"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def denoisers():
    class Loaded(dict):
        def __missing__(self, name):
            self[name] = zoo.load(name)
            return self[name]

    return Loaded()


# Files


def test_every_recipe_has_its_files_and_the_other_way_round():
    assert trained.trained_names() == sorted(NAMES)
    assert zoo.names() == ["photo-patches", "photo-kernel", *sorted(NAMES)]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_complete_and_small(name):
    sizes = {path.name: path.stat().st_size for path in zoo.folder(name).iterdir()}
    json_files = {"config.json", "scheduler_config.json", "denoiser.json"}
    expected = {*json_files, "card.md", "diffusion_pytorch_model.safetensors"}
    assert set(sizes) == expected | ({"classifier.safetensors"} if name in PICTURE_NAMES else set())
    assert sizes["diffusion_pytorch_model.safetensors"] < 6e6
    assert sizes.get("classifier.safetensors", 0) < 1e6


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_the_recipe(name):
    r, about = recipe(name), trained.describe(zoo.folder(name))
    assert (tuple(about["classes"]), tuple(about["shape"])) == (r.classes, r.shape)
    config = json.loads((zoo.folder(name) / "config.json").read_text())
    for key, value in r.config.items():
        assert config[key] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_data_licence_steps_losses_and_limits(name):
    card = (zoo.folder(name) / "card.md").read_text(encoding="utf-8")
    about = trained.describe(zoo.folder(name))
    assert card.startswith(f"# {name}\n")
    for part in ("**Data**", "**Licence**", "**Classes**", "**Network**", "**Training**", "## Quality", "## Limits"):
        assert part in card
    words = " ".join(card.split())
    assert f"{about['steps']} steps of {about['batch']} contents" in words
    assert ", ".join(f"{k} {c}" for k, c in enumerate(about["classes"])) in words
    for row in (name, "the same, without class", "best linear denoiser", f"{name}, train split"):
        assert len(card_row(name, row)) == len(cards.LEVELS)
    if name in PICTURE_NAMES:
        assert re.search(r"samples, guidance 2 \| [\d.]+ \[", card)


def card_row(name, row):
    card = (zoo.folder(name) / "card.md").read_text(encoding="utf-8")
    return [float(c) for c in re.search(rf"^\| {re.escape(row)} \|(.*)\|$", card, re.MULTILINE).group(1).split("|")]


# Loading


def test_networks_load_in_diffusers_own_way():
    network = diffusers.UNet2DModel.from_pretrained(zoo.folder("glyph-unet"), low_cpu_mem_usage=False)
    x, t, y = torch.randn(2, 1, 32, 32, generator=seeded()), torch.tensor([300, 700]), torch.tensor([4, 36])
    network = network.float().eval()
    with torch.no_grad():
        theirs = pixel_shuffle(network(pixel_unshuffle(x, 2), t, class_labels=y).sample, 2)
    ours = zoo.load("glyph-unet").model(x, t, class_labels=y).sample
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_network_of_motion_takes_its_class_as_channels(denoisers):
    network = diffusers.UNet1DModel.from_pretrained(zoo.folder("motion-unet"), low_cpu_mem_usage=False).float().eval()
    x, t = torch.randn(2, 4, 32, generator=seeded()), torch.tensor([300, 700])
    hot = torch.zeros(2, 4, 32)
    hot[0, 2] = 1  # "mixed", and none
    with torch.no_grad():
        theirs = network(torch.cat([x, hot], 1), t).sample
    ours = denoisers["motion-unet"].model(x, t, class_labels=torch.tensor([2, 4])).sample
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded(denoisers, name):
    denoiser = denoisers[name]
    assert isinstance(denoiser, DiffusersDenoiser)
    assert denoiser.classes == zoo.classes(name) == recipe(name).classes
    assert denoiser.conditions == list(range(len(denoiser.classes)))
    assert denoiser.prediction_type == "v_prediction"
    assert not any(p.requires_grad for p in denoiser.model.parameters())
    assert not denoiser.model.training


def test_every_scheduler_is_a_fresh_one():
    first, second = zoo.scheduler("photo-unet"), zoo.scheduler("photo-unet")
    assert first is not second
    assert isinstance(first, diffusers.DDIMScheduler)
    assert (first.config.prediction_type, first.config.beta_schedule) == ("v_prediction", "squaredcos_cap_v2")
    assert not first.config.clip_sample


def test_what_there_is_not():
    with pytest.raises(UnknownNameError, match="'photo-patches' is no network; those are glyph-unet, motion-unet"):
        zoo.scheduler("photo-patches")
    with pytest.raises(UnknownNameError, match="called 'faces'; there are photo-patches"):
        zoo.classes("faces")
    with pytest.raises(UnknownNameError, match="'motion-unet' has no classifier"):
        zoo.classifier("motion-unet")
    with pytest.raises(UnknownNameError, match="no recipe is called 'faces'"):
        recipe("faces")


@pytest.mark.parametrize("damaged", ["config.json", "denoiser.json", "scheduler_config.json"])
def test_a_damaged_file_is_named(tmp_path, damaged):
    folder = tmp_path / "motion-unet"
    shutil.copytree(zoo.folder("motion-unet"), folder)
    (folder / damaged).write_text("{")
    with pytest.raises(SavedFileError, match="cannot read"):
        trained.load_denoiser(folder)


def test_a_description_without_classes_is_named(tmp_path):
    (tmp_path / "denoiser.json").write_text('{"shape": [1], "squeeze": 1}')
    with pytest.raises(SavedFileError, match="lacks classes"):
        trained.load_denoiser(tmp_path)


# As denoisers


class _Laws(DenoiserTests):
    exact = False
    tolerance = 1e-5  # a batch and a loop run other kernels
    name: str
    cache: dict = {}  # noqa: RUF012

    def create(self):
        if self.name not in self.cache:
            denoiser = zoo.load(self.name)
            denoiser.model.double()
            self.cache[self.name] = denoiser
        return self.cache[self.name]

    def clean(self, count, generator):
        return recipe(self.name).draw(count, "test", generator)[0].double()


class TestCharacters(_Laws):  # photographs have the same network
    name = "glyph-unet"
    condition = 33


class TestMotion(_Laws):
    name = "motion-unet"
    condition = 1


def test_levels_of_the_scheduler_are_its_timesteps(denoisers):
    scheduler, denoiser = zoo.scheduler("motion-unet"), denoisers["motion-unet"]
    alphas = scheduler.alphas_cumprod.double()
    found = denoiser.timesteps(NoiseLevel(alphas.sqrt(), (1 - alphas).sqrt()))
    assert torch.equal(found, torch.arange(1000.0))
    assert denoiser.timesteps(NoiseLevel(1.0, 1e-9)) == 0
    assert denoiser.timesteps(NoiseLevel(1e-9, 1.0)) == 999
    between = denoiser.timesteps(NoiseLevel(1.0, math.sqrt(1 / alphas[500:502].mean() - 1)))
    assert 500.3 < between < 500.7


def test_coordinates_of_the_state_do_not_matter(denoisers):
    denoiser = denoisers["motion-unet"]
    clean, labels = recipe("motion-unet").draw(6, "test", seeded())
    x = clean + 0.5 * torch.randn(clean.shape, generator=seeded(1))  # variance exploding
    exploding = denoiser.denoise(x, NoiseLevel(1.0, 0.5), labels)
    preserving = denoiser.denoise(x / 1.25**0.5, NoiseLevel(1 / 1.25**0.5, 0.5 / 1.25**0.5, "ignored"), labels)
    flow = denoiser.denoise(x / 1.5, NoiseLevel(torch.full((6,), 2 / 3), torch.full((6,), 1 / 3)), labels)
    torch.testing.assert_close(preserving, exploding, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(flow, exploding, atol=1e-5, rtol=1e-5)


def test_no_condition_is_the_null_class_and_rows_may_differ(denoisers):
    denoiser = denoisers["motion-unet"]
    x, level = torch.randn(3, 4, 32, generator=seeded()), NoiseLevel(0.6, 0.8)
    mixed = denoiser.denoise(x, level, torch.tensor([4, 0, 3]))
    torch.testing.assert_close(mixed[0], denoiser.denoise(x[0], level), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[2], denoiser.denoise(x[2], level, 3), atol=1e-5, rtol=1e-5)
    assert (mixed[1] - denoiser.denoise(x[1], level)).abs().max() > 1e-3
    guided = GuidedDenoiser(denoiser, 2.0).denoise(x, level, 1)
    twice = 2 * denoiser.denoise(x, level, 1) - denoiser.denoise(x, level)
    torch.testing.assert_close(guided, twice, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("condition", [-1, 5, 0.5, torch.tensor([0, 7])])
def test_a_class_that_there_is_not(denoisers, condition):
    with pytest.raises(ParameterError, match="an integer from 0 to 3 .'slow', 'fast', 'mixed', 'wild'., or None"):
        denoisers["motion-unet"].denoise(torch.zeros(2, 4, 32), NoiseLevel(0.6, 0.8), condition)


# Quality


@pytest.mark.parametrize("name", NAMES)
def test_fresh_held_out_contents_reproduce_the_card(denoisers, name):
    clean, labels = cards.held_out(recipe(name), 96, seed=77)
    for position in (0, 2):
        loss = cards.denoising_loss(denoisers[name], clean, cards.LEVELS[position], labels, seed=3)
        error = (loss.high - loss.value) / 1.96
        assert abs(loss.value - card_row(name, name)[position]) < 4 * error


@pytest.mark.parametrize("name", NAMES)
def test_held_out_contents_are_denoised_better_than_by_shrinking_towards_their_mean(denoisers, name):
    """The best denoiser that treats all numbers alike, told mean and variance of the very contents."""
    clean, labels = cards.held_out(recipe(name), 64, seed=78)
    variance = float((clean - clean.mean(0)).square().mean())
    for level in (0.3, 1.0, 3.0):
        shrinking = 1 / (1 / variance + 1 / level**2)
        assert cards.denoising_loss(denoisers[name], clean, level, labels).high < shrinking


@pytest.mark.parametrize("name", NAMES)
def test_the_card_beats_the_best_linear_denoiser(name):
    ours, linear = card_row(name, name), card_row(name, "best linear denoiser")
    assert all(a < b for a, b in zip(ours[1:4], linear[1:4], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_knowing_the_class_helps(name):
    known, unknown = card_row(name, name), card_row(name, "the same, without class")
    assert all(a < b for a, b in zip(known[3:], unknown[3:], strict=True))


def test_sampled_motion_obeys_the_equations_and_keeps_its_style():
    denoiser, scheduler = zoo.load("motion-unet"), zoo.scheduler("motion-unet")
    labels = torch.arange(48) % len(STYLES)
    windows = cards.generate(denoiser, scheduler, labels, steps=15)
    assert physics_residual(windows).median() < 0.1  # 0.7 for noise
    joules = energy(windows).mean(1)
    wild = joules[labels == STYLES.index("wild")]
    assert wild.mean() > joules[labels == STYLES.index("fast")].mean() + 3
    assert 9 < wild.mean() < 19


def test_our_sampler_draws_what_a_loop_of_the_scheduler_draws():
    """`ps.sample` on one trajectory and the scheduler's own steps, from the same noise."""
    denoiser, scheduler = zoo.load("motion-unet"), zoo.scheduler("motion-unet")
    graph = ps.FactorGraph()
    graph.add_trajectory("window", denoiser.shape)
    noise = torch.randn(2, 4, 32, generator=seeded())
    ours = ps.sample(
        graph, denoiser, scheduler, 8, num_samples=2, initial_noise={"window": noise}, conditions=2, progress=False
    )
    scheduler.set_timesteps(8)
    x = noise
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = denoiser.model(x, t.expand(2), class_labels=torch.tensor([2, 2])).sample
        x = scheduler.step(output, t, x).prev_sample
    torch.testing.assert_close(ours.samples["window"], x, atol=1e-4, rtol=1e-4)


# Classifiers


@pytest.mark.parametrize(("name", "least"), [("glyph-unet", 0.85), ("photo-unet", 0.85)])
def test_classifiers_know_held_out_pictures(name, least):
    classifier = zoo.classifier(name)
    pictures, labels = recipe(name).draw(360, "test", seeded(5))
    assert accuracy(classifier, pictures, labels) > least
    features = classifier.features(pictures[:8])
    assert features.shape == (8, 128)
    torch.testing.assert_close(classifier(pictures[:8]), classifier.head(features))
    assert tuple(classifier(pictures[:8]).shape) == (8, len(zoo.classes(name)))


def test_a_saved_classifier_is_the_same(tmp_path):
    torch.manual_seed(0)
    classifier = Classifier((1, 16, 16), ("a", "b"), (8, 16)).half().float()
    classifier.save(tmp_path / "c.safetensors")
    loaded = Classifier.load(tmp_path / "c.safetensors")
    x = torch.randn(3, 1, 16, 16, generator=seeded())
    torch.testing.assert_close(loaded(x), classifier(x))
    assert (loaded.classes, loaded.shape) == (("a", "b"), (1, 16, 16))
    with pytest.raises(ShapeError, match=r"takes \(n, 1, 16, 16\), got \(3, 1, 16, 8\)"):
        loaded(x[..., :8])
    (tmp_path / "c.safetensors").write_bytes(b"no weights")
    with pytest.raises(SavedFileError, match="holds no classifier"):
        Classifier.load(tmp_path / "c.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURE_NAMES)
def test_guided_samples_are_of_their_class(name):
    labels = torch.arange(72) % len(zoo.classes(name))
    samples = cards.generate(GuidedDenoiser(zoo.load(name), 2.0), zoo.scheduler(name), labels, steps=20)
    assert accuracy(zoo.classifier(name), samples, labels) > 0.8
