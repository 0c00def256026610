"""Gaussian canvas weights against the published formula, and as a partition of unity."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgm_sync as ps
from pgm_sync.errors import GraphStructureError, ParameterError
from pgm_sync.peers import gaussian_weights


def test_weights_are_the_published_ones():
    """exp(-(x - mid)^2 / size^2 / (2 * .01)) per axis, divided by the sum over windows: pixel by pixel."""
    graph = ps.wide_canvas((2, 6, 14), (6, 8), (6, 3))
    weighted = gaussian_weights(graph)
    weight = {f: weighted.potential(f).weight for f in weighted.factors}

    def raw(y, x, left):
        if not 0 <= x - left < 8:
            return 0.0
        return math.exp(-((y - 2.5) ** 2) / 36 / 0.02 - (x - left - 3.5) ** 2 / 64 / 0.02)

    for k, left in enumerate((0, 3, 6)):
        for y in range(6):
            for x in range(left, left + 8):
                expected = raw(y, x, left) / sum(raw(y, x, other) for other in (0, 3, 6))
                assert weight[f"see w{k}"][1, y, x - left].item() == pytest.approx(expected, abs=1e-12)
    assert all(graph.potential(f).weight is None for f in graph.factors)  # a copy


@given(
    st.integers(4, 9),
    st.integers(1, 3),
    st.sampled_from([0.01, 0.1, 0.4, 100.0]),
    st.booleans(),
    st.integers(1, 4),
)
def test_weights_are_a_partition_of_unity(window, copies, width, wrap, stride):
    columns = stride * (window + copies) if wrap else window + copies
    graph = ps.wide_canvas((1, window, columns), (window, window), (window, min(stride, window)), wrap=wrap)
    weighted = gaussian_weights(graph, width)
    total = torch.zeros(1, window, columns, dtype=torch.float64)
    for factor in weighted.factors:
        total += weighted.maps(factor)[1].adjoint(weighted.potential(factor).weight)
    assert torch.allclose(total, torch.ones_like(total))


def test_wide_weights_are_plain_averaging_and_narrow_ones_take_the_nearest_window():
    """Through the sampler: constant denoisers show which window every pixel comes from."""
    graph = ps.wide_canvas((1, 1, 8), (1, 4), 2)
    denoisers = {
        name: ps.FunctionDenoiser(lambda x, a, s, k=k: torch.full_like(x, float(k)), (1, 1, 4))
        for k, name in enumerate(graph.trajectories)
    }

    def run(which):
        scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        return ps.sample(which, denoisers, scheduler, 4, progress=False).samples["canvas"][0, 0, 0]

    assert torch.allclose(run(gaussian_weights(graph, 1e4)), run(graph), atol=1e-5)
    assert torch.allclose(run(graph), torch.tensor([0, 0, 0.5, 0.5, 1.5, 1.5, 2, 2]), atol=1e-4)
    nearest = torch.tensor([0.0, 0, 0, 1, 1, 2, 2, 2])
    assert torch.allclose(run(gaussian_weights(graph, 0.02)), nearest, atol=1e-4)


def test_learned_potentials_stay():
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda shape: ps.DCT(shape, 2))
    weighted = gaussian_weights(graph)
    assert weighted.factors == graph.factors
    for factor in graph.factors:
        if isinstance(factor, tuple):
            assert weighted.potential(factor) is graph.potential(factor)


def test_only_canvases_have_weights():
    with pytest.raises(GraphStructureError, match="not one canvas seen through windows"):
        gaussian_weights(ps.chain_graph(3, (2,)))
    for width in (0, -1.0, math.inf):
        with pytest.raises(ParameterError, match="width="):
            gaussian_weights(ps.wide_canvas((1, 1, 6), (1, 4), 2), width)
