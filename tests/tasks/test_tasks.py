"""Tasks by name, methods by name, comparisons on the same seeds; small sizes, exact denoisers."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file

import pgm_sync as ps
from pgm_sync import cli, tasks
from pgm_sync.errors import NotFiniteError, ParameterError, SavedFileError, UnknownNameError, UnsupportedError
from pgm_sync.evaluation import Scoreboard, energy_distance, mean
from pgm_sync.tasks.base import Measure, Results, Scene, Task
from pgm_sync.tasks.run import REFERENCE, compare, join, methods, sample_method, write_run

SIZE = {  # of every task, small enough for a test
    "wide": {"width": 42},
    "ambiguous": {},
    "mask": {},
    "edit": {},
    "texture": {"views": 4},
    "motion": {"frames": 56},
}


@dataclasses.dataclass
class Pair(Task):
    """Two overlapping windows of a Gaussian row, whose joint is known."""

    name = "pair"
    strong: bool = False

    @functools.cached_property
    def scene(self):
        time = torch.arange(6, dtype=torch.float64)
        covariance = 0.95 ** (time[:, None] - time).abs()
        own = ps.GaussianDenoiser(torch.zeros(1, 1, 4), covariance[:4, :4])
        graph = ps.wide_canvas((1, 1, 6), (1, 4), 2)
        learned = ps.wide_canvas((1, 1, 6), (1, 4), 2, features=lambda shape: ps.DCT(shape, 2))
        data = self.real(4000, 1)
        options = {"": {}, "half": {"canvas_weights": None}}
        return Scene(graph, own, DDIMScheduler(clip_sample=False), ps.fit(learned, {"canvas": data}), options)

    def real(self, n, seed):
        time = torch.arange(6, dtype=torch.float64)
        root = torch.linalg.cholesky(0.95 ** (time[:, None] - time).abs())
        noise = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (noise @ root.T).reshape(n, 1, 1, 6)

    def reference(self):
        return self.real(100, 3)

    def measures(self):
        real = self.real(300, 2)
        return [
            Measure("distance", "to real rows", "lower", lambda r: energy_distance(r.content, real)),
            Measure("ends", "product of the ends", 0.95**5, lambda r: mean((r.content[..., 0] * r.content[..., -1])
                                                                           .flatten())),
        ]  # fmt: skip


def test_ours_is_sample_on_the_fitted_graph_and_a_published_method_is_its_preset():
    task = Pair()
    scene, seeds = task.scene, [5, 6, 7]
    found = sample_method(task, "learned", 3, 4, 5, progress=False)
    expected = ps.sample(scene.learned, scene.denoisers, scene.scheduler, 4, 3, seeds, progress=False)
    assert torch.equal(found.content, expected.samples["canvas"])
    assert list(found.seeds) == seeds
    averaged = sample_method(task, "synctweedies-2", 3, 4, 5, progress=False)
    plain = ps.sample(scene.graph, scene.denoisers, scene.scheduler, 4, 3, seeds, progress=False)
    assert torch.allclose(averaged.content, plain.samples["canvas"], atol=1e-5)
    assert not torch.allclose(averaged.content, found.content, atol=1e-3)


def test_batches_change_nothing():
    task = Pair()
    whole = sample_method(task, "learned", 5, 4, 5, progress=False)
    parts = sample_method(task, "learned", 5, 4, 5, batch=2, progress=False)
    assert torch.allclose(parts.content, whole.content, atol=1e-6)
    assert list(parts.seeds) == list(whole.seeds)
    assert set(parts.samples) == set(whole.samples)


def test_all_methods_are_listed_with_the_reason_where_one_does_not_apply():
    found = methods(Pair())
    assert list(found)[:2] == ["learned", "learned: half"]
    assert found["multidiffusion"] is None
    assert "orthogonal" in found["visual-anagrams"]


def test_a_comparison_has_numbers_costs_and_tuned_strengths(tmp_path):
    task, board = Pair(), Scoreboard(tmp_path / "cells.json")
    chosen = ["learned", "multidiffusion", "syncsde-implicit", REFERENCE]
    found = compare(task, chosen, 60, 5, board=board, validation=20, progress=False)
    labels = [*chosen[:3], "syncsde-implicit (tuned)", REFERENCE]
    assert sorted(board.methods()) == sorted(labels)
    assert board.metrics("pair") == ["distance", "ends"]
    cost = board["pair", "multidiffusion", "distance"].cost
    assert cost.evaluations == 10  # two windows, five steps
    strength = found.tunings["syncsde-implicit"].best.options["strength"]
    assert board["pair", "syncsde-implicit (tuned)", "ends"].note == f"strength {strength:g}"
    assert REFERENCE not in board.ranks()["pair"]
    assert board.ranks()["pair"]["learned"] == 1
    again = compare(task, chosen, 60, 5, board=Scoreboard(tmp_path / "cells.json"), validation=20, progress=False)
    assert set(again.contents) == {REFERENCE}  # nothing was run anew


def test_a_method_that_diverges_has_a_reason_and_no_numbers(monkeypatch):
    def diverges(*args, **kwargs):
        raise NotFiniteError("'w1' diverged at step 3", step=3)

    monkeypatch.setattr("pgm_sync.peers.sample", diverges)
    found = compare(Pair(), ["multidiffusion"], 3, 4, progress=False)
    assert "step 3" in found.diverged["multidiffusion"]
    assert len(found.board) == 0


def test_a_run_is_written_whole(tmp_path):
    task = Pair()
    results = sample_method(task, "learned", 3, 4, progress=False)
    write_run(task, "learned", results, 4, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"] == {"strong": False}
    assert record["measures"]["distance"]["samples"] == 3
    assert torch.equal(load_file(tmp_path / "samples.safetensors")["content"], results.content)
    assert (tmp_path / "pair.png").read_bytes()[1:4] == b"PNG"


def test_bad_names_and_numbers():
    with pytest.raises(UnknownNameError, match="no task is called 'tall'; there are 'wide'"):
        tasks.load("tall")
    with pytest.raises(ParameterError, match="has no setting 'colour'; it has 'width'"):
        tasks.load("wide", colour=3)
    with pytest.raises(UnknownNameError, match="no method is called 'magic'; there are 'learned'"):
        sample_method(Pair(), "magic", 2)
    with pytest.raises(UnknownNameError, match="no method is called 'magic'"):
        compare(Pair(), ["magic"])
    with pytest.raises(ParameterError, match="num_samples=0"):
        sample_method(Pair(), "learned", 0)
    with pytest.raises(UnsupportedError, match="visual-anagrams does not apply"):
        sample_method(Pair(), "visual-anagrams", 2, progress=False)
    joined = join([Results(torch.zeros(1), {}, [1]), Results(torch.ones(1), {}, [4])])
    assert (joined.content.tolist(), joined.seeds) == ([0, 1], [1, 4])


@pytest.mark.parametrize("name", sorted(tasks.names()))
def test_every_task_runs_from_the_command_line(name, tmp_path, capsys):
    settings = [part for key, value in SIZE[name].items() for part in ("--set", f"{key}={value}")]
    common = ["--samples", "4", "--steps", "3", "--quiet", "--out", str(tmp_path), *settings]
    assert cli.main(["run", name, *common]) == 0
    assert (tmp_path / "run.json").exists()
    assert cli.main(["compare", name, "--methods", "learned,multidiffusion", *common]) == 0
    out = capsys.readouterr().out
    assert f"## {name}" in out
    assert (tmp_path / f"{name}.png").exists()
    assert {row["task"] for row in json.loads((tmp_path / "scoreboard.json").read_text())["cells"]} == {name}


def test_sizes_of_all_tasks_are_here():
    assert set(SIZE) == set(tasks.names())


@pytest.mark.parametrize("text", ["width", "width=a=b,c"])
def test_bad_settings_on_the_command_line(text, capsys):
    assert cli.main(["run", "wide", "--set", text]) == cli.BAD_INPUT
    assert "pgm-sync: " in capsys.readouterr().err


def test_an_edit_leaves_the_background_alone_and_follows_the_new_prompt():
    edit = tasks.load("edit")
    results = sample_method(edit, "learned", 12, 12, progress=False)
    inside = edit.masks["background"] > 0.99
    sources = edit.sources(range(12))
    assert torch.allclose(results.content[:, :, inside], sources[:, :, inside], atol=1e-4)
    assert (results.content - sources)[:, :, edit.masks["region 1"] > 0.99].abs().mean() > 0.1
    assert torch.equal(edit.sources([3]), sources[3:4])  # of its seed alone
    real = Results(edit.subject.composed(12, 5), {}, [])
    prompts = next(m for m in edit.measures() if m.name == "prompts")
    assert prompts.of(results).value > prompts.of(Results(sources, {}, [])).value
    assert prompts.of(real).value > prompts.of(Results(sources, {}, [])).value
    with pytest.raises(ParameterError, match="what it becomes"):
        tasks.load("edit", prompts=("china", "flower"))


def test_an_inverted_background_is_the_picture_until_the_region_moves_it():
    edit = tasks.load("edit", background="inverted")
    scene = edit.scene
    noise = edit.initial_noise([1], 3, scene.learned)
    given = {"conditions": edit.conditions([1]), "initial_noise": noise, "progress": False}
    alone = ps.sample(scene.learned, scene.denoisers, scene.scheduler, 3, 1, couple=False, **given)
    assert torch.allclose(alone.samples["background"], edit.sources([1]), atol=1e-3)
    together = sample_method(edit, "learned", 2, 3, 1, progress=False)
    kept = next(m for m in edit.measures() if m.name == "background").of(together)
    assert 10 < kept.value < 60


def test_an_edit_of_a_picture_of_ones_own(tmp_path):
    picture = Image.fromarray(np.full((48, 96, 3), 80, dtype="uint8"))
    picture.save(tmp_path / "picture.png")
    left = np.zeros((24, 24), dtype="uint8")
    left[:, :12] = 255
    Image.fromarray(left).save(tmp_path / "mask.png")
    edit = tasks.load("edit", source=str(tmp_path / "picture.png"), region=str(tmp_path / "mask.png"))
    results = sample_method(edit, "learned", 3, 4, progress=False)
    grey = 80 / 127.5 - 1
    assert torch.allclose(results.content[..., 12:], torch.tensor(grey), atol=1e-3)
    assert (results.content[..., :12] - grey).abs().mean() > 0.05
    Image.fromarray(np.zeros((24, 24), dtype="uint8")).save(tmp_path / "nothing.png")
    with pytest.raises(ParameterError, match="covers 0 % of the picture"):
        _ = tasks.load("edit", region=str(tmp_path / "nothing.png")).scene
    with pytest.raises(SavedFileError, match="cannot read the picture"):
        _ = tasks.load("edit", region="nowhere.png").scene
    with pytest.raises(ParameterError, match="neither 'known' nor 'inverted'"):
        tasks.load("edit", background="guessed")
