"""Posterior covariances of any denoiser, from derivatives of its mean (Eq. 4)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import NotFiniteError, ParameterError, UnsupportedError
from ..levels import NoiseLevel, expand
from ..maps import Identity, LinearMap
from .base import DenoisedPosterior, Denoiser
from .conditions import mapped

MODES = ("reverse", "forward", "differences")
STEP = 3e-3  # of sigma, for differences; benchmarks/posterior_covariance.py
AT_ONCE = {"reverse": 1, "forward": 4, "differences": 4}  # products per pass; likewise


class JacobianDenoiser(Denoiser):
    """A denoiser that knows its posterior covariance: second-order Tweedie (Eq. 4), in features.

    ``Cov[F x_0 | x_t] = sigma^2 / alpha  F (d m / d x_t) F'``, symmetrised, m the posterior mean of `denoiser`. It
    takes one product per feature and noise level: r passes through a network for r features (their number, not their
    size, is what counts), on top of the one that gives the mean.

    mode: "reverse", one forward and r backward passes, for anything autograd differentiates; "forward", r passes with
    tangents, less memory, where all operations have forward derivatives (fused attention has none); "differences",
    2r ordinary passes at ``x_t +- step * sigma`` along each feature, for networks without derivatives.

    batch: how many of the products go through the network at once, as a larger batch ("reverse": vectorised backward
    passes, `torch.func.vmap`). It takes as many times the memory, and pays on accelerators and for small batches. None:
    1 for "reverse", 4 for the others. Where vmap does not know an operation they go one by one.

    Use it with ``posterior_covariance="denoiser"``. A network's derivative need not be that of a density: the joint
    denoiser keeps Eq. 8 and reports how often it had to.

    >>> import torch, pgm_sync as ps
    >>> own = ps.GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    >>> noisy, level = torch.zeros(1, 2), ps.NoiseLevel(alpha=0.8, sigma=0.6)
    >>> told, derived = own.posterior(noisy, level), ps.JacobianDenoiser(own).posterior(noisy, level)
    >>> torch.allclose(told.covariance, derived.covariance, atol=1e-5)
    True

    Raises ParameterError on an unknown mode, a step that is not positive, or a batch below one.
    """

    has_covariance = True

    def __init__(
        self, denoiser: Denoiser, mode: str = "reverse", step: float = STEP, batch: int | None = None
    ):
        if mode not in MODES:
            raise ParameterError(f"mode={mode!r} is not one of {', '.join(MODES)}", mode=mode)
        if not step > 0:
            raise ParameterError(f"step={step!r} is not positive", step=step)
        if batch is not None and batch < 1:
            raise ParameterError(f"batch={batch!r} is not at least 1", batch=batch)
        self.denoiser, self.mode, self.step = denoiser, mode, step
        self.batch = AT_ONCE[mode] if batch is None else batch
        self.shape, self.prediction_type = denoiser.shape, denoiser.prediction_type

    def __repr__(self) -> str:
        return f"JacobianDenoiser({self.denoiser!r}, mode={self.mode!r})"

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        return self.denoiser.denoise(noisy, level, condition)

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        return self.denoiser.predict(noisy, level, condition)

    def posterior(
        self,
        noisy: Tensor,
        level: NoiseLevel,
        condition: Any = None,
        features: LinearMap | None = None,
    ) -> DenoisedPosterior:
        """Mean of the content under a `condition`, and covariance ``(*batch, r, r)`` of r `features` of it (Eq. 4).

        Raises UnsupportedError where the denoiser has no derivative of the kind asked for, NotFiniteError where it
        has NaN; and as `denoise`.
        """
        features = Identity(self.shape) if features is None else features
        size = features.out_size
        unit = torch.eye(size, dtype=noisy.dtype, device=noisy.device).reshape(size, *features.out_shape)
        rows = features.adjoint(unit)  # (r, *shape)
        products = {"reverse": self._reverse, "forward": self._forward, "differences": self._differences}
        try:
            with torch.inference_mode(False):
                mean, derivative = products[self.mode](noisy.clone(), level, _normal(condition), features, rows)
        except RuntimeError as error:
            if "Inference tensors" not in str(error):
                raise
            raise UnsupportedError(
                f"{self.denoiser!r} was made under torch.inference_mode, so that autograd can keep none of its "
                "tensors; make or load it outside of that, or use mode='differences'"
            ) from error
        scale = expand(level.sigma, noisy, 2) ** 2 / expand(level.alpha, noisy, 2)
        covariance = scale * (derivative + derivative.mT) / 2
        if not bool(torch.isfinite(covariance).all()):
            raise NotFiniteError(
                f"the derivative of {self.denoiser!r} at sigma = {level.sigma} has NaN or infinite entries"
            )
        return DenoisedPosterior(mean, covariance)

    def _reverse(
        self, noisy: Tensor, level: NoiseLevel, condition: Any, features: LinearMap, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Row k is ``F (d m / d x)' F_k``; the derivative of a posterior mean is symmetric."""
        with torch.enable_grad():
            state = noisy.detach().requires_grad_()
            mean = self.denoiser.denoise(state, level, condition)
            if not mean.requires_grad:
                raise UnsupportedError(
                    f"{self.denoiser!r} does not pass gradients to its noisy state; use mode='differences'"
                )
            lines = []
            for start in range(0, len(rows), self.batch):
                some = rows[start : start + self.batch]
                keep = start + len(some) < len(rows)
                lines += [self._seen(pulled, features) for pulled in _pull(mean, state, some, keep)]
        return mean.detach(), torch.stack(lines, -2)

    def _forward(
        self, noisy: Tensor, level: NoiseLevel, condition: Any, features: LinearMap, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        columns, mean = [], noisy
        with warnings.catch_warnings(), forward_ad.dual_level():
            # torch scripts some of its own derivatives at first use, and deprecates scripting
            warnings.simplefilter("ignore", DeprecationWarning)
            for some in rows.split(self.batch):
                tangents = _along(some, noisy)
                dual = forward_ad.make_dual(noisy.expand_as(tangents).contiguous(), tangents)
                try:
                    mean, tangent = forward_ad.unpack_dual(self._many(dual, level, condition))
                except NotImplementedError as error:
                    raise UnsupportedError(
                        f"{self.denoiser!r} has an operation without a forward derivative ({error}); use mode='reverse'"
                    ) from error
                columns += list(self._seen(torch.zeros_like(mean) if tangent is None else tangent, features))
        return mean[0].detach(), torch.stack(columns, -1).detach()

    def _differences(
        self, noisy: Tensor, level: NoiseLevel, condition: Any, features: LinearMap, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        step = self.step * expand(level.sigma, noisy, len(self.shape))
        # a unit vector has a size of 1 in all of its elements together, noise has sigma in each
        size = math.sqrt(rows[0].numel())
        columns = []
        with torch.no_grad():
            for some in rows.split(self.batch):
                move = step * size * _along(some, noisy)
                ends = self._many(torch.cat([noisy + move, noisy - move]), level, condition)
                slopes = (ends[: len(some)] - ends[len(some) :]) / (2 * step * size)
                columns += list(self._seen(slopes, features))
            return self.denoiser.denoise(noisy, level, condition), torch.stack(columns, -1)

    def _many(self, noisy: Tensor, level: NoiseLevel, condition: Any) -> Tensor:
        """Denoised ``(k, *batch, *shape)`` copies of a batch, as one batch."""
        batch, count = noisy.shape[1 : noisy.ndim - len(self.shape)], len(noisy)
        flat = noisy.flatten(0, len(batch))
        alpha, sigma, timestep = (_copies(v, batch, count) for v in (level.alpha, level.sigma, level.timestep))
        many = NoiseLevel(alpha, sigma, timestep, level.scale_model_input)
        return self.denoiser.denoise(flat, many, _copies(condition, batch, count)).reshape(noisy.shape)

    def _seen(self, content: Tensor, features: LinearMap) -> Tensor:
        """``(*batch, r)``"""
        seen = features.apply(content)
        return seen.flatten(seen.ndim - len(features.out_shape)) if features.out_shape else seen[..., None]


def _pull(mean: Tensor, state: Tensor, rows: Tensor, keep: bool) -> Sequence[Tensor]:
    """``(d mean / d state)' row``, ``(*batch, *shape)``, for each of the rows."""

    def together() -> Tensor:
        cotangents = _along(rows, mean)
        (pulled,) = torch.autograd.grad(
            mean, state, cotangents, retain_graph=True, materialize_grads=True, is_grads_batched=True
        )
        return pulled

    if len(rows) > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # an operation without a batching rule is looped over
                return list(together())
        except RuntimeError:  # one that cannot be looped over either
            pass
    return [
        torch.autograd.grad(
            mean, state, row.expand_as(mean), retain_graph=keep or k + 1 < len(rows), materialize_grads=True
        )[0]
        for k, row in enumerate(rows)
    ]


def _along(rows: Tensor, like: Tensor) -> Tensor:
    """Rows ``(k, *shape)`` as directions of ``(*batch, *shape)``: ``(k, *batch, *shape)``."""
    batch = like.shape[: like.ndim - rows.ndim + 1]
    spread = rows.reshape(len(rows), *(1,) * len(batch), *rows.shape[1:])
    return spread.expand(len(rows), *like.shape).contiguous()


def _normal(condition: Any) -> Any:
    """Without tensors made under inference mode, of which autograd can keep nothing."""
    return mapped(condition, lambda value, _: value.clone() if value.is_inference() else value)


def _copies(value: Any, batch: torch.Size, count: int) -> Any:
    """Values per sample, ``(*batch, ...)``, for `count` copies of the batch in one; values for all as they are."""

    def copied(tensor: Tensor, _: str) -> Tensor:
        if not batch or tensor.shape[: len(batch)] != batch:
            return tensor
        return tensor.expand(count, *tensor.shape).flatten(0, len(batch))

    return mapped(value, copied)
