"""Correlations between windows that were never seen together, from single windows that are all alike (Eq. 15).

Windows of one size lie along one axis of a larger picture, and pictures look the same wherever a window is cut: the
covariance of two columns depends on their distance only. Single windows show it up to their own width. A sum of
exponential kernels per principal component of a column, with positive weights, continues it to any distance and is
always a covariance (exponential kernels are Matern kernels of smoothness 1/2; a constant and white noise are their
limits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scipy.optimize import nnls
from torch import Tensor

from ..errors import BatchError, ParameterError, ShapeError, UnknownNameError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap
from .problem import FEWEST, checked_samples, pose, potentials
from .record import Fit, fingerprint
from .selection import select_covariance
from .symmetry import Tie, bind_ties, describe_ties

SCALES_PER_OCTAVE = 2
LONGEST = 8  # window widths; longer ranges look constant inside a window


def fit_single_view(
    graph: FactorGraph,
    data: Any,
    *,
    positions: Mapping[Name, int] | None = None,
    axis: int = -1,
    ties: Tie | Sequence[Tie] | None = None,
) -> FactorGraph:
    """Potentials between windows that were never seen together (Eq. 15).

    Parameters
    ----------
    data
        single windows, ``(n, *shape)`` or a dictionary of them by trajectory, which need not be joint, for they are
        all alike. All trajectories have one shape.
    positions
        ``{trajectory: pixels}``, where each window begins along the axis; any distances.
    axis
        of the shape, negative, along which the windows lie.
    ties
        symmetries besides stationarity, which is built in: `mirror(graph)`, or a `Flip` of every window.

    The views may be samples of the denoiser itself, ``ps.sample(graph without factors, ...).samples``: potentials
    then need no data at all, and are as good as what the denoiser knows.

    The covariance of two columns depends on their distance only; single windows show it up to their width, a sum of
    exponential kernels continues it. From the joint covariance of all features it is Eq. 14 again.

    Raises as `fit`, and UnsupportedError for factors that see different parts of one trajectory.

    Windows of a stationary series, ``x_{k+1} = 0.9 x_k + noise``, one at a time; two of them, side by side:

    >>> import torch, pgm_sync as ps
    >>> noise, x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2000, 8)
    >>> x[:, 0] = noise[:, 0]
    >>> for k in range(1, 8):
    ...     x[:, k] = 0.9 * x[:, k - 1] + 0.19**0.5 * noise[:, k]
    >>> graph = ps.chain_graph(2, shape=(8,))
    >>> fitted = fit_single_view(graph, x, positions={0: 0, 1: 8})
    >>> covariance = fitted.potential((0, 1)).covariance
    >>> round(covariance[7, 8].item(), 1)  # the last of one and the first of the next, never seen together
    0.9
    """
    problem = pose(graph)
    problem.require_whole("method='single_view'")
    names = list(problem.blocks)
    views = single_views(data, {name: graph.shape(name) for name in names})
    if not -len(graph.shape(names[0])) <= axis < 0:
        raise ParameterError(
            f"axis={axis} must be negative and inside the shape {graph.shape(names[0])}", axis=axis
        )
    places = require_positions(positions, names)
    mean, covariance, model = joint_covariance(views, problem.reduction.features, places, axis)
    tied = bind_ties(ties, problem)
    if tied is not None:
        mean, covariance, _ = tied.moments(mean, covariance)
    selection = select_covariance(covariance, problem.network, problem.blocks)
    precision = selection.precision if tied is None else tied.precision(selection.precision)
    share = model.variance / model.variance.sum()
    record = Fit(
        method="single_view",
        num_samples=len(views),
        features=len(mean),
        data=fingerprint(views),
        objective=selection.trace,
        details={
            "estimator": "stationary",
            "positions": [[repr(name), place] for name, place in places.items()],
            "axis": axis,
            "kernel_scales": [s if math.isfinite(s) else None for s in model.scales.tolist()],
            "kernel_weights": (share @ model.weights).tolist(),
            **selection.certificate,
            **({} if tied is None else {"ties": describe_ties(ties)}),
        },
    )
    return problem.fitted(potentials(problem, mean, precision), record.to_dict())


class StationaryModel(NamedTuple):
    """Covariance of columns at a distance d: ``basis diag(variance * sum_k weights_k exp(-d / scales_k)) basis'``."""

    mean: Tensor  # (R,), of a column: everything but the axis, flattened
    basis: Tensor  # (R, R), orthonormal columns, largest variance first
    variance: Tensor  # (R,)
    scales: Tensor  # (K,), in pixels; 0 is white noise, infinity a constant
    weights: Tensor  # (R, K), not negative, each row sums to 1

    def correlation(self, distance: Tensor) -> Tensor:
        """Of every component at distances of any shape: ``(R, *distance)``."""
        return torch.einsum("rk,k...->r...", self.weights, _kernels(self.scales, distance.abs()))

    def covariance(self, first: Tensor, second: Tensor, shift: int) -> Tensor:
        """Between features ``first (r, R, W)`` of a window and ``second (s, R, W)`` of one `shift` pixels on."""
        width = first.shape[-1]
        steps = torch.arange(width, dtype=torch.float64)
        toeplitz = self.correlation(shift + steps[None, :] - steps[:, None])  # (R, W, W)
        one, two = (torch.einsum("rcx,cq->rqx", side, self.basis) for side in (first, second))
        half = torch.einsum("rqx,qxy->rqy", one * self.variance[:, None], toeplitz)
        return torch.einsum("rqy,sqy->rs", half, two)


def fit_stationary(columns: Tensor) -> StationaryModel:
    """The model of windows ``(n, R, W)`` whose columns have R numbers and lie along the last axis.

    Moments at every distance inside a window, the same in both directions; per principal component the best weights
    by least squares, distances weighted by how often they occur.
    """
    n, rows, width = columns.shape
    mean = columns.mean((0, 2))
    centred = columns - mean[:, None]
    moments = []
    for d in range(width):
        first, second = centred[..., : width - d], centred[..., d:]
        moment = torch.einsum("nrx,nsx->rs", first, second) / (n * (width - d))
        moments.append((moment + moment.mT) / 2)
    values, vectors = torch.linalg.eigh(moments[0])
    values, vectors = values.flip(0), vectors.flip(1)
    seen = values > 1e-9 * values[0]
    values, vectors = values[seen], vectors[:, seen]
    measured = torch.stack([(vectors * (m @ vectors)).sum(0) / values for m in moments], 1)  # (Q, W)
    octaves = math.log2(LONGEST * width)
    scales = torch.cat([
        torch.zeros(1), 2 ** torch.linspace(-1, octaves, int(SCALES_PER_OCTAVE * (octaves + 1)) + 1),
        torch.full((1,), math.inf),
    ]).double()  # fmt: skip
    distance = torch.arange(width, dtype=torch.float64)
    kernels = _kernels(scales, distance)  # (K, W)
    weight = (width - distance).sqrt()
    weight[0] *= 100  # the variance itself is kept
    weights = torch.stack(
        [torch.from_numpy(nnls((kernels * weight).T.numpy(), (row * weight).numpy())[0]) for row in measured]
    )
    return StationaryModel(mean, vectors, values, scales, weights / weights.sum(1, keepdim=True))


def _kernels(scales: Tensor, distance: Tensor) -> Tensor:
    """``(K, *distance)``"""
    shaped = scales.reshape(-1, *(1,) * distance.ndim)
    return torch.where(
        shaped > 0, torch.exp(-distance / shaped.clamp_min(1e-12)), (distance == 0).to(distance)
    )


def single_views(data: Any, shapes: Mapping[Name, tuple[int, ...]]) -> Tensor:
    """Views ``(n, *shape)`` from a tensor, or from ``{trajectory: (n_i, *shape)}``, which need not be joint.

    Raises ShapeError, UnknownNameError, BatchError, NotFiniteError.
    """
    shape = next(iter(shapes.values()))
    unlike = [name for name, other in shapes.items() if other != shape]
    if unlike:
        raise ShapeError(
            f"single views are windows of one shape: {next(iter(shapes))!r} has {shape}, "
            f"{unlike[0]!r} {shapes[unlike[0]]}",
            shapes=tuple(shapes.values()),
        )
    parts = []
    for name, value in data.items() if isinstance(data, Mapping) else [("the views", data)]:
        if isinstance(data, Mapping) and name not in shapes:
            raise UnknownNameError(f"data for {name!r}, which no factor to fit joins", name=name)
        parts.append(checked_samples(name, value, shape).double())
    views = torch.cat(parts) if parts else torch.zeros(0, *shape)
    if len(views) < FEWEST:
        raise BatchError(f"{len(views)} single views; at least two needed")
    return views


def along(views: Tensor, axis: int) -> Tensor:
    """``(n, *shape)`` as ``(n, R, W)`` with the axis last."""
    return views.movedim(axis, -1).flatten(1, -2) if views.ndim > 2 else views[:, None]


def require_positions(positions: Mapping[Name, int] | None, names: list[Name]) -> dict[Name, int]:
    """Raises ParameterError where a trajectory has no place."""
    if positions is None:
        raise ParameterError(
            "method='single_view' needs positions={trajectory: pixels}, where each window begins along the axis"
        )
    missing = [name for name in names if name not in positions]
    if missing:
        raise ParameterError(f"positions has no entry for {missing[0]!r}", name=missing[0])
    return {name: int(positions[name]) for name in names}


def joint_covariance(
    views: Tensor, features: Mapping[Name, LinearMap], positions: Mapping[Name, int], axis: int
) -> tuple[Tensor, Tensor, StationaryModel]:
    """Mean and covariance of all features of all windows, and the model.

    Windows have the moments that single views show; between windows the correlations are the model's.
    """
    model = fit_stationary(along(views, axis))
    names = list(features)
    # every feature as columns along the axis, (r, R, W)
    rows = {name: along(f.dense().reshape(-1, *f.in_shape), axis) for name, f in features.items()}
    own, roots, means = {}, {}, []
    for name, f in features.items():
        seen = f.apply(views).flatten(1)
        means.append(seen.mean(0))
        centred = seen - means[-1]
        own[name] = _root(centred.mT @ centred / len(seen))
        roots[name] = torch.linalg.inv(_root(model.covariance(rows[name], rows[name], 0)))
    blocks = []
    for a in names:
        line = []
        for b in names:
            correlation = (
                roots[a] @ model.covariance(rows[a], rows[b], positions[b] - positions[a]) @ roots[b]
            )
            line.append(own[a] @ correlation @ own[b])
        blocks.append(torch.cat(line, 1))
    covariance = torch.cat(blocks)
    return torch.cat(means), (covariance + covariance.mT) / 2, model


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root, with a floor on the eigenvalues."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp_min(1e-9 * values[-1].item()).sqrt()) @ vectors.mT
