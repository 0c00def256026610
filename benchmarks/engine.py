"""Time of exact inference over many elements, as a ratio to batched dense Cholesky in the same run; import time."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import networkx as nx
import torch

import pgm_sync as ps

NETWORKS = {
    "chain 8": nx.path_graph(8),
    "cycle 8": nx.cycle_graph(8),
    "K8": nx.complete_graph(8),
    "grid 4x4": nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4)),
}


def median(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def build(quick: bool) -> str:
    torch.set_num_threads(1)
    repeats = 3 if quick else 7
    size = 16384
    rows: list[list[object]] = [["graph", "elimination ms", "dense ms", "dense / elimination"]]
    for name, network in NETWORKS.items():
        n = network.number_of_nodes()
        plan = ps.compile(ps.from_trajectory_graph(network, (size,), ps.Attraction(1.0)))
        mean, unary = torch.randn(n, size), 1 + torch.rand(n, size)
        evidence = {k: (mean[k], unary[k]) for k in range(n)}
        laplacian = torch.from_numpy(nx.laplacian_matrix(network).toarray()).float()

        def eliminate(plan: ps.Plan = plan, evidence: dict = evidence, n: int = n) -> list[torch.Tensor]:
            posterior = ps.infer(plan, evidence)
            return [posterior.mean[k] for k in range(n)] + [posterior.variance[k] for k in range(n)]

        def dense(
            laplacian: torch.Tensor = laplacian, unary: torch.Tensor = unary, mean: torch.Tensor = mean
        ) -> list[torch.Tensor]:
            precision = laplacian + torch.diag_embed(unary.T)
            factor = torch.linalg.cholesky(precision)
            inverse = torch.cholesky_inverse(factor)
            return [
                torch.cholesky_solve((unary * mean).T[..., None], factor),
                inverse.diagonal(dim1=-2, dim2=-1),
            ]

        ours, theirs = eliminate(), dense()
        assert torch.allclose(torch.stack(ours[:n], 1), theirs[0][..., 0], atol=1e-4)
        assert torch.allclose(torch.stack(ours[n:], 1), theirs[1], atol=1e-4)
        times = median(eliminate, repeats), median(dense, repeats)
        rows.append([name, f"{1e3 * times[0]:.1f}", f"{1e3 * times[1]:.1f}", f"{times[1] / times[0]:.1f}"])

    def imported(module: str) -> float:
        return median(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True), repeats)

    package, torch_alone = imported("pgm_sync"), imported("torch")
    return (
        f"Mean and variance of every element, {size} elements per node, float32, medians of {repeats}; dense: one\n"
        "batched Cholesky, its solve and its inverse. Both agree to 1e-4.\n\n"
        + table(rows)
        + f"\n\nimport pgm_sync: {package:.2f} s; import torch: {torch_alone:.2f} s; ratio {package / torch_alone:.2f}"
    )


if __name__ == "__main__":
    main("engine", build)
