"""Eq. 5 over the coupled features of a graph, in dense matrices and with every factor's strength adjustable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConvergenceError, CovarianceError, ImproperGraphError, UnsupportedError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..graph.marginals import full_covariance, node_marginal
from ..inference.dense import dense_information
from ..learning.selection import select_covariance
from ..maps import Identity, LinearMap
from ..potentials import Attraction, Correlation, Evidence, JointGaussian, Quadratic
from ..potentials.base import diagonal_blocks, sizes
from ..score import find_carriers
from ..score.noise import FeatureNoise, canvas_noise, correlated_noise
from ..score.posterior import PosteriorCovariance, as_posterior_covariance
from ..score.reduction import own_prior, reduce

LARGEST = 1024  # coupled features of a graph; beyond, inverses at forty noise levels take minutes

LARGEST_REFIT = 250  # features up to which a model with loops is fitted again when a factor is cut


class Term(NamedTuple):
    """One factor, and how its parameters follow a `strength`: 1 as it is, 0 cut.

    rule "covariance": the blocks between ends of the covariance are multiplied, own blocks stay (Eq. 2); "precision":
    all of it is multiplied (Attraction); "interaction": a factor of a maximum-likelihood model with loops (Eq. 14), in
    which the others make up for it: see `JointModel.cut`.
    """

    ends: list[Name]
    places: Tensor  # (q,) positions of all features of its ends
    rows: Tensor | None  # (b, q) what it sees of them; None: all of them as they are
    blocks: list[int]  # of the b numbers, how many belong to each end
    rule: str
    matrix: Tensor  # (b, b) covariance or precision
    vector: Tensor  # (b,) mean; with rule "precision", eta

    def information(self, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Precision ``(b, b)`` and eta ``(b,)``. Raises ImproperGraphError where the covariance has none."""
        if self.rule == "precision":
            return strength * self.matrix, strength * self.vector
        if self.rule == "interaction":
            return self.matrix, self.matrix @ self.vector
        covariance = between_scaled(self.matrix, self.blocks, strength)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            raise ImproperGraphError(f"a factor over {self.ends} has no covariance at strength {strength:g}")
        inverses = (torch.linalg.inv(block) for block in diagonal_blocks(covariance, self.blocks))
        precision = torch.cholesky_inverse(factor) - torch.block_diag(*inverses)
        return precision, precision @ self.vector

    def seen(self, matrix: Tensor) -> Tensor:  # (P, P) -> (b, b)
        """The part of a matrix over all features that the factor sees of it, ``B M B'``."""
        part = matrix[self.places[:, None], self.places]
        return part if self.rows is None else self.rows @ part @ self.rows.T

    @property
    def spans(self) -> list[slice]:
        """Where each end's numbers lie among the b."""
        edges = [0, *accumulate(self.blocks)]
        return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


@dataclass(frozen=True)
class JointModel:
    """``Lambda(snr) = blockdiag(C_i^{-1}) + K + snr (R^{-1} - I)`` with surrogate C_i (Eq. 5 and 5').

    P features: those of the coupled trajectories in order, then the elements of hidden variables. Where a method takes
    `strengths`, ``{factor: strength}``, 1 is a factor as it is and 0 cuts it (None: all as they are).

    >>> import pgm_sync as ps
    >>> model = ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).model
    >>> model.precision(snr=1.0).inverse().round(decimals=3)  # of (Sigma^{-1} + snr I)
    tensor([[0.4050, 0.2380],
            [0.2380, 0.4050]], dtype=torch.float64)
    """

    graph: FactorGraph  # over features
    features: dict[Name, LinearMap]  # per coupled trajectory
    slices: dict[Name, slice]  # per coupled trajectory and hidden variable
    terms: dict[Name, Term]  # factors over two ends or more
    own: Tensor  # (P, P) blockdiag(Sigma_ii^{-1})
    own_eta: Tensor  # (P,)
    constant: Tensor  # (P, P) priors of hidden variables, evidence
    constant_eta: Tensor  # (P,)
    visible: Tensor  # (P,) 1 for trajectories, 0 for hidden variables
    noise: FeatureNoise | None  # correlated noise (Eq. 5'); None: independent
    one_for_all: bool  # each feature stands for every element: the potentials treat them alike
    _cuts: dict[Name, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """P."""
        return len(self.own)

    @property
    def excess(self) -> Tensor:
        """``R^{-1} - I``, ``(P, P)``; zero for independent noise and for hidden variables."""
        zero = torch.zeros_like(self.own)
        if self.noise is not None:
            n = len(self.noise.covariance)
            zero[:n, :n] = self.noise.excess
        return zero

    def coupling(self, strengths: Mapping[Name, float] | None = None) -> tuple[Tensor, Tensor]:
        """K ``(P, P)`` and its eta ``(P,)``: all factors and priors of hidden variables, without snr."""
        precision, eta = (part.clone() for part in self._whole)
        for factor, strength in (strengths or {}).items():
            if strength == 1 or factor not in self.terms:
                continue
            term = self.terms[factor]
            if term.rule == "interaction":
                change, shift = self.cut(factor)
                precision += (1 - strength) * change
                eta += (1 - strength) * shift
            else:
                self.add(term, precision, eta, 1.0, -1)
                self.add(term, precision, eta, strength)
        return precision, eta

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        """K and eta with all factors as they are."""
        precision, eta = self.constant.clone(), self.constant_eta.clone()
        for term in self.terms.values():
            self.add(term, precision, eta)
        return precision, eta

    @staticmethod
    def add(term: Term, precision: Tensor, eta: Tensor, strength: float = 1.0, sign: int = 1) -> None:
        """Add what the factor `term` says to a `precision` ``(P, P)`` and `eta` ``(P,)``, in place.

        At a `strength`; with `sign` -1 it is taken away.
        """
        own, own_eta = term.information(strength)
        if term.rows is not None:
            own, own_eta = term.rows.T @ own @ term.rows, own_eta @ term.rows
        precision[term.places[:, None], term.places] += sign * own
        eta[term.places] += sign * own_eta

    def cut(self, factor: Name) -> tuple[Tensor, Tensor]:
        """What taking a factor out of a maximum-likelihood model with loops changes: K ``(P, P)`` and eta ``(P,)``.

        Factors of such a model (Eq. 14) share the work, and without one of them the rest alone can be improper. The
        model without it is therefore again the one of maximum likelihood: agreeing with this one on every clique that
        is left, zero precision between the ends of the factor. Strengths between multiply the difference, so they are
        proper. Above 250 features, with hidden variables, or where the fit does not converge, the factor is only left
        out.
        """
        if factor not in self._cuts:
            self._cuts[factor] = self._without(factor)
        return self._cuts[factor]

    def _without(self, factor: Name) -> tuple[Tensor, Tensor]:
        term, change = self.terms[factor], torch.zeros_like(self.own)
        precision = self.prior()
        mean = torch.linalg.solve(precision, self.own_eta + self.coupling()[1])
        if self.size <= LARGEST_REFIT and not self.graph.hidden and not bool(self.constant.any()):
            network = self.graph.subgraph([n for n in self.graph if n != factor]).markov_network()
            blocks = {name: torch.arange(here.start, here.stop) for name, here in self.slices.items()}
            try:
                refitted = select_covariance(torch.linalg.inv(precision), network, blocks).precision
                change = refitted - precision
                return change, change @ mean
            except (ConvergenceError, CovarianceError):
                pass
        shift = torch.zeros_like(self.own_eta)
        self.add(term, change, shift, sign=-1)
        return change, shift

    def prior(self, strengths: Mapping[Name, float] | None = None) -> Tensor:
        """``Sigma^{-1}``, ``(P, P)``."""
        return self.own + self.coupling(strengths)[0]

    def precision(self, snr: float, strengths: Mapping[Name, float] | None = None) -> Tensor:
        """Lambda at a signal-to-noise ratio, ``(P, P)``."""
        return self.prior(strengths) + snr * (torch.diag(self.visible) + self.excess)

    def solve(
        self, snr: float, own: Tensor, noisy: Tensor, strengths: Mapping[Name, float] | None = None
    ) -> Tensor:
        """Joint means ``(*batch, P)`` from `own` means and `noisy`, ``x_t / alpha``, both ``(*batch, P)`` (Eq. 6).

        Entries of hidden variables are not read. Raises ImproperGraphError where Lambda is not positive definite.
        """
        coupling, eta = self.coupling(strengths)
        unary = self.own + snr * torch.diag(self.visible)
        right = (own * self.visible) @ unary + snr * (noisy * self.visible) @ self.excess + eta
        factor, failed = torch.linalg.cholesky_ex(unary + coupling + snr * self.excess)
        if bool(failed):
            raise ImproperGraphError(
                f"with strengths {dict(strengths or {})} Eq. 5 is improper at snr {snr:g}"
            )
        return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)

    def own_means(self, snr: float, noisy: Tensor) -> Tensor:
        """Each trajectory's own Gaussian mean given `noisy`, ``x_t / alpha`` ``(*batch, P)`` (Eq. 4, surrogate)."""
        unary = self.own + torch.diag(torch.where(self.visible > 0, snr, 1.0))
        return torch.linalg.solve(unary, (self.own_eta + snr * noisy * self.visible).unsqueeze(-1)).squeeze(
            -1
        )

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A content of the model and noise of covariance R, ``(P,)``, from `generator`.

        ``x_t / alpha = content + noise / snr^.5``.
        """
        white = torch.randn(2, self.size, generator=generator, dtype=torch.float64)
        factor = torch.linalg.cholesky(self.prior())
        mean = torch.cholesky_solve((self.own_eta + self.coupling()[1]).unsqueeze(-1), factor).squeeze(-1)
        content = mean + torch.linalg.solve_triangular(factor.T, white[0].unsqueeze(-1), upper=True).squeeze(
            -1
        )
        noise = white[1] * self.visible
        if self.noise is not None:
            n = len(self.noise.covariance)
            noise[:n] = torch.linalg.cholesky(self.noise.covariance) @ noise[:n]
        return content, noise


def joint_model(
    graph: FactorGraph,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    noise_correlation: float = 0.0,
) -> JointModel:
    """The dense model of a graph with fitted potentials.

    Where every potential treats all elements alike, one element stands for all of them.

    Raises UnsupportedError, with the reason, for graphs that have none: a canvas with a prior of its own (Eq. 11),
    nothing coupled, more than 1,024 features, or potentials that state no marginal (give `posterior_covariance` as a
    number, the variance of the contents). UnfittedError, CovarianceError as the engine.
    """
    graph.validate()
    smaller = _one_element(graph)
    reduction = reduce(graph if smaller is None else smaller)
    reduced = reduction.graph
    if not reduction.features:
        raise UnsupportedError("no potential couples trajectories of this graph")
    total = sum(torch.Size(reduced.shape(name)).numel() for name in reduced.variables)
    if total > LARGEST:
        raise UnsupportedError(f"{total} coupled features are more than {LARGEST}", features=total)
    slices, start = {}, 0
    for name in [*reduction.features, *reduced.hidden]:
        stop = start + torch.Size(reduced.shape(name)).numel()
        slices[name], start = slice(start, stop), stop
    zero = torch.zeros(total, total, dtype=torch.float64)
    own, own_eta, constant, constant_eta = zero.clone(), zero[0].clone(), zero.clone(), zero[0].clone()
    variance = as_posterior_covariance(posterior_covariance, graph).prior_variance
    for name in reduction.features:
        prior, here = own_prior(reduced, name), slices[name]
        if prior.known:
            own[here, here] = torch.diag(prior.precision) if prior.precision.ndim == 1 else prior.precision
            own_eta[here] = prior.eta
        elif variance is not None:
            own[here, here] = torch.eye(here.stop - here.start, dtype=torch.float64) / variance
        else:
            raise UnsupportedError(
                f"no potential around {name!r} states its variance, which Eq. 5 needs; "
                "pass posterior_covariance=a number, the variance of the contents",
                name=name,
            )
    for name in reduced.hidden:
        stated = node_marginal(reduced, name)
        if stated is not None:
            rows, inverse = stated.map.dense(), torch.linalg.inv(full_covariance(stated.marginal))
            constant[slices[name], slices[name]] += rows.T @ inverse @ rows
            constant_eta[slices[name]] += rows.T @ inverse @ stated.marginal.mean
    terms = {}
    for factor in reduced.factors:
        term = _term(reduced, factor, slices)
        if len(term.ends) > 1:
            terms[factor] = term
            continue
        JointModel.add(term, constant, constant_eta)
    carriers = find_carriers(graph if smaller is None else smaller)
    noise = canvas_noise(reduction, carriers) or correlated_noise(reduction, noise_correlation)
    visible = torch.zeros(total, dtype=torch.float64)
    for name in reduction.features:
        visible[slices[name]] = 1
    return JointModel(
        reduced, reduction.features, slices, terms, own, own_eta, constant, constant_eta, visible, noise,
        smaller is not None,
    )  # fmt: skip


def _term(graph: FactorGraph, factor: Name, slices: Mapping[Name, slice]) -> Term:
    potential, maps, scope = graph.potential(factor), graph.maps(factor), graph.scope(factor)
    places = torch.cat([torch.arange(slices[end].start, slices[end].stop) for end in scope])
    plain = all(isinstance(m, Identity) for m in maps)
    rows = None if plain else torch.block_diag(*(m.dense() for m in maps))
    shapes = [m.out_shape for m in maps]
    blocks = sizes(shapes)
    if isinstance(potential, JointGaussian) and potential.interaction is not None:
        assert potential.mean is not None
        return Term(
            scope,
            places,
            rows,
            blocks,
            "interaction",
            potential.interaction.double(),
            potential.mean.double(),
        )
    if isinstance(potential, JointGaussian) and potential.covariance is not None:
        assert potential.mean is not None
        return Term(
            scope, places, rows, blocks, "covariance", potential.covariance.double(), potential.mean.double()
        )
    if isinstance(potential, Correlation):
        stated = [m for m in potential.marginals(shapes) if m is not None]
        mean = torch.cat([m.mean for m in stated])
        first, second = (m.covariance for m in stated)
        rho = torch.as_tensor(potential.rho, dtype=torch.float64).expand(shapes[0]).reshape(-1)
        cross = torch.diag(rho * (first * second).sqrt())
        covariance = torch.cat(
            [torch.cat([torch.diag(first), cross], 1), torch.cat([cross, torch.diag(second)], 1)]
        )
        return Term(scope, places, rows, blocks, "covariance", covariance, mean)
    own = dense_information(potential, factor, shapes)
    return Term(scope, places, rows, blocks, "precision", own.precision, own.eta)


def between_scaled(matrix: Tensor, blocks: Sequence[int], factor: float) -> Tensor:
    """A matrix over ends of the given sizes with everything between different ends multiplied."""
    own = torch.block_diag(*(torch.ones(n, n, dtype=matrix.dtype) for n in blocks))
    return matrix * (own + factor * (1 - own))


def _one_element(graph: FactorGraph) -> FactorGraph | None:
    """The graph of one element, where potentials are elementwise with the same numbers for all; else None."""
    smaller = FactorGraph()
    if len({graph.shape(name) for name in graph.variables}) != 1 or graph.shape(graph.variables[0]) == (1,):
        return None
    for name in graph.variables:
        if graph.nodes[name]["kind"] == "trajectory":
            smaller.add_trajectory(name, 1)
        else:
            smaller.add_variable(name, 1)
    for factor in graph.factors:
        potential = graph.potential(factor)
        numbers = {
            Correlation: lambda p: (p.rho, p.variance, p.mean),
            Attraction: lambda p: (p.precision,),
            Evidence: lambda p: (p.value, p.precision, p.mask),
        }.get(type(potential))
        if isinstance(potential, Quadratic):
            alike = potential.precision.ndim == 2 and (potential.eta is None or potential.eta.ndim == 1)
        elif numbers is None:
            return None
        else:
            alike = not any(isinstance(v, Tensor) and v.ndim for v in _flat(numbers(potential)))
        if not alike or not all(isinstance(m, Identity) for m in graph.maps(factor)):
            return None
        smaller.add_factor(factor, graph.scope(factor), potential)
    return smaller


def _flat(values: Sequence[object]) -> list[object]:
    return [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
