"""Do 90 % credible intervals cover? Known graphs, 200 repetitions each, beside Fisher's and the efficient bound."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import math
import time

import networkx as nx
import torch
from scipy.stats import norm
from tqdm.auto import tqdm

import pgm_sync as ps
from pgm_sync.learning import fit_bayesian
from pgm_sync.metrics import proportion

LEVEL = 0.9
Z = float(norm.ppf((1 + LEVEL) / 2))
STRENGTHS = [0.45, -0.3, 0.2, -0.12]  # partial correlations of edges, in turn
TREE = [0.8, -0.5, 0.3, 0.1]  # correlations


def networks() -> dict[str, nx.Graph]:
    return {
        "chain of 5": nx.path_graph(5),
        "tree of 5": nx.Graph([(0, 1), (0, 2), (0, 3), (3, 4)]),
        "ring of 5": nx.cycle_graph(5),
        "grid 2 x 2": nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, 2)),
        "grid 3 x 3": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
    }


def truth(network: nx.Graph) -> torch.Tensor:
    """A correlation matrix whose inverse is zero off the network; positive, negative and weak edges."""
    size = len(network)
    if nx.is_tree(network):
        correlation = torch.eye(size, dtype=torch.float64)
        rho = {frozenset(e): TREE[k % len(TREE)] for k, e in enumerate(network.edges)}
        for a, paths in nx.all_pairs_shortest_path(network):
            for b, path in paths.items():
                correlation[a, b] = math.prod(rho[frozenset(e)] for e in zip(path, path[1:], strict=False))
        return correlation
    precision = torch.eye(size, dtype=torch.float64)
    for k, (a, b) in enumerate(network.edges):
        precision[a, b] = precision[b, a] = -STRENGTHS[k % len(STRENGTHS)]
    covariance = torch.linalg.inv(precision)
    scale = covariance.diagonal().rsqrt()
    return covariance * scale[:, None] * scale


def study(network: nx.Graph, n: int, repetitions: int) -> list[object]:
    """Every repetition is one mode of one fit: modes are independent, and one run of NUTS serves them all."""
    correlation = truth(network)
    generator = torch.Generator().manual_seed(n)
    root = torch.linalg.cholesky(correlation)
    x = torch.randn(n, repetitions, len(network), generator=generator, dtype=torch.float64) @ root.T
    graph = ps.FactorGraph()
    for k in network:
        graph.add_trajectory(k, repetitions)
    for a, b in network.edges:
        graph.add_factor((a, b), [a, b], ps.JointGaussian())
    start = time.perf_counter()
    fit = fit_bayesian(
        graph, {k: x[..., k] for k in network}, chains=2, warmup=100, draws=200, strict=False, seed=n
    )
    seconds = time.perf_counter() - start
    edges = fit.parts[0].structure.edges
    true = torch.stack([correlation[a, b] for a, b in edges])
    rho = fit.edge_correlations(0).flatten(0, 1)  # (draws, repetitions, E)
    low, high = torch.quantile(rho, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).double(), dim=0)
    covered = (low < true) & (true < high)
    sample = torch.stack(
        [torch.stack([torch.corrcoef(x[:, r, [a, b]].T)[0, 1] for a, b in edges]) for r in range(repetitions)]
    )
    half = Z / math.sqrt(n - 3)
    fisher_low, fisher_high = (sample.atanh() - half).tanh(), (sample.atanh() + half).tanh()
    fisher = (fisher_low < true) & (true < fisher_high)
    bound = 2 * Z * (1 - true**2) / math.sqrt(n)
    per_edge = covered.double().mean(0)
    share = covered.double().mean().item()
    return [
        n,
        len(edges),
        proportion(round(share * repetitions), repetitions),
        f"{per_edge.min():.3f} to {per_edge.max():.3f}",
        f"{fisher.double().mean():.3f}",
        f"{((high - low).mean(0) / bound).mean():.3f}",
        f"{((fisher_high - fisher_low).mean(0) / bound).mean():.3f}",
        f"{fit.diagnostics.r_hat:.3f}",
        f"{fit.diagnostics.ess_bulk:.0f}",
        fit.diagnostics.divergences,
        f"{seconds:.0f}",
    ]


def build(quick: bool) -> str:
    repetitions = 20 if quick else 200
    head = [
        "graph", "n", "edges", "coverage of 90 %", "single edges", "Fisher", "width / bound", "Fisher's", "R-hat",
        "ESS", "divergent", "s",
    ]  # fmt: skip
    rows: list[list[object]] = [head]
    every = [(name, network, n) for name, network in networks().items() for n in (50, 500)]
    for name, network, n in tqdm(every):
        rows.append([name, *study(network, n, repetitions)])
    return "\n".join(
        [
            f"{repetitions} repetitions per row, NUTS, 2 chains of 100 warm-up steps and 200 draws, uniform prior on "
            "the",
            "correlations of the graph. Coverage over all edges, with Wilson's interval for as many trials as there "
            "are",
            "repetitions (edges of one are not independent), and the range over single edges. Width: mean over edges,",
            "relative to the efficient bound, 2 z (1 - rho^2) / sqrt(n). R-hat and ESS: the worst of all coordinates.",
            "",
            table(rows),
        ]
    )


if __name__ == "__main__":
    main("bayesian", build)
