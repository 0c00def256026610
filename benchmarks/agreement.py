"""Largest differences between the plans of the engine and the dense solve over random graphs from the test suite."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import itertools
import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pgm_sync as ps
from inference.strategies import graphs_with_evidence
from inference.test_plans import ELEMENTWISE, forced
from pgm_sync.inference import exact

QUANTITIES = ("mean", "variance", "pair covariance", "log |Lambda|")


def difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference, relative to the largest number of the reference."""
    return ((ours - reference).abs().max() / reference.abs().max().clamp_min(1e-3)).item()


def compare(graph: ps.FactorGraph, evidence: dict, worst: dict[str, float]) -> None:
    ours, dense = ps.infer(graph, evidence, method="exact"), ps.infer(graph, evidence, method="dense")

    def note(quantity: str, a: torch.Tensor, b: torch.Tensor) -> None:
        worst[quantity] = max(worst[quantity], difference(a, b))

    for name in graph.variables:
        note("mean", ours.mean[name], dense.mean[name])
        note("variance", ours.variance[name], dense.variance[name])
    for a, b in itertools.combinations(graph.variables, 2):
        note("pair covariance", ours.covariance(a, b), dense.covariance(a, b))
    note("log |Lambda|", ours._solution.log_determinant(), dense._solution.log_determinant())


def worst_of(strategy: SearchStrategy, count: int) -> list[object]:
    """How many graphs were compared, and the largest difference of every quantity."""
    worst = dict.fromkeys(QUANTITIES, 0.0)
    seen = itertools.count()

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case):  # type: ignore[no-untyped-def]
        next(seen)
        compare(*case, worst)

    run()
    return [next(seen), *(f"{worst[quantity]:.0e}" for quantity in QUANTITIES)]


def build(quick: bool) -> str:
    count = 50 if quick else 1000
    own = exact.group_solver
    rows: list[list[object]] = [["plan", "graphs", *QUANTITIES]]
    rows.append(["as chosen, blocks too", *worst_of(graphs_with_evidence(), count)])
    for plan in ("lanes", "rounds", "shared"):
        exact.group_solver = forced(plan)
        rows.append([plan, *worst_of(graphs_with_evidence(kinds=ELEMENTWISE), count)])
    exact.group_solver = own
    return (
        "Largest relative difference to the dense solve, float64, over random trees, cycles, complete and chordal\n"
        "graphs, grids and random graphs, joined by correlations, attractions, permutations, masks (partial\n"
        "injections), sparse maps, features, joint Gaussians and equalities, with evidence per\n"
        "element and as matrices, batched.\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main("agreement", build)
