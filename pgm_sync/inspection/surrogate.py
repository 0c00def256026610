"""The Gaussian that the joint denoiser works with, as a function of the graph and the noise level alone.

With the surrogate ``C_i = (Sigma_ii^{-1} + snr I)^{-1}`` nothing in Eq. 5 and 5' depends on the sampled states but the
means, so covariances, correlations and the map from own to joint means are known before any run (Eq. 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from ..gaussian import Gaussian, cholesky
from ..graph.factor_graph import FactorGraph, Name
from ..inference import Plan, Posterior, compile, dense_joint, infer
from ..levels import variance_preserving
from ..potentials import Likelihood
from ..score import noise as noise_models
from ..score.carriers import find_carriers
from ..score.covariance import completed
from ..score.joint import NOISE_FACTOR, canvas_priors
from ..score.reduction import OwnPrior, own_prior, reduce

LARGEST_DENSE = 1024  # coupled features together, up to which covariances are one matrix
Snr = float | Mapping[Name, float]  # one for all trajectories, or each its own


class Surrogate:
    """Joint Gaussians of the coupled trajectories, in the features that their potentials see (Eq. 13).

    Parameters
    ----------
    graph
        a graph with fitted potentials.
    noise_correlation
        c of Eq. 5', as `sample` was given it. Trajectories on a canvas share its noise in any case.
    variance
        of the contents, where no potential states a marginal (Attraction).

    Raises ParameterError where a marginal is stated by nobody, UnsupportedError for a prior on a canvas itself
    (Eq. 11), and what compiling the graph raises.
    """

    def __init__(self, graph: FactorGraph, noise_correlation: float = 0.0, variance: float | None = None):
        graph.validate()
        self.graph = graph
        self.carriers = find_carriers(graph)
        if priors := canvas_priors(graph, self.carriers):
            canvas = next(iter(priors))
            raise UnsupportedError(
                f"canvas {canvas!r} has a prior of its own (Eq. 11), so its views have no correlations between them to "
                "show; ps.infer(graph) has those of the canvas",
                name=canvas,
            )
        self.reduction = reduce(graph)
        self.own = {name: self._own(name, variance) for name in self.reduction.features}
        self.noise: noise_models.FeatureNoise | None = None
        if self.reduction.features:
            self.noise = noise_models.canvas_noise(self.reduction, self.carriers)
            if self.noise is None:
                self.noise = noise_models.correlated_noise(self.reduction, noise_correlation)

    def _own(self, name: Name, variance: float | None) -> OwnPrior:
        own = own_prior(self.reduction.graph, name)
        if own.known:
            return own
        if variance is None:
            raise ParameterError(
                f"no potential around {name!r} states a marginal; pass variance=, that of its contents", name=name
            )
        return own._replace(precision=torch.full_like(own.precision, 1 / variance), known=True)

    @property
    def names(self) -> list[Name]:
        """The coupled trajectories, in order."""
        return list(self.reduction.features)

    @cached_property
    def _plan(self) -> Plan:
        return compile(self.reduction.graph)

    @cached_property
    def _noisy_plan(self) -> Plan:
        graph = self.reduction.graph.copy()
        graph.add_factor(NOISE_FACTOR, self.names, Likelihood())
        return compile(graph)

    @cached_property
    def _potentials(self) -> Gaussian:
        """``K = Sigma^{-1} - blockdiag(Sigma_ii^{-1})``, its eta, and the priors of hidden variables, dense."""
        return dense_joint(self.reduction.graph)

    @property
    def size(self) -> int:
        """Coupled features and hidden variables together."""
        return sum(math.prod(self.reduction.graph.shape(name)) for name in self.reduction.graph.variables)

    @property
    def is_small(self) -> bool:
        """Whether all coupled features fit one matrix."""
        return self.size <= LARGEST_DENSE

    @cached_property
    def _places(self) -> dict[Name, slice]:
        return places(self.reduction.graph)

    def place(self, name: Name) -> slice:
        """Where the features of a node lie among those of all coupled trajectories and hidden variables."""
        return self._places[name]

    @cached_property
    def coupled(self) -> Tensor:
        """Positions of the coupled trajectories among all features, ``(P,)``; the others are hidden variables'."""
        return torch.cat([torch.arange(self.place(n).start, self.place(n).stop) for n in self.names])

    def precision(self, name: Name, snr: Snr) -> Tensor:
        """``C_i^{-1}`` of the surrogate (Eq. 4) in features, ``(r,)`` of independent elements or ``(r, r)``."""
        own, ratio = self.own[name].precision, _of(snr, name)
        if ratio == 0:  # what nobody states and nobody couples: any precision serves
            return torch.where(own == 0, 1.0, own) if own.ndim == 1 else completed(own)
        return own + ratio if own.ndim == 1 else own + ratio * torch.eye(len(own), dtype=own.dtype)

    def _evidence(self, snr: Snr) -> dict[Name, tuple[Tensor, Tensor] | Gaussian]:
        """Eq. 4 with mean 0: covariances do not depend on it."""
        made: dict[Name, tuple[Tensor, Tensor] | Gaussian] = {}
        for name in self.names:
            precision, shape = self.precision(name, snr), self.reduction.graph.shape(name)
            zero = precision.new_zeros(len(precision))
            if precision.ndim == 1:
                made[name] = (zero.reshape(shape), precision.reshape(shape))
            else:
                made[name] = Gaussian(precision, zero, zero.sum())
        return made

    def posterior(self, snr: Snr) -> Covariances:
        """Covariances of x_0 given all noisy states (Eq. 5); ``snr=0``: of the joint prior g.

        Raises ImproperGraphError where it cannot be normalised, ParameterError on a negative ratio, UnsupportedError
        for ratios that differ between trajectories with shared noise.
        """
        ratios = self._ratios(snr)
        if self.is_small:
            precision = self.joint_precision(snr)
            factor, failed = torch.linalg.cholesky_ex(precision)
            if not bool(failed):
                return Covariances(self.reduction.graph, torch.cholesky_inverse(factor))
        return Covariances(self.reduction.graph, self.inferred(snr, ratios))

    def prior_root(self) -> tuple[Tensor, Tensor]:
        """Mean ``(P,)`` of the coupled trajectories under g, and the Cholesky factor ``(P, P)`` of its covariance.

        Raises ImproperGraphError.
        """
        covariance = self.posterior(0.0).matrix()
        index = self.coupled
        return (covariance @ self.prior_eta)[index], cholesky(covariance[index[:, None], index], "the prior covariance")

    @cached_property
    def prior_eta(self) -> Tensor:
        """eta of the joint prior g over all features, ``(P,)``."""
        eta = self._potentials.eta.clone()
        for name in self.names:
            eta[self.place(name)] += self.own[name].eta
        return eta

    def joint_precision(self, snr: Snr) -> Tensor:
        """Lambda of Eq. 5 and 5' over all coupled features and hidden variables, ``(P, P)``; perhaps indefinite."""
        precision = self._potentials.precision.clone()
        for name in self.names:
            own, place = self.precision(name, snr), self.place(name)
            precision[place, place] += torch.diag(own) if own.ndim == 1 else own
        ratios = self._ratios(snr)
        if self.noise is not None and ratios != {0.0}:
            precision[self.coupled[:, None], self.coupled] += self._likelihood(ratios).precision
        return precision

    def inferred(self, snr: Snr, ratios: set[float] | None = None) -> Posterior:
        """The same by the engine, for any size; says by name why a graph is improper."""
        ratios = self._ratios(snr) if ratios is None else ratios
        if self.noise is None or ratios == {0.0}:
            return infer(self._plan, self._evidence(snr))
        return infer(self._noisy_plan, {**self._evidence(snr), NOISE_FACTOR: self._likelihood(ratios)})

    def noise_alone(self, snr: Snr) -> Covariances | None:
        """What `posterior` were without potentials, by noise in common alone. None for independent noise."""
        ratios = self._ratios(snr)
        if self.noise is None or ratios == {0.0}:
            return None
        alone = FactorGraph()
        blocks = []
        for name in self.names:
            alone.add_trajectory(name, self.reduction.graph.shape(name))
            own = self.precision(name, snr)
            blocks.append(torch.diag(own) if own.ndim == 1 else own)
        precision = torch.block_diag(*blocks) + self._likelihood(ratios).precision
        return Covariances(alone, torch.cholesky_inverse(cholesky(precision, "the precision under shared noise")))

    def _ratios(self, snr: Snr) -> set[float]:
        return {_of(snr, name) for name in self.names}

    def _likelihood(self, ratios: set[float]) -> Gaussian:
        assert self.noise is not None
        if len(ratios) > 1:
            raise UnsupportedError(
                "trajectories with shared or correlated noise need one signal-to-noise ratio, not "
                f"{', '.join(f'{r:.4g}' for r in sorted(ratios)[:4])}"
            )
        level = variance_preserving(next(iter(ratios)))
        return noise_models.likelihood(self.noise, level, torch.zeros(sum(self.noise.sizes), dtype=torch.float64))

    def noise_covariance(self, first: Name, second: Name) -> Tensor:
        """The block R_ij of the features' noise, ``(r_i, r_j)``; zero between nodes for independent noise."""
        sizes = {name: f.out_size for name, f in self.reduction.features.items()}
        if self.noise is None:
            block = torch.eye if first == second else torch.zeros
            return block(sizes[first], sizes[second], dtype=torch.float64)
        starts = dict(zip(self.noise.names, torch.tensor([0, *self.noise.sizes]).cumsum(0).tolist(), strict=False))
        i, j = (slice(starts[name], starts[name] + sizes[name]) for name in (first, second))
        return self.noise.covariance[i, j]

    def gain(self, posterior: Covariances, snr: Snr, first: Name, second: Name) -> Tensor:
        """``d m_joint_i / d m_j = (Lambda^{-1})_ij C_j^{-1}``, noisy states fixed, ``(r_i, r_j)`` (Eq. 5 and 6)."""
        cross = posterior(first, second)
        precision = self.precision(second, snr)
        return cross * precision if precision.ndim == 1 else cross @ precision


class Covariances:
    """Covariances between the nodes of a reduced graph, from one matrix or from an inference."""

    def __init__(self, graph: FactorGraph, source: Tensor | Posterior):  # (P, P)
        self.graph, self.source = graph, source
        self._place = places(graph)

    def __call__(self, first: Name, second: Name) -> Tensor:
        """Of all elements of one node with all of another, ``(D_i, D_j)``."""
        if isinstance(self.source, Posterior):
            return self.source.cross_covariance(first, second)
        return self.source[self._place[first], self._place[second]]

    def matrix(self) -> Tensor:
        """Of all nodes, ``(P, P)``."""
        if isinstance(self.source, Posterior):
            return self.source.joint(self.graph.variables).covariance
        return self.source

    def variance(self, name: Name) -> Tensor:
        """Of all elements of a node, ``(D,)``."""
        if isinstance(self.source, Posterior):
            return self.source.variance[name].flatten()
        return self(name, name).diagonal()

    def elements(self, first: Name, i: Tensor, second: Name, j: Tensor) -> Tensor:
        """Of elements `i` of one node with elements `j` of another, ``(k,)``."""
        if isinstance(self.source, Posterior):
            return self.source.element_covariance(first, i, second, j)
        return self.source[self._place[first].start + i, self._place[second].start + j]


def places(graph: FactorGraph) -> dict[Name, slice]:
    """Where the elements of every node lie among those of all, in insertion order."""
    sizes = {name: math.prod(graph.shape(name)) for name in graph.variables}
    ends = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
    return {name: slice(a, b) for name, a, b in zip(sizes, ends, ends[1:], strict=False)}


def as_ratio(value: float, what: str = "snr") -> float:
    """A signal-to-noise ratio as a number. Raises ParameterError."""
    ratio = float(value)
    if not (0 <= ratio < math.inf):
        raise ParameterError(f"{what}={value!r} must be a finite number of at least 0", snr=value)
    return ratio


def _of(snr: Snr, name: Name) -> float:
    return as_ratio(snr[name] if isinstance(snr, Mapping) else snr)
