"""Canvases from windows that need not agree."""

from __future__ import annotations

import torch

from pgm_sync.graph import wide_canvas
from pgm_sync.peers.projection import projection


def test_windows_cut_from_one_canvas_are_pasted_back(generator):
    for wrap in (False, True):
        graph = wide_canvas((2, 7, 12), (4, 5), (3, 3), wrap=wrap)
        canvas = torch.randn(3, 2, 7, 12, generator=generator)
        samples = {w: graph.maps(f"see {w}")[1].apply(canvas) for w in graph.trajectories}
        (pasted,) = projection(graph).composed(samples, "nearest")
        assert torch.equal(pasted, canvas)


def test_overlaps_are_cut_in_the_middle():
    graph = wide_canvas((1, 4, 8), (4, 4), 2)  # windows at 0..3, 2..5, 4..7
    samples = {w: torch.full((1, 1, 4, 4), float(k)) for k, w in enumerate(graph.trajectories)}
    (pasted,) = projection(graph).composed(samples, "nearest")
    assert pasted[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
