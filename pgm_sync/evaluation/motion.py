"""Motions: residuals of a physical law, jumps at the borders of windows, diversity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..metrics import Measurement, jackknife
from .features import AT_ONCE, Features, elements, embed
from .means import as_values, mean, ratio


def residual(
    motions: Tensor,  # (n, *shape)
    law: Callable[[Tensor], Tensor],
) -> Measurement:
    """Mean absolute residual of a law that real motions keep (bone lengths, an equation of motion); 0 is best.

    ``law(motions)`` has a row per motion; its units are those of the result. The interval is over motions.

    Raises ShapeError, NotFiniteError.

    >>> motions = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 4.0]])  # positions
    >>> residual(motions, lambda x: x.diff(dim=1) - 1).value  # where the speed should be 1
    0.5
    """
    found = law(motions)
    if found.ndim == 0 or len(found) != len(motions):
        raise ShapeError(
            f"a law must return a row per motion: {len(motions)} motions gave {tuple(found.shape)}"
        )
    return mean(found.detach().double().abs().reshape(len(motions), -1).mean(1), what="residuals")


def transition_jump(
    motions: Tensor,  # (n, ..., T, ...)
    borders: Sequence[int],
    order: int = 1,
    time: int = 1,
    groups: Sequence[int] | Tensor | None = None,  # (n)
) -> Measurement:
    """Jump of a derivative at the borders of windows, over that inside them; 1 where borders cannot be told.

    The jump of the velocity (order 1), acceleration (2) or position (0) at a frame is the root mean square, over
    coordinates, of the difference of order + 1 around it; a border at frame b of `motions` ``(n, ..., T, ...)`` lies
    between frames b - 1 and b, and takes all differences that reach across it. `time` is the axis of frames. Above 1
    transitions are abrupt, below 1 overlaps were averaged away. Cf. peak jerk of [Barquero2024]_. The interval is a
    jackknife over motions, or `groups` of them.

    >>> position = torch.tensor([0.0, 1.0, 4.0, 5.0]).expand(3, 4)[..., None]  # (n, T, 1)
    >>> transition_jump(position, borders=[2], order=0).value  # a step of 3 between steps of 1
    3.0

    Raises ShapeError on borders outside the motion, ParameterError where nothing lies inside, or nothing moves.
    """
    if order not in (0, 1, 2):
        raise ParameterError(
            f"order={order} is none of 0 (position), 1 (velocity), 2 (acceleration)", order=order
        )
    if not 1 <= time < motions.ndim:
        raise ShapeError(f"motions of shape {tuple(motions.shape)} have no time axis {time}")
    x = (
        motions.detach().double().movedim(time, 1).flatten(2)
        if motions.ndim > 2
        else motions.double()[..., None]
    )
    frames = x.shape[1]
    outside = [b for b in borders if not 1 <= b < frames]
    if outside or not len(borders):
        raise ShapeError(
            f"borders {outside or 'missing'}: motions of {frames} frames have them from 1 to {frames - 1}"
        )
    steps = (
        x.diff(n=order + 1, dim=1).square().mean(2).sqrt()
    )  # (n, frames - order - 1), k of frames k to k + order + 1
    at = torch.zeros(max(0, frames - order - 1), dtype=torch.bool, device=x.device)
    for b in borders:
        at[max(0, b - order - 1) : b] = True
    if at.all():
        raise ParameterError(
            "every difference reaches across a border; windows are too short to compare with"
        )
    return ratio(steps[:, at].mean(1), steps[:, ~at].mean(1), groups, "jumps at borders")


def diversity(
    samples: Tensor,  # (n, *shape)
    features: Features = elements,
    labels: Sequence[int] | Tensor | None = None,  # (n)
    batch: int = AT_ONCE,
) -> Measurement:
    """Mean distance between two samples, in features, root mean square over them; compare with that of real samples.

    All pairs instead of the random ones of [Guo2020]_; with `labels`, pairs of one label only (their
    "multimodality"). The interval is a jackknife over samples. `batch` of them are embedded at once.

    >>> samples = torch.tensor([[0.0, 0.0], [3.0, 3.0], [6.0, 6.0]])  # distances 3, 3 and 6
    >>> round(diversity(samples).value, 4)
    4.0

    Raises ShapeError, ParameterError where no two samples share a label, NotFiniteError.
    """
    x = embed(samples, features, batch)
    x = (x - x.mean(0)) / x.shape[1] ** 0.5
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").cpu()
    pairs = ~torch.eye(len(x), dtype=torch.bool)
    if labels is not None:
        kinds = as_values(torch.as_tensor(labels), "labels")
        if len(kinds) != len(x):
            raise ShapeError(f"{len(kinds)} labels for {len(x)} samples")
        pairs &= kinds[:, None] == kinds
    pairs = pairs.double()
    if not pairs.any():
        raise ParameterError("no two samples to compare" + ("" if labels is None else " share a label"))
    distances = distances * pairs
    return jackknife(lambda w: (w @ distances * w).sum(-1) / (w @ pairs * w).sum(-1), len(x))
