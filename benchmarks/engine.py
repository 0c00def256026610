"""Time of exact inference over many elements, against batched dense Cholesky and loops written by hand; memory."""

from __future__ import annotations

from _table import main, median, table  # first: it pins the threads

import subprocess
import sys

import networkx as nx
import torch
from torch import Tensor

import pgm_sync as ps

SIZE = 16384


def grid(n: int) -> nx.Graph:
    return nx.convert_node_labels_to_integers(nx.grid_2d_graph(n, n))


def folded_cycle(n: int) -> nx.Graph:
    """A cycle numbered from both ends at once, so that neighbours are at most 2 apart."""
    order = [k // 2 if k % 2 == 0 else n - 1 - k // 2 for k in range(n)]
    return nx.relabel_nodes(nx.cycle_graph(n), {node: k for k, node in enumerate(order)})


# name: network, and the half band width of its matrix in this numbering (0: a star with its hub last)
NETWORKS = {
    "chain 8": (nx.path_graph(8), 1),
    "cycle 8": (folded_cycle(8), 2),
    "K8": (nx.complete_graph(8), 7),
    "grid 4x4": (grid(4), 4),
    "grid 8x8": (grid(8), 8),
    "star 17": (nx.relabel_nodes(nx.star_graph(16), lambda k: (k - 1) % 17), 0),
}


def by_hand(matrix: Tensor, width: int, unary: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance by the loop one would write for this graph, every operation over all elements and, where the
    graph allows, over all neighbours at once. `matrix` (n, n) holds the couplings, `unary` and `mean` are (n, D)."""
    eta = unary * mean
    if width == 0:
        coupling = matrix[:-1, -1:]
        inverse = (unary[:-1] + matrix.diagonal()[:-1, None]).reciprocal()
        lower = coupling * inverse
        hub = (unary[-1] + matrix[-1, -1] - (coupling * lower).sum(0)).reciprocal()
        top = (eta[-1] - (lower * eta[:-1]).sum(0)) * hub
        return (
            torch.cat([eta[:-1] * inverse - lower * top, top[None]]),
            torch.cat([inverse + lower.square() * hub, hub[None]]),
        )
    n = len(matrix)
    band = torch.zeros(n + width, width + 1, SIZE)  # band[j, k] = matrix[j, j + k]
    for k in range(width + 1):
        band[: n - k, k] = matrix.diagonal(k)[:, None]
    band[:n, 0] += unary
    x = torch.cat([eta, torch.zeros(width, SIZE)])
    lower, inverse = torch.zeros(n, width, SIZE), torch.zeros(n, SIZE)
    for j in range(n):
        torch.reciprocal(band[j, 0], out=inverse[j])
        raw = band[j, 1:]
        torch.mul(raw, inverse[j], out=lower[j])
        for i in range(width):
            band[j + 1 + i, : width - i].addcmul_(lower[j, i], raw[i:], value=-1)
        x[j + 1 : j + 1 + width].addcmul_(lower[j], x[j], value=-1)
    x[:n] *= inverse
    # covariances between j and j + k, filled from the end (Takahashi)
    cov = torch.zeros(n + width, width + 1, SIZE)
    for j in reversed(range(n)):
        for k in range(1, width + 1):
            for i in range(1, width + 1):  # cov[j, k] -= lower[j, i] * cov(j + i, j + k)
                first, second = min(i, k), max(i, k)
                cov[j, k].addcmul_(lower[j, i - 1], cov[j + first, second - first], value=-1)
        cov[j, 0] = inverse[j] - (lower[j] * cov[j, 1:]).sum(0)
        x[j] -= (lower[j] * x[j + 1 : j + 1 + width]).sum(0)
    return x[:n], cov[:n, 0]


def bandwidth() -> float:
    """Bytes per second of a copy that does not fit into any cache."""
    source, target = torch.empty(64 * 2**20), torch.empty(64 * 2**20)
    return 2 * source.numel() * 4 / median(lambda: target.copy_(source), 5)


def build(quick: bool) -> str:
    torch.set_num_threads(1)
    repeats = 3 if quick else 15
    rows: list[list[object]] = [
        ["graph", "evidence", "plan", "ms", "dense / ms", "by hand / ms", "pass GB/s"],
    ]
    for name, (network, width) in NETWORKS.items():
        ordered = nx.Graph()
        ordered.add_nodes_from(range(len(network)))
        ordered.add_edges_from(network.edges)
        n = len(ordered)
        plan = ps.compile(ps.from_trajectory_graph(ordered, (SIZE,), ps.Attraction(1.0)))
        laplacian = torch.from_numpy(nx.laplacian_matrix(ordered).toarray()).float()
        mean, varied = torch.randn(n, SIZE), 1 + torch.rand(n, SIZE)
        for evidence, unary in (("per element", varied), ("one level", torch.full((n, SIZE), 1.5))):
            given = {k: (mean[k], unary[k] if evidence == "per element" else 1.5) for k in range(n)}

            def ours(plan: ps.Plan = plan, given: dict = given, n: int = n) -> list[Tensor]:
                posterior = ps.infer(plan, given)
                return [posterior.mean[k] for k in range(n)] + [posterior.variance[k] for k in range(n)]

            def dense(
                laplacian: Tensor = laplacian, unary: Tensor = unary, mean: Tensor = mean
            ) -> list[Tensor]:
                factor = torch.linalg.cholesky(laplacian + torch.diag_embed(unary.T))
                inverse = torch.cholesky_inverse(factor)
                return [
                    torch.cholesky_solve((unary * mean).T[..., None], factor)[..., 0],
                    inverse.diagonal(dim1=-2, dim2=-1),
                ]

            def hand(
                laplacian: Tensor = laplacian, width: int = width, unary: Tensor = unary, mean: Tensor = mean
            ) -> tuple[Tensor, Tensor]:
                return by_hand(laplacian, width, unary, mean)

            found, reference, looped = torch.stack(ours()), dense(), hand()
            for part, other in zip(looped, reference, strict=True):
                assert torch.allclose(part, other.T, atol=1e-4)
            assert torch.allclose(found[:n], reference[0].T, atol=1e-4)
            assert torch.allclose(found[n:], reference[1].T, atol=1e-4)
            times = median(ours, repeats), median(dense, 1 if quick else 3), median(hand, repeats)
            moved = 4 * n * SIZE * 4  # mean and precision in, mean and variance out, float32
            used = ps.infer(plan, given).info.plan
            rows.append([
                name, evidence, "shared matrix" if "share" in used else "elimination", f"{1e3 * times[0]:.1f}",
                f"{times[1] / times[0]:.1f}", f"{times[2] / times[0]:.2f}", f"{moved / times[0] / 1e9:.1f}",
            ])  # fmt: skip

    def imported(module: str) -> float:
        return median(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True), 3)

    package, torch_alone = imported("pgm_sync"), imported("torch")
    return (
        f"Mean and variance of every element, {SIZE} elements per node, float32, medians of {repeats} of a whole call\n"
        "of infer on a compiled plan, evidence checked, results by name. dense: one batched Cholesky, its solve and\n"
        "its inverse. by hand: a banded loop (a star: its formula) over the same tensors, nothing checked. All agree\n"
        "to 1e-4. pass GB/s: evidence in and results out, once, over the time; a copy in memory reaches "
        f"{bandwidth() / 1e9:.1f} GB/s.\n\n"
        + table(rows)
        + "\n\n"
        + memory(quick)
        + f"\n\nimport pgm_sync: {package:.2f} s; import torch: {torch_alone:.2f} s; ratio {package / torch_alone:.2f}"
    )


WINDOWS = """
import re, sys, torch
import pgm_sync as ps
torch.set_num_threads(1)
n = int(sys.argv[1])

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

ps.infer(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (0.0, 1.0)})  # everything imported
evidence = {k: (torch.randn(4, 64, 64), 1 + torch.rand(4, 64, 64)) for k in range(n)}
before = peak()
plan = ps.compile(ps.chain_graph(n, (4, 64, 64), ps.Attraction(1.0)), dtype=torch.float32)
compiled = peak()
posterior = ps.infer(plan, evidence)
posterior.mean[0], posterior.variance[0]
print(compiled - before, peak() - before)
"""


def memory(quick: bool) -> str:
    """Peak memory of mean and variance for chains of windows of 4 x 64 x 64, each in its own process."""
    rows: list[list[object]] = [["windows", "compile: peak MB", "and infer: peak MB", "bytes per element"]]
    for n in (64, 128) if quick else (64, 128, 256):
        run = subprocess.run(
            [sys.executable, "-c", WINDOWS, str(n)], check=True, capture_output=True, text=True
        )
        compiled, peak = (int(part) for part in run.stdout.split())
        rows.append([n, f"{compiled / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{peak / (n * SIZE):.0f}"])
    return (
        "Peak memory of compile, and of mean and variance after it, for a chain of windows of 4 x 64 x 64, float32,\n"
        "beyond the imports and the evidence (8 bytes per element).\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("engine", build)
