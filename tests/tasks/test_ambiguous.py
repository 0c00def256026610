"""Pictures with several readings: views, and who reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.errors import ParameterError, UnknownNameError
from pgm_sync.tasks.ambiguous import VIEWS, Ambiguous
from pgm_sync.tasks.models import from_pipeline
from pgm_sync.tasks.run import methods, sample_method

SHAPE = (3, 8, 8)


def picture():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def skewed(x):
    """The skew of Geng et al., column by column."""
    out = np.empty_like(x)
    for column in range(x.shape[-1]):
        out[..., column] = np.roll(x[..., column], int(1.5 * (column - x.shape[-1] // 2)), -1)
    return out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("turned", lambda x: np.rot90(x, 2, (-2, -1))),
        ("quarter turn", lambda x: np.rot90(x, 1, (-2, -1))),
        ("mirrored", lambda x: x[..., ::-1]),
        ("upside down", lambda x: x[:, ::-1]),
        ("skewed", skewed),
    ],
)
def test_views(name, expected):
    view, x = VIEWS[name](SHAPE), picture()
    assert np.array_equal(view.apply(x).numpy(), expected(x.numpy()))


@pytest.mark.parametrize("name", VIEWS)
def test_views_keep_noise_white(name):
    """Orthonormal, so that noise of the picture is noise in every view."""
    dense = VIEWS[name]((1, 4, 4)).dense().double()
    assert torch.allclose(dense @ dense.T, torch.eye(16, dtype=torch.float64))


def test_all_views_at_once():
    """Of one picture, exactly, with every method that applies."""
    task = Ambiguous(views=("skewed", "negated", "inner rotation"))
    assert methods(task)["visual-anagrams"] is None
    results = sample_method(task, "learned", 2, 3, progress=False)
    for name, view in task._maps.items():
        assert torch.allclose(results.samples[name], view.apply(results.content), atol=1e-5)
    shown = [view(results.content) for view in task._views_shown(results.content)]
    assert torch.allclose(shown[2], -shown[0])
    assert all(np.isfinite(measure.of(results).value) for measure in task.measures())


def test_a_negative_is_denoised_as_the_picture_it_is_of():
    """Alone, it is the negative of what the denoiser samples from the negative noise."""
    task = Ambiguous(views="negated", prompts=("A", "A"))
    scene, draws = task.scene, torch.Generator().manual_seed(0)
    noise, label = torch.randn(2, *task._model.shape, generator=draws), task.conditions([0, 1])["negated"]
    found = []
    for name, sign in (("upright", -1), ("negated", 1)):
        graph = ps.FactorGraph()
        graph.add_trajectory(name, task._model.shape)
        made = ps.sample(
            graph, scene.denoisers[name], scene.scheduler, 3, 2, conditions={name: label}, progress=False,
            initial_noise={name: sign * noise},
        )  # fmt: skip
        found.append(sign * made.samples[name])
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_a_checkpoint_is_read_by_clip(pipe, clip):
    """Views of finished pictures, not of latents; the worst view's cosine, against one computed here."""
    given = {"model": from_pipeline(pipe), "prompts": ("a duck", "a rabbit"), "clip": clip}
    task = Ambiguous(**given)
    results = sample_method(task, "learned", 3, 2, progress=False)
    side_by_side = task.pictures(results.content) * 2 - 1
    assert side_by_side.shape == (3, 3, 16, 33)
    shown = side_by_side[..., :16]
    assert torch.equal(side_by_side[..., 17:], shown.rot90(2, (-2, -1)))
    texts = clip.texts(["a duck", "a rabbit"])
    scores = torch.stack([clip(x) @ texts.T for x in (shown, shown.rot90(2, (-2, -1)))], 1)
    found = {measure.name: measure.of(results).value for measure in task.measures()}
    worst = torch.minimum(scores[:, 0, 0], scores[:, 1, 1]).mean().item()
    assert found["alignment"] == pytest.approx(worst, abs=1e-6)
    right = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
    assert found["all views read"] == pytest.approx(right.float().mean().item())
    hidden = ((scores / 0.01).softmax(-1) + (scores / 0.01).softmax(-2)).diagonal(dim1=1, dim2=2).mean() / 2
    assert found["concealment"] == pytest.approx(hidden.item(), abs=1e-5)

    unread = Ambiguous(model=from_pipeline(pipe), prompts=("a duck", "a rabbit"))
    with pytest.raises(ParameterError, match="is read by CLIP: clip=NAME"):
        unread.measures()[0].of(results)
    with pytest.raises(ParameterError, match="takes any text; give prompts"):
        Ambiguous(model=from_pipeline(pipe)).conditions([0])


def test_views_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="no view is called 'inside out'"):
        tasks.load("ambiguous", views="inside out")
    with pytest.raises(ParameterError, match="2 prompts for 3 views"):
        tasks.load("ambiguous", views=("turned", "mirrored"), prompts=("A", "B"))
