"""Denoisers from networks of diffusers, or any network called like one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..levels import NoiseLevel
from .checks import check_noisy
from .conditions import mapped
from .predicting import PredictingDenoiser
from .prediction import mean_part


class DiffusersDenoiser(PredictingDenoiser):
    """``model(sample, timestep[, condition_argument=condition]).sample`` as a denoiser: U-Nets and transformers.

    `shape` is the event shape (None: as the model's config says); `prediction_type` what the model was
    trained to predict: the scheduler's ``config.prediction_type`` tells. A condition is one for the whole
    batch, or ``(*batch, ...)`` tensors, handed over as `condition_argument`; or a dictionary of the model's keyword
    arguments, for instance ``{"encoder_hidden_states": text}`` with text ``(1, tokens, width)``, or ``(*batch, tokens,
    width)``; dictionaries and sequences in it are gone through, numbers are handed over as they are. `chunk` bounds
    the rows of one call of the model, and with it memory (not that of gradients, as for Jacobians).

    The model runs as it is, on its own device and in its own dtype, with gradients only for a state that
    asks for them: call ``model.eval()``
    first if it has dropout. States and outputs keep the dtype and device of the state. Every level needs the
    scheduler's timestep, and its ``scale_model_input`` where the scheduler has one: `ps.sample` gives both.

    A network in the place of a U-Net that predicts no noise at all, so that ``x_0 = x_t / alpha``:

    >>> import torch, types, pgm_sync as ps
    >>> class Network(torch.nn.Module):
    ...     def forward(self, sample, timestep):
    ...         return types.SimpleNamespace(sample=torch.zeros_like(sample))
    >>> denoiser = ps.DiffusersDenoiser(Network(), shape=(1, 8, 8), prediction_type="epsilon")
    >>> level = ps.NoiseLevel(alpha=0.5, sigma=0.75**0.5, timestep=500)
    >>> denoiser.denoise(torch.ones(4, 1, 8, 8), level).mean().item()
    2.0

    Raises ParameterError on an unknown prediction type, a chunk below 1, or if the config does not tell the shape;
    ShapeError if the shape has other channels than the model.
    """

    def __init__(
        self,
        model: Any,
        shape: tuple[int, ...] | None = None,
        prediction_type: str = "epsilon",
        condition_argument: str = "class_labels",
        chunk: int | None = None,
    ):
        if chunk is not None and chunk < 1:
            raise ParameterError(f"chunk={chunk} rows per call of the model; give at least 1, or None for all")
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
        self.chunk = chunk
        # Networks of diffusers agree on this name, and not on its place
        self._named = "timestep" in inspect.signature(getattr(model, "forward", model)).parameters

    def __repr__(self) -> str:
        return (
            f"DiffusersDenoiser({type(self.model).__name__}, shape={self.shape}, "
            f"prediction_type={self.prediction_type!r})"
        )

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """The model's own output for `noisy`, with a learned variance in its second half if it has one.

        Raises ShapeError, DtypeError on a state that does not fit, ParameterError on a `level` without
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
        given = {} if condition is None else condition
        if not isinstance(given, Mapping):
            given = {self.condition_argument: torch.as_tensor(condition)}
        extra = _rows_of(given, batch, dtype, device)
        size = count if self.chunk is None else self.chunk
        outputs = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and noisy.requires_grad):
            for start in range(0, max(count, 1), max(size, 1)):
                part = slice(start, start + size)
                more = _cut(extra, part)
                if self._named:
                    outputs.append(self.model(rows[part], timestep=timestep[part], **more).sample)
                else:
                    outputs.append(self.model(rows[part], timestep[part], **more).sample)
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.reshape(*batch, *output.shape[1:]).to(noisy)

    def _placement(self, noisy: Tensor) -> tuple[torch.dtype, torch.device]:
        like = next(iter(self.model.parameters()), noisy)
        # A diffusers model knows better than its first parameter where layers are kept in another dtype.
        return getattr(self.model, "dtype", like.dtype), getattr(self.model, "device", like.device)


class GuidedDenoiser(PredictingDenoiser):
    """Classifier-free guidance of a denoiser: ``unconditional + scale (conditional - unconditional)``, as predicted.

    Two questions to `denoiser` per step, one at a `scale` of 1. `unconditional` is the condition without content, one
    for all samples: a null class, the embedding of an empty prompt, or None for a network that takes no condition
    there. Of two dictionaries, what `unconditional` does not have is as in the condition: a depth image stays where
    the text goes. A learned variance is the conditional one.
    `rescale` in [0, 1] brings the standard deviation back towards that of the conditional prediction (Lin et al., 2024,
    Eq. 15 and 16), as diffusers' ``guidance_rescale``.

    Raises ParameterError.

    A network that answers with its condition shows the scale:

    >>> import torch, pgm_sync as ps
    >>> def network(noisy, alpha, sigma, condition=0.0):
    ...     return torch.full_like(noisy, condition)
    >>> base = ps.FunctionDenoiser(network, shape=(2,))
    >>> level = ps.NoiseLevel(alpha=0.8, sigma=0.6)
    >>> ps.GuidedDenoiser(base, scale=3.0).denoise(torch.zeros(2), level, condition=0.5)
    tensor([1.5000, 1.5000])
    """

    def __init__(
        self, denoiser: PredictingDenoiser, scale: float, unconditional: Any = None, rescale: float = 0.0
    ):
        if not isinstance(denoiser, PredictingDenoiser):
            raise ParameterError(
                f"guidance works on predictions, and {type(denoiser).__name__} has none; give a DiffusersDenoiser or "
                "FunctionDenoiser"
            )
        if not math.isfinite(scale) or not 0 <= rescale <= 1:
            raise ParameterError(f"scale={scale} must be finite, and rescale={rescale} must lie in [0, 1]")
        super().__init__(denoiser.shape, denoiser.prediction_type)
        self.denoiser, self.scale, self.unconditional, self.rescale = denoiser, scale, unconditional, rescale

    def __repr__(self) -> str:
        return f"GuidedDenoiser({self.denoiser!r}, scale={self.scale})"

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        given = self.denoiser.predict(noisy, level, condition)
        if self.scale == 1:
            return given
        without = self.unconditional
        if isinstance(condition, Mapping) and isinstance(without, Mapping):
            without = {**condition, **without}
        free = self.denoiser.predict(noisy, level, without)
        axis = noisy.ndim - len(self.shape)
        mean, free_mean = (mean_part(x, noisy, axis) for x in (given, free))
        guided = free_mean + self.scale * (mean - free_mean)
        if self.rescale:
            axes = tuple(range(axis, noisy.ndim))
            matched = guided * (mean.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
            guided = self.rescale * matched + (1 - self.rescale) * guided
        if mean is given:
            return guided
        return torch.cat([guided, given.narrow(axis, mean.shape[axis], given.shape[axis] - mean.shape[axis])], axis)


def _rows_of(condition: Any, batch: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """The tensors of a condition as ``(n, ...)``, for a network of this dtype and device."""

    def rows_of(value: Tensor, name: str) -> Tensor:
        rows = _per_row(value, batch, name).to(device)
        return rows.to(dtype) if rows.is_floating_point() else rows

    return mapped(condition, rows_of)


def _cut(rows: Any, part: slice) -> Any:
    return mapped(rows, lambda value, _: value[part])


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
