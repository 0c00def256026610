"""The result of an inference: means at once, everything else when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import NotFiniteError, ShapeError, UnknownNameError, listed
from ..gaussian import Gaussian
from ..graph.factor_graph import Name
from ..tables import in_notebook
from . import queries
from .problem import Problem


class Info(NamedTuple):
    """How a posterior was computed; ``posterior.info``.

    >>> import pgm_sync as ps
    >>> posterior = ps.infer(ps.ring_graph(4, 1, ps.Correlation(0.1)), {k: (0.0, 2.0) for k in range(4)})
    >>> posterior.info.method, posterior.info.variances_exact, posterior.info.residual < 1e-12
    ('exact', True, True)
    """

    method: str  # what ran: "exact", "dense", "cg" or "gbp"
    plan: str  # how
    reason: str  # why
    components: int  # independent parts of the graph, counted in elements
    groups: int  # patterns of per-element components
    blocks: int  # blocks of the block elimination
    width: int  # sites in the largest message (pattern positions, or block rows)
    cost: float  # multiplications: the estimate of an elimination, the count of an iteration
    residual: float  # |Lambda mean - eta| / |eta|
    variances_exact: bool  # False: those of belief propagation on a loop


class ByName(Mapping[Name, Tensor]):
    """A value per node, computed when first read."""

    def __init__(self, names: Sequence[Name], read: Callable[[Name], Tensor]):
        self._names, self._read = tuple(names), read
        self._known: dict[Name, Tensor] = {}

    def __getitem__(self, name: Name) -> Tensor:
        if name not in self._names:
            raise UnknownNameError(
                f"the posterior has no node {name!r}; it has {listed(self._names)}",
                name=name,
            )
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def __iter__(self) -> Iterator[Name]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Solution(NamedTuple):
    """What a plan computes, over sites."""

    mean: Tensor  # (*batch, sites)
    log_determinant: Callable[[], Tensor]  # -> (*batch)
    variance: Callable[[], Tensor]  # -> (*batch, sites)
    entries: Callable[[Tensor, Tensor], Tensor]  # sites (k,), sites (k,) -> covariances (*batch, k)
    solve: Callable[[Tensor], Tensor]  # (*batch, sites) -> Lambda^{-1} of it
    root: Callable[[Tensor], Tensor]  # (*batch, sites) -> W of it, W W' = Lambda^{-1}
    plan: str  # what ran
    width: int  # numbers in the largest message
    exact: bool  # whether variances and entries are exact
    cost: float  # multiplications, estimated before or counted while it ran
    trace: tuple[float, ...] = ()  # residuals of an iteration
    free: Tensor | None = None  # (sites,), which are not observed; None: all
    state: Any = None  # what a later inference that starts from this one may use again


def require_finite_solution(problem: Problem, values: Tensor, what: str) -> None:
    """NotFiniteError, naming the nodes, if `values` (*batch, sites) overflowed: no NaN or infinity is ever returned."""
    with torch.no_grad():
        # one fast pass; a sum that overflows by itself only costs a closer look
        if bool(values.sum().isfinite()) or bool(values.isfinite().all()):
            return
        graph, sites = problem.plan.graph, problem.plan.sites
        names = [n for n in graph.variables if not bool(sites.gather(values, n).isfinite().all())]
    raise NotFiniteError(
        f"the posterior {what} of {listed(names)} overflows {values.dtype}; rescale the content and its precisions, "
        "or use float64",
        nodes=names,
    )


class Posterior:
    """The Gaussian over all nodes of a graph, given the evidence (Eq. 5 and 6); `infer` makes it.

    Attributes: ``mean[name]`` and ``variance[name]``, both ``(*batch, *shape)``; ``log_evidence`` ``(*batch)``, the
    logarithm of the integral of all potentials and evidence; ``info``, an `Info`. What overflows its dtype is a
    NotFiniteError: means at once, the others when they are read. It keeps the `problem` and its `solution`; `describe`
    gives the info when it is asked for.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, shape=(1,), potential=ps.Correlation(0.8))
    >>> posterior = ps.infer(graph, evidence={k: (0.0, 1.0) for k in range(3)})
    >>> round(posterior.correlation(0, 2).item(), 4)  # 0.8 * 0.8
    0.64
    >>> round(abs(posterior.partial_correlation(0, 2).item()), 4)  # all of it goes through node 1
    0.0
    """

    def __init__(self, problem: Problem, solution: Solution, describe: Callable[[], Info]):
        plan, _, system, _ = problem
        sites = plan.sites
        require_finite_solution(problem, solution.mean, "mean")
        self.graph, self._describe, self._problem = plan.graph, describe, problem
        self._sites, self._solution, self._eta = sites, solution, system.eta
        self.mean = ByName(self.graph.variables, lambda name: sites.gather(solution.mean, name))
        self.variance = ByName(self.graph.variables, lambda name: sites.gather(self._site_variance, name))

    @cached_property
    def info(self) -> Info:
        """What ran and why; computes the residual when first read."""
        return self._describe()

    @property
    def trace(self) -> tuple[float, ...]:
        """Residuals of an iterative plan, the first before any step; empty for the others."""
        return self._solution.trace

    @property
    def element_mean(self) -> Tensor:
        """Means of all elements of all nodes, side by side in insertion order, ``(*batch, elements)``."""
        return self._elements(self._solution.mean)

    @property
    def element_variance(self) -> Tensor:
        """Variances of all elements of all nodes, as `element_mean`."""
        return self._elements(self._site_variance)

    def _elements(self, values: Tensor) -> Tensor:
        if not self._sites.merged:
            return values
        return values.index_select(-1, self._sites.elements.to(values.device))

    @cached_property
    def _site_variance(self) -> Tensor:
        variance = self._solution.variance()
        require_finite_solution(self._problem, variance, "variance")
        return variance

    @cached_property
    def log_evidence(self) -> Tensor:
        """log of the integral of the product of all potentials and evidence, ``(*batch)``."""
        quadratic = 0.5 * (self._eta * self._solution.mean).sum(-1)
        constant = 0.5 * self._sites.size * math.log(2 * math.pi)
        value = (
            self._problem.system.log_scale() + quadratic - 0.5 * self._solution.log_determinant() + constant
        )
        if not bool(value.isfinite().all()):
            raise NotFiniteError(
                f"the log evidence overflows {value.dtype}, in which squares of the means times precisions must fit; "
                "rescale the content, or use float64",
                count=int((~value.isfinite()).sum()),
            )
        return value

    def covariance(self, first: Name, second: Name) -> Tensor:
        """Covariance between matching elements of the nodes `first` and `second` of one shape, ``(*batch, *shape)``.

        >>> import pgm_sync as ps
        >>> graph = ps.chain_graph(2, (1,), ps.Correlation(0.8, variance=4.0))
        >>> posterior = ps.infer(graph, {k: (0.0, 0.25) for k in (0, 1)})
        >>> round(posterior.covariance(0, 1).item(), 4)  # 0.8 * 4
        3.2

        Raises ShapeError where the shapes differ (`joint` gives the whole matrix), UnknownNameError.
        """
        shapes = [self.graph.shape(name) for name in (first, second)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"{first!r} has shape {shapes[0]}, {second!r} {shapes[1]}: elements do not match; "
                f"use posterior.joint([{first!r}, {second!r}]).covariance",
                shapes=tuple(shapes),
            )
        values = self._solution.entries(self._sites.index[first], self._sites.index[second])
        return values.reshape((*values.shape[:-1], *shapes[0]))

    def element_covariance(self, first: Name, i: Tensor, second: Name, j: Tensor) -> Tensor:
        """Covariance of elements `i` of the node `first` with elements `j` of `second`, ``(*batch, k)``.

        i, j: ``(k,)`` positions in the flattened contents. Raises UnknownNameError.
        """
        for name in (first, second):
            self.graph.shape(name)
        return self._solution.entries(self._sites.index[first][i], self._sites.index[second][j])

    def correlation(self, first: Name, second: Name) -> Tensor:
        """Correlation between matching elements of the nodes `first` and `second` of one shape, ``(*batch, *shape)``.

        In [-1, 1]; 0 where one of the elements is observed, which does not vary.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(3, (1,), ps.Correlation(0.5)), {k: (0.0, 1.0) for k in range(3)})
        >>> round(posterior.correlation(0, 1).item(), 4), round(posterior.correlation(0, 2).item(), 4)
        (0.5, 0.25)

        Raises ShapeError where the shapes differ, UnknownNameError.
        """
        return queries.correlation(self, first, second)

    def cross_covariance(self, first: Name | Sequence[Name], second: Name | Sequence[Name]) -> Tensor:
        """Covariance of all elements of `first` with all of `second`, ``(*batch, elements, elements)``.

        Each side is a name or names, flattened and concatenated.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(3, (1,), ps.Correlation(0.5)), {k: (0.0, 1.0) for k in range(3)})
        >>> posterior.cross_covariance(0, [1, 2]).round(decimals=4)
        tensor([[0.5000, 0.2500]], dtype=torch.float64)

        Raises UnknownNameError, ParameterError (no name).
        """
        return queries.cross_covariance(self, first, second)

    def joint(self, names: Name | Sequence[Name]) -> Gaussian:
        """The joint Gaussian of a few nodes, flattened and concatenated in the order of `names`.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(3, (1,), ps.Correlation(0.5)), {k: (0.0, 1.0) for k in range(3)})
        >>> posterior.joint([0, 2]).covariance.round(decimals=4)
        tensor([[1.0000, 0.2500],
                [0.2500, 1.0000]], dtype=torch.float64)

        Raises UnknownNameError; CovarianceError where two nodes share elements, or elements are observed, which makes
        it singular.
        """
        return queries.joint(self, names)

    def conditional(self, names: Name | Sequence[Name], given: Name | Sequence[Name]) -> Gaussian:
        """The Gaussian of `names` given that the nodes `given` have their posterior means, flattened as in `joint`.

        Its covariance does not depend on the values of `given`.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {k: (0.0, 1.0) for k in (0, 1)})
        >>> round(posterior.conditional(1, given=0).covariance.item(), 4)  # 1 - 0.8**2
        0.36

        Raises as `joint`, GraphStructureError (sets that overlap).
        """
        return queries.conditional(self, names, given)

    def partial_correlation(
        self, first: Name, second: Name, given: Name | Sequence[Name] | None = None
    ) -> Tensor:
        """Correlation between matching elements of `first` and `second` once others are known, ``(*batch, *shape)``.

        In [-1, 1]. given: everything else (None; read from the precision, ``-Lambda_ij / sqrt(Lambda_ii Lambda_jj)``),
        or nodes. 0 where one of the elements is observed.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(3, (1,), ps.Correlation(0.5)), {k: (0.0, 1.0) for k in range(3)})
        >>> round(posterior.partial_correlation(0, 2).abs().item(), 6)  # node 1 carries all that they have in common
        0.0

        Raises ShapeError, UnknownNameError, GraphStructureError (sets that overlap).
        """
        return queries.partial_correlation(self, first, second, given)

    def entropy(self, names: Name | Sequence[Name] | None = None) -> Tensor:
        """Differential entropy of all sites, or of the nodes `names`, in nats, ``(*batch)``.

        Observed elements add nothing.

        >>> import math, pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {k: (0.0, 1.0) for k in (0, 1)})
        >>> abs(posterior.entropy(0).item() - math.log(2 * math.pi * math.e) / 2) < 1e-6  # of N(0, 1)
        True

        Raises UnknownNameError; CovarianceError where two nodes share elements.
        """
        return queries.entropy(self, names)

    def mutual_information(
        self,
        first: Name | Sequence[Name],
        second: Name | Sequence[Name],
        given: Name | Sequence[Name] | None = None,
    ) -> Tensor:
        """What the nodes `first` tell about `second` (once `given` is known), in nats, ``(*batch)``, >= 0 (Eq. 3).

        Observed elements are known already: they tell nothing, and make no difference in `given`.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {k: (0.0, 1.0) for k in (0, 1)})
        >>> round(posterior.mutual_information(0, 1).item(), 4)  # -log(1 - 0.8**2) / 2
        0.5108

        Raises as `entropy`, GraphStructureError (sets that overlap).
        """
        return queries.mutual_information(self, first, second, given)

    def sample(self, count: int, generator: torch.Generator | None = None) -> dict[Name, Tensor]:
        """Exact joint samples of all nodes, ``(count, *batch, *shape)`` each, from `generator` (None: torch's own).

        >>> import torch, pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {k: (0.0, 1.0) for k in (0, 1)})
        >>> samples = posterior.sample(10_000, torch.Generator().manual_seed(0))
        >>> round(torch.corrcoef(torch.stack([samples[0], samples[1]]).squeeze(-1))[0, 1].item(), 1)
        0.8

        Raises ParameterError (count < 1), UnsupportedError for a plan without a factor (conjugate gradients).
        """
        return queries.sample(self, count, generator)

    def uncertain_directions(self, count: int = 1) -> queries.Directions:
        """The `count` directions in which the posterior is widest, most uncertain first.

        >>> import pgm_sync as ps
        >>> posterior = ps.infer(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {k: (0.0, 1.0) for k in (0, 1)})
        >>> round(posterior.uncertain_directions().variance.item(), 4)  # both together: 1 + 0.8
        1.8

        Raises ParameterError where there are not so many, ConvergenceError.
        """
        return queries.uncertain_directions(self, count)

    def __repr__(self) -> str:
        batch = tuple(self._eta.shape[:-1])
        return f"Posterior({self.graph!r}, batch={batch})"

    def _repr_html_(self) -> str:
        return in_notebook("posterior", self)
