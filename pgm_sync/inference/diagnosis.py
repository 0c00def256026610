"""Why a joint density is improper: the nodes, the direction without precision, and what would cure it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import ImproperGraphError
from .problem import Problem
from .structure import Structure

LARGEST_DENSE = 20_000  # sites of a component that a diagnosis still looks at as a matrix


def component_of(structure: Structure, site: int) -> np.ndarray:
    return np.flatnonzero(structure.component == structure.component[site])


def improper(problem: Problem, sites: np.ndarray) -> ImproperGraphError:
    """Describe a component whose precision is not positive definite: its nodes, the direction, and a cure."""
    plan = problem.plan
    names = [n for n in plan.graph.variables if np.isin(plan.sites.index[n].numpy(), sites).any()]
    listed = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if len(sites) > LARGEST_DENSE:
        return ImproperGraphError(
            f"the joint density is improper on the component of {listed} ({len(sites)} elements)", nodes=names
        )
    matrix = dense_component(problem, sites)
    values, vectors = torch.linalg.eigh(matrix)
    worst = int(values[..., 0].reshape(-1).argmin())
    low = values[..., 0].reshape(-1)[worst].item()
    direction = vectors[..., :, 0].reshape(-1, len(sites))[worst]
    share = {}
    for name in names:
        own = np.isin(sites, plan.sites.index[name].numpy())
        share[name] = direction[torch.from_numpy(own)].norm().item()
    leading = sorted(share, key=lambda n: -share[n])[:4]
    shown = ", ".join(f"{n!r} ({share[n]:.2f})" for n in leading)
    scale = matrix.diagonal(dim1=-2, dim2=-1).abs().max().item()
    if low > -1e-6 * max(scale, 1e-300):
        cause = (
            "nothing fixes a direction of it; give one of these nodes evidence, or a prior: "
            f"graph.add_factor('prior', [{leading[0]!r}], Evidence(0.0, precision=1.0))"
        )
    else:
        cause = (
            "its potentials are too strong together; weaken them (smaller |rho|), fit them jointly with ps.fit, or add "
            f"a precision of more than {-low:.3g} to these nodes"
        )
    return ImproperGraphError(
        f"the joint density is improper on the component of {listed}: along a direction that is mostly {shown} the "
        f"precision is {low:.3g}: {cause}",
        nodes=names,
        smallest_eigenvalue=low,
        direction=direction,
    )


def dense_component(problem: Problem, sites: np.ndarray) -> Tensor:
    """The precision of one component, ``(*batch, n, n)``, float64 on the CPU."""
    plan, structure, system = problem
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
