"""Posterior covariances as precisions, kept proper (Eq. 4 and 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..gaussian import cholesky

UNSTATED = 100.0  # of the widest stated variance: a stand-in where no potential states one
SMALLEST = 1e-6  # of the prior variance: a posterior narrower than this does not move any more


def completed(
    precision: Tensor,  # (r,) or (r, r), Sigma_ii^{-1} with zeros where no potential sees the content
) -> Tensor:
    """``(r, r)``, with a wide prior in the directions of which nothing is stated, so that only others are capped."""
    matrix = torch.diag(precision) if precision.ndim == 1 else precision
    values, vectors = torch.linalg.eigh(matrix)
    unstated = values <= 1e-10 * values[-1]
    if not bool(unstated.any()):
        return matrix
    return (vectors * torch.where(unstated, values[~unstated].min() / UNSTATED, values)) @ vectors.mT


def guarded_precision(
    covariance: Tensor,  # (*batch, r, r), positive semidefinite
    prior: Tensor | None,  # (r, r) Sigma_ii^{-1}
    widest: float,  # cap on the posterior variance in units of the prior variance; 1 is Eq. 8 node by node
) -> tuple[Tensor, Tensor]:
    """``C^{-1}``, with the posterior no wider than `widest` times the prior in any direction.

    Returns the precision ``(*batch, r, r)`` and the fraction of directions that were capped, ``()``.
    """
    r = covariance.shape[-1]
    if prior is None:
        root = torch.eye(r, dtype=covariance.dtype, device=covariance.device)
    else:
        root = cholesky(prior, "the marginal precision").to(covariance)  # Sigma_ii^{-1} = root root'
    relative = root.mT @ covariance @ root
    low = SMALLEST * (_largest(relative) if prior is None else relative.new_ones(()))
    inverse, values = clamped_inverse(relative, low, torch.inf if prior is None else widest)
    capped = (values > widest).float().mean() if prior is not None else values.new_zeros(())
    return root @ inverse @ root.mT, capped


def floored_solve(
    precision: Tensor,  # (*batch, P, P), symmetric, perhaps indefinite
    residual: Tensor,  # (*batch, P)
    prior: Tensor,  # (P, P) Sigma^{-1}, positive definite
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Solve ``Lambda d = residual`` with Lambda's eigenvalues relative to the joint prior raised to `floor`.

    Returns d ``(*batch, P)`` and the fraction of directions that were raised, ``()``.
    """
    root = cholesky(prior, "the prior precision").to(precision)
    # M = root^{-1} Lambda root'^{-1}: eigenvalue 1 is "as wide as the joint prior"
    half = torch.linalg.solve_triangular(root, precision, upper=False)
    relative = torch.linalg.solve_triangular(root, half.mT, upper=False)
    inverse, values = clamped_inverse(relative, relative.new_tensor(floor), torch.inf)
    right = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False)
    raised = (values < floor).float().mean()
    return torch.linalg.solve_triangular(root.mT, inverse @ right, upper=True).squeeze(-1), raised


def clamped_inverse(matrix: Tensor, low: Tensor, high: float) -> tuple[Tensor, Tensor]:
    """Inverse ``(*batch, r, r)`` of a symmetric matrix whose eigenvalues are first brought into [low, high].

    `low` broadcasts against ``(*batch)``. Also returns the eigenvalues, ``(*batch, r)``, as they were. Gradients flow
    to the matrix through the inverse, equal eigenvalues included (Daleckii-Krein).
    """
    return _ClampedInverse.apply(matrix, low, high)


class _ClampedInverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, low: Tensor, high: float) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        kept = torch.minimum(torch.maximum(values, low.unsqueeze(-1)), values.new_tensor(high))
        ctx.save_for_backward(values, vectors, kept)
        ctx.mark_non_differentiable(values)
        return (vectors / kept.unsqueeze(-2)) @ vectors.mT, values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        values, vectors, kept = ctx.saved_tensors
        # f(a) - f(b) over a - b for f = 1 / clamp: -1 / (k_a k_b) times the share of a - b that clamping keeps
        gap = values.unsqueeze(-1) - values.unsqueeze(-2)
        inside = (kept == values).to(values)
        near = gap.abs() <= 1e-9 * values.abs().amax(-1)[..., None, None].clamp_min(torch.finfo(values.dtype).tiny)
        share = torch.where(
            near, inside.unsqueeze(-1) * inside.unsqueeze(-2),
            (kept.unsqueeze(-1) - kept.unsqueeze(-2)) / torch.where(near, torch.ones_like(gap), gap),
        )  # fmt: skip
        divided = -share / (kept.unsqueeze(-1) * kept.unsqueeze(-2))
        symmetric = (gradient + gradient.mT) / 2
        return vectors @ (divided * (vectors.mT @ symmetric @ vectors)) @ vectors.mT, None, None


def _largest(matrix: Tensor) -> Tensor:
    """A bound on the largest eigenvalue, at most sqrt(r) times it, ``(*batch)``."""
    return torch.linalg.matrix_norm(matrix.detach()).clamp_min(torch.finfo(matrix.dtype).tiny)
