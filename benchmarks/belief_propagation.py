"""Belief propagation beside exact inference: time and messages per second, and how wrong its variances are on loops."""

from __future__ import annotations

from _table import main, median, table  # first: it pins the threads

import statistics
from collections.abc import Callable

import networkx as nx
import numpy as np
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

NETWORKS = {
    "chain 8": nx.path_graph(8),
    "cycle 8": nx.cycle_graph(8),
    "K8": nx.complete_graph(8),
    "grid 4x4": nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4)),
}
SIZE = 16384


def speed(repeats: int) -> list[list[object]]:
    """Iterations, messages and time of every schedule to a residual of 1e-5, means and variances read."""
    head = "graph,schedule,iterations,messages,ms,messages / s,exact ms,gbp / exact,variance ratio"
    rows: list[list[object]] = [[*head.split(",")]]
    for name, network in NETWORKS.items():
        n = network.number_of_nodes()
        generator = torch.Generator().manual_seed(0)
        plan = ps.compile(ps.from_trajectory_graph(network, (SIZE,), ps.Attraction(1.0)))
        mean = torch.randn(n, SIZE, generator=generator)
        unary = 1 + torch.rand(n, SIZE, generator=generator)
        evidence = {k: (mean[k], unary[k]) for k in range(n)}

        def read(found: ps.Posterior | bp.Result, n: int = n) -> list[torch.Tensor]:
            return [found.mean[k] for k in range(n)] + [found.variance[k] for k in range(n)]

        def exact(plan: ps.Plan = plan, evidence: dict = evidence, read: Callable = read) -> list[torch.Tensor]:
            return read(ps.infer(plan, evidence, method="exact"))

        truth = exact()
        reference = median(exact, repeats)
        for schedule in ["flooding", "sequential", "residual", "tree"]:
            if schedule == "tree" and not nx.is_forest(network):
                continue

            def send(
                plan: ps.Plan = plan, evidence: dict = evidence, schedule: str = schedule
            ) -> tuple[bp.Result, list[torch.Tensor]]:
                result = bp.run(bp.network(plan, evidence), schedule, tolerance=1e-5)
                return result, read(result)

            result, found = send()
            assert torch.allclose(torch.stack(found[:n]), torch.stack(truth[:n]), atol=1e-4)
            ratio = (torch.stack(found[n:]) / torch.stack(truth[n:])).mean().item()
            taken = median(send, repeats)
            sent = sum(row.messages for row in result.trace)
            rows.append(
                [name, schedule, result.iterations, sent, f"{1e3 * taken:.0f}", f"{sent / taken:.0f}",
                 f"{1e3 * reference:.0f}", f"{taken / reference:.1f}", f"{ratio:.3f}"]
            )  # fmt: skip
    return rows


def walk_radius(strength: float, network: nx.Graph) -> float:
    """rho(|R|) of attractions of `strength` with evidence of precision 1."""
    precision = np.eye(len(network)) + strength * nx.laplacian_matrix(network).toarray()
    scale = 1 / np.sqrt(precision.diagonal())
    return float(np.abs(np.linalg.eigvalsh(np.abs(np.eye(len(network)) - scale[:, None] * precision * scale))).max())


def strength_for(radius: float, network: nx.Graph) -> float:
    """The attraction whose walk radius this is, by bisection: it grows with the strength, to 1."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if walk_radius(middle, network) < radius else (low, middle)
    return low


def accuracy(samples: int) -> list[list[object]]:
    """Variance ratios and iterations as the couplings grow."""
    head = "graph,rho(|R|),attraction,iterations,mean error / sd,variance ratio,smallest"
    rows: list[list[object]] = [[*head.split(",")]]
    for name in ["cycle 8", "K8", "grid 4x4"]:
        network = NETWORKS[name]
        for radius in [0.2, 0.5, 0.7, 0.9, 0.95, 0.99]:
            strength = strength_for(radius, network)
            generator = torch.Generator().manual_seed(1)
            graph = ps.from_trajectory_graph(network, (1,), ps.Attraction(strength))
            evidence = {k: (torch.randn(samples, 1, generator=generator, dtype=torch.float64), 1.0) for k in network}
            result = bp.run(bp.network(graph, evidence), tolerance=1e-8, max_iterations=20_000)
            found = bp.compare_with_exact(result)
            assert max(row.mean_error for row in found) < 1e-5
            rows.append(
                [name, f"{radius:.2f}", f"{strength:.3g}", result.iterations, f"{max(r.mean_error for r in found):.0e}",
                 f"{statistics.mean(r.variance_ratio for r in found):.3f}", f"{min(r.smallest for r in found):.3f}"]
            )  # fmt: skip
    return rows


def build(quick: bool) -> str:
    torch.set_num_threads(1)
    repeats, samples = (1, 100) if quick else (5, 1000)
    return (
        f"Mean and variance of every element, {SIZE} elements per node, float32, to a residual of 1e-5; medians of\n"
        f"{repeats}. A message is {SIZE} numbers wide. Exact: infer(method='exact') in the same run. Means agree to\n"
        "1e-4; variance ratio: belief propagation / exact, mean over elements.\n\n"
        + table(speed(repeats))
        + "\n\nVariances on loops against the walk radius: attractions of one strength, evidence of precision 1, one\n"
        "element per node, float64, to a residual of 1e-8, flooding. Worst mean error in posterior standard\n"
        f"deviations over {samples} samples of evidence and all nodes; variance ratio averaged over nodes, and the\n"
        "smallest.\n\n"
        + table(accuracy(samples))
    )


if __name__ == "__main__":
    main("belief_propagation", build)
