"""Eq. 9: with Gaussian trajectories the joint denoiser is exact, and samples get the joint covariance."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import math

import networkx as nx
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps

SIZE = 3
NETWORKS = {
    "chain 6": nx.path_graph(6),
    "binary tree 7": nx.balanced_tree(2, 2),
    "ring 6": nx.cycle_graph(6),
    "grid 3x3": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
}
LEVELS = [ps.NoiseLevel(a, math.sqrt(1 - a * a)) for a in (0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 0.999)]


def random_model(network: nx.Graph, seed: int) -> torch.Tensor:
    """A random covariance that is Markov on the network."""
    generator = torch.Generator().manual_seed(seed)
    n = network.number_of_nodes()
    precision = torch.zeros(n * SIZE, n * SIZE, dtype=torch.float64)
    for a, b in network.edges:
        block = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / SIZE
        precision[a * SIZE : (a + 1) * SIZE, b * SIZE : (b + 1) * SIZE] = block
        precision[b * SIZE : (b + 1) * SIZE, a * SIZE : (a + 1) * SIZE] = block.T
    low = torch.linalg.eigvalsh(precision)[0]
    return torch.linalg.inv(precision + (0.3 - low) * torch.eye(n * SIZE, dtype=torch.float64))


def potentials(network: nx.Graph, covariance: torch.Tensor) -> ps.FactorGraph:
    """The graph whose factors are the edges' shares of the joint precision."""
    precision = torch.linalg.inv(covariance)
    rows = {k: torch.arange(k * SIZE, (k + 1) * SIZE) for k in network.nodes}
    chosen = {}
    for a, b in network.edges:
        both = torch.cat([rows[a], rows[b]])
        share = precision[both[:, None], both].clone()
        for node, half in ((a, slice(0, SIZE)), (b, slice(SIZE, 2 * SIZE))):
            own = torch.linalg.inv(covariance[rows[node][:, None], rows[node]])
            share[half, half] = (share[half, half] - own) / network.degree[node]
        chosen[a, b] = ps.JointGaussian(None, covariance[both[:, None], both], share)
    return ps.from_trajectory_graph(network, (SIZE,)).with_potentials(chosen)


def build(quick: bool) -> str:
    rows: list[list[object]] = [["graph", "joint denoiser", *(f"{s} steps" for s in (25, 50, 100, 200))]]
    for name, network in NETWORKS.items():
        covariance = random_model(network, seed=0)
        graph = potentials(network, covariance)
        n = len(covariance)
        parts = {k: slice(k * SIZE, (k + 1) * SIZE) for k in network.nodes}
        denoisers = {k: ps.GaussianDenoiser(torch.zeros(SIZE), covariance[r, r]) for k, r in parts.items()}
        joint, worst = ps.JointDenoiser(graph), 0.0
        x = torch.randn(16, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for level in LEVELS:
            noisy = {k: x[:, r] for k, r in parts.items()}
            result = joint(noisy, {k: d.denoise(noisy[k], level) for k, d in denoisers.items()}, level)
            observed = level.alpha**2 * covariance + level.sigma**2 * torch.eye(n, dtype=torch.float64)
            expected = level.alpha * x @ torch.linalg.solve(observed, covariance)
            worst = max(worst, (torch.cat(list(result.mean.values()), 1) - expected).abs().max().item())
        errors = []
        for steps in (25, 50, 100, 200):
            unit = torch.eye(n, dtype=torch.float64)
            sampled = ps.sample(
                graph, denoisers, DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), steps, n,
                initial_noise={k: unit[:, r] for k, r in parts.items()}, dtype=torch.float64, progress=False,
            )  # fmt: skip
            response = torch.cat([sampled.samples[k] for k in network.nodes], 1)
            errors.append(((response.T @ response - covariance).norm() / covariance.norm()).item())
        rows.append([name, f"{worst:.1e}", *(f"{e:.4f}" for e in errors)])
    return (
        f"{SIZE} numbers per node, random covariances Markov on the graph, float64, {len(LEVELS)} noise levels.\n"
        "joint denoiser: largest absolute deviation from alpha Sigma (alpha^2 Sigma + sigma^2)^-1 x_t.\n"
        "steps: relative error of the exact sample covariance of DDIM (its linear map, no Monte Carlo).\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main("gaussian_exactness", build)
