"""What can be asked of a posterior beyond means and variances; `Posterior` has a method for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from ..errors import CovarianceError, ParameterError, ShapeError
from ..gaussian import Gaussian, cholesky
from ..graph.factor_graph import Name
from ..graph.separation import names_of, require_disjoint
from .precision import precision_entries

if TYPE_CHECKING:
    from .posterior import Posterior

DENSE_UP_TO = 256  # sites, up to which eigenvectors come from the whole covariance


class Directions(NamedTuple):
    """Principal directions of a posterior: unit vectors over all sites, and what each node sees of them."""

    variance: Tensor  # (count, *precision batch), largest first
    direction: dict[Name, Tensor]  # (count, *precision batch, *shape)

    def share(self) -> dict[Name, Tensor]:
        """How much of each direction lies in each node: the norm of its part, ``(count, *precision batch)``."""
        count = self.variance.ndim
        return {name: part.flatten(count).norm(dim=-1) for name, part in self.direction.items()}


def cross_covariance(posterior: Posterior, first: Any, second: Any) -> Tensor:
    """See `Posterior.cross_covariance`."""
    rows, columns = (
        _sites(posterior, names_of(posterior.graph, side, what))
        for side, what in ((first, "first"), (second, "second"))
    )
    values = posterior._solution.entries(rows.repeat_interleave(len(columns)), columns.repeat(len(rows)))
    return values.reshape(*values.shape[:-1], len(rows), len(columns))


def joint(posterior: Posterior, names: Any) -> Gaussian:
    """See `Posterior.joint`."""
    listed = names_of(posterior.graph, names)
    _require_apart(posterior, listed)
    index = _sites(posterior, listed).to(posterior._eta.device)
    covariance = cross_covariance(posterior, listed, listed)
    return Gaussian.from_moments(posterior._solution.mean[..., index], covariance)


def conditional(posterior: Posterior, names: Any, given: Any) -> Gaussian:
    """See `Posterior.conditional`."""
    wanted = names_of(posterior.graph, names)
    known = names_of(posterior.graph, given, "given", empty=True)
    require_disjoint({"names": wanted, "given": known})
    index = _sites(posterior, wanted).to(posterior._eta.device)
    return Gaussian.from_moments(
        posterior._solution.mean[..., index], _conditional_covariance(posterior, wanted, known)
    )


def _conditional_covariance(posterior: Posterior, names: Sequence[Name], given: Sequence[Name]) -> Tensor:
    """Sigma_AA - Sigma_AB Sigma_BB^{-1} Sigma_BA."""
    _require_apart(posterior, [*names, *given])
    own = cross_covariance(posterior, names, names)
    if not given:
        return own
    cross = cross_covariance(posterior, given, names)
    root = cholesky(
        cross_covariance(posterior, given, given), f"the covariance of {', '.join(map(repr, given))}"
    )
    half = torch.linalg.solve_triangular(root, cross, upper=False)
    return own - half.mT @ half


def partial_correlation(posterior: Posterior, first: Name, second: Name, given: Any) -> Tensor:
    """See `Posterior.partial_correlation`."""
    graph = posterior.graph
    shapes = [graph.shape(name) for name in (first, second)]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"{first!r} has shape {shapes[0]}, {second!r} {shapes[1]}: elements do not match; use "
            f"posterior.conditional([{first!r}, {second!r}], given).covariance",
            shapes=tuple(shapes),
        )
    if given is None:
        i, j = (posterior._sites.index[name].numpy() for name in (first, second))
        cross, own, other = (
            precision_entries(posterior._problem, *ends) for ends in ((i, j), (i, i), (j, j))
        )
        values = -cross * (own * other).rsqrt()
        return torch.where(torch.from_numpy(i == j).to(values.device), 1.0, values).reshape(
            *values.shape[:-1], *shapes[0]
        )
    known = names_of(graph, given, "given", empty=True)
    require_disjoint({"first": [first], "second": [second], "given": known})
    covariance = _conditional_covariance(posterior, [first, second], known)
    size = math.prod(shapes[0])
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    cross = covariance[..., :size, size:].diagonal(dim1=-2, dim2=-1)
    values = cross * (variance[..., :size] * variance[..., size:]).rsqrt()
    return values.reshape(*values.shape[:-1], *shapes[0])


def entropy(posterior: Posterior, names: Any) -> Tensor:
    """See `Posterior.entropy`."""
    if names is None:
        free = posterior._solution.free
        size = posterior._sites.size if free is None else int(free.sum())
        return 0.5 * (size * math.log(2 * math.pi * math.e) - posterior._solution.log_determinant())
    listed = names_of(posterior.graph, names)
    _require_apart(posterior, listed)
    return _entropy(cross_covariance(posterior, listed, listed), listed)


def _entropy(covariance: Tensor, names: Sequence[Name]) -> Tensor:
    root = cholesky(covariance, f"the covariance of {', '.join(map(repr, names))}")
    logs = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return logs + 0.5 * covariance.shape[-1] * math.log(2 * math.pi * math.e)


def mutual_information(posterior: Posterior, first: Any, second: Any, given: Any) -> Tensor:
    """See `Posterior.mutual_information`."""
    graph = posterior.graph
    sets = {"first": names_of(graph, first, "first"), "second": names_of(graph, second, "second")}
    known = [] if given is None else names_of(graph, given, "given", empty=True)
    require_disjoint({**sets, "given": known})
    parts = [
        _entropy(_conditional_covariance(posterior, names, known), names)
        for names in (sets["first"], sets["second"], sets["first"] + sets["second"])
    ]
    return parts[0] + parts[1] - parts[2]


def sample(posterior: Posterior, count: int, generator: torch.Generator | None) -> dict[Name, Tensor]:
    """See `Posterior.sample`."""
    if count < 1:
        raise ParameterError(f"count={count} is not a positive number of samples", count=count)
    mean = posterior._solution.mean
    device = mean.device if generator is None else generator.device
    white = torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype, device=device).to(
        mean.device
    )
    drawn = mean + posterior._solution.root(white)
    return {name: posterior._sites.gather(drawn, name) for name in posterior.graph.variables}


def uncertain_directions(posterior: Posterior, count: int) -> Directions:
    """See `Posterior.uncertain_directions`. Lanczos iteration on the solve of every problem of the batch (ARPACK)."""
    size = posterior._sites.size
    if not 1 <= count <= max(size - 1, 1):
        raise ParameterError(
            f"count={count}: {size} sites have 1 to {max(size - 1, 1)} directions to list", count=count
        )
    solve, eta = posterior._solution.solve, posterior._eta
    lead = posterior._solution.variance().shape[:-1]
    if size <= DENSE_UP_TO:
        eye = torch.eye(size, dtype=eta.dtype, device=eta.device)
        covariance = solve(eye.reshape(size, *(1,) * len(lead), size).expand(size, *lead, size)).movedim(
            0, -2
        )
        values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
        values, vectors = values.flip(-1)[..., :count], vectors.flip(-1)[..., :count]
    else:
        values, vectors = _lanczos(solve, lead, size, eta, count)
    values, vectors = values.movedim(-1, 0), vectors.movedim(-1, 0)
    return Directions(values, {n: posterior._sites.gather(vectors, n) for n in posterior.graph.variables})


def _lanczos(solve: Any, lead: torch.Size, size: int, eta: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues (*lead, count) and eigenvectors (*lead, size, count), one problem after the other."""
    values, vectors = [], []
    start = np.random.default_rng(0).standard_normal(size)
    for k in range(lead.numel()):

        def multiply(x: np.ndarray, k: int = k) -> np.ndarray:
            right = torch.zeros(lead.numel(), size, dtype=eta.dtype, device=eta.device)
            right[k] = torch.from_numpy(x.reshape(-1)).to(right)
            solved = solve(right.reshape(*lead, size)).reshape(-1, size)[k]
            return solved.detach().double().cpu().numpy()

        operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
        found, directions = eigsh(operator, k=count, which="LA", v0=start)
        values.append(torch.from_numpy(found[::-1].copy()))
        vectors.append(torch.from_numpy(directions[:, ::-1].copy()))
    return (
        torch.stack(values).reshape(*lead, count).to(eta),
        torch.stack(vectors).reshape(*lead, size, count).to(eta),
    )


def _sites(posterior: Posterior, names: Sequence[Name]) -> Tensor:
    return torch.cat([posterior._sites.index[name] for name in names])


def _require_apart(posterior: Posterior, names: Sequence[Name]) -> None:
    """CovarianceError where some of the nodes show the same site: their covariance is singular."""
    if not posterior._sites.merged:
        return
    seen: dict[int, Name] = {}
    for name in names:
        for site in posterior._sites.index[name].tolist():
            if site in seen:
                raise CovarianceError(
                    f"{seen[site]!r} and {name!r} share elements (an Equality factor makes them one), so their joint "
                    "covariance is singular; ask for one of them",
                    names=[seen[site], name],
                )
            seen[site] = name
