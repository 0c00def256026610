"""A 64 x 64 grid of numbers: means and all marginals, beside scipy's splu and GTSAM on the same system.

GTSAM pins its own numpy, so it runs in an interpreter of its own: set PGM_SYNC_PEERS to a Python that has it
(``pip install gtsam``); without, its row is left out.
"""

from __future__ import annotations

from _table import main, table, times_of  # first: it pins the threads

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

import pgm_sync as ps
from pgm_sync.inference import to_scipy

GTSAM = """
import json, sys, time
import gtsam, numpy as np
from importlib.metadata import version

data = np.load(sys.argv[1])
repeats = int(sys.argv[2])
graph, unit, one = gtsam.GaussianFactorGraph(), gtsam.noiseModel.Unit.Create(1), np.eye(1)
for a, b in data["edges"].tolist():
    graph.add(a, one, b, -one, np.zeros(1), unit)
for k, (mean, precision) in enumerate(zip(data["mean"].tolist(), data["precision"].tolist())):
    root = precision**0.5
    graph.add(k, root * one, np.array([root * mean]), unit)
keys, n = list(range(len(data["mean"]))), len(data["mean"])
found = {}
for name, order in (
    ("COLAMD", lambda: gtsam.Ordering.ColamdGaussianFactorGraph(graph)),
    ("METIS", lambda: gtsam.Ordering.MetisGaussianFactorGraph(graph)),
):
    ordering, times = order(), []
    for _ in range(repeats):
        start = time.perf_counter()
        tree = graph.eliminateMultifrontal(ordering)
        mean = tree.optimize()
        variance = [tree.marginalCovariance(k) for k in keys]
        times.append(time.perf_counter() - start)
    found[name] = float(np.median(times))
np.savez(sys.argv[3], mean=[mean.at(k)[0] for k in keys], variance=[v[0, 0] for v in variance])
print(json.dumps({"times": found, "version": version("gtsam")}))
"""


def gtsam(edges: np.ndarray, mean: np.ndarray, precision: np.ndarray, repeats: int):  # type: ignore[no-untyped-def]
    """Its times by ordering, version, means and variances; None where no interpreter has it."""
    python = os.environ.get("PGM_SYNC_PEERS", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        given, results = Path(folder) / "system.npz", Path(folder) / "results.npz"
        np.savez(given, edges=edges, mean=mean, precision=precision)
        command = [python, "-c", GTSAM, str(given), str(repeats), str(results)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            return None
        report, found = json.loads(run.stdout), np.load(results)
        return report["times"], report["version"], found["mean"], found["variance"]


def build(quick: bool) -> str:
    torch.set_num_threads(1)
    size, repeats = (32, 3) if quick else (64, 9)
    graph = ps.grid_graph(size, size, (1,), ps.Attraction(1.0))
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(size * size, generator=generator, dtype=torch.float64)
    precision = 0.1 + torch.rand(size * size, generator=generator, dtype=torch.float64)
    evidence = ps.Elements(mean, precision)
    place = {name: k for k, name in enumerate(graph.trajectories)}
    edges = np.array([[place[a], place[b]] for a, b in graph.markov_network().edges])

    start = time.perf_counter()
    plan = ps.compile(graph)
    first = ps.infer(plan, evidence)
    first.element_variance  # noqa: B018
    once = time.perf_counter() - start

    def ours() -> tuple[np.ndarray, np.ndarray]:
        posterior = ps.infer(plan, evidence)
        return posterior.element_mean.numpy(), posterior.element_variance.numpy()

    matrix, eta, _ = to_scipy(graph, evidence)
    matrix = scipy.sparse.csc_matrix(matrix)

    def splu() -> tuple[np.ndarray, np.ndarray]:
        factor = scipy.sparse.linalg.splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        variance = np.empty(len(eta))
        for k in range(len(eta)):
            unit = np.zeros(len(eta))
            unit[k] = 1
            variance[k] = factor.solve(unit)[k]
        return factor.solve(eta), variance

    seconds, (means, variances) = times_of(ours, repeats)
    slow, (their_means, their_variances) = times_of(splu, 1 if quick else 3)
    rows: list[list[object]] = [["engine", "ms", "ratio to pgm_sync", "largest difference, mean", "variance"]]
    rows.append(["pgm_sync infer", f"{1e3 * seconds:.0f}", "1", "", ""])

    def compare(name: str, time_: float, mean_: np.ndarray, variance_: np.ndarray) -> None:
        differences = (np.abs(mean_ - means).max(), np.abs(variance_ - variances).max())
        assert max(differences) < 1e-8
        rows.append([name, f"{1e3 * time_:.0f}", f"{time_ / seconds:.1f}", *(f"{d:.0e}" for d in differences)])

    compare("scipy splu, a solve per marginal", slow, their_means, their_variances)
    other = gtsam(edges, mean.numpy(), precision.numpy(), repeats)
    note = "GTSAM: not installed (PGM_SYNC_PEERS)"
    if other is not None:
        for ordering, theirs in other[0].items():
            compare(f"GTSAM, {ordering}", theirs, *other[2:])
        note = f"gtsam {other[1]}"
    return (
        f"Means and all {size * size} marginal variances of a {size} x {size} grid, one number per node, float64,\n"
        f"medians of {repeats}. pgm_sync: infer on a compiled plan (compiling and a first call took once\n"
        f"{1e3 * once:.0f} ms); GTSAM: elimination, optimize and marginalCovariance of every key, its graph and\n"
        "ordering made before.\n\n"
        + table(rows)
        + f"\n\nscipy {scipy.__version__}; {note}"
    )


if __name__ == "__main__":
    main("grid", build)
