"""The ablations and the stability sweep at a tiny size, and what they change against something else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.evaluation import Scoreboard
from pgm_sync.sampling.coordinates import noise_level

pytestmark = [  # torch, when diffusers hands its tensors to numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.slow
def test_ablations_of_a_task(benchmark, tmp_path, monkeypatch):
    ablations = benchmark("ablations")
    monkeypatch.setattr(ablations, "FIGURE", tmp_path / "figure.png")
    monkeypatch.setattr(ablations, "CELLS", tmp_path)
    text = ablations.build(True, ["edit"])
    for panel in ("features", "posterior covariance", "correlated noise", "fit", "steps", "scheduler"):
        assert f"\n{panel} " in text
    assert "n = 8" in text
    assert not list(tmp_path.iterdir())  # a look leaves nothing behind

    task, board = tasks.load("edit"), Scoreboard(tmp_path / "edit.json")
    chosen = {"steps": ablations.panels(task)["steps"]}
    ablations.cells(task, 3, board, chosen, most=2)
    assert board["edit", "steps: 100", "energy distance"].cost.evaluations == 4  # two trajectories, two steps
    monkeypatch.setattr(ablations, "measured", None)
    ablations.cells(task, 3, Scoreboard(tmp_path / "edit.json"), chosen, most=2)  # nothing is left to do
    ablations.draw({"edit": (task, board, chosen)}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


def test_other_schedulers_go_through_the_same_noise_levels(benchmark):
    ablations = benchmark("ablations")
    scene = tasks.load("mask").scene
    levels = []
    for own in (scene.scheduler, *(ablations.same_levels(kind, scene) for kind in ablations.SOLVERS.values())):
        own.set_timesteps(10)
        snr = [float(noise_level(own, t).snr) for t in own.timesteps]
        levels.append(torch.tensor(snr, dtype=torch.float64).log())
    gaps = levels[0].diff()
    assert torch.allclose(gaps, gaps.mean(), rtol=0.02)  # even
    for other in levels[1:]:
        assert torch.allclose(other, levels[0], atol=0.02)


def test_graphs_of_ablations(benchmark):
    """A chain of numbers: its tree is the chain; without edges nothing is coupled; a style reaches everyone."""
    ablations = benchmark("ablations")
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)).cumsum(1)
    graph = ps.complete_graph(4, 1)
    unfitted = tasks.base.Unfitted(graph, {k: x[:, k : k + 1] for k in range(4)})
    assert {frozenset(edge) for edge in ablations.tree(unfitted, 0)} == {frozenset((k, k + 1)) for k in range(3)}
    assert ablations.rewired(unfitted, []).graph.factors == []
    assert len(ablations.rewired(unfitted, [(0, 3)], style=2).graph.factors) == 5
    assert graph.factors == ps.complete_graph(4, 1).factors  # left alone


def test_the_stability_sweep(benchmark, tmp_path, monkeypatch):
    stability = benchmark("stability")
    for name, value in {
        "STEPS": (3, 5), "PULLS": (1.0, 40.0), "CORRELATIONS": (0.9,), "FIGURE": tmp_path / "figure.png"
    }.items():  # fmt: skip
        monkeypatch.setattr(stability, name, value)
    text = stability.build(True)
    assert "Six modes: potentials, denoisers' C" in text
    explicit, implicit, ours = ((sweep, stability.swept(sweep)) for sweep in stability.gaussian_pair(40))
    assert explicit[1][5, 40.0].variance > 1e6
    assert all(0.05 < found[5, s].variance < 1.5 for sweep, found in (implicit, ours) for s in sweep.strengths)
    stability.draw([explicit, implicit, ours])
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
    assert stability.size({0: torch.full((2, 3), torch.nan)}, {0: torch.ones(2, 3)}).variance == float("inf")


def test_strengthened_potentials_keep_their_marginals(benchmark):
    stability = benchmark("stability")
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).double().cumsum(1)
    fitted = ps.fit(ps.chain_graph(2, 3), {0: x[:, :3], 1: x[:, 3:]})
    (factor,) = fitted.factors
    before = fitted.potential(factor).covariance
    after = stability.strengthened(fitted, 0.99).potential(factor).covariance
    for part in (slice(0, 3), slice(3, 6)):
        assert torch.allclose(after[part, part], before[part, part])
    roots = [torch.linalg.cholesky(after[part, part]).inverse() for part in (slice(0, 3), slice(3, 6))]
    canonical = torch.linalg.svdvals(roots[0] @ after[:3, 3:] @ roots[1].T)
    assert torch.allclose(canonical, torch.full((3,), 0.99).double())
