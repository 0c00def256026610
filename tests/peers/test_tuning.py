"""Tuning of a peer: all settings on the validation seeds, the least objective wins, divergence is no crash."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.errors import ParameterError

EXACT = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), (4,))


def twins():
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, (4,))
    graph.add_factor("same", ["a", "b"], ps.Equality())
    return graph


def mismatch(result):
    return (result.samples["a"] - result.samples["b"]).square().mean().item()


def tuned(method=("syncsde", "syncsde-implicit"), objective=mismatch, **options):
    own = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    return peers.tune(
        method, twins(), EXACT, own, 20, range(100, 150), objective, noise="own", progress=False, **options
    )


def test_the_best_of_all_settings():
    table = tuned(grid={"strength": [0.0, 5.0, 40.0, 1e30]})
    assert [(row.method, row.options["strength"]) for row in table] == [
        (method, strength)
        for method in ("syncsde", "syncsde-implicit")
        for strength in (0.0, 5.0, 40.0, 1e30)
    ]
    own = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    for row in table:  # the same numbers by hand
        if math.isfinite(row.objective):
            result = peers.sample(
                row.method, twins(), EXACT, own, 20, 50, list(range(100, 150)), noise="own", progress=False,
                **row.options,
            )  # fmt: skip
            assert mismatch(result) == row.objective
    assert table.best is min(table, key=lambda row: row.objective)
    assert table.best.method == "syncsde-implicit"
    assert table.best.options["strength"] == 40.0
    assert table[3].note.startswith("diverged at step")
    assert math.isinf(table[3].objective)
    assert table[0].objective > 2 * table[5].objective  # without a pull
    assert [line.endswith("best") for line in str(table).splitlines()[1:]] == [
        row is table.best for row in table
    ]
    assert table.to_dicts()[0]["options"] == {"strength": 0.0}


def test_the_default_grid_is_of_strengths():
    table = tuned("syncsde-implicit")
    assert [row.options["strength"] for row in table] == [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40]


def test_nothing_to_choose_from():
    with pytest.raises(ParameterError, match="values in the grid"):
        tuned(grid={"strength": []})
    with pytest.raises(ParameterError, match="no setting of strength gives a finite objective"):
        tuned(grid={"strength": [5.0]}, objective=lambda result: torch.nan)
