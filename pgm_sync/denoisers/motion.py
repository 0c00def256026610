"""Motion-diffusion models as denoisers: the feature arrays of MDM and its descendants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..levels import NoiseLevel
from .checks import check_noisy
from .predicting import PredictingDenoiser


class MotionDenoiser(PredictingDenoiser):
    """A network of motions with the interface of MDM (Tevet et al., 2023) and PriorMDM (Shafir et al., 2024).

    ``model(x, timesteps, y=...)`` takes states ``(n, features, 1, frames)``, as HumanML3D's 263 features are kept, and
    predicts the clean motion. Contents here are windows ``(features, frames)`` of the model's own, normalised, units,
    so that a long motion is a canvas ``(features, all frames)`` seen through windows along time.

    Parameters
    ----------
    model
        a `torch.nn.Module`, or any function of this signature.
    shape
        ``(features, frames)`` of one window.
    prediction_type
        "sample" for these models; see `PredictingDenoiser`.
    joints
        where a model keeps ``(joints, features of each)`` apart, as for SMPL rotations ``(25, 6)``: the number of
        joints; `shape` then has their product.

    ``y`` gets ``mask`` and ``lengths`` of whole windows, and what the condition has: a dictionary such as
    ``{"text": [...]}`` or ``{"scale": ...}``, entries per sample where they are lists or tensors. MDM's schedule is
    ``DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)``.

    >>> import torch, pgm_sync as ps
    >>> def still(x, timesteps, y):  # a model that knows only stillness
    ...     return torch.zeros_like(x) * y["mask"]
    >>> window = ps.MotionDenoiser(still, shape=(263, 40))
    >>> graph = ps.wide_canvas((263, 100), (263, 40), stride=30)
    >>> graph.shape("w0") == window.shape
    True
    >>> level = ps.NoiseLevel(alpha=0.6, sigma=0.8, timestep=500)
    >>> window.denoise(torch.randn(2, 263, 40), level).abs().max()
    tensor(0.)

    Raises ShapeError where shapes do not fit, ParameterError, and on a level without timestep.
    """

    def __init__(
        self, model: Any, shape: tuple[int, int], prediction_type: str = "sample", joints: int | None = None
    ):
        super().__init__(shape, prediction_type)
        if len(self.shape) != 2:
            raise ShapeError(f"a window of motion has shape (features, frames), got {self.shape}", shape=self.shape)
        features = self.shape[0]
        if joints is not None and (joints < 1 or features % joints):
            raise ParameterError(f"{features} features do not divide into {joints} joints", joints=joints)
        self.model = model
        self._inner = (features, 1) if joints is None else (joints, features // joints)

    def __repr__(self) -> str:
        return f"MotionDenoiser({type(self.model).__name__}, shape={self.shape})"

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """What the model predicts of `noisy` states ``(*batch, features, frames)``, in that shape."""
        batch = check_noisy(self, noisy)
        if level.timestep is None:
            raise ParameterError(
                f"{type(self.model).__name__} needs the scheduler's timestep, and the level has none: pass "
                "NoiseLevel(alpha, sigma, timestep=...)"
            )
        count, frames = math.prod(batch), self.shape[1]
        scaled = noisy if level.scale_model_input is None else level.scale_model_input(noisy)
        like = next(iter(self.model.parameters()), noisy) if isinstance(self.model, torch.nn.Module) else noisy
        rows = scaled.reshape(count, *self._inner, frames).to(like)
        timesteps = torch.as_tensor(level.timestep, device=rows.device).expand(batch).reshape(count)
        with torch.set_grad_enabled(torch.is_grad_enabled() and noisy.requires_grad):
            output = self.model(rows, timesteps, y=self._given(condition, rows))
        if output.shape != rows.shape:
            raise ShapeError(
                f"{type(self.model).__name__} answered {tuple(output.shape)} to states {tuple(rows.shape)}",
                expected=tuple(rows.shape),
                got=tuple(output.shape),
            )
        return output.reshape(noisy.shape).to(noisy)

    def _given(self, condition: Any, rows: Tensor) -> dict[str, Any]:
        """The argument y: all frames count, and what the condition adds."""
        count, frames = len(rows), self.shape[1]
        y: dict[str, Any] = {
            "mask": torch.ones(count, 1, 1, frames, dtype=torch.bool, device=rows.device),
            "lengths": torch.full((count,), frames, device=rows.device),
        }
        if condition is None:
            return y
        if not isinstance(condition, Mapping):
            raise ParameterError(
                f"the condition of a motion model is a dictionary, such as {{'text': [...]}}, not a "
                f"{type(condition).__name__}"
            )
        for key, value in condition.items():
            if isinstance(value, list | tuple) and len(value) != count:
                raise ShapeError(f"condition {key!r} has {len(value)} entries for {count} samples", name=key)
            y[key] = value.to(rows.device) if isinstance(value, Tensor) else value
        return y
