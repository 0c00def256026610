"""The six cases of SyncTweedies, and the methods that are one of them, against their updates in plain matrices."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.errors import ParameterError, UnsupportedError
from tests.peers.views import SCHEDULERS, Network, alpha_sigma, denoiser, textured, windows

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # torch, when diffusers hands its tensors to numpy
STEPS = 6
CASES = [1, 2, 3, 4, 5, 6]
QUICK = [(case, "DPM++ 2M") for case in CASES] + [(2, "Euler"), (6, "UniPC"), (1, "Heun"), (5, "DDIM")]
GRID = [
    pytest.param(case, name, marks=() if (case, name) in QUICK else pytest.mark.slow)
    for case in CASES
    for name in SCHEDULERS
]


class Loop:
    """SyncTweedies in matrices: ``x[on] = A z``, ``z = sum A' W x / sum |A|' W 1``."""

    def __init__(self, scheduler, places, weights=None):
        self.scheduler = scheduler
        self.places = places  # {name: (elements of the view on the canvas, A)}
        self.weights = weights or {name: torch.ones(len(a)).double() for name, (_, a) in places.items()}

    def onto(self, x):
        top = sum((x[n][:, on] * self.weights[n]) @ a for n, (on, a) in self.places.items())
        total = sum(self.weights[n] @ a.abs() for n, (_, a) in self.places.items())
        return torch.where(total == 0, 0.0, top / total.where(total != 0, torch.ones_like(total)))

    def seen(self, z, x):
        out = {}
        for n, (on, a) in self.places.items():
            out[n] = x[n].clone()
            out[n][:, on] = z @ a.T
        return out

    def average(self, x):
        return self.seen(self.onto(x), x)

    def run(self, case, x, z):
        names = list(self.places)
        nets = {n: Network(k) for k, n in enumerate(names)}
        own = {key: copy.deepcopy(self.scheduler) for key in [*names, "z"]}
        for scheduler in own.values():
            scheduler.set_timesteps(STEPS)
        start = float(own["z"].init_noise_sigma)
        x, z = {n: start * v for n, v in x.items()}, start * z

        def step(key, output, t, state):
            return own[key].step(output, t, state, return_dict=False)[0]

        for index, t in enumerate(own["z"].timesteps):
            a, s = alpha_sigma(own["z"], index)
            if case >= 4:
                x = self.seen(z, x)
            scaled = {n: own[n].scale_model_input(x[n], t) for n in names}
            own["z"].scale_model_input(z, t)
            eps = {n: nets[n].noise(scaled[n], t.double()) for n in names}
            clean = {n: (x[n] - s * eps[n]) / a for n in names}
            if case == 1:
                eps = self.average(eps)
                x = {n: step(n, eps[n], t, x[n]) for n in names}
            elif case == 2:
                clean = self.average(clean)
                x = {n: step(n, (x[n] - a * clean[n]) / s, t, x[n]) for n in names}
            elif case == 3:
                x = self.average({n: step(n, eps[n], t, x[n]) for n in names})
            else:
                after = {n: step(n, eps[n], t, x[n]) for n in names}
                if case == 4:
                    z = step("z", self.onto(eps), t, z)
                elif case == 5:
                    z = step("z", (z - a * self.onto(clean)) / s, t, z)
                else:
                    z = self.onto(after)
                x = after
        return (x, self.onto(x)) if case <= 3 else (self.seen(z, x), z)


def denoisers(graph):
    return {name: denoiser(k, graph.shape(name)) for k, name in enumerate(graph.trajectories)}


def sampled(method, graph, scheduler, start=None, **options):
    return peers.sample(
        method, graph, denoisers(graph), scheduler, STEPS, 2, initial_noise=start, dtype=torch.float64,
        progress=False, **options,
    ).samples  # fmt: skip


def whole(matrices):
    return {name: (torch.arange(len(a)), a) for name, a in matrices.items()}


def close(found, x, z, canvas):
    scale = max(1.0, z.abs().max().item())
    for name, value in x.items():
        assert (found[name].flatten(1) - value).abs().max() < 2e-5 * scale, name
    assert (found[canvas].flatten(1) - z).abs().max() < 2e-5 * scale


@pytest.mark.parametrize(("case", "scheduler"), GRID)
def test_windows_with_their_canvas_s_noise(case, scheduler, generator):
    graph, matrices = windows()
    loop = Loop(SCHEDULERS[scheduler](), whole(matrices))
    z = torch.randn(2, 36, generator=generator, dtype=torch.float64)
    x, expected = loop.run(case, {n: z @ a.T for n, a in matrices.items()}, z)
    found = sampled(f"synctweedies-{case}", graph, loop.scheduler, {"canvas": z.reshape(2, 1, 4, 9)})
    close(found, x, expected, "canvas")


@pytest.mark.parametrize("case", [1, 2, 3])
def test_views_with_noise_of_their_own(case, generator):
    """Then the cases differ; averaging the noise alone does not even bring the views together."""
    graph, matrices = windows()
    loop = Loop(SCHEDULERS["DPM++ 2M"](), whole(matrices))
    x = {n: torch.randn(2, 16, generator=generator, dtype=torch.float64) for n in matrices}
    expected, z = loop.run(case, x, torch.zeros(2, 36).double())
    noise = {n: value.reshape(2, 1, 4, 4) for n, value in x.items()}
    found = sampled(f"synctweedies-{case}", graph, loop.scheduler, noise, noise="own")
    close(found, expected, z, "canvas")
    apart = (found["w0"][..., 3] - found["w1"][..., 0]).abs().max()
    assert apart > 0.1 if case == 1 else apart < 1e-6


@pytest.mark.parametrize("scheduler", ["DDIM", pytest.param("DPM++ 2M", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_views_that_look_up_an_atlas(case, scheduler, generator):
    """Bilinear maps, pixels that show no texture, and texels that no view shows: all six cases differ."""
    graph, places, weights = textured(generator)
    loop = Loop(SCHEDULERS[scheduler](), places, weights)
    z = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    x = {n: torch.randn(2, 9, generator=generator, dtype=torch.float64) for n in places}
    expected, canvas = loop.run(case, x, z)
    noise = {**{n: value.reshape(2, 1, 3, 3) for n, value in x.items()}, "atlas": z}
    found = sampled(f"synctweedies-{case}", graph, loop.scheduler, noise)
    close(found, expected, canvas, "atlas")


def test_the_cases_differ_on_an_atlas(generator):
    graph, *_ = textured(generator)
    found = [sampled(f"synctweedies-{case}", graph, SCHEDULERS["DDIM"]())["atlas"] for case in CASES]
    for a in range(6):
        for b in range(a):
            assert (found[a] - found[b]).abs().max() > 1e-3, (a + 1, b + 1)


@pytest.mark.parametrize("scheduler", ["UniPC", "ancestral", "flow"])
def test_where_views_pick_elements_all_cases_are_eq_12(scheduler):
    """And equal ps.sample on the canvas without potentials, from the same seeds, stochastic steps included."""
    graph, _ = windows()
    own = {
        "ancestral": diffusers.EulerAncestralDiscreteScheduler,
        "flow": diffusers.FlowMatchEulerDiscreteScheduler,
        **SCHEDULERS,
    }[scheduler]()
    kind = "flow_prediction" if scheduler == "flow" else "epsilon"
    own_denoisers = {
        name: ps.DiffusersDenoiser(Network(k), (1, 4, 4), kind) for k, name in enumerate(graph.trajectories)
    }
    arguments = (graph, own_denoisers, own, STEPS, 2, 3)
    plain = ps.sample(*arguments, dtype=torch.float64, progress=False).samples
    for method in ["multidiffusion", *(f"synctweedies-{case}" for case in CASES)]:
        found = peers.sample(method, *arguments, dtype=torch.float64, progress=False).samples
        for name, value in plain.items():  # some schedulers step in float32
            assert (found[name] - value).abs().max() < 2e-6 * max(1.0, value.abs().max()), (method, name)


def test_step_noise_of_their_own_shrinks_what_is_averaged():
    """Stochastic steps of the published panorama code draw every view's noise by itself."""
    graph = ps.FactorGraph()
    for name in "abcd":
        graph.add_trajectory(name, (1, 8, 8))
    for a, b in zip("abc", "bcd", strict=True):
        graph.add_factor((a, b), [a, b], ps.Equality())
    exact = ps.FunctionDenoiser(
        lambda x, a, s: a * x / (a**2 + s**2), (1, 8, 8)
    )  # of standard normal contents
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    variance = {}
    for kind in ("shared", "own"):
        x = peers.sample(
            "synctweedies-3", graph, exact, scheduler, 50, 40, noise=kind, progress=False
        ).samples["a"]
        variance[kind] = x.var().item()
    assert variance["own"] < 0.7 * variance["shared"]


# --------------------------------------------------------------------------------------- methods that are a case


@pytest.mark.parametrize("scheduler", ["DDIM", "UniPC"])
def test_mixture_of_diffusers(scheduler, generator):
    """Canvas latents; noise predictions weighted by exp(-(x - mid)^2 / size^2 / (2 * .01)) per axis."""
    graph, matrices = windows()
    axis = torch.exp(-((torch.arange(4).double() - 1.5) ** 2) / 16 / (2 * 0.01))
    weights = dict.fromkeys(matrices, torch.outer(axis, axis).flatten())
    loop = Loop(SCHEDULERS[scheduler](), whole(matrices), weights)
    z = torch.randn(2, 36, generator=generator, dtype=torch.float64)
    x, expected = loop.run(4, {n: z @ a.T for n, a in matrices.items()}, z)
    found = sampled("mixture-of-diffusers", graph, loop.scheduler, {"canvas": z.reshape(2, 1, 4, 9)})
    close(found, x, expected, "canvas")


@pytest.mark.parametrize("scheduler", ["DDIM", "Euler"])
def test_doubletake(scheduler, generator):
    """Motions of 10 frames that shake hands over 4: (1 - j/4) of the one before, j/4 of the next, on the contents."""
    graph = ps.FactorGraph()
    graph.add_variable("motion", (3, 22))
    matrices, weights = {}, {}
    index = torch.arange(66).reshape(3, 22)
    ramp = torch.arange(4).double() / 4
    for k, left in enumerate((0, 6, 12)):
        name = f"m{k}"
        graph.add_trajectory(name, (3, 10))
        graph.add_factor(
            f"see {name}", [name, "motion"], ps.Equality(), maps=[None, ps.Crop((3, 22), (left,), (10,))]
        )
        matrices[name] = torch.eye(66, dtype=torch.float64)[index[:, left : left + 10].flatten()]
        weight = torch.ones(10).double()
        if k > 0:
            weight[:4] = ramp
        if k < 2:
            weight[-4:] = 1 - ramp
        weights[name] = weight.repeat(3)
    loop = Loop(SCHEDULERS[scheduler](), whole(matrices), weights)
    z = torch.randn(2, 66, generator=generator, dtype=torch.float64)
    x, expected = loop.run(2, {n: z @ a.T for n, a in matrices.items()}, z)
    found = sampled("doubletake", graph, loop.scheduler, {"motion": z.reshape(2, 3, 22)})
    close(found, x, expected, "motion")


def test_ramps_on_rings_and_grids_are_partitions_of_unity():
    for graph in (
        ps.wide_canvas((2, 4, 12), (4, 6), (4, 3), wrap=True),
        ps.wide_canvas((1, 9, 11), (4, 5), (3, 2)),
    ):
        weighted = peers.ramp_weights(graph)
        total = torch.zeros(graph.shape("canvas"), dtype=torch.float64)
        for factor in weighted.factors:
            total += weighted.maps(factor)[1].adjoint(weighted.potential(factor).weight)
        assert torch.allclose(total, torch.ones_like(total))
    ring = peers.ramp_weights(ps.wide_canvas((1, 4, 8), (4, 4), 2, wrap=True))
    assert ring.potential("see w0").weight[0, 0].tolist() == [0.0, 0.5, 1.0, 0.5]


# ------------------------------------------------------------------------------------------- Visual Anagrams

JIGSAW = [7, 3, 1, 0, 2, 15, 14, 4, 6, 5, 8, 12, 13, 9, 11, 10]
VIEWS = {
    "identity": lambda x: x,
    "rotation": lambda x: x.rot90(1, (-2, -1)),
    "half turn": lambda x: x.rot90(2, (-2, -1)),
    "flip": lambda x: x.flip(-2),
    "jigsaw": lambda x: x.flatten(-2)[..., JIGSAW].unflatten(-1, (4, 4)),
    "negation": lambda x: -x,
}  # fmt: skip


def matrix(view):
    return view(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).reshape(16, 16).T


def anagram(*names):
    """The identity and other views of one canvas; negation is no element map, so it is an Attraction."""
    shape = (1, 4, 4)
    maps = {
        "rotation": ps.Rotate(shape, 1),
        "half turn": ps.Rotate(shape, 2),
        "flip": ps.Flip(shape, (-2,)),
        "jigsaw": ps.Permutation(shape, matrix(VIEWS["jigsaw"]).argmax(1)),
    }
    graph = ps.FactorGraph()
    graph.add_variable("image", shape)
    for name in ("identity", *names):
        graph.add_trajectory(name, shape)
        if name == "negation":
            at = torch.arange(16).expand(2, -1)
            negate = ps.SparseMap(shape, shape, at.contiguous(), -torch.ones(16))
            graph.add_factor(name + "'", [name, "image"], ps.Attraction(1.0), maps=[None, negate])
        else:
            graph.add_factor(name + "'", [name, "image"], ps.Equality(), maps=[None, maps.get(name)])
    return graph


@pytest.mark.parametrize("scheduler", ["DDIM", "DPM++ 2M"])
@pytest.mark.parametrize(
    "names", [("rotation",), ("flip",), ("jigsaw",), ("negation",), ("half turn", "jigsaw", "negation")]
)
def test_visual_anagrams(names, scheduler, generator):
    """The mean of v_i^-1 eps_i(v_i x), handed to the scheduler of one image."""
    graph = anagram(*names)
    z = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
    own = SCHEDULERS[scheduler]()
    found = sampled("visual-anagrams", graph, own, {"image": z})
    views = [VIEWS[name] for name in ("identity", *names)]
    own.set_timesteps(STEPS)
    for t in own.timesteps:
        eps = [Network(k).noise(view(z), t.double()) for k, view in enumerate(views)]
        inverse = [(e.flatten(1) @ matrix(view)).reshape(z.shape) for view, e in zip(views, eps, strict=True)]
        z = own.step(sum(inverse) / len(views), t, z).prev_sample
    assert (found["image"] - z).abs().max() < 1e-5
    for name, view in zip(("identity", *names), views, strict=True):
        assert torch.allclose(found[name], view(found["image"]))


def test_learned_variances_are_averaged_without_their_views_signs():
    """A network that is odd in its noise and even in its variance sees one picture in all views: one run by itself."""

    class Both(torch.nn.Module):
        def forward(self, rows, timestep):
            return SimpleNamespace(sample=torch.cat([(0.8 * rows).tanh(), rows.cos()], 1))

    both = ps.DiffusersDenoiser(Both(), (1, 4, 4))
    own = diffusers.DDPMScheduler(clip_sample=False, variance_type="learned_range")
    alone = ps.FactorGraph()
    alone.add_trajectory("image", (1, 4, 4))
    expected = ps.sample(alone, both, own, STEPS, 2, 3, progress=False).samples["image"]
    graph = anagram("flip", "jigsaw", "negation")
    found = peers.sample("visual-anagrams", graph, both, own, STEPS, 2, 3, progress=False).samples
    assert torch.allclose(found["image"], expected, atol=1e-4)
    assert torch.allclose(found["negation"], -expected, atol=1e-4)


def test_what_is_no_anagram():
    graph, _ = windows()
    assert peers.why_not("visual-anagrams", anagram("rotation", "negation")) is None
    with pytest.raises(UnsupportedError, match="'w0' does not show a whole canvas through an orthogonal map"):
        sampled("visual-anagrams", graph, SCHEDULERS["DDIM"]())


def test_noise_is_of_two_kinds():
    graph, _ = windows()
    with pytest.raises(ParameterError, match="noise='both' is neither 'shared' nor 'own'"):
        sampled("multidiffusion", graph, SCHEDULERS["DDIM"](), noise="both")
