"""What every factor pulls, at given contents: the terms of Eq. 6 one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..graph.factor_graph import FactorGraph, Name
from ..inference import infer
from ..maps import LinearMap
from ..potentials import Likelihood
from ..potentials.base import Information, StructuralPotential, checked_information


class Term(NamedTuple):
    """One factor's ``log psi(y) = -y' P y / 2 + eta' y + log_scale`` over what it sees, y."""

    factor: Name
    scope: list[Name]
    maps: list[LinearMap]
    elementwise: bool
    information: Information

    def evaluate(self, contents: Mapping[Name, Tensor]) -> tuple[dict[Name, Tensor], Tensor]:
        """``B' (eta - P B u)`` per end ``(batch, *shape)``, the gradient of log psi, and log psi itself ``(batch)``."""
        seen = [m.apply(contents[name]) for name, m in zip(self.scope, self.maps, strict=True)]
        shapes = [m.out_shape for m in self.maps]
        batch, like = len(seen[0]), seen[0]
        precision, eta, log_scale = (part.to(like) for part in self.information)
        if self.elementwise:
            y = torch.stack(seen)  # (n, batch, *event)
            eta = eta.reshape(len(seen), 1, *(eta.shape[1:] or (1,) * len(shapes[0])))
            if precision.ndim == 2:
                times = torch.einsum("ij,j...->i...", precision, y)
            else:
                times = torch.einsum("ij...,jb...->ib...", precision, y)
            pulls = list(eta - times)
            inner = (y * (eta - times / 2)).sum(0).reshape(batch, -1).sum(1)
            value = inner + log_scale.expand(shapes[0]).sum()
        else:
            flat = torch.cat([part.reshape(batch, -1) for part in seen], 1)
            times = flat @ precision
            parts = (eta - times).split([m.out_size for m in self.maps], 1)
            pulls = [part.reshape(batch, *shape) for part, shape in zip(parts, shapes, strict=True)]
            value = (flat * (eta - times / 2)).sum(1) + log_scale
        return {n: m.adjoint(p) for n, m, p in zip(self.scope, self.maps, pulls, strict=True)}, value


def terms(graph: FactorGraph) -> list[Term]:
    """The factors with a density, of a graph with fitted potentials. Raises UnfittedError."""
    made = []
    for factor in graph.factors:
        potential = graph.potential(factor)
        if isinstance(potential, StructuralPotential | Likelihood):
            continue
        information = checked_information(potential, factor, graph.seen_shapes(factor))
        made.append(Term(factor, graph.scope(factor), graph.maps(factor), potential.elementwise, information))
    return made


def with_hidden(graph: FactorGraph, contents: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    """Contents of all nodes, with hidden variables at their means given those of the trajectories."""
    if not graph.hidden:
        return dict(contents)
    like = next(iter(contents.values()))
    observed = {name: x.detach().to("cpu", torch.float64) for name, x in contents.items()}
    posterior = infer(graph, observed=observed)
    return {**contents, **{name: posterior.mean[name].to(like) for name in graph.hidden}}
