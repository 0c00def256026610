"""A fit as ArviZ InferenceData."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...graph.factor_graph import Name
from .draws import Draws
from .extra import arviz
from .parts import Part
from .predictive import STATISTICS, Replicates

if TYPE_CHECKING:
    from .posterior import BayesianFit


def inference_data(fit: BayesianFit, replicates: int) -> Any:
    """See `BayesianFit.to_arviz`."""
    az = arviz()
    coords, dims = _coordinates(fit.parts, fit.labels)
    # chain, draw before the variable's own dimensions: az adds them
    groups: dict[str, Any] = {
        "posterior": _values(fit, fit.draws),
        "prior": _values(fit, fit.prior_draws),
        "sample_stats": _sample_stats(fit.draws),
        "log_likelihood": {"samples": log_likelihood(fit).numpy()},
    }
    coords["sample"] = np.arange(groups["log_likelihood"]["samples"].shape[-1])
    dims["samples"] = ["sample"]
    for name, draws in {"posterior_predictive": fit.draws, "prior_predictive": fit.prior_draws}.items():
        found = fit.replicate(draws, replicates)
        groups[name] = _statistics(fit.parts, found, "replicated")
        groups["observed_data"] = _statistics(fit.parts, found, "observed")
    return az.from_dict(**groups, coords=coords, dims=dims)


def _suffixes(parts: list[Part]) -> list[str]:
    """None where one set of modes serves all parts; else a number for each."""
    return [""] if len(parts) == 1 else [f"_{k}" for k in range(len(parts))]


def _coordinates(
    parts: list[Part], labels: Mapping[Name, list[str]]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    coords: dict[str, Any] = {}
    dims: dict[str, list[str]] = {}
    for part, suffix in zip(parts, _suffixes(parts), strict=True):
        by_mode = len(set(part.names)) == len(part.names)
        modes = labels[part.names[0]] if by_mode else ["all"]
        nodes = [
            repr(n) if by_mode else f"{n!r} {labels[n][part.names[:k].count(n)]}"
            for k, n in enumerate(part.names)
        ]
        edge, mode, node = f"edge{suffix}", f"mode{suffix}", f"node{suffix}"
        coords |= {mode: modes, node: nodes}
        coords[edge] = [f"{nodes[i]} - {nodes[j]}" for i, j in part.structure.edges]
        dims |= {f"scale{suffix}": [mode, node]}
        dims |= {f"{what}{suffix}": [mode, edge] for what in ("rho", *STATISTICS)}
    return coords, dims


def _values(fit: BayesianFit, draws: Draws) -> dict[str, np.ndarray]:
    out = {}
    for k, (part, suffix) in enumerate(zip(fit.parts, _suffixes(fit.parts), strict=True)):
        if f"free{k}" in draws.values:
            out[f"rho{suffix}"] = part.structure.edge_correlations(draws.values[f"free{k}"]).numpy()
        if f"scale{k}" in draws.values:
            out[f"scale{suffix}"] = (draws.values[f"scale{k}"] * fit.statistics.unit[part.rows]).numpy()
    return out


def _sample_stats(draws: Draws) -> dict[str, np.ndarray]:
    out = {"lp": draws.log_density.numpy()}
    if draws.diverging is not None:
        out["diverging"] = draws.diverging.expand(draws.log_density.shape).numpy()
    if draws.log_guide is not None:
        out["log_weight"] = (draws.log_density - draws.log_guide).numpy()
    return out


def _statistics(parts: list[Part], found: Replicates, which: str) -> dict[str, np.ndarray]:
    values: dict[str, list[Tensor]] = getattr(found, which)
    out = {}
    for name in STATISTICS:
        for k, suffix in enumerate(_suffixes(parts)):
            if parts[k].structure.edges:
                value = values[name][k].numpy()
                out[f"{name}{suffix}"] = value if which == "observed" else value[None]  # one chain
    return out


def log_likelihood(fit: BayesianFit) -> Tensor:
    """Of every sample under every draw, nats in units of the features, ``(chains, draws, n)``.

    Samples of one group are averaged, ``(chains, draws, groups)``: they count as one.
    """
    found, total = fit.statistics, len(fit)
    scaled = (fit.samples - found.mean) / found.unit
    constant = found.unit.log().sum() + 0.5 * len(found.unit) * math.log(2 * math.pi)
    out = torch.zeros(total, len(scaled), dtype=torch.float64) - constant
    shift = torch.Generator().manual_seed((fit.record.seed or 0) + 1)
    for k, part in enumerate(fit.parts):
        precisions = fit.precisions(k)
        x = scaled[:, part.rows].movedim(0, 1)  # (M, n, K)
        for index in range(total):
            root = torch.linalg.cholesky(precisions[index])
            noise = torch.randn(*root.shape[:-1], 1, generator=shift, dtype=torch.float64)
            white = (x - _mean_shift(root, noise, found.size)) @ root
            log_root = root.diagonal(dim1=-2, dim2=-1).log().sum()
            out[index] += log_root - 0.5 * white.square().sum((0, 2))
    if fit.record.num_groups is not None:
        label = fit.statistics.labels
        sums = torch.zeros(total, int(found.size), dtype=torch.float64)
        out = sums.index_add(1, label, out * found.weights)
    return out.reshape(*fit.draws.log_density.shape, -1)


def _mean_shift(root: Tensor, noise: Tensor, size: float) -> Tensor:
    """The mean given the covariance, about that of the samples: N(0, covariance / n), ``(M, 1, K)``."""
    return (torch.linalg.solve_triangular(root.mT, noise, upper=True) / size**0.5).mT
