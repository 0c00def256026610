"""Asking the denoisers at one noise level: trajectory by trajectory, or many trajectories at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..denoisers.conditions import mapped
from ..errors import NotFiniteError, ShapeError
from ..graph.factor_graph import Name
from ..levels import NoiseLevel
from ..maps import Identity, LinearMap
from ..maps.features import FeatureMap
from ..score.reduction import same_rows
from .coordinates import Coordinates


class Answer(NamedTuple):
    """What one denoiser says of its trajectory's state."""

    output: Tensor  # (n, *shape) as the scheduler would be handed it; with a learned variance, more channels
    mean: Tensor  # (n, *shape) the denoised content in it
    covariance: Tensor | None = None  # (n, r, r) of the features asked for


class _Group(NamedTuple):
    """Trajectories that one denoiser can be asked about together."""

    denoiser: Denoiser
    features: LinearMap | None
    kind: Any  # of their conditions
    names: list[Name]


def ask(
    denoisers: Mapping[Name, Denoiser],
    noisy: Mapping[Name, Tensor],  # (n, *shape)
    level: NoiseLevel,
    where: Coordinates,
    conditions: Mapping[Name, Any],
    wanted: Mapping[Name, LinearMap],
    chunk: int | None,
    step: int,
) -> dict[Name, Answer]:
    """The answers of all `denoisers`, by trajectory.

    With `chunk`, trajectories of one denoiser are one batch, worked through that many rows at a time; conditions that
    are not the same for all of them are handed over row by row. Raises ShapeError, NotFiniteError, naming trajectory
    and step.
    """
    answers: dict[Name, Answer] = {}
    if chunk is None:
        for name, denoiser in denoisers.items():
            answers[name] = _one(
                denoiser, noisy[name], level, where, conditions[name], wanted.get(name), [name], step
            )
        return answers
    for group in _groups(denoisers, noisy, conditions, wanted):
        counts = [len(noisy[name]) for name in group.names]
        rows = torch.cat([noisy[name] for name in group.names])
        condition = _merged([conditions[name] for name in group.names], counts)
        owners = [name for name, count in zip(group.names, counts, strict=True) for _ in range(count)]
        pieces = [
            _one(
                group.denoiser, rows[at : at + chunk], level, where, _cut(condition, at, at + chunk, len(rows)),
                group.features, owners[at : at + chunk], step,
            )
            for at in range(0, len(rows), chunk)
        ]  # fmt: skip
        outputs = torch.cat([piece.output for piece in pieces]).split(counts)
        means = torch.cat([piece.mean for piece in pieces]).split(counts)
        known = [piece.covariance for piece in pieces if piece.covariance is not None]
        covariances: Sequence[Tensor | None] = (
            torch.cat(known).split(counts) if known else [None] * len(counts)
        )
        answers.update(zip(group.names, map(Answer, outputs, means, covariances), strict=True))
    return {name: answers[name] for name in denoisers}


def _one(
    denoiser: Denoiser,
    noisy: Tensor,
    level: NoiseLevel,
    where: Coordinates,
    condition: Any,
    features: LinearMap | None,
    owners: list[Name],  # of the rows, or of all of them
    step: int,
) -> Answer:
    """A network that already predicts what the scheduler expects keeps its output bit for bit."""
    output, covariance = None, None
    if features is not None:
        mean, covariance = denoiser.posterior(noisy, level, condition, features)
    elif denoiser.prediction_type == where.prediction_type:
        output = denoiser.predict(noisy, level, condition)
        mean = where.denoised_from_output(output, noisy)
    else:
        mean = denoiser.denoise(noisy, level, condition)
    if mean.shape != noisy.shape:
        raise ShapeError(
            f"the denoiser of {owners[0]!r} returned shape {tuple(mean.shape)} for a state of shape "
            f"{tuple(noisy.shape)} at step {step}",
            name=owners[0],
            step=step,
        )
    check_finite(mean, owners, step, "the denoiser of {} returned")
    return Answer(where.output_from_denoised(mean, noisy) if output is None else output, mean, covariance)


def check_finite(content: Tensor, owners: list[Name], step: int, what: str, advice: str = "") -> None:
    """Raises NotFiniteError, naming step and the first trajectory with a bad row; `owners` of the rows, or one."""
    if torch.isfinite(content).all():
        return
    bad = ~torch.isfinite(content)
    row = int(bad.flatten(1).any(1).nonzero()[0]) if len(owners) > 1 else 0
    raise NotFiniteError(
        f"{what.format(repr(owners[row]))} {int(bad.sum())} NaN or infinite numbers out of {bad.numel()} at step "
        f"{step}{advice}",
        name=owners[row],
        step=step,
    )


def _groups(
    denoisers: Mapping[Name, Denoiser],
    noisy: Mapping[Name, Tensor],
    conditions: Mapping[Name, Any],
    wanted: Mapping[Name, LinearMap],
) -> list[_Group]:
    groups: list[_Group] = []
    for name, denoiser in denoisers.items():
        features, kind = wanted.get(name), _kind(conditions[name], len(noisy[name]))
        for group in groups:
            if group.denoiser is denoiser and group.kind == kind and _same_features(group.features, features):
                group.names.append(name)
                break
        else:
            groups.append(_Group(denoiser, features, kind, [name]))
    return groups


def _same_features(a: LinearMap | None, b: LinearMap | None) -> bool:
    if a is b:
        return True
    if isinstance(a, FeatureMap) and isinstance(b, FeatureMap):
        return a.in_shape == b.in_shape and same_rows(a, b)
    return isinstance(a, Identity) and isinstance(b, Identity) and a.in_shape == b.in_shape


def _kind(condition: Any, count: int) -> Any:
    """What two conditions must have in common to be one batch; hashable or comparable."""
    if condition is None:
        return None
    if isinstance(condition, Mapping):
        return "mapping", {key: _kind(value, count) for key, value in condition.items()}
    if isinstance(condition, list | tuple):
        return type(condition), [_kind(value, count) for value in condition]
    if isinstance(condition, bool | int | float):
        return "rows", (), torch.as_tensor(condition).dtype
    if isinstance(condition, Tensor) and (condition.ndim == 0 or len(condition) in (1, count)):
        return "rows", condition.shape[1:], condition.dtype
    # A tensor that is neither for all samples nor has a row for each: only its denoiser knows what it means
    return "opaque", object() if isinstance(condition, Tensor) else id(condition)


def _merged(conditions: list[Any], counts: list[int]) -> Any:
    """Conditions of one kind as one, row by row where they differ."""
    first = conditions[0]
    if all(value is first for value in conditions) and not _has_rows(first, counts[0]):
        return first
    if isinstance(first, Mapping):
        return {key: _merged([value[key] for value in conditions], counts) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(_merged(list(values), counts) for values in zip(*conditions, strict=True))
    if isinstance(first, bool | int | float) and all(value == first for value in conditions):
        return first
    rows = []
    for value, count in zip(conditions, counts, strict=True):
        tensor = torch.as_tensor(value)
        rows.append(tensor.expand(count, *tensor.shape[1:]))
    return torch.cat(rows)


def _has_rows(condition: Any, count: int) -> bool:
    """Whether a tensor with a row per sample is in it."""
    found: list[bool] = []
    mapped(condition, lambda value, _: found.append(value.ndim > 0 and len(value) == count))
    return any(found)


def _cut(condition: Any, start: int, stop: int, count: int) -> Any:
    return mapped(
        condition, lambda value, _: value[start:stop] if value.ndim and len(value) == count else value
    )
