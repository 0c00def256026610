"""Canvas weights by noise level: always a partition of unity, and the graph's own where nothing is said."""

from __future__ import annotations

import json

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError, UnknownNameError
from pgm_sync.score.weights import window_profile

LEVEL = ps.NoiseLevel(0.5**0.5, 0.5**0.5)  # log snr 0


def windows(prior=False):
    graph = ps.wide_canvas((1, 4, 10), window=(4, 6), stride=4)
    if prior:
        graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, torch.eye(40) * 0.5 + 0.5))
    return graph


def totals(joint, weights):
    canvas = torch.zeros(40, dtype=torch.float64)
    for name, weight in weights.items():
        canvas.index_add_(0, joint.carriers.views[name].index, weight)
    return canvas


@pytest.mark.parametrize("logits", [
    {"w0": 1.5}, {"w0": [0.0, 3.0], "w1": [50.0, -800.0]}, {"w1": torch.randn(2, 24).double()},
], ids=["one", "by level", "by site"])  # fmt: skip
def test_weights_sum_to_one_whatever_their_logits(logits):
    weights = ps.CanvasWeights(logits, log_snr=[-1.0, 1.0])
    joint = ps.JointDenoiser(windows(), canvas_weights=weights)
    found = weights.at(LEVEL, joint.carriers)
    assert torch.allclose(totals(joint, found), torch.ones(40).double())
    if logits == {"w0": 1.5}:
        assert found["w0"].max() == 1
        assert found["w0"].min().item() == pytest.approx(torch.tensor(1.5).sigmoid().item())
    again = ps.CanvasWeights.from_dict(json.loads(json.dumps(weights.to_dict()))).at(LEVEL, joint.carriers)
    assert all(torch.equal(again[name], found[name]) for name in found)


@pytest.mark.parametrize("prior", [False, True], ids=["Eq. 12", "Eq. 11"])
def test_joint_denoising_with_them(prior):
    """No logits: the graph's own weights. One view alone where its logit is huge."""
    graph = windows(prior)
    carriers = ps.JointDenoiser(graph).carriers
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 1, 4, 10, generator=generator)
    noisy = {n: carriers.view([z], n) for n in graph.trajectories}
    own = {n: torch.randn(2, 1, 4, 6, generator=generator) for n in graph.trajectories}
    plain = ps.JointDenoiser(graph)(noisy, own, LEVEL)
    same = ps.JointDenoiser(graph, canvas_weights=ps.CanvasWeights({}))(noisy, own, LEVEL)
    assert torch.allclose(plain.carried[0], same.carried[0], atol=1e-6)
    alone = ps.JointDenoiser(graph, canvas_weights=ps.CanvasWeights({"w1": 60.0}))(noisy, own, LEVEL)
    if not prior:
        assert torch.allclose(alone.carried[0][..., 4:], own["w1"], atol=1e-6)
        assert torch.allclose(alone.carried[0][..., :4], own["w0"][..., :4])
    assert torch.allclose(alone.mean["w0"][..., 4:], alone.mean["w1"][..., :2])


def test_profiles():
    profile = window_profile((3, 2, 4)).reshape(3, 2, 4)
    assert torch.equal(profile[0], profile[2])
    rows, columns = torch.tensor([-0.5, 0.5]), torch.tensor([-0.75, -0.25, 0.25, 0.75])
    assert torch.allclose(profile[0], (rows[:, None] ** 2 + columns**2).double())
    assert torch.allclose(window_profile((4,)), columns.double() ** 2)


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: ps.CanvasWeights({"w0": [0.0, 1.0]}), ShapeError, "need log_snr"),
    (lambda: ps.CanvasWeights({"w0": [0.0]}, [0.0, 1.0]), ShapeError, "one row per level"),
    (lambda: ps.CanvasWeights({"w0": float("inf")}), NotFiniteError, "logits of 'w0'"),
    (lambda: ps.JointDenoiser(windows(), canvas_weights=ps.CanvasWeights({"w9": 0.0})), UnknownNameError, "'w9' is no"),
    (lambda: ps.JointDenoiser(windows(), canvas_weights=ps.CanvasWeights({"w0": [[0.0] * 3]}, [0.0])), ShapeError,
     "which shows 24 elements"),
    (lambda: ps.JointDenoiser(windows(), canvas_weights="fitted"), ParameterError, "canvas_weights='fitted', but"),
    (lambda: ps.JointDenoiser(windows(), canvas_weights="equal"), ParameterError, "is not None, 'fitted'"),
    (lambda: ps.JointDenoiser(windows(), noise_correlation="fitted"), ParameterError, "noise_correlation='fitted'"),
])  # fmt: skip
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
