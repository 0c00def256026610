"""Why a joint density is improper: the nodes, the direction without precision, and what would cure it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from ..errors import ImproperGraphError, NotFiniteError, PgmSyncError
from ..maps import element_index
from ..potentials import Correlation
from .precision import DENSE_UP_TO, Coordinates, coordinates, lowest
from .problem import Problem
from .structure import Structure


def component_of(structure: Structure, site: int) -> np.ndarray:
    return np.flatnonzero(structure.component == structure.component[site])


def improper(problem: Problem, sites: np.ndarray) -> PgmSyncError:
    """Describe a component whose precision is not positive definite: its nodes, the direction, and a cure.

    An ImproperGraphError, or a NotFiniteError where the precision overflows its dtype.
    """
    plan = problem.plan
    names = [n for n in plan.graph.variables if np.isin(plan.sites.index[n].numpy(), sites).any()]
    listed = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    own = coordinates(problem).of(sites)
    if not (np.isfinite(own.diagonal).all() and np.isfinite(own.values).all()):
        return NotFiniteError(
            f"the joint precision of {listed} overflows {problem.system.eta.dtype}; rescale the content, give smaller "
            "precisions, or use float64",
            nodes=names,
        )
    low, vector, worst = min((_lowest(own, k) for k in range(len(own.diagonal))), key=lambda found: found[0])
    direction = torch.from_numpy(vector)
    share = {}
    for name in names:
        inside = np.isin(sites, plan.sites.index[name].numpy())
        share[name] = direction[torch.from_numpy(inside)].norm().item()
    leading = sorted(share, key=lambda n: -share[n])[:4]
    shown = ", ".join(f"{n!r} ({share[n]:.2f})" for n in leading)
    scale = np.abs(own.diagonal).max()
    safe = rho = None
    if low > -1e-6 * max(scale, 1e-300):
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
        f"the joint density is improper on the component of {listed}: along a direction that is mostly {shown} the "
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
    value, vector = lowest(own.matrix(k))
    return value, vector, k


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
    return -1 / lowest(scaled.matrix(k))[0]


def _safe_rho(problem: Problem, own: Coordinates, k: int) -> float | None:
    """The factor below which all `Correlation` potentials of a component are weak enough, by bisection.

    Unlike `_safe_scale` it knows that a smaller rho also adds less to the diagonal. None where there is none, or where
    the component is too large to look at as a matrix.
    """
    plan, place = problem.plan, np.full(problem.plan.sites.size, -1, dtype=np.int64)
    if len(own.sites) > DENSE_UP_TO:
        return None
    place[own.sites] = np.arange(len(own.sites))
    found = []
    for factor in plan.graph.factors:
        potential, maps = plan.graph.potential(factor), plan.graph.maps(factor)
        picked = [element_index(m) for m in maps]
        if not isinstance(potential, Correlation) or any(p is None for p in picked):
            continue
        ends = [
            place[plan.sites.index[n][p].numpy()]
            for n, p in zip(plan.graph.scope(factor), picked, strict=True)
        ]
        rows = np.flatnonzero((ends[0] >= 0) & (ends[1] >= 0))
        if len(rows):
            found.append((potential, [m.out_shape for m in maps], ends[0][rows], ends[1][rows], rows))
    if not found:
        return None

    def added(scale: float) -> np.ndarray:
        total = np.zeros((len(own.sites), len(own.sites)))
        for potential, shapes, first, second, rows in found:
            weaker = dataclasses.replace(
                potential, rho=torch.as_tensor(potential.rho, dtype=torch.float64) * scale
            )
            own_part = weaker.information(shapes).precision.detach()
            values = own_part.reshape(2, 2, -1).expand(2, 2, math.prod(shapes[0]))[..., rows].numpy()
            for i, a in enumerate((first, second)):
                for j, b in enumerate((first, second)):
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


def dense_component(problem: Problem, sites: np.ndarray) -> Tensor:
    """The precision of one component, ``(*batch, n, n)``, float64 on the CPU."""
    plan, structure, system, _ = problem
    place = np.full(plan.sites.size, -1, dtype=np.int64)
    place[sites] = np.arange(len(sites))
    if structure.group[sites[0]] >= 0:
        matrix = torch.diag_embed(system.diagonal[..., torch.from_numpy(sites).to(system.diagonal.device)])
        matrix = matrix.detach().double().cpu()
        for k in np.flatnonzero(place[plan.pairs[:, 0]] >= 0) if len(plan.pairs) else ():
            a, b = place[plan.pairs[k]]
            matrix[..., a, b] += system.pairs[k].item()
            matrix[..., b, a] += system.pairs[k].item()
        return matrix
    batch = next(iter(system.blocks.values())).shape[:-2]
    matrix = torch.zeros(*batch, len(sites), len(sites), dtype=torch.float64)
    for (a, b), values in system.blocks.items():
        rows, columns = place[structure.blocks.sites[a]], place[structure.blocks.sites[b]]
        if rows[0] < 0 or columns[0] < 0:
            continue
        values = values.detach().double().cpu()
        matrix[..., torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] = values
        matrix[..., torch.from_numpy(columns)[:, None], torch.from_numpy(rows)] = values.mT
    return matrix
