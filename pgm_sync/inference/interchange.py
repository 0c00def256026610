"""To and from what other programs hold: scipy matrices and networkx graphs; `Gaussian` does so for pyro."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from scipy.sparse import csr_array, issparse

from ..errors import CovarianceError, DtypeError, NotFiniteError, ParameterError, ShapeError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..potentials import Quadratic
from .compile import Plan
from .evidence import Elements
from .posterior import Posterior
from .precision import coordinates
from .problem import pose


class SparseSystem(NamedTuple):
    """The joint density of a graph as ``exp(-x' precision x / 2 + eta' x)`` over its sites.

    >>> import pgm_sync as ps
    >>> system = to_scipy(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (3.0, 1.0)})
    >>> system.precision.toarray().tolist(), system.eta.tolist()
    ([[2.0, -1.0], [-1.0, 1.0]], [3.0, 0.0])
    """

    precision: csr_array  # (sites, sites), float64
    eta: np.ndarray  # (*batch, sites), float64
    sites: dict[Name, np.ndarray]  # the site of every element of a node, (D)


def to_scipy(
    graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None
) -> SparseSystem:
    """Lambda and eta of a graph and its evidence as scipy and numpy hold them.

    Raises UnsupportedError where evidence gives a batch of different precisions; as `infer` on bad evidence.

    >>> import pgm_sync as ps
    >>> from scipy.sparse.linalg import spsolve
    >>> system = to_scipy(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> spsolve(system.precision.tocsc(), system.eta).round(4).tolist()
    [2.0, 1.0]
    """
    problem = pose(graph, evidence)
    every = coordinates(problem)
    if len(every.diagonal) > 1:
        raise UnsupportedError(
            f"the evidence gives {len(every.diagonal)} different precisions, one matrix each; convert them one by one"
        )
    index = {name: where.numpy() for name, where in problem.plan.sites.index.items()}
    return SparseSystem(csr_array(every.matrix(0)), problem.system.eta.detach().double().cpu().numpy(), index)


def from_scipy(precision: Any, eta: Any = None, names: Sequence[Name] | None = None) -> FactorGraph:
    """A graph of scalars with one `Quadratic` per coupled pair and per node, from a symmetric matrix Lambda and eta.

    `precision` is a scipy sparse matrix or anything numpy takes as a square one; `names` are 0, 1, ... if not given.
    Variables are hidden ones: nothing of them is denoised.

    Raises ShapeError, DtypeError, CovarianceError (not symmetric), NotFiniteError, ParameterError (names that repeat).

    >>> import numpy as np, pgm_sync as ps
    >>> graph = from_scipy(np.array([[2.0, -1.0], [-1.0, 2.0]]), eta=np.array([3.0, 0.0]))
    >>> posterior = ps.infer(graph)
    >>> posterior.mean[0].item(), posterior.mean[1].item()
    (2.0, 1.0)
    """
    given = precision if issparse(precision) else _numbers(precision, "precision")
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise ShapeError(f"precision has shape {given.shape}; a square matrix needed", got=given.shape)
    if given.dtype.kind not in "biuf":
        raise DtypeError(f"precision has dtype {given.dtype}; real numbers needed")
    matrix = csr_array(given).astype(np.float64)
    n = matrix.shape[0]
    vector = np.zeros(n) if eta is None else _numbers(eta, "eta")
    if vector.shape != (n,):
        raise ShapeError(
            f"eta has shape {vector.shape}, precision {matrix.shape}", expected=(n,), got=vector.shape
        )
    names = list(range(n)) if names is None else list(names)
    if len(names) != n or len(set(names)) < n:
        raise ParameterError(
            f"{len(names)} names, {len(set(names))} of them different, for {n} variables", names=names
        )
    for what, values in (("precision", matrix.data), ("eta", vector)):
        if not np.isfinite(values).all():
            raise NotFiniteError(f"{what} has {int((~np.isfinite(values)).sum())} NaN or infinite entries")
    asymmetry = abs(matrix - matrix.T).tocoo()
    if asymmetry.nnz and asymmetry.max() > 1e-10 * abs(matrix).max():
        worst = asymmetry.data.argmax()
        i, j = asymmetry.row[worst], asymmetry.col[worst]
        raise CovarianceError(
            f"precision is not symmetric: its two entries for {names[i]!r} and {names[j]!r} differ by "
            f"{asymmetry.data[worst]:.3g}",
            names=(names[i], names[j]),
        )
    graph = FactorGraph()
    for name in names:
        graph.add_variable(name, (1,))
    for name, own, linear in zip(names, matrix.diagonal(), vector, strict=True):
        potential = Quadratic(torch.tensor([[own]]), torch.tensor([linear]))
        graph.add_factor(("own", name), [name], potential)
    upper = matrix.tocoo()
    for i, j, value in zip(upper.row, upper.col, upper.data, strict=True):
        if i < j and value != 0:
            pair = torch.tensor([[0.0, value], [value, 0.0]], dtype=torch.float64)
            graph.add_factor((names[i], names[j]), [names[i], names[j]], Quadratic(pair))
    return graph


def _numbers(values: Any, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"{what} has dtype {array.dtype}; real numbers needed")
    return array.astype(np.float64)


def correlation_network(posterior: Posterior) -> nx.Graph:
    """The Markov network with what was inferred, as plain floats for every networkx algorithm and file format.

    Nodes of the `posterior` have ``variance`` (mean over elements and batch); edges between nodes of one shape that
    share a factor have ``correlation`` and ``partial_correlation`` (root mean square over elements and batch, with the
    sign of the mean).

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, shape=(4,), potential=ps.Correlation(0.6))
    >>> network = correlation_network(ps.infer(graph, {k: (0.0, 1.0) for k in range(3)}))
    >>> round(network.edges[0, 1]["correlation"], 4), network.has_edge(0, 2)
    (0.6, False)
    """
    network = posterior.graph.markov_network()
    out = nx.Graph()
    for name in network.nodes:
        out.add_node(name, variance=posterior.variance[name].mean().item())
    for a, b in network.edges:
        out.add_edge(a, b)
        if posterior.graph.shape(a) == posterior.graph.shape(b):
            for what in ("correlation", "partial_correlation"):
                values = getattr(posterior, what)(a, b)
                sign = -1.0 if values.mean().item() < 0 else 1.0
                out.edges[a, b][what] = sign * values.square().mean().sqrt().item()
    return out
