"""The wide-picture job, with an exact Gaussian denoiser of small windows in the place of the embedded one."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image

from pgm_sync import zoo
from pgm_sync.cli import _parser
from pgm_sync.denoisers import GaussianDenoiser
from pgm_sync.errors import ParameterError, ShapeError
from pgm_sync.graph import FactorGraph, chain_graph, wide_canvas
from pgm_sync.potentials import Correlation
from pgm_sync.tasks import demo
from pgm_sync.tasks.demo import STAGES, TITLES, WideConfig, close, hard_cut, run

SMALL = WideConfig(width=24, height=6, window=6, stride=4, modes=2, steps=12, num_samples=24, crops=140)


@pytest.fixture(scope="module")
def denoiser() -> GaussianDenoiser:
    patches = zoo.wide_crops((3, 6, 6), 700, generator=torch.Generator().manual_seed(1)).flatten(1).double()
    covariance = torch.cov(patches.T) + 1e-3 * torch.eye(108)
    return GaussianDenoiser(patches.mean(0).reshape(3, 6, 6), covariance)


@pytest.fixture(scope="module")
def made(denoiser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    seen = []

    def keep(stage, so_far):
        seen.append((stage, sorted(so_far.pictures), [p.name for p in so_far.write(folder, stage)]))

    result = run(SMALL, progress=False, on_stage=keep, denoiser=denoiser)
    return result, folder, seen


def test_the_stages_come_in_order_and_leave_whole_files(made):
    _, folder, seen = made
    assert [stage for stage, _, _ in seen] == list(STAGES)
    assert seen[0][1:] == (["heldout"], ["graph.safetensors"])
    assert seen[1][1:] == (["heldout", "learned"], ["learned.png"])
    assert seen[-1][2] == ["comparison.png", "metrics.json", "report.html"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(name for _, _, names in seen for name in names)


def test_the_pictures_have_the_shapes_asked_for(made):
    result, folder, _ = made
    for method in ("learned", "averaging", "independent"):
        assert result.pictures[method].shape == (24, 3, 6, 24)
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
    assert record["config"] == dataclasses.asdict(SMALL)
    assert len(record["metrics"]) == 3
    for metric in record["metrics"].values():
        assert set(metric) == set(TITLES.values())
        assert all(e["samples"] > 0 for e in metric.values())
    assert len(record["correlations"]) == len(result.table)
    assert set(record["seconds"]["Averaging"]) == {"denoiser", "engine", "scheduler", "other"}


def test_the_report_names_every_method(made):
    _, folder, _ = made
    page = (folder / "report.html").read_text()
    for title in TITLES.values():
        assert page.count(f'alt="{title}, sample') == 6
    assert "pgm-sync demo --width 24 --height 6 --stride 4 --modes 2 --steps 12 --samples 24" in page


def test_learned_potentials_carry_brightness_across_the_picture_and_averaging_does_not(made):
    result, _, _ = made
    learned, averaging = (result.metrics[0].estimates[TITLES[m]] for m in ("learned", "averaging"))
    assert learned.value > 0.4  # photographs: .6
    assert averaging.value < 0.3
    assert result.metrics[1].estimates[TITLES["independent"]].value > 1.3  # seams


def test_the_same_seed_gives_the_same_pictures(made, denoiser):
    result, _, _ = made
    again = run(SMALL, progress=False, denoiser=denoiser)
    for method, pictures in result.pictures.items():
        assert torch.equal(again.pictures[method], pictures)


def test_a_command_line_makes_the_run_again(made):
    result, _, _ = made
    config = dataclasses.replace(SMALL, seed=3, wrap=True)
    words = dataclasses.replace(result, config=config).command().split()[1:]
    parsed = vars(_parser().parse_args(words))
    for name in ("width", "height", "stride", "modes", "steps", "num_samples", "seed", "wrap"):
        assert parsed[name] == getattr(config, name)


def test_windows_cut_from_one_canvas_are_pasted_back(generator):
    for wrap in (False, True):
        graph = wide_canvas((2, 7, 12), (4, 5), (3, 3), wrap=wrap)
        canvas = torch.randn(3, 2, 7, 12, generator=generator)
        samples = {w: graph.maps(f"see {w}")[1].apply(canvas) for w in graph.trajectories}
        assert torch.equal(hard_cut(graph, samples), canvas)


def test_overlaps_are_cut_in_the_middle():
    graph = wide_canvas((1, 4, 8), (4, 4), 2)  # windows at 0..3, 2..5, 4..7
    samples = {w: torch.full((1, 1, 4, 4), float(k)) for k, w in enumerate(graph.trajectories)}
    assert hard_cut(graph, samples)[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_without_a_canvas_there_is_nothing_to_cut():
    with pytest.raises(ShapeError, match="is not a canvas seen through windows"):
        hard_cut(chain_graph(2, (1, 2, 2), Correlation(0.5)), {0: torch.zeros(1, 1, 2, 2)})


def test_closed_crops_go_on_at_their_other_end():
    ramp = torch.arange(24.0).expand(1, 1, 2, 24)
    closed = close(ramp, 8)
    assert closed.shape == (1, 1, 2, 16)
    assert torch.equal(closed[..., 8:], ramp[..., 8:16])  # away from the margin nothing changes
    steps = torch.cat([closed, closed[..., :1]], -1).diff()[0, 0, 0].abs()
    assert (
        steps.max() <= 2 + 1e-6
    )  # the ramp ends 15 above its beginning; the fade spreads that over 8 columns


def test_the_stride_fits_by_default():
    assert WideConfig(window=24).stride == 18
    assert WideConfig(window=24, width=96, wrap=True).stride == 16


def test_a_closed_picture_has_a_window_across_its_border(denoiser):
    config = dataclasses.replace(SMALL, wrap=True, num_samples=2, steps=2)
    result = run(config, progress=False, denoiser=denoiser)
    assert len(result.graph.trajectories) == 6
    assert result.pictures["learned"].shape == (2, 3, 6, 24)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ParameterError, "steps=0 must be a positive integer"),
        ({"num_samples": 1.5}, ParameterError, "num_samples=1.5 must be a positive integer"),
        ({"seed": -1}, ParameterError, "seed=-1 must be an integer of at least 0"),
        ({"window": 5}, ShapeError, "knows windows of 6 x 6 pixels, not of 5"),
        ({"stride": 7}, ParameterError, "stride 7 must be between 1 and the window size"),
        ({"modes": 99}, ParameterError, "modes=99 is not in 1..36"),
        ({"width": 4}, ShapeError, "do not fit a canvas of shape"),
        ({"width": 25, "wrap": True}, ParameterError, "must divide the width 25"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_learned(change, error, message, denoiser, monkeypatch):
    monkeypatch.setattr(demo, "wide_crops", lambda *a, **k: pytest.fail("too late"))
    with pytest.raises(error, match=message):
        run(dataclasses.replace(SMALL, **change), progress=False, denoiser=denoiser)


def test_an_unknown_stage_is_refused(made, tmp_path):
    with pytest.raises(ParameterError, match="stage='nothing' is none of graph, learned"):
        made[0].write(tmp_path, "nothing")
