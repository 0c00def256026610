"""A denoiser from a network of diffusers, or any network called like one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..levels import NoiseLevel
from .checks import check_noisy
from .predicting import PredictingDenoiser


class DiffusersDenoiser(PredictingDenoiser):
    """``model(sample, timestep[, condition_argument=condition]).sample`` as a denoiser: a `UNet2DModel`.

    `shape` is the event shape (None: as the model's config says); `prediction_type` what the model was
    trained to predict: the scheduler's ``config.prediction_type`` tells. A condition is one for the whole
    batch, or ``(*batch, ...)`` tensors, handed over as `condition_argument`.

    The model runs as it is, on its own device and in its own dtype, with gradients only for a state that
    asks for them: call ``model.eval()``
    first if it has dropout. States and outputs keep the dtype and device of the state. Every level needs the
    scheduler's timestep, and its ``scale_model_input`` where the scheduler has one: `ps.sample` gives both.

    Raises ParameterError on an unknown prediction type, or if the config does not tell the shape; ShapeError
    if the shape has other channels than the model.
    """

    def __init__(
        self,
        model: Any,
        shape: tuple[int, ...] | None = None,
        prediction_type: str = "epsilon",
        condition_argument: str = "class_labels",
    ):
        config = getattr(model, "config", None)
        channels = getattr(config, "in_channels", None)
        if shape is None:
            size = getattr(config, "sample_size", None)
            if channels is None or size is None:
                raise ParameterError(
                    f"the config of {type(model).__name__} does not tell the size of its samples; "
                    "pass shape=(channels, height, width)"
                )
            shape = (channels, *((size, size) if isinstance(size, int) else size))
        super().__init__(shape, prediction_type)
        if channels is not None and self.shape[0] != channels:
            raise ShapeError(
                f"shape {self.shape} has {self.shape[0]} channels, {type(model).__name__} takes {channels}",
                shape=self.shape,
                channels=channels,
            )
        self.model = model
        self.condition_argument = condition_argument

    def __repr__(self) -> str:
        return (
            f"DiffusersDenoiser({type(self.model).__name__}, shape={self.shape}, "
            f"prediction_type={self.prediction_type!r})"
        )

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """The model's own output, with a learned variance in its second half if it has one.

        Raises ShapeError, DtypeError on a state that does not fit, ParameterError on a level without
        timestep.
        """
        batch = check_noisy(self, noisy)
        if level.timestep is None:
            raise ParameterError(
                f"{type(self.model).__name__} needs the scheduler's timestep, and the level has none: pass "
                "NoiseLevel(alpha, sigma, timestep=...)"
            )
        scaled = noisy if level.scale_model_input is None else level.scale_model_input(noisy)
        dtype, device = self._placement(noisy)
        count = math.prod(batch)
        rows = scaled.reshape(count, *self.shape).to(dtype=dtype, device=device)
        timestep = _per_row(torch.as_tensor(level.timestep), batch, "timestep").to(device)
        extra = {}
        if condition is not None:
            value = _per_row(torch.as_tensor(condition), batch, "condition").to(device)
            extra[self.condition_argument] = value.to(dtype) if value.is_floating_point() else value
        with torch.set_grad_enabled(torch.is_grad_enabled() and noisy.requires_grad):
            output = self.model(rows, timestep, **extra).sample
        return output.reshape(*batch, *output.shape[1:]).to(noisy)

    def _placement(self, noisy: Tensor) -> tuple[torch.dtype, torch.device]:
        like = next(iter(self.model.parameters()), noisy)
        # A diffusers model knows better than its first parameter where layers are kept in another dtype.
        return getattr(self.model, "dtype", like.dtype), getattr(self.model, "device", like.device)


def _per_row(value: Tensor, batch: tuple[int, ...], what: str) -> Tensor:
    """A number for all, or ``(*batch, ...)``, as ``(n, ...)`` with the batch flattened."""
    rest = value.shape[len(batch) :]
    try:
        value = value.broadcast_to((*batch, *rest))
    except RuntimeError:
        raise ShapeError(
            f"the {what} of shape {tuple(value.shape)} does not fit the batch {batch}", batch=batch
        ) from None
    return value.reshape(math.prod(batch), *rest)
