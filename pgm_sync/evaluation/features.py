"""Feature networks: how metrics call one, and what they use when none is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import NotFiniteError, ParameterError, ShapeError

Features = Callable[[Tensor], Tensor]
AT_ONCE = 256  # samples per call of a feature network


def elements(samples: Tensor) -> Tensor:  # (n, *shape) -> (n, d)
    """Samples as they are, flattened: `samples` ``(n, *shape)`` as ``(n, d)``.

    >>> elements(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 192])
    """
    return samples.flatten(1)


def pooled_pixels(samples: Tensor, size: int = 8) -> Tensor:  # (n, *shape) -> (n, d)
    """Pictures averaged to at most ``size * size`` pixels; anything that is no picture as it is, flattened.

    `samples` are ``(n, *shape)``, pictures ``(n, C, H, W)``; the features ``(n, d)``.
    >>> pooled_pixels(torch.zeros(5, 3, 32, 16)).shape, pooled_pixels(torch.zeros(5, 7)).shape
    (torch.Size([5, 192]), torch.Size([5, 7]))
    """
    if samples.ndim == 4:
        h, w = samples.shape[-2:]
        samples = functional.adaptive_avg_pool2d(samples, (min(h, size), min(w, size)))
    return samples.flatten(1)


def embed(samples: Tensor, features: Features = pooled_pixels, batch: int = AT_ONCE) -> Tensor:  # (n, d)
    """Features of samples ``(n, *shape)`` in float64, `batch` at a time, without gradients.

    Raises ShapeError where `features` does not return a row per sample, NotFiniteError, ParameterError.

    >>> brightness = lambda pictures: pictures.mean((1, 2, 3))
    >>> embed(torch.ones(5, 3, 8, 8), brightness).shape
    torch.Size([5, 1])
    """
    if batch < 1:
        raise ParameterError(f"batch={batch} must be at least 1", batch=batch)
    if samples.ndim == 0 or not len(samples):
        raise ShapeError(f"samples of shape {tuple(samples.shape)} hold nothing to measure")
    rows = []
    with torch.no_grad():
        for part in samples.split(batch):
            found = features(part)
            if not isinstance(found, Tensor) or found.ndim == 0 or len(found) != len(part):
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ShapeError(
                    f"features must return a row per sample: {len(part)} samples gave {got}", got=got
                )
            rows.append(found.detach().double().reshape(len(part), -1))  # one number per sample is a row too
    made = torch.cat(rows)
    finite = torch.isfinite(made).all(1)
    if not finite.all():
        raise NotFiniteError(
            f"{int((~finite).sum())} of {len(made)} samples have NaN or infinite features, "
            f"sample {int((~finite).nonzero()[0])} first; look at the samples before their metrics"
        )
    return made
