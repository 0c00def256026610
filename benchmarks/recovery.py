"""Correlations and graphs recovered from data of known graphs: against the efficient bound, and scikit-learn."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import time
import warnings

import networkx as nx
import numpy as np
import torch
from sklearn.covariance import GraphicalLassoCV

import pgm_sync as ps
from pgm_sync.learning import select_covariance
from pgm_sync.learning.estimate import estimate_model
from pgm_sync.metrics import proportion

SIZES = (50, 200, 1000, 5000, 20000)
STRENGTHS = (0.8, -0.6, 0.4, -0.3, 0.7, -0.5, 0.2)  # correlations of a tree's edges
PARTIAL = (0.45, -0.4, 0.3, -0.25)  # partial correlations on loops
TREE = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6), (6, 7)]


def networks() -> dict[str, nx.Graph]:
    return {
        "chain of 8": nx.path_graph(8),
        "tree of 8": nx.Graph(TREE),
        "ring of 8": nx.cycle_graph(8),
        "grid 3 x 3": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
    }


def correlations_of(network: nx.Graph) -> np.ndarray:
    """The model's correlation matrix: given edge correlations on trees, given partial correlations on loops."""
    n = len(network)
    if nx.is_tree(network):
        weight = {frozenset(edge): STRENGTHS[k % len(STRENGTHS)] for k, edge in enumerate(network.edges)}
        model = np.eye(n)
        for a in range(n):
            for b in range(n):
                path = nx.shortest_path(network, a, b)
                model[a, b] = np.prod([weight[frozenset(e)] for e in zip(path, path[1:], strict=False)])
        return model
    precision = np.eye(n)
    for k, (a, b) in enumerate(network.edges):
        precision[a, b] = precision[b, a] = -PARTIAL[k % len(PARTIAL)]
    covariance = np.linalg.inv(precision)
    scale = np.sqrt(np.diag(covariance))
    return covariance / scale[:, None] / scale


def efficient_errors(model: np.ndarray, network: nx.Graph) -> np.ndarray:
    """Cramer-Rao: the least standard error of correlations, times the root of n, where the graph is known.

    Free entries of the precision K have information I_ab = tr(S E_a S E_b) / 2 per sample, S moves by -S E_a S, and
    correlations follow by the chain rule.
    """
    n = len(model)
    free = [(i, i) for i in range(n)] + [tuple(sorted(edge)) for edge in network.edges]
    basis = np.zeros((len(free), n, n))
    for k, (i, j) in enumerate(free):
        basis[k, i, j] = basis[k, j, i] = 1
    moves = -model @ basis @ model
    information = -0.5 * np.einsum("aij,bji->ab", moves, basis)
    variance = np.einsum("aii->ai", moves)  # of the variances, which are 1
    slopes = moves - model * (variance[:, :, None] + variance[:, None, :]) / 2
    solved = np.linalg.solve(information, slopes.reshape(len(free), -1)).reshape(slopes.shape)
    return np.sqrt(np.maximum((slopes * solved).sum(0), 0))


def draw(model: np.ndarray, count: int, seed: int) -> torch.Tensor:
    root = torch.from_numpy(np.linalg.cholesky(model))
    return (
        torch.randn(count, len(model), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        @ root.T
    )


def as_correlations(covariance: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.diag(covariance))
    return covariance / scale[:, None] / scale


def ratio(squares: np.ndarray) -> str:
    """Root mean square of ``(repetitions, pairs)`` errors over their bounds, with a bootstrap over repetitions."""
    per = squares.mean(1)
    chosen = np.random.default_rng(0).integers(0, len(per), (1000, len(per)))
    low, high = np.quantile(np.sqrt(per[chosen].mean(1)), [0.025, 0.975])
    return f"{np.sqrt(per.mean()):.2f} [{low:.2f}, {high:.2f}]"


def accuracy(quick: bool) -> tuple[str, str]:
    errors: list[list[object]] = [
        ["graph", "n", "edges: none = sample", "ledoit_wolf", "heldout", "other pairs: none", "ledoit_wolf", "heldout",
         "sample"]
    ]  # fmt: skip
    coverage: list[list[object]] = [["graph", "n", "none", "ledoit_wolf"]]
    for name, network in networks().items():
        model = correlations_of(network)
        bound = efficient_errors(model, network)
        edges = np.array([tuple(sorted(e)) for e in network.edges]).T
        assert np.allclose(
            bound[tuple(edges)], 1 - model[tuple(edges)] ** 2
        )  # knowing the graph does not help on edges
        others = np.array(
            [(i, j) for i in range(len(model)) for j in range(i) if not network.has_edge(i, j)]
        ).T
        blocks = {k: torch.tensor([k]) for k in range(len(model))}
        graph = ps.from_trajectory_graph(network, 1)
        for count in SIZES:
            rows: dict[str, list[np.ndarray]] = {}
            inside = {"none": 0, "ledoit_wolf": 0}
            trials = 20 if quick else 200 if count < 5000 else 100
            for seed in range(trials):
                x = draw(model, count, seed)
                found = {"sample": np.corrcoef(x.numpy().T)}
                rules = ["none", "ledoit_wolf"]
                if count <= 200 and seed < (5 if quick else 25):
                    rules.append("heldout")
                for rule in rules:
                    precision = estimate_model(x, rule, network, blocks).precision
                    found[rule] = as_correlations(np.linalg.inv(precision.numpy()))
                for rule in inside:
                    fitted = ps.fit(graph, {k: x[:, [k]] for k in blocks}, shrinkage=rule, heldout=0)
                    for row in ps.correlations(fitted):
                        inside[rule] += row.low <= model[row.first, row.second] <= row.high
                for rule, estimate in found.items():
                    rows.setdefault(rule, []).append(
                        ((estimate - model) / np.where(bound > 0, bound, 1)) ** 2 * count
                    )
            at = {rule: np.stack(squares) for rule, squares in rows.items()}
            assert np.allclose(
                at["none"][:, edges[0], edges[1]], at["sample"][:, edges[0], edges[1]], atol=1e-4
            )
            cells = [
                ratio(at[r][:, edges[0], edges[1]]) if r in at else ""
                for r in ("none", "ledoit_wolf", "heldout")
            ]
            cells += [
                ratio(at[r][:, others[0], others[1]]) if r in at else ""
                for r in ("none", "ledoit_wolf", "heldout", "sample")
            ]
            errors.append([name, count, *cells])
            coverage.append(
                [name, count, *(proportion(hits, trials * edges.shape[1]) for hits in inside.values())]
            )
    return table(errors), table(coverage)


class Tally:
    """Graphs that one method found, and its correlations."""

    def __init__(self, model: np.ndarray, network: nx.Graph):
        self.model, self.network = model, network
        self.truth = {frozenset(edge) for edge in network.edges}
        self.edges = tuple(np.array([tuple(sorted(e)) for e in network.edges]).T)
        self.bound = efficient_errors(model, network)[self.edges]
        self.hits, self.proposed, self.exact = 0, 0, 0
        self.squares: list[np.ndarray] = []

    def add(self, pairs: set[frozenset[int]], estimate: np.ndarray, count: int) -> None:
        self.hits += len(pairs & self.truth)
        self.proposed += len(pairs)
        self.exact += pairs == self.truth
        self.squares.append(((estimate - self.model)[self.edges] / self.bound) ** 2 * count)

    def cells(self) -> list[object]:
        trials = len(self.squares)
        return [
            proportion(self.exact, trials),
            f"{self.hits / self.proposed:.2f}" if self.proposed else "",
            f"{self.hits / (trials * len(self.truth)):.2f}",
            ratio(np.stack(self.squares)),
        ]


def refit(pairs: set[frozenset[int]], x: torch.Tensor) -> np.ndarray:
    network = nx.Graph(map(tuple, pairs))
    network.add_nodes_from(range(x.shape[1]))
    blocks = {k: torch.tensor([k]) for k in range(x.shape[1])}
    return as_correlations(np.linalg.inv(estimate_model(x, "none", network, blocks).precision.numpy()))


def structures(quick: bool) -> str:
    rows: list[list[object]] = [
        ["graph", "n", "method", "exact graph", "precision", "recall", "edge error / bound"]
    ]
    trials = 5 if quick else 30
    for name, network in networks().items():
        model = correlations_of(network)
        apart = ps.FactorGraph()
        for k in range(len(model)):
            apart.add_trajectory(k, 1)
        own = (["chow_liu"] if nx.is_tree(network) else []) + ["ebic"]
        for count in SIZES[:-1]:
            tally = {method: Tally(model, network) for method in [*own, "glasso", "scikit-learn"]}
            for seed in range(trials):
                x = draw(model, count, 1000 + seed)
                data = {k: x[:, [k]] for k in range(len(model))}
                for method in own:
                    learned = ps.learn_structure(apart, data, method, shrinkage="none")
                    pairs = {frozenset(learned.scope(f)) for f in learned.factors}
                    tally[method].add(pairs, refit(pairs, x), count)
                with np.errstate(invalid="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    lasso = GraphicalLassoCV(assume_centered=True).fit(((x - x.mean(0)) / x.std(0)).numpy())
                pairs = {frozenset((int(i), int(j))) for i, j in np.argwhere(lasso.precision_) if i != j}
                tally["glasso"].add(pairs, refit(pairs, x), count)
                tally["scikit-learn"].add(pairs, as_correlations(lasso.covariance_), count)
            rows += [[name, count, method, *found.cells()] for method, found in tally.items()]
    return table(rows)


def selection(quick: bool) -> str:
    rows: list[list[object]] = [
        ["graph", "features", "sweeps", "seconds", "largest deviation", "duality gap, nats"]
    ]
    cases = [("ring", n, r) for n in (16, 64) for r in (1, 8)] + [
        ("grid", n, r) for n in (16, 64) for r in (1, 4, 8)
    ]
    for kind, n, size in cases[:2] if quick else cases:
        side = int(n**0.5)
        network = nx.cycle_graph(n) if kind == "ring" else nx.grid_2d_graph(side, side)
        network = nx.convert_node_labels_to_integers(network)
        # a Gaussian field; on a ring partial correlations of .31, of .5 at most
        degree = max(d for _, d in network.degree)
        field = np.linalg.inv(
            1.6 / 2 * degree * np.eye(n) - nx.to_numpy_array(network, nodelist=range(n)) * 0.5
        )
        x = draw(as_correlations(np.kron(field, np.eye(size))), 2 * n * size, 0).numpy()
        covariance = torch.from_numpy(np.cov(x.T, bias=True))
        blocks = {k: torch.arange(k * size, (k + 1) * size) for k in range(n)}
        start = time.perf_counter()
        found = select_covariance(covariance, network, blocks)
        seconds = time.perf_counter() - start
        rows.append([
            f"{kind} of {n}", f"{size} each", len(found.trace), f"{seconds:.2f}", f"{found.trace[-1]:.1e}",
            f"{found.duality_gap:.1e}",
        ])  # fmt: skip
    return table(rows)


def build(quick: bool) -> str:
    errors, coverage = accuracy(quick)
    return f"""Root mean square error of correlations, over the efficient bound (Cramer-Rao) given the graph;
95 % bootstrap intervals over 200 data sets (100 from n = 5000; heldout: 25). Correlations of edges are .8 to .2, of
both signs. "none" is maximum likelihood, which on edges is the sample correlation.

{errors}

Share of Fisher's 95 % intervals (ps.correlations) that hold the true correlation of an edge, with Wilson's interval;
edges of one data set count as separate trials.

{coverage}

Graphs learned, of 30 data sets. scikit-learn: GraphicalLassoCV as it is, its zeros and its covariance; "glasso" takes
its zeros and refits; edge error as above, on the true edges.

{structures(quick)}

Covariance selection on loops, from twice as many samples as features.

{selection(quick)}"""


if __name__ == "__main__":
    main("recovery", build)
