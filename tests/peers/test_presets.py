"""The front door: what applies to which graph, what comes out, and what is refused."""

from __future__ import annotations

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.errors import ParameterError, PgmSyncError, ShapeError, UnknownNameError, UnsupportedError
from tests.peers.views import textured

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # torch, when diffusers hands its tensors to numpy
EXACT = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), (1, 4, 4))  # of standard normal contents


def scheduler():
    return diffusers.DDIMScheduler(clip_sample=False)


def windows(**options):
    return ps.wide_canvas((1, 4, 10), (4, 4), 3, **options)


def turned():
    graph = ps.FactorGraph()
    graph.add_variable("image", (1, 4, 4))
    for name, view in (("a", None), ("b", ps.Rotate((1, 4, 4), 1))):
        graph.add_trajectory(name, (1, 4, 4))
        graph.add_factor(f"see {name}", [name, "image"], ps.Equality(), maps=[None, view])
    return graph


WINDOWED = {"mixture-of-diffusers", "diffcollage", "doubletake"}
GRAPHS = {  # and what does not apply
    "windows": (windows, {"visual-anagrams"}),
    "ring": (lambda: ps.wide_canvas((1, 4, 12), (4, 4), 3, wrap=True), {"visual-anagrams"}),
    "turned": (turned, WINDOWED),
    "atlas": (lambda: textured(torch.Generator().manual_seed(0))[0], {*WINDOWED, "visual-anagrams"}),
    "halves": (
        lambda: ps.chain_graph(2, (1, 4, 4), ps.Correlation(0.8)),
        {*peers.methods()} - {"independent"},
    ),
    "apart": (lambda: ps.chain_graph(1, (1, 4, 4)), {*peers.methods()} - {"independent"}),
}


@pytest.mark.parametrize("method", peers.methods())
@pytest.mark.parametrize("name", GRAPHS)
def test_every_method_on_every_graph(method, name):
    """It samples all trajectories and hidden canvases, or why_not says why it does not."""
    make, refused = GRAPHS[name]
    graph = make()
    shape = graph.shape(graph.trajectories[0])
    exact = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), shape)
    if method in refused:
        reason = peers.why_not(method, graph)
        assert reason
        with pytest.raises(UnsupportedError) as caught:
            peers.sample(method, graph, exact, scheduler(), 3, progress=False)
        assert str(caught.value) == f"{method} does not apply: {reason}"
        return
    assert peers.why_not(method, graph) is None
    result = peers.sample(method, graph, exact, scheduler(), 3, 2, 5, progress=False)
    assert {n: tuple(x.shape) for n, x in result.samples.items()} == {
        n: (2, *graph.shape(n)) for n in graph.variables
    }
    assert all(torch.isfinite(x).all() for x in result.samples.values())
    assert result.info["method"] == method
    assert result.info["seeds"] == [5, 6]
    assert result.graph is graph
    least = 3 * len(graph.trajectories)
    evaluations = result.info["denoiser_evaluations"]
    assert evaluations > least if method == "diffcollage" else evaluations == least
    assert set(result.timing) == {"denoiser", "engine", "scheduler", "total"}
    again = peers.sample(method, graph, exact, scheduler(), 3, 1, 6, progress=False)
    for n, x in again.samples.items():
        assert torch.allclose(x[0], result.samples[n][1], atol=1e-5)  # a sample depends on its own seed only


@pytest.mark.parametrize(
    "own", [scheduler(), diffusers.DDPMScheduler(clip_sample=False), diffusers.UniPCMultistepScheduler()]
)
def test_independent_is_a_graph_without_factors_bit_for_bit(own):
    graph, alone = windows(), ps.FactorGraph()
    for name in graph.trajectories:
        alone.add_trajectory(name, (1, 4, 4))
    plain = ps.sample(alone, EXACT, own, 5, 3, 2, progress=False).samples
    found = peers.sample("independent", graph, EXACT, own, 5, 3, 2, progress=False).samples
    assert all(torch.equal(found[name], plain[name]) for name in graph.trajectories)
    pasted = torch.cat(
        [found["w0"], found["w1"][..., 1:], found["w2"][..., 1:]], -1
    )  # each to its own middle
    assert torch.equal(found["canvas"], pasted)


def test_potentials_that_no_peer_knows_change_nothing():
    plain, learned = windows(), windows(features=lambda shape: ps.DCT(shape, 2))  # not even fitted
    for method in peers.methods():
        if peers.why_not(method, plain) is None:
            a, b = (
                peers.sample(method, graph, EXACT, scheduler(), 3, progress=False).samples
                for graph in (plain, learned)
            )
            assert all(torch.equal(a[name], b[name]) for name in a), method


def test_a_chunk_of_windows_at_a_time():
    sizes = []

    def watched(x, a, s):
        sizes.append(len(x))
        return a * x / (a**2 + s**2)

    denoiser = ps.FunctionDenoiser(watched, (1, 4, 4))
    one, many = (
        peers.sample(
            "synctweedies-2", windows(), denoiser, scheduler(), 3, 2, chunk=chunk, progress=False
        ).samples
        for chunk in (None, 4)
    )
    assert torch.allclose(one["canvas"], many["canvas"], atol=1e-6)
    assert max(sizes) == 4


def test_conditions_are_the_trajectories_own():
    denoiser = ps.FunctionDenoiser(lambda x, a, s, c: torch.full_like(x, float(c)), (1, 4, 4))
    conditions = {"w0": 1.0, "w1": 2.0, "w2": 3.0}
    trailing = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    found = peers.sample(
        "independent", windows(), denoiser, trailing, 3, conditions=conditions, canvas="last", progress=False
    ).samples
    assert torch.allclose(
        found["canvas"][0, 0, 0], torch.tensor([1.0] * 3 + [2.0] * 3 + [3.0] * 4), atol=1e-3
    )


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"method": "magic"}, ParameterError, "method='magic' is not one of independent, multidiffusion"),
    ({"strength": 3.0}, ParameterError, "'strength' is no option of multidiffusion; it takes noise"),
    ({"noise_correlation": 0.5}, ParameterError, "'noise_correlation' is for the joint model of ps.sample"),
    ({"fancy": 3.0}, ParameterError, "unknown option 'fancy'"),
    ({"method": "syncsde", "strength": -1.0}, ParameterError, "strength=-1.0"),
    ({"method": "syncsde", "canvas": "best"}, ParameterError, "canvas='best' is not one of average, last"),
    ({"denoisers": {"w0": EXACT}}, UnknownNameError, "'w1' has no denoiser"),
    ({"conditions": {"w7": 1}}, UnknownNameError, "a condition for 'w7'"),
    ({"initial_noise": {"w0": torch.zeros(1, 1, 4, 4)}}, UnknownNameError, "noise lives on 'canvas'"),
    ({"initial_noise": {"canvas": torch.zeros(1, 1, 4, 4)}}, ShapeError, "must have shape"),
    ({"num_inference_steps": 0}, ParameterError, "num_inference_steps=0"),
    ({"chunk": 0}, ParameterError, "chunk=0"),
    ({"method": "diffcollage", "draws": 0}, ParameterError, "draws=0 must be a positive integer"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change, error, message):
    arguments = {
        "method": "multidiffusion", "graph": windows(), "denoisers": EXACT, "scheduler": scheduler(),
        "num_inference_steps": 3, "progress": False, **change,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        peers.sample(**arguments)


def test_nan_is_never_returned():
    broken = ps.FunctionDenoiser(lambda x, a, s: x * float("nan"), (1, 4, 4))
    for method in peers.methods():
        if peers.why_not(method, windows()) is None:
            with pytest.raises(PgmSyncError, match="NaN or infinite"):
                peers.sample(method, windows(), broken, scheduler(), 3, progress=False)
