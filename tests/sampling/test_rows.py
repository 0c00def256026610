"""How batches hold trajectories."""

from __future__ import annotations

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import BatchError, ShapeError, UnknownNameError
from pgm_sync.sampling.rows import Rows


def graph(shape=(4, 6, 6), names="abc"):
    g = ps.FactorGraph()
    for name in names:
        g.add_trajectory(name, shape)
    return g


def test_rows_follow_trajectories_first(generator):
    rows = Rows.of(graph(), "bac", 0, None)
    x = torch.randn(6, 4, 6, 6, generator=generator)
    parts = rows.split(x)
    assert list(parts) == list("bac")
    assert torch.equal(parts["a"], x[2:4])
    assert torch.equal(rows.join(parts), x)


@pytest.mark.parametrize("axis", [1, 2])
def test_frames_are_trajectories(axis, generator):
    rows = Rows.of(graph((4, 6, 6)), None, axis, None)
    x = torch.randn(3, 2, 4, 6, 6, generator=generator).movedim(0, axis)
    parts = rows.split(x)
    assert torch.equal(parts["c"], x.select(axis, 2))
    assert torch.equal(rows.join(parts), x)


def test_packed_tokens(generator):
    rows = Rows.of(graph((4, 6, 8)), None, 0, ps.Tokens((4, 6, 8)))
    latents = torch.randn(3, 4, 6, 8, generator=generator)
    # as FluxPipeline._pack_latents
    packed = latents.view(3, 4, 3, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(3, 12, 16)
    assert torch.equal(rows.split(packed)["b"][0], latents[1])
    assert torch.equal(rows.join(rows.split(packed)), packed)
    assert torch.equal(rows.join(rows.split(latents, packed=False), packed=False), latents)


def test_what_does_not_fit_is_named():
    g = graph()
    for names, what in (("abd", "'d' is no trajectory"), ("ab", "'c' is missing"), ("abcc", "twice")):
        with pytest.raises(UnknownNameError, match=what):
            Rows.of(g, names, 0, None)
    g.add_trajectory("wide", (4, 6, 12))
    with pytest.raises(ShapeError, match="'wide' has shape"):
        Rows.of(g, None, 0, None)
    rows = Rows.of(graph(), None, 0, None)
    with pytest.raises(BatchError, match="4 rows, which do not divide among 3"):
        rows.split(torch.zeros(4, 4, 6, 6))
    with pytest.raises(ShapeError, match=r"shape \(3, 4, 8, 8\)"):
        rows.split(torch.zeros(3, 4, 8, 8))
    with pytest.raises(ShapeError, match="layout takes"):
        Rows.of(graph(), None, 0, ps.Tokens((4, 6, 8)))
