"""A denoiser from any callable, whatever it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..errors import ShapeError
from ..levels import NoiseLevel
from .checks import check_noisy
from .predicting import PredictingDenoiser


class FunctionDenoiser(PredictingDenoiser):
    """``function(noisy, alpha, sigma[, condition])`` as a denoiser.

    alpha and sigma are handed over as the level has them (numbers, or ``(*batch)`` tensors), condition only
    where one is given. `prediction_type` says what the function returns, in the shape of `noisy`: "sample"
    (x_0), "epsilon", "v_prediction" or "flow_prediction".

    Raises ParameterError on an unknown prediction type, ShapeError on an output unlike the state in shape.

    >>> import torch, pgm_sync as ps
    >>> denoiser = ps.FunctionDenoiser(lambda x, alpha, sigma: alpha * x / (alpha**2 + sigma**2), shape=(2,))
    >>> denoiser.denoise(torch.tensor([2.0, 4.0]), ps.NoiseLevel(alpha=1.0, sigma=1.0))
    tensor([1., 2.])
    """

    def __init__(
        self, function: Callable[..., Tensor], shape: tuple[int, ...], prediction_type: str = "sample"
    ):
        super().__init__(shape, prediction_type)
        self.function = function

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"FunctionDenoiser({name}, shape={self.shape}, prediction_type={self.prediction_type!r})"

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """What the function returns. Raises ShapeError, DtypeError."""
        check_noisy(self, noisy)
        extra = () if condition is None else (condition,)
        output = self.function(noisy, level.alpha, level.sigma, *extra)
        if not isinstance(output, Tensor) or output.shape != noisy.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ShapeError(f"{self!r} returned {got} for a state of shape {tuple(noisy.shape)}")
        return output
