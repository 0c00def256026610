"""A posterior over fitted graphs (Eq. 17)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ...errors import ParameterError
from ...gaussian import canonical_correlations
from ...graph.factor_graph import FactorGraph, Name
from ...tables import in_notebook
from ..problem import Problem, potentials
from ..record import Fit
from ..selection import select_covariance
from .diagnostics import Diagnostics
from .draws import Draws
from .parts import Part, Statistics
from .predictive import PredictiveCheck, Replicates, compare, replicate
from .prior import Prior
from .prior_draws import draw_prior

REPLICATES = 200  # data sets simulated by predictive checks
LEVEL = 0.95  # of the intervals that go into the record, where ps.correlations finds them


class CredibleCorrelation(NamedTuple):
    """Posterior of the correlation of one mode between two ends of a factor."""

    factor: Name  # of the graph
    first: Name  # one end
    second: Name  # the other
    mode: str  # as the maps label it
    mean: float  # in (-1, 1)
    low: float  # of the central interval
    high: float  # of the central interval


@dataclass(frozen=True, eq=False, repr=False)
class BayesianFit:
    """Draws from the posterior of a graph's potentials; see `fit_bayesian`."""

    problem: Problem  # the graph's features and blocks
    samples: Tensor  # (n, P) features
    statistics: Statistics  # moments, all that the likelihood sees
    parts: list[Part]  # components of the graph
    prior: Prior  # of correlations and scales
    draws: Draws  # of all chains
    diagnostics: Diagnostics  # whether they can be trusted
    record: Fit  # without intervals, which `graph` adds

    def __repr__(self) -> str:
        chains, draws = self.draws.log_density.shape
        return f"BayesianFit({chains} x {draws} draws of {self.problem.graph!r}; {self.diagnostics})"

    def _repr_html_(self) -> str:
        return in_notebook("bayesian_fit", self)

    def __len__(self) -> int:
        """Number of draws, of all chains together."""
        return self.draws.log_density.numel()

    @cached_property
    def graph(self) -> FactorGraph:
        """The posterior mean: the model of the graph whose covariances on edges and nodes are the mean ones.

        Of all models of the graph it minimises the posterior expectation of the Kullback-Leibler divergence from the
        true one. Its record holds credible intervals, which `ps.correlations` shows.
        """
        size = len(self.statistics.unit)
        precision = torch.zeros(size, size, dtype=torch.float64)
        for k, part in enumerate(self.parts):
            network = nx.Graph(part.structure.edges)
            network.add_nodes_from(range(part.rows.shape[1]))
            alone: dict[object, Tensor] = {node: torch.tensor([node]) for node in network}
            for rows, covariance in zip(part.rows, self._covariances(k).mean(0), strict=True):
                precision[rows[:, None], rows] = select_covariance(covariance, network, alone).precision
        model = potentials(self.problem, self.statistics.mean, self._in_units(precision))
        record = self.record.to_dict()
        intervals: dict[str, list[list[float]]] = {}
        for row in self.correlations(LEVEL):
            intervals.setdefault(repr(row.factor), []).append([row.low, row.high])
        record["details"] = {**record["details"], "intervals": intervals}
        return self.problem.fitted(model, record)

    def draw(self, index: int) -> FactorGraph:
        """One draw as a graph with potentials, its mean drawn too.

        Raises ParameterError for an index out of range.
        """
        if not 0 <= index < len(self):
            raise ParameterError(f"draw {index} of {len(self)}", index=index)
        precision = self.precision(index)
        generator = torch.Generator().manual_seed((self.record.seed or 0) + 7919 * (index + 1))
        noise = torch.randn(len(precision), generator=generator, dtype=torch.float64)
        root = torch.linalg.cholesky(precision)
        shift = torch.linalg.solve_triangular(root.mT, noise[:, None], upper=True)[:, 0]
        mean = self.statistics.mean + shift / self.statistics.size**0.5
        record = {**self.record.to_dict(), "details": {**self.record.details, "draw": index}}
        return self.problem.fitted(potentials(self.problem, mean, precision), record)

    def precision(self, index: int) -> Tensor:
        """``(P, P)`` of draw number `index`, in content units: exactly zero off the graph."""
        size = len(self.statistics.unit)
        out = torch.zeros(size, size, dtype=torch.float64)
        for k, part in enumerate(self.parts):
            for rows, block in zip(part.rows, self.precisions(k, index, index + 1)[0], strict=True):
                out[rows[:, None], rows] = block
        return self._in_units(out)

    def edge_correlations(self, part: int) -> Tensor:
        """Of all draws, ``(chains, draws, M, E)``: modes and edges of ``parts[part]``."""
        return self.parts[part].structure.edge_correlations(self._free(part))

    def correlations(self, level: float = LEVEL) -> list[CredibleCorrelation]:
        """Every edge and mode as `ps.correlations` lists them, with central credible intervals of a level.

        Raises ParameterError unless ``0 < level < 1``.
        """
        if not 0 < level < 1:
            raise ParameterError(f"level={level} must lie between 0 and 1", level=level)
        graph, tails = self.problem.reduction.graph, torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()
        labels = self.labels
        rows = []
        for factor in self.problem.factors:
            for a, b in combinations(graph.scope(factor), 2):
                rho = self._between(a, b)
                low, high = torch.quantile(rho, tails, dim=0).tolist()
                modes = labels.get(a) or [str(k) for k in range(rho.shape[1])]
                if len(self.problem.blocks[a]) != len(self.problem.blocks[b]):
                    modes = [f"canonical {k}" for k in range(rho.shape[1])]
                rows += [
                    CredibleCorrelation(factor, a, b, *row)
                    for row in zip(modes, rho.mean(0).tolist(), low, high, strict=True)
                ]
        return rows

    @property
    def labels(self) -> dict[Name, list[str]]:
        """Names of the modes of every node."""
        return {name: m.labels() for name, m in self.problem.reduction.features.items()}

    @cached_property
    def prior_draws(self) -> Draws:
        """Draws from the prior, 4 chains of 500 (`prior_draws`)."""
        return draw_prior(self.parts, self.prior, (self.record.seed or 0) + 1)

    def replicate(self, draws: Draws, count: int = REPLICATES) -> Replicates:
        """Statistics of `count` data sets that evenly spaced `draws` produce, beside those of the data."""
        return replicate(self.parts, self.statistics, self.samples, draws, count, (self.record.seed or 0) + 2)

    def check(self, which: str = "posterior", count: int = REPLICATES) -> list[PredictiveCheck]:
        """Predictive checks of every edge, mode and statistic (correlation, cokurtosis).

        `which`: by draws of the "posterior" or of the "prior". `count` data sets are simulated. Raises ParameterError.
        """
        if which not in ("posterior", "prior"):
            raise ParameterError(f"which={which!r} is not 'posterior' or 'prior'", which=which)
        draws = self.draws if which == "posterior" else self.prior_draws
        return compare(self.parts, self.labels, self.replicate(draws, count))

    def to_arviz(self, replicates: int = REPLICATES) -> Any:
        """An ``arviz.InferenceData``.

        Groups posterior and prior (``rho`` by mode and edge, ``scale`` by mode and node, in units of the features),
        sample_stats, log_likelihood (by sample, or group), posterior_predictive and prior_predictive (the statistics of
        `check` in simulated data sets), observed_data (the same of the data). Where the graph has several components,
        the variables and dimensions of each have its number after their names. `replicates` data sets are simulated.
        Raises MissingPackageError.
        """
        from .export import inference_data

        return inference_data(self, replicates)

    def _between(self, a: Name, b: Name) -> Tensor:
        """Correlations of matching modes of two nodes in all draws, canonical where their numbers differ."""
        k = next(k for k, part in enumerate(self.parts) if a in part.names)
        part = self.parts[k]
        first, second = ([i for i, n in enumerate(part.names) if n == name] for name in (a, b))
        if len(part.rows) > 1 or len(first) == len(second) == 1:  # mode by mode
            edge = part.structure.edges.index((min(first[0], second[0]), max(first[0], second[0])))
            return self.edge_correlations(k)[..., edge].flatten(0, 1)
        covariance = self._covariances(k)[:, 0]
        if len(first) == len(second):
            scale = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
            return covariance[:, first, second] * scale[:, first] * scale[:, second]
        blocks = ((first, first), (first, second), (second, second))
        return canonical_correlations(*(covariance[:, a][:, :, b] for a, b in blocks))

    def _free(self, k: int) -> Tensor:
        modes = self.parts[k].rows.shape[0]
        empty = torch.zeros(*self.draws.log_density.shape, modes, 0, dtype=torch.float64)
        return self.draws.values.get(f"free{k}", empty)

    def precisions(self, k: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Of standardised features of component `k` in draws `start` to `stop` of all chains, ``(draws, M, K, K)``."""
        free = self._free(k).flatten(0, 1)[start:stop]
        precision = self.parts[k].structure.precision(free)
        scale = self.draws.values.get(f"scale{k}")
        if scale is None:
            return precision
        scale = scale.flatten(0, 1)[start:stop]
        return precision / (scale[..., :, None] * scale[..., None, :])

    def _covariances(self, k: int) -> Tensor:
        return torch.linalg.inv(self.precisions(k))

    def _in_units(self, precision: Tensor) -> Tensor:
        unit = self.statistics.unit
        return precision / (unit[:, None] * unit)
