"""The demo, with an exact Gaussian denoiser of small windows in the place of the embedded one."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from pgm_sync import zoo
from pgm_sync.cli import _parser
from pgm_sync.denoisers import GaussianDenoiser
from pgm_sync.errors import ParameterError, ShapeError
from pgm_sync.graph import FactorGraph
from pgm_sync.tasks import demo, wide
from pgm_sync.tasks.demo import METHODS, STAGES, run
from pgm_sync.tasks.models import Model, even_scheduler
from pgm_sync.tasks.run import REFERENCE

TITLES = [title for _, title, _ in METHODS.values()]


@pytest.fixture(scope="module", autouse=True)
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "CROPS", 140)
        patch.setattr(wide, "HELD_OUT", 70)
        yield


@pytest.fixture(scope="module")
def task(few):
    patches = zoo.wide_crops((3, 6, 6), 700, generator=torch.Generator().manual_seed(1)).flatten(1).double()
    covariance = torch.cov(patches.T) + 1e-3 * torch.eye(108)
    own = GaussianDenoiser(patches.mean(0).reshape(3, 6, 6), covariance)
    model = Model("patches", own, even_scheduler(), lambda prompts: None)
    return wide.Wide(width=24, height=6, stride=4, modes=2, model=model)


@pytest.fixture(scope="module")
def made(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    seen = []

    def keep(stage, so_far):
        seen.append((stage, [p.name for p in so_far.write(folder, stage)]))

    return run(task, 12, 24, progress=False, on_stage=keep), folder, seen


def test_the_stages_come_in_order_and_leave_whole_files(made):
    _, folder, seen = made
    assert [stage for stage, _ in seen] == list(STAGES)
    assert seen[0][1] == ["graph.safetensors"]
    assert seen[1][1] == ["learned.png"]
    assert seen[-1][1] == ["comparison.png", "metrics.json", "report.html"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(name for _, names in seen for name in names)
    with Image.open(folder / "learned.png") as image:
        assert image.size == (24 * 24 + 16, 6 * (6 * 24 + 8) + 8)


def test_the_saved_graph_is_the_fitted_one(made):
    result, folder, _ = made
    loaded = FactorGraph.load(folder / "graph.safetensors")
    factor = ("w0", "w1")
    assert torch.equal(loaded.potential(factor).covariance, result.graph.potential(factor).covariance)
    assert loaded.graph["fit"] == result.graph.graph["fit"]


def test_the_numbers_are_plain_json(made):
    result, folder, _ = made

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    assert (record["config"]["width"], record["config"]["samples"]) == (24, 24)
    assert list(record["metrics"]) == [m.name for m in result.task.measures()]
    for metric in record["metrics"].values():
        assert set(metric) == set(TITLES)
        assert all(e["samples"] > 0 for e in metric.values())
    assert len(record["correlations"]) == len(result.table)
    assert set(record["seconds"]) == set(TITLES[:3])


def test_the_report_names_every_method(made):
    _, folder, _ = made
    page = (folder / "report.html").read_text()
    for title in TITLES:
        assert page.count(f'alt="{title}, sample') == 6
    assert "pgm-sync demo --width 24 --height 6 --stride 4 --modes 2 --steps 12 --samples 24" in page
    assert "application/json" in page  # what the page computes with


def test_learned_potentials_carry_brightness_across_the_picture_and_averaging_does_not(made):
    result, _, _ = made
    far = next(m for m in result.metrics if m.name == "far correlation").estimates
    assert far["Learned potentials"].value > 0.4  # photographs: .6
    assert far["Averaging"].value < 0.3
    seams = next(m for m in result.metrics if m.name == "seams").estimates
    assert seams["Independent windows"].value > 1.3
    assert "Held-out photographs" in result.summary().splitlines()[0]


def test_the_same_seed_gives_the_same_pictures(made, task):
    result, _, _ = made
    again = run(task, 12, 24, progress=False)
    for method, pictures in result.made.contents.items():
        assert torch.equal(again.made.contents[method], pictures)


def test_a_command_line_makes_the_run_again(made):
    result, _, _ = made
    parsed = vars(_parser().parse_args(result.command().split()[1:]))
    assert {name: parsed[name] for name in ("width", "height", "stride", "modes", "steps", "samples")} == {
        "width": 24, "height": 6, "stride": 4, "modes": 2, "steps": 12, "samples": 24
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"stride": 7}, ParameterError, "stride 7 must be between 1 and the window size"),
        ({"modes": 99}, ParameterError, "modes=99 is not in 1..36"),
        ({"width": 4}, ShapeError, "do not fit a canvas of shape"),
        ({"width": 25, "wrap": True, "stride": 4}, ParameterError, "must divide the width 25"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_learned(change, error, message, task, monkeypatch):
    monkeypatch.setattr(wide, "crops", lambda *a, **k: pytest.fail("too late"))
    settings = {"width": 24, "height": 6, "stride": 4, "modes": 2, "model": task.model, **change}
    with pytest.raises(error, match=message):
        run(wide.Wide(**settings), progress=False)


def test_bad_sizes_of_a_run(task, made, tmp_path):
    with pytest.raises(ParameterError, match="steps=0 must be a positive integer"):
        run(task, steps=0)
    with pytest.raises(ParameterError, match=r"num_samples=1\.5 must be a positive integer"):
        run(task, num_samples=1.5)
    with pytest.raises(ParameterError, match="stage='nothing' is none of graph, learned"):
        made[0].write(tmp_path, "nothing")
    assert METHODS[REFERENCE][0] == "heldout"
    assert demo.STEPS == 30
