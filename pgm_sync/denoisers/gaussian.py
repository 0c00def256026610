"""The exact denoiser of one Gaussian."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ShapeError
from .checks import as_data, eigendecompose
from .components import ComponentDenoiser, Components


class GaussianDenoiser(ComponentDenoiser):
    """Clean content ``x_0 ~ N(mean, covariance)``; singular covariances are allowed.

    The posterior is Gaussian with covariance ``(covariance^-1 + snr I)^-1`` (Eq. 4 with the surrogate exact).
    `mean` is ``(*shape)`` and fixes the event shape; `covariance` is ``(D, D)``, ``D = prod(shape)``.

    Raises ShapeError, NotFiniteError, and CovarianceError where the covariance is not symmetric and
    positive semidefinite.

    >>> import torch, pgm_sync as ps
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(2), 3 * torch.eye(2))
    >>> denoiser.denoise(torch.tensor([4.0, 8.0]), ps.NoiseLevel(alpha=1.0, sigma=1.0))  # 3 / (3 + 1) of it
    tensor([3., 6.])
    """

    def __init__(self, mean: Any, covariance: Any):
        mean, covariance = as_data(mean, "mean"), as_data(covariance, "covariance")
        size = mean.numel()
        if tuple(covariance.shape) != (size, size):
            raise ShapeError(
                f"covariance has shape {tuple(covariance.shape)}; "
                f"mean of shape {tuple(mean.shape)} needs {(size, size)}"
            )
        variances, basis = eigendecompose(covariance, "covariance")
        zero = variances.new_zeros(1)
        super().__init__(
            tuple(mean.shape),
            Components(
                log_weights=zero,
                means=variances.new_zeros(1, size),
                basis=basis[None],
                variances=variances[None],
                residual=zero,
                center=mean.to(variances).reshape(-1),
                frame=None,
                outside=torch.zeros_like(zero[0]),
            ),
        )
