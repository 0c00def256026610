"""How potentials were learned, as it is saved with a graph."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError
from ..graph.factor_graph import FactorGraph, Name
from ..tables import in_notebook


@dataclass(frozen=True)
class Fit:
    """The record of a fit; `Fit.of` reads it from a fitted graph, saved ones included.

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(500, 2, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> record = ps.Fit.of(ps.fit(ps.chain_graph(2, (1,)), {0: x[:, 0], 1: x[:, 1]}))
    >>> record.method, record.num_samples, record.features
    ('moments', 500, 2)
    """

    method: str  # as `fit` takes it
    num_samples: int  # joint ones
    features: int  # P, of all trajectories together
    data: str  # fingerprint of what was fitted
    num_groups: int | None = None  # independent groups of samples, where they were named
    objective: list[float] = field(default_factory=list)  # what was minimised, per sweep or iteration
    heldout: float | None = None  # the score on samples kept back; `details` says of what kind
    heldout_samples: int = 0  # how many
    seed: int | None = None  # of what was random
    versions: dict[str, str] = field(default_factory=lambda: versions())  # of packages
    details: dict[str, Any] = field(default_factory=dict)  # what only this method has

    @staticmethod
    def of(graph: FactorGraph) -> Fit:
        """Raises ParameterError for a graph that was not fitted."""
        record = graph.graph.get("fit")
        if not record:
            raise ParameterError(f"{graph!r} has no record of a fit; ps.fit makes one")
        known = {f.name for f in fields(Fit)}
        return Fit(**{key: value for key, value in record.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.method} fit of {self.features} features from {self.num_samples} samples"]
        if self.num_groups is not None:
            lines[0] += f" in {self.num_groups} groups"
        if self.heldout is not None:
            lines.append(f"held out ({self.heldout_samples} samples): {self.heldout:.6g}")
        if self.objective:
            lines.append(
                f"objective: {self.objective[0]:.6g} to {self.objective[-1]:.6g}, {len(self.objective)} steps"
            )
        known = {f.name for f in fields(Fit)}
        lines += [f"{key}: {value}" for key, value in self.settings().items() if key not in known]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return in_notebook("fit", self)

    def settings(self) -> dict[str, Any]:
        """Everything but traces and versions in one flat dictionary, for a table."""
        flat = {**self.to_dict(), **self.details}
        return {k: v for k, v in flat.items() if v is not None and not isinstance(v, list | dict)}


def versions() -> dict[str, str]:
    """Of what a fit depends on."""
    return {p: importlib.metadata.version(p) for p in ("pgm_sync", "torch", "scikit-learn")}


def fingerprint(data: Tensor | Mapping[Name, Tensor]) -> str:
    """Of the data, for the record."""
    digest = hashlib.sha256()
    for value in [data] if isinstance(data, Tensor) else data.values():
        digest.update(torch.as_tensor(value).detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
