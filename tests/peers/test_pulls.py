"""SyncSDE on graphs: what draws what, against the published code's loops for every task written out again."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.errors import GraphStructureError, ParameterError, UnknownNameError, UnsupportedError
from tests.peers.views import Network, denoiser, textured

STEPS, STRENGTH = 10, 5.0


def scheduler():
    return diffusers.DDIMScheduler(clip_sample=False)


def published(states, pull, implicit=False, steps=STEPS, strength=STRENGTH):
    """DDIM from the betas up, then ``x_j -= gamma (1/lambda) (t/T) pull_j``; `pull` gives M and M * target."""
    bars = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000, dtype=torch.float32), 0).double()
    stride = 1000 // steps
    x = list(states)
    for t in [stride * k for k in reversed(range(steps))]:
        a, b = float(bars[t]), float(bars[t - stride]) if t >= stride else 1.0
        gamma = math.sqrt(b / a) - math.sqrt((1 - b) / (1 - a))
        new = []
        for j, xj in enumerate(x):
            eps = Network(j).noise(xj, torch.tensor(float(t)))
            stepped = math.sqrt(b) * (xj - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - b) * eps
            mask, target = pull(j, x)
            g = gamma * strength * t / 1000
            if implicit:
                stepped = stepped - (g / (1 + g * mask)) * (mask * xj - target)
            else:
                stepped = stepped - g * (mask * xj - target)
            new.append(stepped)
        x = new
    return x


def compare(graph, x, pull, form="explicit", **options):
    names = graph.trajectories
    noise = dict(zip(names, x, strict=True))
    denoisers = {name: denoiser(k, graph.shape(name)) for k, name in enumerate(names)}
    method = {"explicit": "syncsde", "implicit": "syncsde-implicit"}[form]
    result = peers.sample(
        method, graph, denoisers, scheduler(), STEPS, len(x[0]), initial_noise=noise, noise="own",
        dtype=torch.float64, progress=False, **options,
    )  # fmt: skip
    expected = published(x, pull, form == "implicit")
    for name, value in zip(names, expected, strict=True):
        assert (result.samples[name] - value).abs().max() < 2e-5, (
            name
        )  # alpha, sigma of diffusers are float32
    free = published(x, lambda j, x: (0.0, torch.zeros_like(x[j])))
    assert (free[-1] - expected[-1]).abs().max() > 1e-2
    assert result.info["denoiser_evaluations"] == STEPS * len(names)
    return result.samples, expected


def draws(generator, count, *shape):
    return [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("form", ["explicit", "implicit"])
def test_wide(form, generator):
    """Each window to the one before, which is moved by a stride; windows are pasted, the later on top."""
    graph = ps.wide_canvas((1, 4, 14), (4, 8), 2)  # four windows; the last three all show column 6

    def pull(j, x):
        mask, target = torch.zeros(8).double(), torch.zeros_like(x[j])
        if j:
            mask[:6] = 1
            target[..., :6] = x[j - 1][..., 2:]
        return mask, target

    found, expected = compare(graph, draws(generator, 4, 1, 4, 8), pull, form)
    canvas = torch.zeros(2, 1, 4, 14, dtype=torch.float64)
    for k, x in enumerate(expected):
        canvas[..., 2 * k : 2 * k + 8] = x
    assert torch.allclose(found["canvas"], canvas, atol=2e-5)


@pytest.mark.parametrize("form", ["explicit", "implicit"])
def test_masks(form, generator):
    """Background, an object, and a whole that follows the one outside of the mask and the other inside."""
    shape = (1, 4, 4)
    mask = torch.rand(4, 4, generator=generator, dtype=torch.float64)
    graph = ps.FactorGraph()
    graph.add_variable("canvas", shape)
    for name, weight in (("background", 1 - mask), ("object", mask), ("whole", torch.zeros(4, 4))):
        graph.add_trajectory(name, shape)
        graph.add_factor(f"see {name}", [name, "canvas"], ps.Equality(weight.expand(shape)))

    def pull(j, x):
        if j == 0:
            return torch.zeros(4, 4).double(), torch.zeros_like(x[0])
        if j == 1:
            return 1 - mask, (1 - mask) * x[0]
        return torch.ones(4, 4).double(), (1 - mask) * x[0] + mask * x[1]

    found, expected = compare(graph, draws(generator, 3, *shape), pull, form)
    blended = (1 - mask) * expected[0] + mask * expected[1]
    assert torch.allclose(found["canvas"], blended, atol=2e-5)
    found, expected = compare(graph, draws(generator, 3, *shape), pull, form, canvas="last")
    assert torch.allclose(found["canvas"], expected[2], atol=2e-5)


def test_ambiguous(generator):
    """The turned view to the turned picture."""
    shape = (1, 4, 4)
    graph = ps.FactorGraph()
    graph.add_variable("image", shape)
    graph.add_trajectory("upright", shape)
    graph.add_trajectory("turned", shape)
    graph.add_factor("see upright", ["upright", "image"], ps.Equality())
    graph.add_factor("see turned", ["turned", "image"], ps.Equality(), maps=[None, ps.Rotate(shape, 1)])

    def pull(j, x):
        return (1.0, x[0].rot90(1, (-2, -1))) if j else (0.0, torch.zeros_like(x[0]))

    found, expected = compare(graph, draws(generator, 2, *shape), pull)
    assert torch.allclose(found["image"], expected[1].rot90(-1, (-2, -1)), atol=2e-5)
    other = peers.pulls_from_graph(graph, order=["turned", "upright"])
    assert [(name, pull.source) for name, pulls in other.items() for pull in pulls] == [("upright", "turned")]


def test_negatives(generator):
    shape = (1, 2, 2)
    graph = ps.FactorGraph()
    graph.add_variable("image", shape)
    graph.add_trajectory("positive", shape)
    graph.add_trajectory("negative", shape)
    graph.add_factor("see positive", ["positive", "image"], ps.Equality())
    at = torch.arange(4).expand(2, -1).contiguous()
    graph.add_factor(
        "see negative",
        ["negative", "image"],
        ps.Attraction(1.0),
        maps=[None, ps.SparseMap(shape, shape, at, -torch.ones(4))],
    )

    def pull(j, x):
        return (1.0, -x[0]) if j else (0.0, torch.zeros_like(x[0]))

    compare(graph, draws(generator, 2, *shape), pull)


def test_textures(generator):
    """Each view to the average of all before it, baked onto the atlas and rendered, where any of them shows it."""
    graph, places, weights = textured(generator)

    def pull(j, x):
        mask, target = torch.zeros(9).double(), torch.zeros(len(x[0]), 9).double()
        names = list(places)
        if j:
            before = [(k, weights[n], *places[n]) for k, n in enumerate(names[:j])]
            top = sum((x[k].flatten(1)[:, on] * weight) @ a for k, weight, on, a in before)
            total = sum(weight @ a for _, weight, _, a in before)
            baked = torch.where(total > 0, top / total.clamp_min(1e-12), 0.0)
            on, lookup = places[names[j]]
            mask[on] = lookup @ (total > 0).double()
            target[:, on] = baked @ lookup.T
        return mask.reshape(3, 3), target.reshape(-1, 1, 3, 3)

    noise = draws(generator, 3, 1, 3, 3)
    names = list(places)
    start = {**dict(zip(names, noise, strict=True)), "atlas": torch.zeros(2, 20).double()}
    denoisers = {name: denoiser(k, (1, 3, 3)) for k, name in enumerate(names)}
    found = peers.sample(
        "syncsde",
        graph,
        denoisers,
        scheduler(),
        STEPS,
        2,
        initial_noise=start,
        dtype=torch.float64,
        progress=False,
    ).samples
    for name, value in zip(names, published(noise, pull), strict=True):
        assert (found[name] - value).abs().max() < 2e-5


def test_the_rule_for_what_a_graph_looks_like():
    """Views of parts with weights, as of a texture: to the weighted average of those before, and wholly."""
    graph = peers.gaussian_weights(ps.wide_canvas((1, 1, 8), (1, 4), 1))
    weight = {name: graph.potential(f"see {name}").weight.flatten() for name in graph.trajectories}
    pulls = peers.pulls_from_graph(graph)["w2"]
    assert [pull.source for pull in pulls] == ["w0", "w1"]
    first, second = (pull.mask.flatten() for pull in pulls)
    for e, (a, b) in enumerate([(2, 1), (3, 2)]):
        share = weight["w0"][a] / (weight["w0"][a] + weight["w1"][b])
        assert first[e].item() == pytest.approx(share.item())
    assert (first + second).tolist() == pytest.approx([1, 1, 1, 0])
    (only,) = peers.pulls_from_graph(graph, predecessors="last")["w2"]
    assert only.source == "w1"


def test_windows_start_from_their_canvas_s_noise(generator):
    """As published for wide images, and as ps.sample does; then the first window equals its own free run."""
    graph = ps.wide_canvas((1, 4, 14), (4, 8), 2)
    noise = torch.randn(2, 1, 4, 14, generator=generator, dtype=torch.float64)
    denoisers = {name: denoiser(0, (1, 4, 8)) for name in graph.trajectories}
    found = peers.sample(
        "syncsde", graph, denoisers, scheduler(), STEPS, 2, initial_noise={"canvas": noise}, dtype=torch.float64,
        progress=False,
    ).samples  # fmt: skip
    (expected,) = published([noise[..., :8]], lambda j, x: (0.0, torch.zeros_like(x[0])))
    assert torch.allclose(found["w0"], expected, atol=2e-5)


def test_regions_of_a_grid_are_drawn_to_the_last_before_them():
    pulls = peers.pulls_from_graph(ps.wide_canvas((1, 6, 6), (4, 4), 2))
    sources = {name: [pull.source for pull in own] for name, own in pulls.items()}
    assert sources == {"w0,1": ["w0,0"], "w1,0": ["w0,0", "w0,1"], "w1,1": ["w0,1", "w1,0"]}
    for own in pulls.values():
        total = sum(pull.mask for pull in own)
        assert set(total.unique().tolist()) <= {0.0, 1.0}


def test_a_ring_closes():
    pulls = peers.pulls_from_graph(ps.wide_canvas((1, 4, 12), (4, 6), 4, wrap=True))
    assert [pull.source for pull in pulls["w2"]] == ["w0", "w1"]


@pytest.mark.parametrize("steps", [3, 5, 20, 100])
@pytest.mark.parametrize("strength", [5.0, 40.0, 1000.0])
def test_the_implicit_form_is_stable(steps, strength):
    """Standard normal contents twice: the variance of the drawn one never exceeds its own."""
    graph, exact = twins()
    arguments = (graph, exact, scheduler(), steps, 200)
    found = peers.sample(
        "syncsde-implicit", *arguments, strength=strength, noise="own", progress=False
    ).samples
    assert found["b"].var() < 1.2
    assert torch.corrcoef(torch.stack([found["a"].flatten(), found["b"].flatten()]))[0, 1] > 0.2


def twins():
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, (4,))
    graph.add_factor("same", ["a", "b"], ps.Equality())
    return graph, ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), (4,))


def test_the_explicit_form_diverges():
    """With few steps or a strong pull: 20 steps with 1/lambda = 40."""
    graph, exact = twins()
    own = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    variance = {
        (steps, strength): peers.sample(
            "syncsde", graph, exact, own, steps, 200, strength=strength, noise="own", progress=False
        ).samples["b"].var().item()
        for steps, strength in ((100, 5.0), (20, 40.0))
    }  # fmt: skip
    assert variance[100, 5.0] < 1.2
    assert variance[20, 40.0] > 1e6


def test_what_can_not_be_drawn():
    halves = ps.chain_graph(2, (4,), ps.Correlation(0.8))
    exact = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), (4,))
    with pytest.raises(GraphStructureError, match="no trajectory shares content"):
        peers.pulls_from_graph(halves)
    with pytest.raises(UnsupportedError, match="nothing says what a trajectory is drawn to"):
        peers.sample("syncsde", halves, exact, scheduler(), 5, progress=False)
    told = {1: peers.Pull(0, lambda x: 0.8 * x)}
    found = peers.sample("syncsde", halves, exact, scheduler(), 50, 500, pulls=told, progress=False).samples
    assert torch.corrcoef(torch.stack([found[0].flatten(), found[1].flatten()]))[0, 1] > 0.5
    graph = ps.wide_canvas((1, 4, 14), (4, 8), 2)
    with pytest.raises(UnknownNameError, match="order names 'w9'"):
        peers.pulls_from_graph(graph, order=["w9"])
    with pytest.raises(ParameterError, match="twice"):
        peers.pulls_from_graph(graph, order=["w0", "w0"])
    with pytest.raises(ParameterError, match="predecessors='some' is not one of last, all, masks"):
        peers.pulls_from_graph(graph, predecessors="some")
