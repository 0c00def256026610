"""Wide canvases of any form: rows, columns, grids, circles, prompts, and canvases longer than any photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.errors import ParameterError, ShapeError, UnknownNameError, UnsupportedError
from pgm_sync.potentials import JointGaussian
from pgm_sync.tasks import photos, wide
from pgm_sync.tasks.base import Results
from pgm_sync.tasks.canvas_measures import CanvasMeasures
from pgm_sync.tasks.models import from_pipeline
from pgm_sync.tasks.run import sample_method


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(wide, "CROPS", 280)
    monkeypatch.setattr(wide, "HELD_OUT", 60)


@pytest.mark.parametrize(
    ("settings", "windows", "seams"),
    [
        ({"width": 100}, 6, ([21, 39, 57, 75, 86], [])),  # the last window is moved back
        ({"width": 24, "height": 60}, 3, ([], [21, 39])),
        ({"width": 42, "height": 42}, 4, ([21], [21])),
        ({"width": 72, "wrap": True}, 4, ([3, 21, 39, 57], [])),
        ({"width": 96, "wrap": True}, 6, ([4, 20, 36, 52, 68, 84], [])),  # stride 16 divides the width
    ],
)
def test_canvases_of_every_form(settings, windows, seams):
    task = tasks.load("wide", **settings)
    assert len(task.scene.graph.trajectories) == windows
    views = list(task.views().values())
    wrap = settings.get("wrap", False)
    assert CanvasMeasures(task._model, views, task._strides, -1, wrap).middles == seams
    results = sample_method(task, "learned", 12, 4, progress=False)
    assert results.content.shape == (12, 3, settings.get("height", 24), settings["width"])
    for measure in task.measures():
        assert np.isfinite(measure.of(results).value), measure.name
    assert task.reference().shape[1:] == results.content.shape[1:]


def test_a_circle_has_no_seam_where_it_closes():
    task = tasks.load("wide", width=72, wrap=True)
    at_border = sample_method(task, "learned", 40, 20, progress=False).content
    closed = (at_border[..., 0] - at_border[..., -1]).abs().mean()
    inside = at_border.diff(dim=-1).abs().mean()
    assert closed < 1.5 * inside
    apart = sample_method(task, "independent", 40, 20, progress=False).content
    assert (apart[..., 0] - apart[..., -1]).abs().mean() < 2 * closed  # one window shows both of these columns
    (seams,) = (m for m in task.measures() if m.name == "seams")
    assert seams.of(Results(apart, {}, [])).value > 3


def test_neighbours_on_a_long_chain_correlate_as_pairs_do():
    """The potential of Eq. 2 is a ratio of marginals, so a chain of any length keeps the pair's covariance."""
    task = tasks.load("wide", width=24 + 18 * 24, modes=2)
    learned = task.scene.learned
    pairs = [f for f in learned.factors if isinstance(learned.potential(f), JointGaussian)]
    assert len(pairs) == 24
    assert task.reference() is None
    covariance = learned.potential(pairs[0]).covariance
    own = covariance[:6, :6]
    assert torch.allclose(own, covariance[6:, 6:], atol=1e-9)  # or a chain of ratios would change marginals
    precision = torch.block_diag(*[torch.linalg.inv(own)] * 25)
    for k in range(24):
        pair = torch.linalg.inv(covariance) - torch.block_diag(*[torch.linalg.inv(own)] * 2)
        precision[6 * k : 6 * k + 12, 6 * k : 6 * k + 12] += pair
    joint = torch.linalg.inv(precision)
    for k in (0, 12):
        assert torch.allclose(joint[6 * k : 6 * k + 12, 6 * k : 6 * k + 12], covariance, atol=1e-8)
    assert sample_method(task, "learned", 2, 3, progress=False).content.shape == (2, 3, 24, 456)


def test_a_prompt_per_window_is_followed():
    prompts = ("rocket", "rocket", "china", "china", "china")
    task = tasks.load("wide", prompts=prompts)
    results = sample_method(task, "learned", 30, 12, progress=False)
    named = {m.name: m.of(results) for m in task.measures()}
    assert named["prompts"].value > 0.6
    turned = Results(results.content.flip(-1), {}, [])
    other = next(m for m in task.measures() if m.name == "prompts").of(turned)
    assert other.value < named["prompts"].value - 0.2
    assert task.reference() is None  # no photograph shows a rocket that becomes a palace
    means = task.scene.learned
    expected = next(means.potential(f).mean for f in means.factors if f == ("w0", "w4"))
    assert not torch.allclose(expected[:12], expected[12:], atol=0.1)  # every window has the mean of its prompt


def test_one_prompt_for_all_has_real_pictures():
    task = tasks.load("wide", width=60, prompts="china")
    assert task.reference().shape == (60, 3, 24, 60)
    assert set(task.conditions([0, 1])) == set(task.scene.graph.trajectories)


def test_long_canvases_take_prompts_too():
    task = tasks.load("wide", width=24 + 18 * 20, prompts=("rocket",) * 10 + ("china",) * 11)
    learned = task.scene.learned
    first, last = learned.potential(("w0", "w1")).mean, learned.potential(("w19", "w20")).mean
    assert torch.allclose(first[:12], first[12:], atol=1e-5)
    assert not torch.allclose(first, last, atol=0.1)


def test_pictures_of_a_folder(folder):
    task = tasks.load("wide", width=60, data=folder)
    seen, labels = photos.crops((3, 24, 60), 30, "train", torch.Generator().manual_seed(0), folder=folder)
    held, _ = photos.crops((3, 24, 60), 30, "test", torch.Generator().manual_seed(0), folder=folder)
    own = {round(x.mean().item(), 1) for x in seen}
    assert own.isdisjoint({round(x.mean().item(), 1) for x in held})  # of other pictures
    assert sorted(labels.unique().tolist()) == [0, 1]
    rho = [row.rho for row in ps.correlations(task.scene.learned) if row.factor == ("w0", "w2")]
    assert max(rho) > 0.9  # each picture has one grey


def test_folders_that_do_not_do(tmp_path, folder):
    with pytest.raises(ParameterError, match="has 0 pictures"):
        _ = tasks.load("wide", data=str(tmp_path / "none")).scene
    with pytest.raises(ShapeError, match="0.png has 40 x 120 pixels, too few for a crop of 24 x 240"):
        _ = tasks.load("wide", width=240, data=folder).scene


def test_windows_of_a_checkpoint(pipe, folder):
    """Windows are latents of half the size; pictures come back in pixels."""
    model = from_pipeline(pipe, guidance=2.0)
    task = wide.Wide(width=32, height=16, model=model, data=folder, prompts="a b")
    assert task.scene.graph.shape("canvas") == (4, 8, 16)
    results = sample_method(task, "learned", 2, 2, progress=False)
    assert task.pictures(results.content).shape == (2, 3, 16, 32)
    assert task.reference().shape[1:] == (4, 8, 16)
    with pytest.raises(ParameterError, match="needs pictures to learn from"):
        _ = wide.Wide(width=32, height=16, model=model).scene
    with pytest.raises(ParameterError, match="takes multiples of 2"):
        _ = wide.Wide(width=33, height=16, model=model, data=folder).scene


def test_bad_settings():
    with pytest.raises(ParameterError, match="width=0"):
        tasks.load("wide", width=0)
    with pytest.raises(ParameterError, match="2 prompts for 5 windows"):
        _ = tasks.load("wide", prompts=("china", "rocket")).scene
    with pytest.raises(UnknownNameError, match="mars"):
        _ = tasks.load("wide", prompts="mars").scene
    with pytest.raises(ParameterError, match="take 456 or 474 pixels"):
        _ = tasks.load("wide", width=460).scene
    with pytest.raises(ShapeError, match="give a folder of larger pictures"):
        _ = tasks.load("wide", width=480, height=96).scene
    with pytest.raises(UnsupportedError, match="cannot close"):
        photos.close(torch.zeros(1, 3, 4, 30), 20)


def test_closed_crops_go_on_at_their_other_end():
    ramp = torch.arange(24.0).expand(1, 1, 2, 24)
    closed = photos.close(ramp, 8)
    assert closed.shape == (1, 1, 2, 16)
    assert torch.equal(closed[..., 8:], ramp[..., 8:16])  # away from the margin nothing changes
    steps = torch.cat([closed, closed[..., :1]], -1).diff()[0, 0, 0].abs()
    assert steps.max() <= 2 + 1e-6  # the ramp ends 15 above its beginning; the fade spreads that over 8 columns


def test_windows_are_read_by_clip(pipe, folder, clip):
    """One per picture, in turn: the first of the first picture, the second of the second."""
    model = from_pipeline(pipe)
    task = wide.Wide(width=28, height=16, model=model, data=folder, prompts=("hills", "a lake"), clip=clip)
    results = sample_method(task, "learned", 2, 2, progress=False)
    shown = model.decode(torch.stack([results.content[0, :, :, :8], results.content[1, :, :, 6:]]))
    expected = (clip(shown) * clip.texts(["hills", "a lake"])).sum(-1)
    found = next(measure for measure in task.measures() if measure.name == "CLIP").of(results)
    assert found.value == pytest.approx(expected.mean().item(), abs=1e-6)
    assert found.samples == 2


def test_windows_of_another_shape(pipe, folder):
    """Of a network, and of a checkpoint, as the pipeline itself paints pictures of that size."""
    task = tasks.load("wide", model="photo-unet", width=112, height=32, window=(32, 64), stride=48)
    assert [view.out_shape for view in task.views().values()] == [(3, 32, 64)] * 2
    results = sample_method(task, "learned", 2, 2, progress=False)
    assert results.content.shape == (2, 3, 32, 112)
    assert all(np.isfinite(measure.of(results).value) for measure in task.measures())

    model = from_pipeline(pipe, guidance=3.0).resized(16, 32)
    noise = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    stock = pipe("hills", 16, 32, latents=noise, num_inference_steps=2, guidance_scale=3.0, output_type="latent")
    graph = ps.FactorGraph()
    graph.add_trajectory("x", model.shape)
    made = ps.sample(
        graph, model.denoiser, model.scheduler, 2, 1, conditions={"x": model.condition(["hills"])}, progress=False,
        initial_noise={"x": noise},
    ).samples["x"]  # fmt: skip
    assert torch.allclose(made, stock.images, atol=1e-4 * stock.images.abs().max())


def test_windows_that_no_model_has(pipe):
    with pytest.raises(UnsupportedError, match=r"MixtureDenoiser knows contents of \(3, 24, 24\) only"):
        _ = tasks.load("wide", window=(24, 48)).scene
    with pytest.raises(ParameterError, match="15 x 32 pixels: pipeline takes multiples of 2"):
        from_pipeline(pipe).resized(15, 32)
    with pytest.raises(ParameterError, match="window=24 must be height and width"):
        tasks.load("wide", window=24)
