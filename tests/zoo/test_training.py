"""A few steps of every training: resuming changes nothing, and what is exported loads."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import pytest
import torch

from pgm_sync.errors import ParameterError, SavedFileError
from pgm_sync.zoo import cards, recipes, train, train_classifier, trained
from pgm_sync.zoo.classifier import accuracy
from pgm_sync.zoo.recipes import NAMES, recipe


@pytest.fixture
def small(monkeypatch):
    """Every recipe with a narrow network and few contents, and cards from few samples."""
    originals = dict(recipes._RECIPES)

    def shrink(name):
        r = originals[name]()
        widths = (8,) * len(r.config["block_out_channels"])
        config = {**r.config, "block_out_channels": widths}
        if "attention_head_dim" in config:
            config["attention_head_dim"] = 8
        return dataclasses.replace(r, config=config, batch=4)

    monkeypatch.setattr(recipes, "_RECIPES", {name: lambda name=name: shrink(name) for name in originals})
    for name, value in {"MEASURED": 8, "SAMPLES": 8, "SAMPLING_STEPS": 2, "BASELINE": 8, "LEVELS": (0.3, 3.0)}.items():
        monkeypatch.setattr(cards, name, value)
    monkeypatch.setattr(train, "HELD_OUT", 4)
    from pgm_sync.zoo.data import motion

    monkeypatch.setattr(motion, "BANK", {"train": (8, 0), "test": (8, 1)})
    motion._bank.cache_clear()
    yield
    motion._bank.cache_clear()


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("name", ["motion-unet", "photo-unet"])
def test_resuming_goes_on_as_if_nothing_had_happened(small, tmp_path, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.main([name, "--steps", "4", "--out", str(whole), "--quiet"])
    train.main([name, "--steps", "2", "--out", str(parts), "--quiet"])
    train.main([name, "--steps", "4", "--out", str(parts), "--quiet", "--resume"])
    a, b = weights(whole), weights(parts)
    assert (a["step"], b["step"]) == (4, 4)
    for part in ("network", "average"):
        for key in a[part]:
            assert torch.equal(a[part][key], b[part][key])
    log = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    assert all(line["held_out"] > 0 and line["train"] > 0 for line in log)


@pytest.mark.parametrize("name", ["motion-unet", "glyph-unet"])
def test_what_is_exported_loads_and_has_a_card(small, tmp_path, name, capsys):
    out, folder = tmp_path / "out", tmp_path / name
    train.main([name, "--steps", "1", "--out", str(out), "--export", str(folder), "--quiet"])
    denoiser, average = trained.load_denoiser(folder), weights(out)["average"]
    loaded = denoiser.model.network.state_dict()
    for key, value in average.items():
        torch.testing.assert_close(loaded[key], value, atol=1e-3, rtol=1e-3)  # float16
    card = (folder / "card.md").read_text()
    assert f"# {name}\n" in card
    assert "1 steps of 4 contents" in " ".join(card.split())
    assert "{" not in card
    assert card in capsys.readouterr().out


def test_training_lowers_the_held_out_loss(small, monkeypatch):
    monkeypatch.setattr(train, "WARMUP", 1)
    monkeypatch.setattr(train, "HELD_OUT", 32)
    r = recipe("motion-unet")
    wider = {**r.config, "block_out_channels": (16, 16, 16)}
    trainer = train.Trainer(dataclasses.replace(r, config=wider, rate=1e-2, batch=16))
    before = trainer.held_out_loss()
    for _ in range(40):
        trainer.advance()
    assert trainer.held_out_loss() < 0.7 * before


def test_the_loss_of_the_true_velocity_is_nothing():
    clean, labels = torch.ones(3, 2, 4), torch.zeros(3).long()
    alphas, timesteps = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64), torch.arange(3)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    class Told:
        def __init__(self, *_, **__):
            a = alphas.sqrt().float()[:, None, None]
            self.sample = a * noise - (1 - a**2).sqrt() * clean

    loss = train.v_loss(Told, clean, labels, timesteps, alphas, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, torch.zeros(3), atol=1e-12, rtol=0)


def test_a_signal_ends_training_with_a_checkpoint(small, tmp_path, monkeypatch):
    trainer = train.Trainer(recipe("motion-unet"))
    advance = trainer.advance

    def interrupted():
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance()

    monkeypatch.setattr(trainer, "advance", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    train.train(trainer, 60, tmp_path, progress=False)
    assert weights(tmp_path)["step"] == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_training_begins_with_exported_weights(small, tmp_path):
    first, folder, second = tmp_path / "first", tmp_path / "motion-unet", tmp_path / "second"
    train.main(["motion-unet", "--steps", "3", "--out", str(first), "--export", str(folder), "--quiet"])
    given = [*"motion-unet --steps 5 --quiet --out".split(), str(second), "--export", str(folder)]
    train.main([*given, "--start", str(folder)])
    before, after = weights(first), weights(second)
    assert (after["step"], after["restarts"]) == (5, [3])
    moved = max(float((before["network"][k] - after["network"][k]).abs().max()) for k in before["network"])
    assert 0 < moved < 0.01  # two small steps away, not from random weights
    assert "AdamW (begun anew at 3)" in " ".join((folder / "card.md").read_text().split())
    with pytest.raises(SavedFileError, match="has no weights of glyph-unet"):
        train.main(["glyph-unet", "--out", str(tmp_path / "third"), "--start", str(folder), "--quiet"])


def test_a_checkpoint_is_neither_overwritten_nor_mistaken(small, tmp_path):
    train.main(["motion-unet", "--steps", "1", "--out", str(tmp_path), "--quiet"])
    with pytest.raises(ParameterError, match="is there already; pass --resume"):
        train.main(["motion-unet", "--steps", "1", "--out", str(tmp_path), "--quiet"])
    with pytest.raises(SavedFileError, match="is no checkpoint of glyph-unet"):
        train.main(["glyph-unet", "--steps", "1", "--out", str(tmp_path), "--quiet", "--resume"])
    with pytest.raises(SavedFileError, match="is no checkpoint"):
        train.main(["glyph-unet", "--steps", "1", "--out", str(tmp_path / "none"), "--quiet", "--resume"])


def test_a_classifier_learns(tmp_path):
    r = recipe("photo-unet")
    classifier = train_classifier.train_classifier(r, steps=15, progress=False)
    pictures, labels = r.draw(200, "test", torch.Generator().manual_seed(3))
    assert accuracy(classifier, pictures, labels) > 0.3  # a tenth by chance


def test_a_classifier_is_trained_and_kept_from_the_command_line(small, tmp_path):
    train.main(["glyph-unet", "--classifier", "--steps", "2", "--out", str(tmp_path), "--quiet"])
    assert trained.load_classifier(tmp_path).classes == recipe("glyph-unet").classes
    with pytest.raises(ParameterError, match="is not of pictures"):
        train.main(["motion-unet", "--classifier", "--out", str(tmp_path)])
    assert set(NAMES) == {"glyph-unet", "motion-unet", "photo-unet"}
