"""Covariances of sets of sites one independent component at a time: linear in the elements of elementwise graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..gaussian import cholesky
from .problem import Problem

Entries = Callable[[Tensor, Tensor], Tensor]  # sites (k,), sites (k,) -> covariances (*batch, k)


def labels(problem: Problem) -> np.ndarray:
    """The independent component of every site ``(sites,)``; one for all where a coupling is kept apart."""
    component = problem.structure.component
    return component if problem.coupling is None else np.zeros_like(component)


def split(component: np.ndarray, sets: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Sets of sites by component, components with equal numbers of sites together.

    Each item has one array ``(components, sites of this set in each)`` per set, in the order of the set.
    """
    present = np.unique(np.concatenate([component[sites] for sites in sets]))
    ordered, starts, counts = [], [], []
    for sites in sets:
        order = np.argsort(component[sites], kind="stable")
        ordered.append(sites[order])
        edges = np.searchsorted(component[sites][order], np.append(present, present[-1:] + 1))
        starts.append(edges[:-1])
        counts.append(np.diff(edges))
    table = np.stack(counts, 1)
    sizes, which = np.unique(table, axis=0, return_inverse=True)
    out = []
    for k, row in enumerate(sizes):
        members = np.flatnonzero(which.reshape(-1) == k)
        out.append(
            tuple(
                sites[start[members][:, None] + np.arange(size)]
                for sites, start, size in zip(ordered, starts, row, strict=True)
            )
        )
    return out


def covariance(entries: Entries, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Covariances between the sites ``rows (M, r)`` and ``columns (M, c)`` of M components, ``(*batch, M, r, c)``."""
    shape = (*rows.shape, columns.shape[1])
    first, second = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
    values = entries(*(torch.from_numpy(side.reshape(-1)) for side in (first, second)))
    return values.reshape(*values.shape[:-1], *shape)


def conditional_covariance(entries: Entries, sites: np.ndarray, given: np.ndarray, what: str) -> Tensor:
    """``Sigma_AA - Sigma_AB Sigma_BB^{-1} Sigma_BA`` of M components, A ``(M, a)``, B ``(M, b)``; `what` names B.

    Raises CovarianceError where Sigma_BB is not positive definite.
    """
    own = covariance(entries, sites, sites)
    if given.shape[1] == 0:
        return own
    root = cholesky(covariance(entries, given, given), f"the covariance of {what}")
    half = torch.linalg.solve_triangular(root, covariance(entries, given, sites), upper=False)
    return own - half.mT @ half


def half_log_determinant(matrix: Tensor, what: str) -> Tensor:
    """``log |matrix| / 2`` of positive definite matrices ``(*batch, M, n, n)``, summed over M."""
    if matrix.shape[-1] == 0:
        return matrix.new_zeros(matrix.shape[:-3])
    root = cholesky(matrix, f"the covariance of {what}")
    return root.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
