"""Features learned from joint clean samples, and how many of them to couple (Eq. 13)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import ConvergenceError, CovarianceError, ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import DCT, Features, LinearMap
from ..potentials import JointGaussian
from .estimate import BETWEEN, CHOICES, bootstrap, estimate_model, information_gain
from .estimate import folds as make_folds
from .problem import contents, features, group_labels, pose
from .shrinkage import Shrinkage

COMPONENTS = 64
RIDGES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
RIDGE_FOLDS = 3
RIDGE_BETWEEN = (0.0, 0.4, 0.7, 0.9)  # shrinkage, of which the best counts for a ridge
DEPENDENT = 1e-6  # squared length, of 1, that is left of a direction by those taken before it

Take = Callable[[int], dict[Name, LinearMap]]  # the best so many features of every trajectory


def pca_features(graph: FactorGraph, data: Mapping[Name, Any], count: int) -> FactorGraph:
    """The `count` leading principal components of every trajectory.

    A copy of `graph` whose unfitted `JointGaussian` factors see these in the place of the maps they had. Principal
    components are where a trajectory varies most, which need not be where it goes with others.

    Raises as `fit` on data, ParameterError where the data do not span `count` directions, UnsupportedError for fitted
    factors.

    Contents that vary in their first number most:

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 1.0])
    >>> graph = ps.pca_features(ps.chain_graph(2, shape=(3,)), {0: x, 1: x.flip(0)}, count=1)
    >>> graph.maps((0, 1))[0].basis.abs().round(decimals=1)
    tensor([[1., 0., 0.]], dtype=torch.float64)
    """
    whole = _whole(graph, data)
    return with_features(graph, _principal_features(graph, whole, torch.zeros(0), 0)(count))


def canonical_features(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    count: int,
    *,
    components: int = COMPONENTS,
    ridge: float | None = None,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> FactorGraph:
    """The `count` directions of every trajectory that say most about its neighbours [Hotelling1936]_.

    A copy of `graph` whose unfitted `JointGaussian` factors see these in the place of the maps they had. Canonical
    directions are found for every edge; a trajectory with several edges has one feature map: the directions of all its
    edges, largest canonical correlation first, made orthonormal one after the other (they span what the canonical
    directions span, so no information is lost, and noise stays white).

    Parameters
    ----------
    components
        principal components of each trajectory within which directions are sought.
    ridge
        added to the variance of every component, in units of the mean variance of a trajectory's numbers [Vinod1976]_.
        From few samples, directions of little variance are correlated by chance; with a large ridge the directions
        become those of largest covariance. By default chosen by cross-validation, for the most information captured on
        samples not seen.
    data
        ``{trajectory: (n, *shape)}``, as for `fit_moments`.
    groups, seed
        of the samples, for the folds of that choice.

    Raises as `pca_features`, and ParameterError where all edges of a trajectory together have fewer directions.

    Contents that share their last number, which varies least:

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> first, second = torch.randn(2, 1000, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.5])
    >>> second[:, 2] = first[:, 2]
    >>> graph = ps.canonical_features(ps.chain_graph(2, shape=(3,)), {0: first, 1: second}, count=1)
    >>> graph.maps((0, 1))[0].basis.abs().round(decimals=1)
    tensor([[0., 0., 1.]], dtype=torch.float64)
    """
    whole = _whole(graph, data)
    labels = group_labels(len(next(iter(whole.values()))), groups)
    return with_features(graph, _canonical_features(graph, whole, labels, seed, components, ridge)(count))


def _cosine_features(graph: FactorGraph, whole: Mapping[Name, Tensor], labels: Tensor, seed: int) -> Take:
    return lambda count: {name: DCT(graph.shape(name), count) for name in whole}


def _principal_features(graph: FactorGraph, whole: Mapping[Name, Tensor], labels: Tensor, seed: int) -> Take:
    bases = {name: _principal(x.flatten(1).double()) for name, x in whole.items()}
    return lambda count: {name: _as_features(graph, name, basis, count) for name, basis in bases.items()}


def _canonical_features(
    graph: FactorGraph,
    whole: Mapping[Name, Tensor],
    labels: Tensor,
    seed: int,
    components: int = COMPONENTS,
    ridge: float | None = None,
) -> Take:
    network = pose(graph).network
    bases, scores, units = {}, {}, {}
    for name, x in whole.items():
        flat = x.flatten(1).double()
        centred = flat - flat.mean(0)
        bases[name] = _principal(flat)[:components]  # (r, D)
        scores[name] = centred @ bases[name].mT
        units[name] = centred.square().mean().item()

    def take(count: int) -> dict[Name, LinearMap]:
        if count < 1:
            raise ParameterError(f"{count} features asked for; at least 1", count=count)
        chosen = ridge
        if chosen is None:
            chosen = max(
                RIDGES, key=lambda value: _captured(network, scores, units, count, value, labels, seed)
            )
        found = _canonical_directions(network, scores, units, chosen)
        return {name: _as_features(graph, name, rows @ bases[name], count) for name, rows in found.items()}

    return take


def _canonical_directions(
    network: nx.Graph, scores: Mapping[Name, Tensor], units: Mapping[Name, float], ridge: float
) -> dict[Name, Tensor]:
    """Orthonormal directions ``(<= r, r)`` of every node among its components ``(n, r)``, those of all its edges."""
    centred = {name: x - x.mean(0) for name, x in scores.items()}
    roots = {}
    for name, x in centred.items():
        own = x.mT @ x / len(x)
        roots[name] = _inverse_root(own + ridge * units[name] * torch.eye(len(own), dtype=own.dtype))
    found: dict[Name, list[tuple[float, Tensor]]] = {name: [] for name in scores}
    for a, b in network.edges:
        cross = centred[a].mT @ centred[b] / len(centred[a])
        u, rho, v = torch.linalg.svd(roots[a] @ cross @ roots[b], full_matrices=False)
        found[a] += zip(rho.tolist(), u.mT @ roots[a], strict=True)
        found[b] += zip(rho.tolist(), v @ roots[b], strict=True)
    return {
        name: _orthonormal([row for _, row in sorted(pairs, key=lambda pair: -pair[0])])
        for name, pairs in found.items()
    }


def _captured(
    network: nx.Graph,
    scores: Mapping[Name, Tensor],
    units: Mapping[Name, float],
    count: int,
    ridge: float,
    labels: Tensor,
    seed: int,
) -> float:
    """Information in nats that `count` canonical directions capture on samples not seen."""
    totals = dict.fromkeys(RIDGE_BETWEEN, 0.0)
    for part in make_folds(labels, RIDGE_FOLDS, seed, fewest=2):
        found = _canonical_directions(network, {name: x[~part] for name, x in scores.items()}, units, ridge)
        seen = {name: x @ found[name][:count].mT for name, x in scores.items()}
        rows = torch.arange(sum(x.shape[1] for x in seen.values())).split([x.shape[1] for x in seen.values()])
        blocks = dict(zip(seen, rows, strict=True))
        samples = torch.cat(list(seen.values()), 1)
        for between in totals:
            model = estimate_model(samples[~part], ("ledoit_wolf", between), network, blocks)
            totals[between] += information_gain(samples[part], model, blocks).sum().item()
    return max(totals.values())


KINDS: dict[str, Callable[[FactorGraph, Mapping[Name, Tensor], Tensor, int], Take]] = {
    "dct": _cosine_features,
    "pca": _principal_features,
    "cca": _canonical_features,
}


class FeatureScore(NamedTuple):
    """A row of `choose_features`, held out."""

    kind: str  # "dct", "pca" or "cca"
    number: int  # as the candidates count
    features: int  # of the trajectory that has most
    information: float  # nats per joint sample: log density of the joint model over its own independent nodes
    interval: tuple[float, float]  # 95 %, bootstrapped over groups
    behind: tuple[float, float]  # 95 % of what the best row has more, paired
    shrinkage: Shrinkage  # for a fit to the same data
    samples: int  # scored


class FeatureChoice(NamedTuple):
    """What `choose_features` found; ``fit(choice.graph, data, shrinkage=choice.shrinkage)`` goes on from there.

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(200, 1, 8, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    >>> data = {0: x[..., :4], 1: x[..., 4:]}
    >>> choice = choose_features(ps.chain_graph(2, (1, 4)), data, {"dct": [1, 2, 4]}, shrinkage="oas")
    >>> fitted = ps.fit(choice.graph, data, shrinkage=choice.shrinkage)
    >>> [(row.kind, row.number) for row in choice.rows]  # best first
    [('dct', 2), ('dct', 4), ('dct', 1)]
    """

    graph: FactorGraph  # with the best features, learned on all data; not fitted
    rows: list[FeatureScore]  # best first

    @property
    def best(self) -> FeatureScore:
        """The row that was chosen."""
        return self.rows[0]

    @property
    def shrinkage(self) -> Shrinkage:
        """For a fit to the same data; learned features are correlated more in these than in others."""
        return self.best.shrinkage

    def __str__(self) -> str:
        head = ["features", "per node", "nats", "95 %", "behind the best, 95 %"]
        body = [
            [
                f"{row.kind} {row.number}",
                f"{row.features}",
                f"{row.information:.3f}",
                _span(row.interval),
                _span(row.behind),
            ]
            for row in self.rows
        ]
        widths = [max(len(str(line[k])) for line in [head, *body]) for k in range(len(head))]
        return "\n".join(
            "  ".join(str(c).ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in [head, *body]
        )


def choose_features(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    candidates: Mapping[str, Sequence[int]],
    *,
    shrinkage: Shrinkage = "heldout",
    folds: int = 5,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FeatureChoice:
    """The kind and number of features that carry most information between trajectories on samples not seen.

    Densities of different features are densities of different things, and do not compare. What compares is the log
    density of the joint model minus that of the same model with its trajectories taken as independent: nats of mutual
    information captured per joint sample (Eq. 3), whatever the units. It is estimated by cross-validation: features,
    shrinkage and potentials are learned without the samples they are scored on. More features can only capture more,
    but have more to learn: there is a best number.

    Canonical directions are correlated more in the samples they were found in than in others, and a fit to the same
    samples has to shrink more than these samples by themselves tell. With ``shrinkage="heldout"`` it is chosen here,
    where the features too are found again in every fold (for a fold, by what is best on the others), and handed on
    as `FeatureChoice.shrinkage`. Fisher's intervals of such a fit are too narrow; use other samples where they
    matter.

    Parameters
    ----------
    graph
        with unfitted `JointGaussian` factors, whose maps are replaced.
    candidates
        numbers of features by kind, ``{"dct": [1, 4], "pca": [4, 16], "cca": [4, 16]}``: `DCT` modes per channel,
        `pca_features`, `canonical_features`.
    groups
        a label per sample; whole groups are held out, and resampled for intervals.
    data, seed, progress
        as for `fit_moments`; of the folds; whether to show a progress bar.

    Raises ParameterError (kinds, counts), BatchError (fewer groups than folds), and as `fit`.

    Contents that share their last number only: principal components miss it, canonical directions do not.

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> first, second = torch.randn(2, 500, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.5])
    >>> second[:, 2] = first[:, 2] + 0.1 * second[:, 2]
    >>> graph, candidates = ps.chain_graph(2, (3,)), {"pca": [1], "cca": [1]}
    >>> choice = ps.choose_features(graph, {0: first, 1: second}, candidates, shrinkage="oas", folds=3)
    >>> [(row.kind, round(row.information, 1)) for row in choice.rows]
    [('cca', 2.1), ('pca', -0.0)]
    """
    for kind in candidates:
        if kind not in KINDS:
            raise ParameterError(
                f"candidates has {kind!r}, which is not one of {', '.join(KINDS)}", kind=kind
            )
    pairs = [(kind, count) for kind, counts in candidates.items() for count in counts]
    if not pairs:
        raise ParameterError("candidates is empty; give {'dct': [1, 4], 'pca': [4, 16]}")
    whole = _whole(graph, data)
    n = len(next(iter(whole.values())))
    labels = group_labels(n, groups)
    parts = make_folds(labels, folds, seed)
    tried: list[Shrinkage] = (
        list(itertools.product(CHOICES, BETWEEN)) if shrinkage == "heldout" else [shrinkage]
    )
    gains = {pair: torch.full((len(tried), n), -torch.inf, dtype=torch.float64) for pair in pairs}
    sizes: dict[tuple[str, int], int] = {}
    for part, kind in tqdm(
        list(itertools.product(parts, candidates)), desc="choose features", disable=not progress
    ):
        take = KINDS[kind](graph, {name: x[~part] for name, x in whole.items()}, labels[~part], seed)
        for count in candidates[kind]:
            problem = pose(with_features(graph, take(count)))
            problem.require_whole("choose_features")
            samples = features(problem, whole)
            sizes[kind, count] = max(len(rows) for rows in problem.blocks.values())
            for k, choice in enumerate(tried):
                try:
                    model = estimate_model(samples[~part], choice, problem.network, problem.blocks)
                except (CovarianceError, ConvergenceError):
                    if len(tried) == 1:
                        raise
                    continue
                gains[kind, count][k, part] = information_gain(samples[part], model, problem.blocks)
    scores = {pair: _by_other_folds(gain, parts) for pair, gain in gains.items()}
    best = max(pairs, key=lambda pair: scores[pair].mean().item())
    rows = [
        FeatureScore(
            kind, count, sizes[kind, count], score.mean().item(), bootstrap(score, labels, seed),
            bootstrap(scores[best] - score, labels, seed), tried[int(gains[kind, count].mean(1).argmax())], n,
        )
        for (kind, count), score in scores.items()
    ]  # fmt: skip
    chosen = with_features(graph, KINDS[best[0]](graph, whole, labels, seed)(best[1]))
    return FeatureChoice(chosen, sorted(rows, key=lambda row: -row.information))


def _by_other_folds(gains: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Of every choice ``(K, n)``, for each fold those of the choice that is best on all other folds, ``(n)``.

    Raises CovarianceError where every choice left the moments of some fold singular.
    """
    gains = gains[torch.isfinite(gains).all(1)]
    if not len(gains):
        raise CovarianceError(
            "no shrinkage makes the moments of every fold positive definite; leave constants out"
        )
    out = gains[0].clone()
    for part in parts:
        out[part] = gains[int(gains[:, ~part].mean(1).argmax()), part]
    return out


def with_features(graph: FactorGraph, maps: Mapping[Name, LinearMap]) -> FactorGraph:
    """A copy of a graph whose unfitted `JointGaussian` factors see their ends through these maps.

    Raises UnsupportedError for fitted factors.
    """
    out = FactorGraph()
    for name in graph.variables:
        if name in graph.hidden:
            out.add_variable(name, graph.shape(name))
        else:
            out.add_trajectory(name, graph.shape(name))
    for factor in graph.factors:
        scope, potential, own = graph.scope(factor), graph.potential(factor), graph.nodes[factor]["maps"]
        if isinstance(potential, JointGaussian) and any(name in maps for name in scope):
            if potential.fitted:
                raise UnsupportedError(
                    f"factor {factor!r} is fitted to the features it sees; give it JointGaussian() to change them",
                    name=factor,
                )
            own = [
                maps[name] if name in maps else m for name, m in zip(scope, graph.maps(factor), strict=True)
            ]
        out.add_factor(factor, scope, potential, own)
    return out


def _whole(graph: FactorGraph, data: Mapping[Name, Any]) -> dict[Name, Tensor]:
    return contents(pose(graph), data)


def _as_features(graph: FactorGraph, name: Name, rows: Tensor, count: int) -> Features:
    if not 1 <= count <= len(rows):
        raise ParameterError(
            f"{name!r} has 1..{len(rows)} features of this kind (what the data span, or its edges), {count} asked for",
            name=name,
            count=count,
        )
    return Features(rows[:count].reshape(count, *graph.shape(name)))


def _principal(flat: Tensor) -> Tensor:
    """Principal directions of ``(n, D)``, those of most variance first, as many as the data span."""
    n, size = flat.shape
    centred = flat - flat.mean(0)
    if size <= n:
        values, vectors = torch.linalg.eigh(centred.mT @ centred)
        spanned = values.flip(0) > 1e-9 * values[-1]
        return vectors.flip(1).mT[spanned]
    _, values, basis = torch.linalg.svd(centred, full_matrices=False)
    return basis[values > values[0] * 1e-9]


def _orthonormal(directions: Sequence[Tensor]) -> Tensor:
    """``(<= number, D)``: in the order given, each without what those before it have, none twice."""
    kept = torch.zeros_like(torch.stack(list(directions)))
    count = 0
    for row in directions:
        row = row / row.norm()
        for _ in range(2):  # twice is enough
            row = row - (kept[:count] @ row) @ kept[:count]
        if row.square().sum() > DEPENDENT:
            kept[count] = row / row.norm()
            count += 1
    return kept[:count]


def _inverse_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-12 * values[-1].item()).rsqrt()) @ vectors.mT


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
