"""What can be asked of a posterior beyond means and variances; `Posterior` has a method for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from ..errors import ConvergenceError, CovarianceError, ParameterError, ShapeError, listed
from ..gaussian import Gaussian
from ..graph.factor_graph import Name
from ..graph.separation import names_of, require_disjoint
from .components import conditional_covariance, covariance, half_log_determinant, labels, split
from .precision import precision_batch, precision_entries

if TYPE_CHECKING:
    from .posterior import Posterior

DENSE_UP_TO = 256  # sites, up to which eigenvectors come from the whole covariance


class Directions(NamedTuple):
    """Principal directions of a posterior: unit vectors over all sites, and what each node sees of them.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference import infer
    >>> from pgm_sync.potentials import Attraction
    >>> posterior = infer(chain_graph(2, 1, Attraction(10.0)), {0: (0.0, 1.0), 1: (0.0, 1.0)})
    >>> widest = posterior.uncertain_directions()  # both move together
    >>> {name: round(share.item(), 2) for name, share in widest.share().items()}
    {0: 0.71, 1: 0.71}
    """

    variance: Tensor  # (count, *precision batch), largest first
    direction: dict[Name, Tensor]  # (count, *precision batch, *shape)

    def share(self) -> dict[Name, Tensor]:
        """How much of each direction lies in each node: the norm of its part, ``(count, *precision batch)``."""
        count = self.variance.ndim
        return {name: part.flatten(count).norm(dim=-1) for name, part in self.direction.items()}


def cross_covariance(posterior: Posterior, first: Any, second: Any) -> Tensor:
    """See `Posterior.cross_covariance`."""
    rows, columns = (
        _sites(posterior, names_of(posterior.graph, side, what))[None]
        for side, what in ((first, "first"), (second, "second"))
    )
    return covariance(posterior._solution.entries, rows, columns).squeeze(-3)


def correlation(posterior: Posterior, first: Name, second: Name) -> Tensor:
    """See `Posterior.correlation`."""
    values = posterior.covariance(first, second)
    return values * _vary(posterior, first, second, posterior.variance[first] * posterior.variance[second]).rsqrt()


def joint(posterior: Posterior, names: Any) -> Gaussian:
    """See `Posterior.joint`."""
    return conditional(posterior, names, ())


def conditional(posterior: Posterior, names: Any, given: Any) -> Gaussian:
    """See `Posterior.conditional`."""
    wanted = names_of(posterior.graph, names)
    known = names_of(posterior.graph, given, "given", empty=True)
    require_disjoint({"names": wanted, "given": known})
    _require_apart(posterior, [*wanted, *known])
    sites = _sites(posterior, wanted)
    if len(_free(posterior, sites)) < len(sites):
        seen = [n for n in wanted if len(_free(posterior, _sites(posterior, [n]))) < posterior._sites.index[n].numel()]
        raise CovarianceError(
            f"elements of {', '.join(map(repr, seen))} are observed, so they have no variance and no joint density; "
            "leave these nodes out, or read posterior.cross_covariance",
            names=seen,
        )
    matrix = conditional_covariance(
        posterior._solution.entries, sites[None], _free(posterior, _sites(posterior, known))[None], listed(known)
    )
    index = torch.from_numpy(sites).to(posterior._eta.device)
    return Gaussian.from_moments(posterior._solution.mean[..., index], matrix.squeeze(-3))


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
        values = _given_the_rest(posterior, *(_sites(posterior, [name]) for name in (first, second)))
    else:
        known = names_of(graph, given, "given", empty=True)
        require_disjoint({"first": [first], "second": [second], "given": known})
        _require_apart(posterior, [first, second, *known])
        values = _given_some(posterior, first, second, known)
    return values.reshape((*values.shape[:-1], *shapes[0]))


def _given_the_rest(posterior: Posterior, i: np.ndarray, j: np.ndarray) -> Tensor:
    """``-Lambda_ij / sqrt(Lambda_ii Lambda_jj)``, ``(*precision batch, elements)``."""
    cross, own, other = (precision_entries(posterior._problem, *ends) for ends in ((i, j), (i, i), (j, j)))
    values = 0.0 - cross * (own * other).rsqrt()  # 0 and not -0 where nothing couples
    itself = np.isin(i, _free(posterior, i)).astype(np.float64)  # an observed element does not vary
    return torch.where(torch.from_numpy(i == j).to(values.device), torch.from_numpy(itself).to(values), values)


def _given_some(posterior: Posterior, first: Name, second: Name, known: Sequence[Name]) -> Tensor:
    entries, component = posterior._solution.entries, labels(posterior._problem)
    i, j = (_sites(posterior, [name]) for name in (first, second))
    copy, position = np.zeros(len(component), dtype=np.int64), np.zeros(len(component), dtype=np.int64)
    given = _free(posterior, _sites(posterior, known))
    values = posterior._eta.new_zeros(*precision_batch(posterior._problem), len(i))
    for a, b, c in split(component, [i, j, given]):
        if not a.shape[1] or not b.shape[1]:
            continue  # in different components, so independent
        both = np.concatenate([a, b], 1)
        copy[both], position[both] = np.arange(len(both))[:, None], np.arange(both.shape[1])
        chosen = np.flatnonzero(np.isin(component[i], component[both[:, 0]]) & (component[i] == component[j]))
        matrix = conditional_covariance(entries, both, c, listed(known))
        m, p, q = (
            torch.from_numpy(k[chosen]).to(matrix.device) for k in (copy[i], position[i], position[j])
        )
        variance = matrix[..., m, p, p] * matrix[..., m, q, q]
        found = matrix[..., m, p, q] * _vary_at(posterior, i[chosen], j[chosen], variance).rsqrt()
        values = values.expand(*found.shape[:-1], len(i))  # some plans answer for the batch of eta
        values = values.index_copy(-1, torch.from_numpy(chosen).to(values.device), found)
    return values


def entropy(posterior: Posterior, names: Any) -> Tensor:
    """See `Posterior.entropy`."""
    if names is None:
        free = posterior._solution.free
        size = posterior._sites.size if free is None else int(free.sum())
        return 0.5 * (size * math.log(2 * math.pi * math.e) - posterior._solution.log_determinant())
    chosen = names_of(posterior.graph, names)
    _require_apart(posterior, chosen)
    entries, sites = posterior._solution.entries, _free(posterior, _sites(posterior, chosen))
    constant = 0.5 * len(sites) * math.log(2 * math.pi * math.e)
    total = posterior._eta.new_full(precision_batch(posterior._problem), constant)
    for (own,) in split(labels(posterior._problem), [sites]) if len(sites) else ():
        total = total + half_log_determinant(covariance(entries, own, own), listed(chosen))
    return total


def mutual_information(posterior: Posterior, first: Any, second: Any, given: Any) -> Tensor:
    """See `Posterior.mutual_information`."""
    graph = posterior.graph
    sets = {"first": names_of(graph, first, "first"), "second": names_of(graph, second, "second")}
    sets["given"] = [] if given is None else names_of(graph, given, "given", empty=True)
    require_disjoint(sets)
    _require_apart(posterior, [name for names in sets.values() for name in names])
    sites = [_free(posterior, _sites(posterior, names)) for names in sets.values()]
    total = posterior._eta.new_zeros(precision_batch(posterior._problem))
    for a, b, c in split(labels(posterior._problem), sites) if any(map(len, sites)) else ():
        n = a.shape[1]
        if not n or not b.shape[1]:
            continue  # in different components, so independent
        both = np.concatenate([a, b], 1)
        matrix = conditional_covariance(posterior._solution.entries, both, c, listed(sets["given"]))
        what = listed(sets["first"] + sets["second"])
        total = total + half_log_determinant(matrix[..., :n, :n], what)
        total = total + half_log_determinant(matrix[..., n:, n:], what) - half_log_determinant(matrix, what)
    return total.clamp(min=0)  # what rounding takes below


def sample(posterior: Posterior, count: int, generator: torch.Generator | None) -> dict[Name, Tensor]:
    """See `Posterior.sample`."""
    if not isinstance(count, Integral) or count < 1:
        raise ParameterError(f"count={count!r} is not a positive number of samples", count=count)
    mean = posterior._solution.mean
    device = mean.device if generator is None else generator.device
    white = torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype, device=device).to(
        mean.device
    )
    drawn = mean + posterior._solution.root(white)
    return {name: posterior._sites.gather(drawn, name) for name in posterior.graph.variables}


def uncertain_directions(posterior: Posterior, count: int) -> Directions:
    """See `Posterior.uncertain_directions`. Lanczos iteration on the solve of every problem of the batch (ARPACK)."""
    size, free = posterior._sites.size, posterior._solution.free
    most = max((size if free is None else int(free.sum())) - 1, 1)
    if not isinstance(count, Integral) or not 1 <= count <= most:
        raise ParameterError(
            f"count={count!r}: {size} sites have 1 to {most} directions to list"
            + ("" if free is None else "; the others are observed"),
            count=count,
        )
    lead = posterior._solution.variance().shape[:-1]
    if size <= DENSE_UP_TO:
        unit = torch.eye(size, dtype=posterior._eta.dtype, device=posterior._eta.device)
        matrix = torch.stack([_solve(posterior, row.expand(*lead, size)) for row in unit], -1)
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        values, vectors = values.flip(-1)[..., :count].movedim(-1, 0), vectors.flip(-1)[..., :count].movedim(-1, 0)
    else:
        vectors = _lanczos(posterior, lead, count)
        # v' Sigma v: the eigenvalues once more, with their gradient
        values = torch.stack([(v * _solve(posterior, v)).sum(-1) for v in vectors])
    return Directions(values, {n: posterior._sites.gather(vectors, n) for n in posterior.graph.variables})


def _lanczos(posterior: Posterior, lead: torch.Size, count: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, ``(count, *lead, sites)``, one problem after the other, no gradient."""
    size, eta, vectors = posterior._sites.size, posterior._eta, []
    start = np.random.default_rng(0).standard_normal(size)
    for k in range(lead.numel()):

        def multiply(x: np.ndarray, k: int = k) -> np.ndarray:
            right = torch.zeros(lead.numel(), size, dtype=eta.dtype, device=eta.device)
            right[k] = torch.from_numpy(x.reshape(-1)).to(right)
            with torch.no_grad():
                solved = _solve(posterior, right.reshape(*lead, size)).reshape(-1, size)[k]
            return solved.double().cpu().numpy()

        operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
        tolerance = 0 if eta.dtype == torch.float64 else 1e-5
        try:
            _, found = eigsh(operator, k=count, which="LA", v0=start, tol=tolerance)
        except ArpackNoConvergence as error:
            raise ConvergenceError(
                f"{len(error.eigenvalues)} of {count} directions converged: the next ones are too alike; ask for fewer",
                trace=(),
            ) from None
        vectors.append(torch.from_numpy(found[:, ::-1].T.copy()))
    return torch.stack(vectors, 1).reshape(count, *lead, size).to(eta)


def _solve(posterior: Posterior, right: Tensor) -> Tensor:
    """``Lambda^{-1} right`` for ``right (*precision batch, sites)``; some plans answer for the batch of eta."""
    solved = posterior._solution.solve(right)
    solved = solved[(0,) * (solved.ndim - right.ndim)]
    for dim, n in enumerate(right.shape[:-1]):
        solved = solved.narrow(dim, 0, n)
    return solved


def _sites(posterior: Posterior, names: Sequence[Name]) -> np.ndarray:
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *(posterior._sites.index[name].numpy() for name in names)])


def _free(posterior: Posterior, sites: np.ndarray) -> np.ndarray:
    """Without the observed sites, which do not vary."""
    free = posterior._solution.free
    return sites if free is None else sites[free.cpu().numpy()[sites]]


def _vary(posterior: Posterior, first: Name, second: Name, variance: Tensor) -> Tensor:
    """A product of variances ``(*batch, *shape)``, 1 where an end is observed: the 0 above it stays 0."""
    i, j = (_sites(posterior, [name]) for name in (first, second))
    shape = posterior.graph.shape(first)
    flat = variance.reshape((*variance.shape[: variance.ndim - len(shape)], len(i)))
    return _vary_at(posterior, i, j, flat).reshape(variance.shape)


def _vary_at(posterior: Posterior, i: np.ndarray, j: np.ndarray, variance: Tensor) -> Tensor:
    free = posterior._solution.free
    if free is None:
        return variance
    ends = [free[torch.from_numpy(sites).to(free.device)] for sites in (i, j)]
    return torch.where(ends[0] & ends[1], variance, 1.0)


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
