"""DiffCollage on a graph: exact overlaps against the Bethe sum, overlaps by windows alone against a loop."""

from __future__ import annotations

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.errors import ParameterError, ShapeError, UnsupportedError
from tests.peers.views import alpha_sigma

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # torch, when diffusers hands its tensors to numpy
INDEX = torch.arange(40)
AR1 = (0.98 ** (INDEX[:, None] - INDEX).abs()).double()


def exact(shape):
    return ps.GaussianDenoiser(torch.zeros(shape).double(), AR1[: shape[-1], : shape[-1]])


def content(x, covariance, alpha, sigma):  # E[x_0 | x_t], x (n, D)
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance))
    return alpha * x @ torch.linalg.solve(noisy, covariance)


@pytest.mark.parametrize("name", ["DDIM", "DPM++ 2M"])
def test_exact_overlaps_are_the_bethe_sum(name, generator):
    """The canvas content is the windows' minus the overlaps', step by step."""
    own = {
        "DDIM": diffusers.DDIMScheduler(clip_sample=False),
        "DPM++ 2M": diffusers.DPMSolverMultistepScheduler(),
    }[name]
    z = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    graph = ps.wide_canvas((1, 1, 20), (1, 8), 4)
    found = peers.sample(
        "diffcollage", graph, exact((1, 1, 8)), own, 10, 3, separators=exact, dtype=torch.float64,
        initial_noise={"canvas": z.reshape(3, 1, 1, 20)}, progress=False,
    )  # fmt: skip
    assert found.info["denoiser_evaluations"] == 10 * (4 + 3)
    own.set_timesteps(10)
    for index, t in enumerate(own.timesteps):
        a, s = alpha_sigma(own, index)
        m = torch.zeros_like(z)
        for left in (0, 4, 8, 12):
            m[:, left : left + 8] += content(z[:, left : left + 8], AR1[:8, :8], a, s)
        for left in (4, 8, 12):
            m[:, left : left + 4] -= content(z[:, left : left + 4], AR1[:4, :4], a, s)
        z = own.step((z - a * m) / s, t, z).prev_sample
    tolerance = (
        1e-5 if name == "DDIM" else 1e-3
    )  # that solver keeps its levels in float32, at t between training steps
    assert (found.samples["canvas"][:, 0, 0] - z).abs().max() < tolerance


def test_it_is_the_bethe_denoiser_from_the_same_seed():
    graph = ps.wide_canvas((1, 1, 20), (1, 8), 4)
    alone = ps.FactorGraph()
    alone.add_trajectory("canvas", (1, 1, 20))
    own = diffusers.DDIMScheduler(clip_sample=False)
    whole = peers.bethe_windows((1, 1, 20), 8, 4, exact)
    expected = ps.sample(alone, whole, own, 10, 3, 7, dtype=torch.float64, progress=False).samples["canvas"]
    found = peers.sample(
        "diffcollage",
        graph,
        exact((1, 1, 8)),
        own,
        10,
        3,
        7,
        separators=exact,
        dtype=torch.float64,
        progress=False,
    )
    assert torch.allclose(found.samples["canvas"], expected, atol=1e-9)


@pytest.mark.parametrize("draws", [1, 3])
def test_overlaps_by_windows_alone(draws, generator):
    """Windows for each overlap that follow the canvas there, and sample the rest along by themselves."""
    z = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    sides = [(k, draw) for k in (0, 1) for draw in range(draws)]
    beside = {side: torch.randn(3, 8, generator=generator, dtype=torch.float64) for side in sides}
    own = diffusers.DDIMScheduler(clip_sample=False)
    graph = ps.wide_canvas((1, 1, 16), (1, 8), 4)
    noise = {
        ("overlap", f"w{k}", 4 * k + 4, 4, draw): beside[k, draw].reshape(3, 1, 1, 8) for k, draw in sides
    }
    found = peers.sample(
        "diffcollage", graph, exact((1, 1, 8)), own, 10, 3, draws=draws, dtype=torch.float64,
        initial_noise={"canvas": z.reshape(3, 1, 1, 16), **noise}, progress=False,
    ).samples["canvas"]  # fmt: skip
    own.set_timesteps(10)
    for index, t in enumerate(own.timesteps):
        a, s = alpha_sigma(own, index)
        m = torch.zeros_like(z)
        for left in (0, 4, 8):
            m[:, left : left + 8] += content(z[:, left : left + 8], AR1[:8, :8], a, s)
        for (k, draw), window in beside.items():  # the overlap is the right half of window k
            window = torch.cat([window[:, :4], z[:, 4 * k + 4 : 4 * k + 8]], 1)
            known = content(window, AR1[:8, :8], a, s)
            m[:, 4 * k + 4 : 4 * k + 8] -= known[:, 4:] / draws
            beside[k, draw] = own.step((window - a * known) / s, t, window).prev_sample
        z = own.step((z - a * m) / s, t, z).prev_sample
    assert (found[:, 0, 0] - z).abs().max() < 1e-5


def test_counts_on_grids_rings_and_close_windows():
    """Every element counts once in all; where three windows of a row meet, only neighbours' overlaps are taken off."""
    for graph in (
        ps.wide_canvas((1, 6, 8), (4, 4), 2),
        ps.wide_canvas((1, 4, 12), (4, 6), 3, wrap=True),
        ps.wide_canvas((1, 4, 10), (4, 6), 2),
    ):
        total = torch.zeros(graph.shape("canvas"))
        for factor in graph.factors:
            view = graph.maps(factor)[1]
            total += view.adjoint(torch.ones(view.out_shape))
        total = total.flatten()
        for region in peers.overlaps(graph):
            total[region.sites] += region.times
        assert torch.equal(total, torch.ones_like(total))
    grid = [(o.box, o.times) for o in peers.overlaps(ps.wide_canvas((1, 6, 6), (4, 4), 2))]
    assert sorted(grid) == [
        ((1, 2, 2), 1),
        ((1, 2, 4), -1),
        ((1, 2, 4), -1),
        ((1, 4, 2), -1),
        ((1, 4, 2), -1),
    ]
    assert [(len(o.sites), o.times) for o in peers.overlaps(ps.wide_canvas((1, 1, 10), (1, 6), 2))] == [
        (4, -1)
    ] * 2


def test_what_is_no_collage():
    own = diffusers.DDIMScheduler(clip_sample=False)
    graph = ps.wide_canvas((1, 1, 20), (1, 8), 4)
    with pytest.raises(ShapeError, match=r"separators\(\(1, 1, 4\)\) works on shape \(1, 1, 8\)"):
        peers.sample(
            "diffcollage",
            graph,
            exact((1, 1, 8)),
            own,
            5,
            separators=lambda s: exact((1, 1, 8)),
            progress=False,
        )
    with pytest.raises(ParameterError, match="is a float, not a Denoiser"):
        peers.sample("diffcollage", graph, exact((1, 1, 8)), own, 5, separators=lambda s: 1.0, progress=False)
    twice = ps.wide_canvas((1, 1, 8), (1, 8), 4)
    twice.add_trajectory("again", (1, 1, 8))
    view = ps.Crop((1, 1, 8), (0, 0), (1, 8))
    twice.add_factor("see again", ["again", "canvas"], ps.Equality(), maps=[None, view])
    assert "nothing that another does not" in peers.why_not("diffcollage", twice)
    with pytest.raises(UnsupportedError, match="it needs windows of one canvas"):
        peers.sample("diffcollage", ps.chain_graph(2, (1, 1, 8)), exact((1, 1, 8)), own, 5, progress=False)
