"""Numbers that depend on the noise level, and what a fit wrote of them into its record, as JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ParameterError, SavedFileError, ShapeError
from ..graph.factor_graph import FactorGraph
from ..levels import NoiseLevel
from ..spec import Spec, decode, encode, tensor_from_json, tensor_to_json

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


class Schedule(NamedTuple):
    """Values at a few noise levels, linear in log snr between them and constant outside."""

    log_snr: Tensor  # (L,) increasing
    values: Tensor  # (L, *shape); may ask for gradients

    def check(self, what: str) -> None:
        """Raises ShapeError, ParameterError."""
        levels = self.log_snr
        if levels.ndim != 1 or (self.values.ndim and self.values.shape[0] != len(levels)):
            raise ShapeError(
                f"{what} have shape {tuple(self.values.shape)}, log_snr has {tuple(levels.shape)}; one row per level"
            )
        if not bool(torch.isfinite(levels).all()) or bool((levels.diff() <= 0).any()):
            raise ParameterError(f"{what}: log_snr must be finite and increasing, got {levels.tolist()}")

    def at(self, level: NoiseLevel) -> Tensor:
        """``(*shape)``"""
        x = min(max(math.log(float(level.snr)), float(self.log_snr[0])), float(self.log_snr[-1]))
        after = int(torch.searchsorted(self.log_snr, torch.tensor(x, dtype=self.log_snr.dtype)))
        if float(self.log_snr[min(after, len(self.log_snr) - 1)]) == x:
            return self.values[after]
        low, high = float(self.log_snr[after - 1]), float(self.log_snr[after])
        share = (x - low) / (high - low)
        return (1 - share) * self.values[after - 1] + share * self.values[after]


def log_snr_of(levels: list[NoiseLevel]) -> Tensor:
    """Sorted logarithms of the signal-to-noise ratios ``(L,)``, float64."""
    return torch.tensor(sorted(math.log(float(level.snr)) for level in levels), dtype=torch.float64)


def to_data(spec: Spec) -> dict[str, Any]:
    """A specification with its tensors as JSON data."""
    tensors: dict[str, Tensor] = {}
    encoded = encode(spec, tensors)
    return {"spec": encoded, "tensors": {key: tensor_to_json(value) for key, value in tensors.items()}}


def from_data(data: Mapping[str, Any]) -> Spec:
    """The inverse of `to_data`. Raises SavedFileError."""
    try:
        tensors = {key: tensor_from_json(value) for key, value in data["tensors"].items()}
        return decode(data["spec"], tensors)
    except (KeyError, TypeError, AttributeError) as error:
        raise SavedFileError(f"not a saved specification: {error!r}") from error


class Setting(Spec):
    """What depends on the noise level and can be saved by itself, as JSON data."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; `from_dict` reads it."""
        return to_data(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises SavedFileError, ParameterError."""
        made = from_data(data)
        if not isinstance(made, cls):
            raise ParameterError(f"{made!r} is no {cls.__name__}")
        return made


def fitted(graph: FactorGraph, what: str) -> Any:
    """What the record of a fit says of a setting. Raises ParameterError where it says nothing."""
    details = (graph.graph.get("fit") or {}).get("details", {})
    if what not in details:
        raise ParameterError(f"{what}='fitted', but the graph has no fitted one; ps.fit makes one")
    return details[what]
