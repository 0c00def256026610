"""Why a joint density is improper: the nodes, the direction without precision, and what would cure it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ImproperGraphError, NotFiniteError, PgmSyncError, listed
from ..maps import element_index
from ..potentials import Correlation
from ..potentials.correlation import as_pair
from .precision import DENSE_UP_TO, Coordinates, coordinates, lowest
from .problem import Problem
from .structure import Structure

LARGEST_EXACT = 2000  # rows, up to which the smallest eigenvalue is taken to all digits


def component_of(structure: Structure, site: int) -> np.ndarray:
    return np.flatnonzero(structure.component == structure.component[site])


def improper(problem: Problem, sites: np.ndarray) -> PgmSyncError:
    """Describe a component whose precision is not positive definite: its nodes, the direction, and a cure.

    An ImproperGraphError, or a NotFiniteError where the precision overflows its dtype.
    """
    plan = problem.plan
    place = np.full(plan.sites.size, -1, dtype=np.int64)
    place[sites] = np.arange(len(sites))
    held = {name: place[plan.sites.index[name].numpy()] for name in plan.graph.variables}
    held = {name: where[where >= 0] for name, where in held.items() if where.max() >= 0}
    names = list(held)
    own = coordinates(problem).of(sites)
    if not (np.isfinite(own.diagonal).all() and np.isfinite(own.values).all()):
        return NotFiniteError(
            f"the joint precision of {listed(names)} overflows {problem.system.eta.dtype}; rescale the content, "
            "give smaller precisions, or use float64",
            nodes=names,
        )
    low, vector, worst = min((_lowest(own, k) for k in range(len(own.diagonal))), key=lambda found: found[0])
    direction = torch.from_numpy(vector)
    share = {name: float(np.linalg.norm(vector[where])) for name, where in held.items()}
    leading = sorted(share, key=lambda n: -share[n])[:4]
    shown = ", ".join(f"{n!r} ({share[n]:.2f})" for n in leading)
    scale = np.abs(own.diagonal).max()
    safe = rho = None
    dtype, what = problem.system.eta.dtype, "is improper"
    if low > torch.finfo(dtype).eps * scale:  # more than rounding of its entries gives a singular precision
        what = f"is too close to improper for {dtype}"
        cause = (
            f"rounding adds up over {len(sites)} coupled elements to as much; use float64, or give these nodes evidence"
        )
    elif low > -1e-6 * max(scale, 1e-300):
        cause = (
            "nothing fixes a direction of it; give one of these nodes evidence, or a prior: "
            f"graph.add_factor('prior', [{leading[0]!r}], Evidence(0.0, precision=1.0))"
        )
    else:
        safe = _safe_scale(own, worst)
        much = "" if safe is None else f" (couplings times anything below {_down(safe)} would do"
        rho = _safe_rho(problem, own, worst)
        much += (
            "" if rho is None else f"{' (' if safe is None else ', '}or every Correlation.rho times {_down(rho)}"
        )
        much += ")" if much else ""
        cause = (
            f"its potentials are too strong together; weaken them{much}, fit them jointly with ps.fit, or add a "
            f"precision of more than {-low:.3g} to these nodes"
        )
    return ImproperGraphError(
        f"the joint density {what} on the component of {listed(names)}: along a direction that is mostly {shown} the "
        f"precision is {low:.3g}: {cause}",
        nodes=names,
        smallest_eigenvalue=low,
        direction=direction,
        safe_scale=safe,
        safe_rho=rho,
    )


def _down(value: float) -> str:
    """Four digits, rounded down: what the message recommends must be enough."""
    if value <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.floor(value / unit) * unit:.4g}"


def _lowest(own: Coordinates, k: int) -> tuple[float, np.ndarray, int]:
    value, vector = _bottom(own.matrix(k))
    return value, vector, k


def _bottom(matrix: Any) -> tuple[float, np.ndarray]:
    """Smallest eigenvalue and unit eigenvector; of a large matrix the quotient of a vector close to it.

    A diagnosis of thousands of nodes need not tell apart directions whose precisions differ in the third digit, which
    is what takes an eigenvalue solver its time on long chains and large grids.
    """
    return lowest(matrix, tolerance=0 if matrix.shape[0] <= LARGEST_EXACT else 1e-3)


def _safe_scale(own: Coordinates, k: int) -> float | None:
    """The s below which ``D + s (Lambda - D)``, D the diagonal, is positive definite; None where D is not.

    With M = D^{-1/2} (Lambda - D) D^{-1/2}: 1 + s mu > 0 for the smallest eigenvalue mu of M.
    """
    diagonal = own.diagonal[k]
    if not (diagonal > 0).all():
        return None
    scale = diagonal**-0.5
    i, j = own.ends.T
    scaled = own._replace(diagonal=np.zeros_like(own.diagonal), values=own.values * scale[i] * scale[j])
    return -1 / _bottom(scaled.matrix(k))[0]


def _safe_rho(problem: Problem, own: Coordinates, k: int) -> float | None:
    """The factor below which all `Correlation` potentials of a component are weak enough, by bisection.

    Unlike `_safe_scale` it knows that a smaller rho also adds less to the diagonal. None where there is none, or where
    the component is too large to look at as a matrix.
    """
    plan, place = problem.plan, np.full(problem.plan.sites.size, -1, dtype=np.int64)
    if len(own.sites) > DENSE_UP_TO:
        return None
    place[own.sites] = np.arange(len(own.sites))
    parts: list[tuple[Tensor, ...]] = []  # rho, the two variances, and where the two ends are, per coupled pair
    for factor in plan.graph.factors:
        potential, maps = plan.graph.potential(factor), plan.graph.maps(factor)
        picked = [element_index(m) for m in maps]
        if not isinstance(potential, Correlation) or any(p is None for p in picked):
            continue
        first, second = (
            torch.from_numpy(place)[plan.sites.index[n][p]]
            for n, p in zip(plan.graph.scope(factor), picked, strict=True)
        )
        rows = ((first >= 0) & (second >= 0)).nonzero().squeeze(-1)
        if len(rows):
            numbers = [
                torch.as_tensor(v, dtype=torch.float64).detach().cpu().expand(maps[0].out_shape).reshape(-1)[rows]
                for v in (potential.rho, *as_pair(potential.variance))
            ]
            parts.append((*numbers, first[rows], second[rows]))
    if not parts:
        return None
    rho, *variances, first, second = (torch.cat(column) for column in zip(*parts, strict=True))
    ends = (first.numpy(), second.numpy())

    def added(scale: float) -> np.ndarray:
        weaker = Correlation(rho * scale, variance=(variances[0], variances[1]))
        values = weaker.information([tuple(rho.shape)] * 2).precision.numpy()
        total = np.zeros((len(own.sites), len(own.sites)))
        for i, a in enumerate(ends):
            for j, b in enumerate(ends):
                np.add.at(total, (a, b), values[i, j])
        return total

    rest = own.matrix(k).toarray() - added(1.0)

    def proper(scale: float) -> bool:
        return bool(np.linalg.eigvalsh(rest + added(scale))[0] > 0)

    low, high = 0.0, 1.0
    if not proper(low):
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if proper(middle) else (low, middle)
    return low
