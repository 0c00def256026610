"""Denoisers that hold a prediction: noise, velocity, flow, or the clean content itself."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor

from ..errors import ParameterError
from ..levels import NoiseLevel, expand
from ..maps.base import as_shape
from .base import Denoiser
from .prediction import PREDICTION_TYPES, coefficients, mean_part


class PredictingDenoiser(Denoiser):
    """A denoiser by what it predicts: a subclass gives `predict`, `denoise` converts.

    `shape` is the event shape. `prediction_type` is "sample" (x_0), "epsilon", "v_prediction" or "flow_prediction", as
    tabulated in `denoisers.prediction.coefficients`. A prediction with twice the channels carries a learned variance in
    the second half, which `denoise` leaves out.

    Raises ParameterError on an unknown prediction type, ShapeError on a shape that is none.

    If none of the state is noise, the clean content is ``x_t / alpha``:

    >>> import torch
    >>> class NoNoise(PredictingDenoiser):
    ...     def predict(self, noisy, level, condition=None):
    ...         return torch.zeros_like(noisy)
    >>> NoNoise((2,), "epsilon").denoise(torch.tensor([0.8, 1.6]), NoiseLevel(alpha=0.8, sigma=0.6))
    tensor([1., 2.])
    """

    def __init__(self, shape: tuple[int, ...], prediction_type: str):
        if prediction_type not in PREDICTION_TYPES:
            raise ParameterError(
                f"unknown prediction type {prediction_type!r}; use one of {', '.join(PREDICTION_TYPES)}",
                prediction_type=prediction_type,
            )
        self.shape = as_shape(shape)
        self.prediction_type = prediction_type

    @abc.abstractmethod
    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """The raw prediction of `noisy` at a `level` under a `condition`, of type `prediction_type`, unconverted."""

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """``E[x_0 | x_t]``, converted from the prediction.

        Raises ShapeError, DtypeError; ParameterError for an epsilon prediction at alpha = 0, where it says
        nothing about x_0.
        """
        output = mean_part(self.predict(noisy, level, condition), noisy, noisy.ndim - len(self.shape))
        if self.prediction_type == "sample":
            return output
        alpha, sigma = (expand(value, noisy, len(self.shape)) for value in (level.alpha, level.sigma))
        c_x, c_m = coefficients(self.prediction_type, alpha if alpha.ndim else alpha.item(), sigma)
        return c_x * noisy + c_m * output
