"""Motion-diffusion models' feature arrays."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import ParameterError, ShapeError


class Tiny(torch.nn.Module):
    """The interface of MDM: a transformer over frames, time and text embedded beside them."""

    def __init__(self, joints=5, features=1, width=16):
        super().__init__()
        self.enter = torch.nn.Linear(joints * features, width)
        layer = torch.nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True)
        self.mix = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.leave = torch.nn.Linear(width, joints * features)
        self.seen = None

    def forward(self, x, timesteps, y):
        self.seen = y
        n, joints, features, frames = x.shape
        tokens = self.enter(x.permute(0, 3, 1, 2).reshape(n, frames, -1))
        tokens = tokens + timesteps[:, None, None].to(x) / 1000 + y.get("scale", torch.zeros(n))[:, None, None]
        mask = ~y["mask"][:, 0, 0]
        out = self.leave(self.mix(tokens, src_key_padding_mask=mask))
        return out.reshape(n, frames, joints, features).permute(0, 2, 3, 1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny().eval()


SCHEDULER = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)


def test_one_window_is_sampled_as_the_models_own_loop_does(model):
    denoiser = ps.MotionDenoiser(model, (5, 12))
    graph = ps.FactorGraph()
    graph.add_trajectory("w", (5, 12))
    noise = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    given = {"w": {"scale": torch.tensor([0.1, 0.2, 0.3]), "text": ["walk", "run", "sit"]}}
    made = ps.sample(graph, denoiser, SCHEDULER, 6, 3, initial_noise={"w": noise}, conditions=given, progress=False)
    assert model.seen["text"] == ["walk", "run", "sit"]
    assert model.seen["lengths"].tolist() == [12, 12, 12]
    state = noise[:, :, None]
    SCHEDULER.set_timesteps(6)
    with torch.no_grad():
        for t in SCHEDULER.timesteps:
            y = {"mask": torch.ones(3, 1, 1, 12, dtype=torch.bool), "scale": given["w"]["scale"]}
            state = SCHEDULER.step(model(state, t.expand(3), y), t, state).prev_sample
    assert torch.allclose(made.samples["w"], state[:, :, 0], atol=1e-5)


def test_windows_along_time_on_one_canvas(model):
    graph = ps.wide_canvas((5, 30), (5, 12), stride=9)
    result = ps.sample(graph, ps.MotionDenoiser(model, (5, 12)), SCHEDULER, 4, 2, progress=False)
    assert result.samples["canvas"].shape == (2, 5, 30)
    assert torch.equal(result.samples["w1"], result.samples["canvas"][..., 9:21])


def test_joints_with_features_of_their_own():
    torch.manual_seed(0)
    model = Tiny(joints=3, features=2).eval()
    denoiser = ps.MotionDenoiser(model, (6, 8), joints=3)
    x = torch.randn(2, 6, 8)
    level = ps.NoiseLevel(alpha=0.6, sigma=0.8, timestep=10)
    y = {"mask": torch.ones(2, 1, 1, 8, dtype=torch.bool)}
    expected = model(x.reshape(2, 3, 2, 8), torch.tensor([10, 10]), y).reshape(2, 6, 8)
    assert torch.allclose(denoiser.denoise(x, level), expected)


def test_what_does_not_fit(model):
    with pytest.raises(ShapeError, match=r"shape \(features, frames\), got \(5, 1, 12\)"):
        ps.MotionDenoiser(model, (5, 1, 12))
    with pytest.raises(ParameterError, match="5 features do not divide into 2 joints"):
        ps.MotionDenoiser(model, (5, 12), joints=2)
    denoiser, x = ps.MotionDenoiser(model, (5, 12)), torch.zeros(2, 5, 12)
    with pytest.raises(ParameterError, match="needs the scheduler's timestep"):
        denoiser.denoise(x, ps.NoiseLevel(0.6, 0.8))
    level = ps.NoiseLevel(0.6, 0.8, timestep=5)
    with pytest.raises(ShapeError, match="condition 'text' has 1 entries for 2 samples"):
        denoiser.denoise(x, level, {"text": ["walk"]})
    with pytest.raises(ParameterError, match="is a dictionary"):
        denoiser.denoise(x, level, "walk")
    cut = ps.MotionDenoiser(lambda x, timesteps, y: x[..., 1:], (5, 12))
    with pytest.raises(ShapeError, match="answered"):
        cut.denoise(x, level)
