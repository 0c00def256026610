"""Questions to a graph, each answered by one call: who influences whom, who is separated, what an edge does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import ImproperGraphError, PgmSyncError, UnknownNameError, UnsupportedError, listed
from ..gaussian import canonical_correlations
from ..graph.factor_graph import FactorGraph, Name
from ..graph.separation import names_of
from ..learning.selection import select_covariance
from ..tables import Table
from .coupling import leading
from .forces import Term, terms
from .surrogate import Covariances, Snr, Surrogate, places

LARGEST = 3000  # coupled features together that are looked at as one matrix


# ---- influence -----------------------------------------------------------------------------------------------


class Influence(NamedTuple):
    """What one node does to another; a row of `influence`.

    >>> import pgm_sync as ps
    >>> strongest = ps.influence(ps.chain_graph(3, 1, ps.Correlation(0.8)), 0, snr=0.0)[0]
    >>> strongest.name, round(strongest.strength, 3), strongest.factors
    (1, 0.8, 1)
    """

    name: Name  # of the other node
    strength: float  # of d m_joint / d m_name, in standard deviations of the prior; nan for hidden variables
    mutual_information: float  # nats between the clean contents once all noisy states are known
    prior_information: float  # nats between the clean contents under the joint model
    factors: int | None  # on a shortest path; None where there is none


class InfluenceTable(Table[Influence]):
    """Rows of `influence`, strongest first; prints as a table.

    >>> import pgm_sync as ps
    >>> table = ps.influence(ps.chain_graph(4, 1, ps.Correlation(0.5)), 0, snr=0.0)
    >>> [(row.name, row.factors, round(row.strength, 3)) for row in table]  # half of it is lost at every factor
    [(1, 1, 0.5), (2, 2, 0.25), (3, 3, 0.125)]
    """

    head = ("from", "strength", "nats", "nats before noise", "factors between")

    def cells(self, row: Influence) -> list[str]:
        """What a row shows."""
        numbers = ("" if math.isnan(v) else f"{v:.4f}" for v in row[1:4])
        return [repr(row.name), *numbers, "none" if row.factors is None else str(row.factors)]


def influence(
    graph: FactorGraph,
    name: Name,
    snr: Snr = 1.0,
    *,
    noise_correlation: float = 0.0,
    variance: float | None = None,
) -> InfluenceTable:
    """Which nodes of `graph` influence `name` at a noise level, and how much; strongest first, hidden variables last.

    ``strength`` is the largest singular value of ``d m_joint / d m_j = (Lambda^{-1})_ij C_j^{-1}``, in standard
    deviations of the prior: by how much the joint mean of `name` moves where the denoiser of j says something else
    (Eq. 5 and 6, surrogate of Eq. 4; noisy states fixed, beyond what noise in common does). Along paths it fades with
    every factor and with snr. `snr` is one ratio, or one per trajectory; 0 is the joint prior. All numbers are of the
    features that potentials couple: nan for views of one canvas between which there is no potential.
    `noise_correlation` and `variance` are c of Eq. 5' and the variance of contents of which no potential states a
    marginal.

    >>> import pgm_sync as ps
    >>> print(ps.influence(ps.chain_graph(3, 1, ps.Correlation(0.8)), 0, snr=0.0))
    from  strength  nats    nats before noise  factors between
    1     0.8000    0.5108  0.5108             1
    2     0.6400    0.2635  0.2635             2

    Raises UnknownNameError, ParameterError, ImproperGraphError; UnsupportedError for more than 3,000 coupled features.
    """
    graph.shape(name)
    model = Surrogate(graph, noise_correlation, variance)
    hops = nx.single_source_shortest_path_length(graph, name)
    coupled = name in model.reduction.graph
    if coupled:
        _require_matrix(model, "influence")
        prior, posterior, alone = model.posterior(0.0), model.posterior(snr), model.noise_alone(snr)
    rows = []
    views = model.carriers.views
    for other in graph.variables:
        if other == name or (other in graph.hidden and other in views):  # a canvas is what its views show
            continue
        steps = hops[other] // 2 if other in hops else None
        if not coupled or other not in model.reduction.graph:
            both = name in views and other in views and views[name].carrier == views[other].carrier
            rows.append(Influence(other, *((math.nan if both else 0.0,) * 3), steps))
            continue
        strength = math.nan
        if {name, other} <= set(model.names):
            moved = model.gain(posterior, snr, name, other)
            if alone is not None:
                moved = moved - model.gain(alone, snr, name, other)
            strength = _norm(prior, moved, name, other)
        rows.append(
            Influence(other, strength, _information(posterior, name, other), _information(prior, name, other), steps)
        )
    known = [row for row in rows if not math.isnan(row.strength)]
    hidden = [row for row in rows if math.isnan(row.strength)]
    known.sort(key=lambda row: -row.strength)
    hidden.sort(key=lambda row: -row.prior_information)
    return InfluenceTable([*known, *hidden])


def _norm(prior: Covariances, moved: Tensor, first: Name, second: Name) -> float:
    """Largest singular value of a map of means, both ends in standard deviations of the prior."""
    left, right = (torch.linalg.cholesky(prior(name, name)) for name in (first, second))
    return torch.linalg.matrix_norm(torch.linalg.solve_triangular(left, moved @ right, upper=False), 2).item()


def _information(covariances: Covariances, first: Name, second: Name) -> float:
    cross = covariances(first, second)
    if not bool(cross.abs().max() > 0):
        return 0.0
    rho = canonical_correlations(covariances(first, first), cross, covariances(second, second))
    return -0.5 * torch.log1p(-rho.square()).sum().item()


def _require_matrix(model: Surrogate, what: str) -> None:
    if model.size > LARGEST:
        raise UnsupportedError(
            f"{what} looks at {model.size} coupled features as one matrix, more than {LARGEST}; couple fewer features "
            "(DCT maps), or ask about a part: graph.subgraph of some nodes and their factors",
            size=model.size,
        )


# ---- separation ----------------------------------------------------------------------------------------------


class Separation(NamedTuple):
    """Whether two sets of nodes are separated by a third, and why; true where they are.

    >>> import pgm_sync as ps
    >>> answer = ps.separation(ps.chain_graph(3, 1, ps.Correlation(0.8)), 0, 2, given=1)
    >>> bool(answer), answer.blocking, round(answer.information, 6)
    (True, [1], 0.0)
    """

    separated: bool
    path: list[Name] | None  # a shortest open path of nodes and factors; None where separated
    blocking: list[Name]  # of the given nodes, those that are needed: none of them can be left out
    cut: list[Name] | None  # a smallest set of further nodes that would separate; None where nothing does
    information: float  # nats between the two sets under the joint prior, given the third; nan where it is not known

    def __bool__(self) -> bool:
        return self.separated

    def __str__(self) -> str:
        nats = "" if math.isnan(self.information) else f"; {self.information:.4f} nats between them"
        if self.separated:
            by = f"every path passes {listed(self.blocking)}" if self.blocking else "no path joins them"
            return f"separated: {by}{nats}"
        assert self.path is not None
        more = "nothing separates nodes of one factor"
        if self.cut is not None:
            more = f"{listed(self.cut)} would separate them"
        return f"not separated: {' - '.join(map(str, self.path))} is open; {more}{nats}"


def separation(graph: FactorGraph, a: Any, b: Any, given: Any = ()) -> Separation:
    """`FactorGraph.separated` of `graph` with reasons: an open path and what would close it, or the nodes that do.

    The sides `a` and `b`, and what is `given`, are a name or a collection of names each. ``information`` is the
    conditional mutual information under the joint prior, 0 wherever the sets are separated; it may also be 0 where they
    are not, through correlations of 0.

    >>> import pgm_sync as ps
    >>> print(ps.separation(ps.chain_graph(3, 1, ps.Correlation(0.8)), 0, 2))
    not separated: 0 - (0, 1) - 1 - (1, 2) - 2 is open; 1 would separate them; 0.2635 nats between them

    Raises UnknownNameError, ParameterError (an empty side), GraphStructureError (sets that overlap).
    """
    path = graph.connecting_path(a, b, given)
    first, second = names_of(graph, a, "a"), names_of(graph, b, "b")
    known = names_of(graph, given, "given", empty=True)
    blocking: list[Name] = []
    if path is None:
        blocking = list(known)
        for name in known:
            rest = [other for other in blocking if other != name]
            if graph.separated(first, second, rest):
                blocking = rest
    cut = None if path is None else _cut(graph, first, second, known)
    return Separation(path is None, path, blocking, cut, _given_information(graph, first, second, known))


def _cut(graph: FactorGraph, first: Sequence[Name], second: Sequence[Name], known: Sequence[Name]) -> list[Name] | None:
    """A minimum vertex cut between two sets (Menger), None where they share a factor."""
    source, target = object(), object()
    role = {**dict.fromkeys(first, source), **dict.fromkeys(second, target)}
    network = nx.Graph()
    for u, v in graph.markov_network().edges:
        if u not in known and v not in known:
            network.add_edge(role.get(u, u), role.get(v, v))
    if network.has_edge(source, target):
        return None
    network.remove_edges_from(list(nx.selfloop_edges(network)))
    found = nx.minimum_node_cut(network, source, target)
    return [name for name in graph.variables if name in found]


def _given_information(
    graph: FactorGraph, first: Sequence[Name], second: Sequence[Name], known: Sequence[Name]
) -> float:
    try:
        model = Surrogate(graph)
        if model.size > LARGEST or model.carriers.shared:  # views of a canvas share more than features
            return math.nan
        inside = model.reduction.graph
        sides = [[n for n in side if n in inside] for side in (first, second, known)]
        if not sides[0] or not sides[1]:
            return 0.0
        return model.inferred(0.0).mutual_information(sides[0], sides[1], sides[2] or None).item()
    except PgmSyncError:  # unfitted, improper, or without marginals: the answer is that of the graph alone
        return math.nan


# ---- removal -------------------------------------------------------------------------------------------------


def without(graph: FactorGraph, *factors: Name) -> FactorGraph:
    """A copy of the `graph` that lacks some `factors`; all nodes stay.

    With a factor goes what it says of each of its ends alone; `inspection.rescaled` at strength 0 keeps that.

    >>> import pgm_sync as ps
    >>> rest = ps.without(ps.chain_graph(3, 1, ps.Correlation(0.8)), (0, 1))
    >>> rest.factors, rest.separated(0, 2)
    ([(1, 2)], True)

    Raises UnknownNameError.
    """
    for factor in factors:
        graph.potential(factor)
    copy = graph.copy()
    copy.remove_nodes_from(factors)
    return copy


class Changed(NamedTuple):
    """Two nodes with and without a factor; a row of `Removal.correlations`.

    >>> import pgm_sync as ps
    >>> row = ps.removal(ps.chain_graph(2, 1, ps.Correlation(0.8)), (0, 1)).correlations[0]
    >>> round(row.before, 3), round(row.after, 3)
    (0.8, 0.0)
    """

    first: Name  # one node
    second: Name  # the other
    before: float  # largest canonical correlation given the noisy states, with the factor
    after: float  # without it


class ChangedTable(Table[Changed]):
    """Correlations with and without a factor, those that change most first; prints as a table.

    >>> import pgm_sync as ps
    >>> len(ps.removal(ps.chain_graph(3, 1, ps.Correlation(0.8)), (0, 1)).correlations)  # pairs of nodes
    3
    """

    head = ("nodes", "with", "without")

    def cells(self, row: Changed) -> list[str]:
        """What a row shows."""
        return [f"{row.first!r} - {row.second!r}", f"{row.before:+.3f}", f"{row.after:+.3f}"]


class Removal(NamedTuple):
    """What taking a factor away changes; the answer of `removal`.

    >>> import pgm_sync as ps
    >>> found = ps.removal(ps.chain_graph(3, 1, ps.Correlation(0.8)), (0, 1))
    >>> print(found.correlations)
    nodes  with    without
    0 - 1  +0.800  +0.000
    0 - 2  +0.640  +0.000
    1 - 2  +0.800  +0.800
    >>> found.graph.factors
    [(1, 2)]
    """

    factor: Name  # what was taken away
    snr: Snr  # ``alpha^2 / sigma^2``, one for all trajectories or one of each
    kl: float  # nats, of the model without the factor from that with it; expected over noisy states
    mean_change: dict[Name, float]  # per trajectory: RMS change of the joint mean, in standard deviations of the prior
    correlations: ChangedTable  # of every pair of nodes, those that change most first
    graph: FactorGraph  # without the factor

    def __str__(self) -> str:
        worst = sorted(self.mean_change, key=lambda n: -self.mean_change[n])[:4]
        moved = ", ".join(f"{name!r} by {self.mean_change[name]:.3f}" for name in worst)
        seen = f"means move {moved} standard deviations" if self.snr else "nothing is seen at snr 0, so no mean moves"
        return (
            f"without {self.factor!r} at snr {self.snr}: {self.kl:.4f} nats away; {seen}\n"
            f"largest canonical correlations, given states at snr {self.snr}:\n{self.correlations}"
        )


def removal(
    graph: FactorGraph,
    factor: Name,
    snr: Snr = 0.0,
    *,
    refit: bool = False,
    noise_correlation: float = 0.0,
    variance: float | None = None,
) -> Removal:
    """What would change if `factor` were removed, at a noise level.

    The two models are Gaussians over x_0 given noisy states (Eq. 5, surrogate of Eq. 4, marginals as stated with the
    factor); noisy states are those of the model with the factor. ``kl`` is the expectation of ``KL(with || without)``
    and ``mean_change`` the RMS over these noisy states. At snr=0, the default, noisy states say nothing, and the two
    joint priors are compared.

    With `refit` the other factors make up for it as well as they can: the model without is the one nearest in KL whose
    edges are those that are left (covariance selection, Eq. 14, of the joint prior). Its correlations along kept edges
    are the same, and at snr=0 ``kl`` is what the edge alone tells. Factors that were fitted together on a loopy graph
    often need it: the rest by itself may be improper. `noise_correlation` and `variance` are c of Eq. 5' and the
    variance of contents of which no potential states a marginal.

    >>> import pgm_sync as ps
    >>> found = ps.removal(ps.chain_graph(3, 1, ps.Correlation(0.8)), (0, 1))
    >>> round(found.kl, 4), [round(row.after, 4) for row in found.correlations]
    (0.5108, [0.0, 0.0, 0.8])

    Raises UnknownNameError for what is no factor with a density, ImproperGraphError where one of the models cannot be
    normalised, ParameterError, UnsupportedError for more than 3,000 coupled features.
    """
    cut = without(graph, factor)
    model = Surrogate(graph, noise_correlation, variance)
    reduced = model.reduction.graph
    if factor not in reduced:
        raise UnknownNameError(
            f"factor {factor!r} has no density of its own to remove (Equality joins elements); the others are "
            f"{listed(reduced.factors)}",
            name=factor,
        )
    _require_matrix(model, "removal")
    (term,) = (term for term in terms(reduced) if term.factor == factor)
    precision, eta = model.joint_precision(snr), model.prior_eta
    prior = _inverse(model.joint_precision(0.0), reduced, None)
    if refit:
        rest_prior = _selected(prior, reduced, factor)
        part, part_eta = model.joint_precision(0.0) - rest_prior, eta - rest_prior @ (prior @ eta)
    else:
        part, part_eta = _dense(reduced, term)
    kept, lost = _inverse(precision, reduced, None), _inverse(precision - part, reduced, factor)
    # Seen features y = x_0 + noise / sqrt(snr) enter eta as  W y,  W = snr R^{-1}
    weight = precision - model.joint_precision(0.0)
    center, spread = prior @ eta, weight @ prior @ weight + weight
    after_eta = eta - part_eta
    change = kept @ (eta + weight @ center) - lost @ (after_eta + weight @ center)
    gap = kept - lost
    moved = gap @ spread @ gap + torch.outer(change, change)  # E of the change times itself
    rest = precision - part
    kl = 0.5 * (
        torch.trace(rest @ kept) - len(rest) + torch.logdet(precision) - torch.logdet(rest) + torch.trace(rest @ moved)
    )
    before, after, clean = (Covariances(reduced, matrix) for matrix in (kept, lost, prior))
    means = {}
    for name in model.names:
        place = model.place(name)
        white = torch.linalg.solve(clean(name, name), moved[place, place])
        means[name] = math.sqrt(max(torch.trace(white).item(), 0.0) / len(white))
    nodes = combinations(reduced.variables, 2)
    rows = [Changed(a, b, _correlation(before, a, b), _correlation(after, a, b)) for a, b in nodes]
    rows.sort(key=lambda row: -abs(row.before - row.after))
    return Removal(factor, snr, kl.item(), means, ChangedTable(rows), cut)


def _dense(graph: FactorGraph, term: Term) -> tuple[Tensor, Tensor]:
    """The share of one factor in the joint precision ``(P, P)`` and eta ``(P,)``, by its pulls at unit contents."""
    where = places(graph)
    size = max(place.stop for place in where.values())
    own = torch.cat([torch.arange(where[name].start, where[name].stop) for name in term.scope])
    rows = torch.cat([torch.zeros(1, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)[own]])
    contents = {name: rows[:, where[name]].reshape(-1, *graph.shape(name)) for name in term.scope}
    pulls, _ = term.evaluate(contents)
    flat = torch.zeros_like(rows)
    for name, pull in pulls.items():
        flat[:, where[name]] = pull.flatten(1)
    precision = torch.zeros(size, size, dtype=torch.float64)
    precision[own] = flat[0] - flat[1:]
    return precision, flat[0]


def _selected(covariance: Tensor, graph: FactorGraph, factor: Name) -> Tensor:
    """The precision nearest to a joint Gaussian, with zeros where `factor` alone made an edge."""
    blocks = {name: torch.arange(place.start, place.stop) for name, place in places(graph).items()}
    return select_covariance(covariance, without(graph, factor).markov_network(), blocks).precision


def _inverse(precision: Tensor, graph: FactorGraph, removed: Name | None) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(precision)
    if not bool(failed):
        return torch.cholesky_inverse(factor)
    values, vectors = torch.linalg.eigh(precision)
    nodes = [name for name, place in places(graph).items() if vectors[place, 0].norm() > 0.1]
    which, cure = "the joint model", "ps.culprits(graph) names the factors"
    if removed is not None:
        which = f"the joint model without factor {removed!r}"
        cure = "with refit=True the other factors make up for it"
    raise ImproperGraphError(
        f"{which} is improper (smallest eigenvalue {values[0]:.3g}, along {listed(nodes)}); {cure}",
        nodes=nodes,
        smallest_eigenvalue=values[0].item(),
    )


def _correlation(of: Covariances, first: Name, second: Name) -> float:
    return leading(of(first, first), of(first, second), of(second, second))


# ---- culprits ------------------------------------------------------------------------------------------------


class Culprits(NamedTuple):
    """Factors that keep a graph from being normalisable.

    >>> import pgm_sync as ps
    >>> graph = ps.complete_graph(4, 1, ps.Correlation(0.9))
    >>> found = ps.culprits(graph)
    >>> found.proper, found.curable, len(found.factors)
    (False, True, 2)
    >>> ps.culprits(ps.without(graph, *found.factors)).proper
    True
    """

    factors: list[Name]  # whose removal makes it proper, none of them to spare; none where it is proper
    eigenvalue: float  # the smallest of the joint precision
    after: float  # the smallest without these factors
    nodes: dict[Name, float]  # the worst direction: the share of each node in it, largest first
    proper: bool  # whether the graph is proper as it is
    curable: bool  # whether removing factors makes it proper; if not, nothing fixes the direction of `nodes`

    def __str__(self) -> str:
        if self.proper:
            return f"proper: the smallest eigenvalue of the joint precision is {self.eigenvalue:.3g}"
        along = ", ".join(f"{name!r} ({share:.2f})" for name, share in list(self.nodes.items())[:4])
        if not self.curable:
            return (
                f"improper ({self.eigenvalue:.3g} along {along}) whatever factors are removed: give evidence or a prior"
            )
        return (
            f"improper ({self.eigenvalue:.3g} along {along}); without {listed(self.factors)} the smallest eigenvalue "
            f"is {self.after:.3g}"
        )


def culprits(
    graph: FactorGraph, snr: float = 0.0, *, noise_correlation: float = 0.0, variance: float | None = None
) -> Culprits:
    """Which factors make a graph unnormalisable: a set whose removal restores positive definiteness, none to spare.

    The joint precision is that of Eq. 5 with the surrogate; at snr=0, the default, it is that of the joint prior g,
    which must be proper for Eq. 8 to hold. Factors go one by one, first the one that takes most from the worst
    direction; then those that turn out not to be needed come back. The set is minimal, not always the smallest one.
    `noise_correlation` and `variance` are c of Eq. 5' and the variance of contents of which no potential states a
    marginal.

    >>> import pgm_sync as ps
    >>> found = ps.culprits(ps.complete_graph(4, 1, ps.Correlation(0.9)))
    >>> round(found.eigenvalue, 3), len(found.factors), round(found.after, 3)
    (-0.421, 2, 0.053)

    Raises ParameterError where no potential states a marginal (pass variance=), UnsupportedError for more than 3,000
    coupled features.
    """
    model = Surrogate(graph, noise_correlation, variance)
    reduced = model.reduction.graph
    if not reduced.variables:
        return Culprits([], math.inf, math.inf, {}, True, True)
    _require_matrix(model, "culprits")
    precision = model.joint_precision(snr)
    floor = 1e-10 * float(precision.diagonal().abs().max())  # what rounding leaves of a zero
    value, direction = _lowest(precision)
    share = {name: direction[place].norm().item() for name, place in places(reduced).items()}
    nodes = dict(sorted(share.items(), key=lambda item: -item[1]))
    if value > floor:
        return Culprits([], value, value, nodes, True, True)
    parts = {term.factor: _dense(reduced, term)[0] for term in terms(reduced)}
    left, removed, low, worst = precision.clone(), list[Name](), value, direction
    while low <= floor and len(removed) < len(parts):
        taken = {f: (worst @ part @ worst).item() for f, part in parts.items() if f not in removed}
        factor = min(taken, key=lambda f: taken[f])
        removed.append(factor)
        left = left - parts[factor]
        low, worst = _lowest(left)
    if low <= floor:
        return Culprits([], value, low, nodes, False, False)
    for factor in list(removed):
        back, _ = _lowest(left + parts[factor])
        if back > floor:
            left, low = left + parts[factor], back
            removed.remove(factor)
    return Culprits(removed, value, low, nodes, False, True)


def _lowest(precision: Tensor) -> tuple[float, Tensor]:
    values, vectors = torch.linalg.eigh(precision)
    return values[0].item(), vectors[:, 0]
