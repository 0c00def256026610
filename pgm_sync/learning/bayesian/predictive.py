"""What a model predicts for statistics of every edge, beside what the data have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...graph.factor_graph import Name
from .draws import Draws
from .parts import Part, Statistics

# Of products of standardised numbers at the two ends of an edge, averaged over samples. Cokurtosis is 1 + 2 rho^2 for
# Gaussians, and more where large numbers come together.
STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "correlation": lambda product: product,
    "cokurtosis": torch.square,
}


class PredictiveCheck(NamedTuple):
    """One statistic of one edge and mode; `p` near 0 or 1: the model does not produce what was observed."""

    first: Name  # one end of the edge
    second: Name  # the other
    mode: str  # as the maps label it
    statistic: str  # "correlation" or "cokurtosis"
    observed: float  # in the data
    predicted: float  # mean of replicates
    low: float  # central 95 % of replicates
    high: float  # of them
    p: float  # share of replicates at least as large as what was observed (Bayesian p-value)


class Replicates(NamedTuple):
    """Statistics by name, then by part: of the data ``(M, E)``, of replicates ``(draws, M, E)``."""

    observed: dict[str, list[Tensor]]
    replicated: dict[str, list[Tensor]]


def replicate(
    parts: list[Part], found: Statistics, samples: Tensor, draws: Draws, count: int, seed: int
) -> Replicates:
    """From `count` evenly spaced draws data sets of as many samples as are independent in ``(n, P)`` `samples`."""
    scaled, size = (samples - found.mean) / found.unit, round(found.size)
    total = draws.log_density.numel()
    chosen = torch.linspace(0, total - 1, min(count, total)).round().long()
    generator = torch.Generator().manual_seed(seed)
    observed: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    replicated: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    for k, part in enumerate(parts):
        product = _products(scaled[:, part.rows], part)  # (n, M, E)
        for name, statistic in STATISTICS.items():
            weighted = torch.tensordot(found.weights, statistic(product), 1) / found.size
            observed[name].append(weighted)
            replicated[name].append(weighted.new_zeros(len(chosen), *weighted.shape))
        if not part.structure.edges:
            continue
        free = draws.values[f"free{k}"].flatten(0, 1)
        for place, index in enumerate(chosen.tolist()):
            root = torch.linalg.cholesky(part.structure.precision(free[index]))
            noise = torch.randn(*root.shape[:-1], size, generator=generator, dtype=torch.float64)
            x = torch.linalg.solve_triangular(root.mT, noise, upper=True).movedim(-1, 0)  # (n, M, K)
            x = x - x.mean(0)
            product = _products(x / x.square().mean(0).sqrt(), part)
            for name, statistic in STATISTICS.items():
                replicated[name][k][place] = statistic(product).mean(0)
    return Replicates(observed, replicated)


def compare(parts: list[Part], labels: dict[Name, list[str]], found: Replicates) -> list[PredictiveCheck]:
    """One row per edge, mode and statistic."""
    tails = torch.tensor([0.025, 0.975]).double()
    rows = []
    for k, part in enumerate(parts):
        for e, (i, j) in enumerate(part.structure.edges):
            for mode in range(len(part.rows)):
                label = _mode(part, labels, i, j, mode)
                for name in STATISTICS:
                    value = found.observed[name][k][mode, e]
                    replicates = found.replicated[name][k][:, mode, e]
                    low, high = torch.quantile(replicates, tails).tolist()
                    share = (replicates >= value).double().mean().item()
                    numbers = (value.item(), replicates.mean().item(), low, high, share)
                    rows.append(PredictiveCheck(part.names[i], part.names[j], label, name, *numbers))
    return rows


def _mode(part: Part, labels: dict[Name, list[str]], i: int, j: int, mode: int) -> str:
    """Of an edge: the mode, or the two that it joins."""
    if len(set(part.names)) == len(part.names):
        return labels[part.names[i]][mode]
    places = (part.names[:k].count(part.names[k]) for k in (i, j))
    return " - ".join(labels[part.names[k]][place] for k, place in zip((i, j), places, strict=True))


def _products(x: Tensor, part: Part) -> Tensor:
    """Of ``(..., K)`` at both ends of every edge, ``(..., E)``."""
    pairs = torch.tensor(part.structure.edges, dtype=torch.long).reshape(-1, 2)
    return x[..., pairs[:, 0]] * x[..., pairs[:, 1]]
