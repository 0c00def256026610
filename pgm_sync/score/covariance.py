"""Posterior covariances as precisions, kept proper (Eq. 4 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gaussian import cholesky

SMALLEST = 1e-6  # of the prior variance: a posterior narrower than this does not move any more


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
    values, vectors = torch.linalg.eigh((relative + relative.mT) / 2)
    top = values.amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    low = SMALLEST * (top if prior is None else torch.ones_like(top))
    high = values.new_tensor(torch.inf if prior is None else widest)
    capped = (values > high).float().mean()
    basis = root @ vectors
    return (basis / values.clamp(min=low, max=high).unsqueeze(-2)) @ basis.mT, capped


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
    values, vectors = torch.linalg.eigh((relative + relative.mT) / 2)
    raised = (values < floor).float().mean()
    right = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False)
    solved = vectors @ ((vectors.mT @ right) / values.clamp_min(floor).unsqueeze(-1))
    return torch.linalg.solve_triangular(root.mT, solved, upper=True).squeeze(-1), raised
