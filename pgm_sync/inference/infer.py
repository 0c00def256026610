"""The front door of the engine: a graph and evidence in, the posterior out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from .belief_propagation.plan import propagate
from .compile import Plan, as_plan
from .conditioning import clamp, clamp_dense, observed_sites, restore
from .conjugate_gradient import conjugate_gradient
from .dense import dense_joint
from .evidence import Elements
from .exact import eliminate, solve_dense
from .low_rank import applies, low_rank, solve_by_features
from .posterior import Info, Posterior, Solution
from .problem import Problem, pose, residual
from .structure import Structure

METHODS = ("auto", "exact", "dense", "cg", "gbp")
LARGEST_DENSE = 20_000  # sites that method="dense" accepts: 3 GB


def infer(
    graph: FactorGraph | Plan,
    evidence: Mapping[Name, Any] | Elements | None = None,
    method: str = "auto",
    *,
    observed: Mapping[Name, Any] | None = None,
    start: Posterior | None = None,
    **options: Any,
) -> Posterior:
    """The posterior of all nodes under the potentials of `graph` and Gaussian `evidence`.

    `evidence` is ``{name: (mean, precision)}``: the unary Gaussian N(mean, 1/precision), both broadcastable to
    ``(*batch, *shape)``; or ``{name: Gaussian}`` over the flattened elements of a node, or over the scope of a
    `Likelihood` factor; or an `Elements` about everything at once. dtype and device of the evidence decide those of
    the result (float64 without any). `graph` may be a plan from `compile`, which saves the analysis when only evidence
    changes.

    method:

    - "exact": elements that only elementwise factors couple are grouped by pattern and eliminated together, nodes
      under matrix potentials block by block; the plan of every group is the one estimated fastest. Means, variances
      and covariances are exact.
    - "cg": preconditioned conjugate gradients, for graphs whose elimination would be too large (options `tolerance`,
      `max_iterations`, `progress`, as in `conjugate_gradient`). Variances of large graphs are estimates.
    - "gbp": belief propagation (options `schedule`, `damping`, `frozen`, `tolerance`, `max_iterations`, `messages`,
      `progress`, as in `belief_propagation.run`). Exact on forests; on loops its means are, its variances are not.
    - "auto": "exact", unless a pattern would take more than `AFFORDABLE` multiplications per copy: then "cg".
    - "dense": the whole system as one matrix, a reference.

    `observed` fixes nodes exactly: ``{name: values}``, broadcastable to ``(*batch, *shape)``, or ``{name: (values,
    mask)}`` where only some elements are known. The posterior is that of all else; observed elements have variance
    0, and ``log_evidence`` is that of the density over the others at these values.

    `start` is an earlier posterior of the same plan: an elimination uses its factors again if the precision has not
    changed, an iteration begins with its means. ``posterior.info`` says what ran, why, and with which residual.

    Three nodes that are N(0, 1) by themselves. Of the first more is known, and the others follow it by 0.8 and 0.8**2:

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, shape=(1,), potential=ps.Correlation(0.8))
    >>> posterior = ps.infer(graph, evidence={0: (1.0, 4.0), 1: (0.0, 1.0), 2: (0.0, 1.0)})
    >>> [round(mean.item(), 3) for mean in posterior.mean.values()]
    [1.0, 0.8, 0.64]

    Raises ImproperGraphError (naming the nodes and the direction without precision), ConvergenceError, CavityError,
    and on evidence that does not fit: UnknownNameError, ShapeError, DtypeError, DeviceError, ParameterError,
    NotFiniteError; StalePlanError; UnfittedError; UnsupportedError.
    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r} is not one of {', '.join(METHODS)}", method=method)
    if start is not None and not isinstance(start, Posterior):
        raise ParameterError(f"start is a {type(start).__name__}; give an earlier posterior", value=start)
    plan = as_plan(graph)
    if method in ("auto", "exact") and observed is None:
        low = low_rank(plan)
        if low is not None and applies(low, evidence):
            _check_options(eliminate, options, "exact")
            problem, solution = solve_by_features(plan, low, evidence)
            reason = "few features of large nodes: solved for the features"
            return Posterior(problem, solution, lambda: _info(problem, solution, "exact", reason))
    problem = pose(plan, evidence)
    structure = problem.structure
    known = values = None
    if observed is not None:
        known, values = observed_sites(problem, observed)
        problem = clamp(problem, known, values)
    if start is not None and start._sites.size != plan.sites.size:
        raise ParameterError(
            f"start={start!r} has {start._sites.size} sites, this graph {plan.sites.size}",
            expected=plan.sites.size,
            got=start._sites.size,
        )
    earlier = None if start is None else start._solution
    chosen, reason = method, "asked for"
    if method == "auto":
        chosen, reason = _choose(structure)
    run: Callable[..., Solution]
    if chosen == "dense":
        _check_dense(plan.sites.size)
        run = _dense(evidence, known, values)
    elif chosen == "cg":
        run = conjugate_gradient
        options = {"start": None if earlier is None else earlier.mean.detach(), **options}
    elif chosen == "gbp":
        run = propagate
        options = {"start": earlier, **options}
    else:
        run = eliminate
        options = {"start": earlier, **options}
    _check_options(run, options, chosen)
    solution = run(problem, **options)
    if known is not None:
        solution = restore(solution, known)

    return Posterior(problem, solution, lambda: _info(problem, solution, chosen, reason))


def _info(problem: Problem, solution: Solution, method: str, reason: str) -> Info:
    structure = problem.structure
    return Info(
        method=method,
        plan=solution.plan,
        reason=reason,
        components=int(structure.component.max()) + 1,
        groups=len(structure.groups),
        blocks=len(structure.blocks.sites),
        width=solution.width,
        cost=solution.cost,
        residual=residual(problem, solution.mean.detach()),
        variances_exact=solution.exact,
    )


def _choose(structure: Structure) -> tuple[str, str]:
    """The method of "auto", and why."""
    if not all(group.scheme.affordable for group in structure.groups):
        return "cg", "elimination would fill in too much; iterating instead"
    parts = []
    if structure.groups:
        parts.append("elementwise factors through index or sparse maps: one elimination per pattern")
    if structure.blocks.sites:
        parts.append("matrix potentials or evidence: block elimination")
    return "exact", "; ".join(parts)


def _dense(
    evidence: Mapping[Name, Any] | Elements | None, known: Tensor | None, values: Tensor | None
) -> Callable[[Problem], Solution]:
    def run(problem: Problem) -> Solution:
        plan = problem.plan
        joint = dense_joint(plan.graph, evidence, plan.sites, plan.dtype, plan.device)
        if known is not None and values is not None:
            joint = clamp_dense(joint, known, values)
        return solve_dense(problem, joint)

    return run


def _check_dense(size: int) -> None:
    if size > LARGEST_DENSE:
        raise UnsupportedError(
            f"method='dense' would make a matrix of {size} x {size} ({8e-9 * size**2:.0f} GB); use method='exact' "
            f"beyond {LARGEST_DENSE} sites",
            sites=size,
        )


def _check_options(run: Callable[..., Solution], options: Mapping[str, Any], method: str) -> None:
    allowed = set(inspect.signature(run).parameters) - {"problem"}
    unknown = [name for name in options if name not in allowed]
    if unknown:
        listed = ", ".join(sorted(allowed)) or "none"
        raise ParameterError(
            f"{unknown[0]!r} is no option of method={method!r}; it has: {listed}", option=unknown[0]
        )
    tolerance, most = options.get("tolerance"), options.get("max_iterations", 1)
    if tolerance is not None and not (isinstance(tolerance, Real) and 0 < float(tolerance) < math.inf):
        raise ParameterError(f"tolerance={tolerance!r} is not positive", tolerance=tolerance)
    if not isinstance(most, Integral) or isinstance(most, bool) or most < 1:
        raise ParameterError(f"max_iterations={most!r} is not at least 1", max_iterations=most)
