"""The front door of the engine: a graph and evidence in, the exact posterior out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from .compile import Plan
from .dense import dense_joint
from .exact import eliminate, solve_dense
from .posterior import Info, Posterior
from .problem import pose, residual
from .structure import Structure

METHODS = ("auto", "exact", "dense")


def infer(
    graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | None = None, method: str = "auto"
) -> Posterior:
    """The posterior of all nodes under the potentials of `graph` and Gaussian `evidence`.

    `evidence` is ``{name: (mean, precision)}``: the unary Gaussian N(mean, 1/precision), both broadcastable to
    ``(*batch, *shape)``; or ``{name: Gaussian}`` over the flattened elements of a node, or over the scope of a
    `Likelihood` factor. dtype and device of the evidence decide those of the result (float64 without any).
    `graph` may be a plan from `compile`, which saves the analysis when only evidence changes.

    method: "auto" and "exact" eliminate: elements that only elementwise factors through index maps couple are
    grouped by pattern and eliminated together, nodes under matrix potentials block by block; "dense" solves the whole
    system as one matrix (a reference). Means, variances and covariances are exact.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Correlation
    >>> posterior = infer(chain_graph(3, 1, Correlation(0.8)), {0: (1.0, 4.0), 1: (0.0, 1.0), 2: (0.0, 1.0)})
    >>> posterior.mean[2].round(decimals=3)
    tensor([0.6400], dtype=torch.float64)

    Raises ImproperGraphError (naming the nodes and the direction without precision), and on evidence that does not
    fit: UnknownNameError, ShapeError, DtypeError, ParameterError, NotFiniteError; StalePlanError; UnfittedError;
    UnsupportedError.
    """
    if method not in METHODS:
        if method in ("cg", "gbp"):
            raise UnsupportedError(
                f"method={method!r} does not exist yet; 'exact' computes the same means and variances"
            )
        raise ParameterError(f"method={method!r} is not one of {', '.join(METHODS)}", method=method)
    problem = pose(graph, evidence)
    plan, structure, system = problem
    if method == "dense":
        joint = dense_joint(plan.graph, evidence, plan.sites, plan.dtype, plan.device)
        solution, reason = solve_dense(problem, joint), "asked for"
    else:
        solution, reason = eliminate(problem), _reason(structure)

    def info() -> Info:
        return Info(
            method="dense" if method == "dense" else "exact",
            plan=solution.plan,
            reason=reason,
            components=int(structure.component.max()) + 1,
            groups=len(structure.groups),
            blocks=len(structure.blocks.sites),
            width=solution.width,
            residual=residual(problem, solution.mean.detach()),
            variances_exact=solution.exact,
        )

    return Posterior(plan.graph, plan.sites, solution, system.eta, system.log_scale, info)


def _reason(structure: Structure) -> str:
    parts = []
    if structure.groups:
        parts.append("elementwise factors through index maps: one elimination per pattern")
    if structure.blocks.sites:
        parts.append("matrix potentials or evidence: block elimination")
    return "; ".join(parts)
