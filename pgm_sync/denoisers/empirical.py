"""The exact denoiser of a finite data set."""

from __future__ import annotations

from typing import Any

from ..errors import ParameterError, ShapeError
from .checks import as_data, as_labels
from .components import ComponentDenoiser, Components


class EmpiricalDenoiser(ComponentDenoiser):
    """Clean content drawn from the rows of `data`, blurred by Gaussian noise of deviation `bandwidth`.

    With ``bandwidth=0`` this is the ideal denoiser of the data set (its samples are the data); with more it
    is the denoiser of the kernel density estimate. `data` is ``(n, *shape)``; `labels` ``(n)`` makes it
    class-conditional. Costs ``n * D`` per state.

    Raises ShapeError, DtypeError, NotFiniteError on the data, ParameterError on a negative bandwidth.

    >>> import torch, pgm_sync as ps
    >>> denoiser = ps.EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]]))
    >>> denoiser.denoise(torch.tensor([0.5]), ps.NoiseLevel(alpha=1.0, sigma=0.1))  # the nearest
    tensor([1.])
    """

    def __init__(self, data: Any, labels: Any = None, bandwidth: float = 0.0):
        data = as_data(data, "data")
        if data.ndim < 2 or len(data) == 0:
            raise ShapeError(f"data must be (n, *shape) with n >= 1, got {tuple(data.shape)}")
        if not 0 <= bandwidth < float("inf"):
            raise ParameterError(f"bandwidth must be finite and >= 0, got {bandwidth}", bandwidth=bandwidth)
        self.bandwidth = float(bandwidth)
        flat = data.flatten(1).double()
        n, size = flat.shape
        center = flat.mean(0)
        super().__init__(
            tuple(data.shape[1:]),
            Components(
                log_weights=flat.new_zeros(n),
                means=flat - center,
                basis=flat.new_zeros(n, size, 0),
                variances=flat.new_zeros(n, 0),
                residual=flat.new_full((n,), self.bandwidth**2),
                center=center,
                frame=None,
                outside=flat.new_zeros(()),
            ),
            as_labels(labels, n, "rows of data"),
        )
