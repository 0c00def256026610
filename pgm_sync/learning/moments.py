"""Learning potentials from joint clean samples by their moments (Eq. 14)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import BatchError, ParameterError, ShapeError, UnknownNameError, UnsupportedError
from ..gaussian import require_finite
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..potentials import JointGaussian, Potential
from ..score import Reduction, find_carriers, reduce
from .score_matching import default_levels, denoised_moments, fingerprint, fit_precision
from .selection import Selection, select_covariance
from .shrinkage import shrink_moments, shrunk_covariance
from .single_view import joint_covariance, require_positions, single_views


class FeatureMoments:
    """Moments of the features that a graph's factors see, gathered batch by batch: data need not fit into memory.

    >>> from pgm_sync.graph import chain_graph
    >>> graph = chain_graph(2, 3)
    >>> moments = FeatureMoments(graph)
    >>> for _ in range(4):
    ...     moments.update({0: torch.randn(50, 3), 1: torch.randn(50, 3)})
    >>> moments.count
    200

    Pass it to `fit` in the place of data, with ``shrinkage="oas"``, "none" or a number (Ledoit and Wolf's intensity
    needs the samples themselves). Batches combine exactly, in any order up to rounding [Chan, Golub, LeVeque 1983].

    Raises ParameterError for a graph without `JointGaussian` factors, or whose factors see different parts of one
    trajectory.
    """

    def __init__(self, graph: FactorGraph):
        self.graph = graph
        self._learned = _learned_factors(graph)
        self._reduction = reduce(_only(graph, self._learned))
        if any(m is not None for f in self._learned for m in self._reduction.graph.nodes[f]["maps"]):
            raise ParameterError("moments of batches need factors that see the same features of a trajectory")
        size = sum(f.out_size for f in self._reduction.features.values())
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)  # (P,)
        self._scatter = torch.zeros(size, size, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """``(P, P)``, of all samples so far, divided by their number."""
        return self._scatter / max(self.count, 1)

    def update(self, data: Mapping[Name, Any]) -> None:
        """Add a batch of joint clean samples, as `fit` takes them. A batch that is refused changes nothing.

        Raises as `fit` on data.
        """
        samples = _features(self.graph, self._reduction, self._learned, data)
        total = self.count + len(samples)
        mean = samples.mean(0)
        centred = samples - mean
        shift = mean - self.mean
        self._scatter += centred.mT @ centred + (self.count * len(samples) / total) * shift[:, None] * shift
        self.mean = self.mean + shift * len(samples) / total
        self.count = total


METHODS = ("moments", "single_view", "score")
FEWEST = 2  # samples


def fit(
    graph: FactorGraph,
    data: Any,
    method: str = "moments",
    *,
    shrinkage: str | float = "ledoit_wolf",
    heldout: float = 0.2,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    positions: Mapping[Name, int] | None = None,
    axis: int = -1,
    denoisers: Mapping[Name, Denoiser] | Denoiser | None = None,
    levels: Sequence[NoiseLevel] | None = None,
    iterations: int = 200,
    progress: bool = False,
) -> FactorGraph:
    """A copy of `graph` whose `JointGaussian` potentials are learned from joint clean samples.

    Parameters
    ----------
    data
        ``{trajectory: (n, *shape)}``, row k of all of them from the same joint sample; on a canvas
        ``{"canvas": (n, *canvas)}`` is enough, its views are cut out. Or `FeatureMoments`, gathered in batches.
    method
        "moments": shrunk moments of the features that the factors see, then the maximum-likelihood Gaussian with
        the conditional independences of the graph (Eq. 14). "single_view": no joint samples; windows of one shape
        that lie at `positions` along an `axis` of a larger picture, whose statistics do not depend on the place
        (Eq. 15). Then `data` are single windows, ``(n, *shape)`` or per trajectory, and the other options are not used.
        "score": from there, what makes joint denoising best (Eq. 16), with frozen `denoisers` (one per trajectory, or
        one for all), over noise `levels` (variance preserving ones if not given), for at most `iterations` of L-BFGS,
        stopped early on the held-out share. Use denoisers that were not trained on `data`, or held-out groups.
    shrinkage
        "ledoit_wolf", "oas", "none" or an intensity in [0, 1].
    heldout
        share of the samples (of the groups, where given) kept back to score the fit; 0 for none. The potentials are
        then refitted on all samples.
    groups
        a label per sample: samples of one group (crops of one photograph) are not independent, and are held out
        together.

    Potentials other than `JointGaussian` stay as they are. The record of the fit is ``graph.graph["fit"]`` and is
    saved with the graph.

    Raises UnknownNameError, ShapeError, BatchError, NotFiniteError on the data, ParameterError on options or a graph
    without JointGaussian factors, CovarianceError where the moments are singular (shrink more), ConvergenceError.
    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r} is not one of {', '.join(METHODS)}", method=method)
    learned = _learned_factors(graph)
    reduction = reduce(_only(graph, learned))
    if isinstance(data, FeatureMoments):
        if method != "moments":
            raise ParameterError(
                f"method={method!r} needs samples; moments gathered in batches are for 'moments'"
            )
        return _fit_gathered(graph, reduction, learned, data, shrinkage)
    if method == "score":
        options = {"shrinkage": shrinkage, "heldout": heldout, "groups": groups, "seed": seed}
        return _fit_score(graph, reduction, learned, data, denoisers, levels, iterations, progress, options)
    if method == "single_view":
        return _fit_single_view(graph, reduction, learned, data, positions, axis)
    samples = _features(graph, reduction, learned, data)
    n = len(samples)
    blocks = _blocks(reduction)
    network = reduction.graph.markov_network()
    train, test = _split(n, heldout, groups, seed)
    record: dict[str, Any] = {
        "method": method,
        "estimator": "joint",
        "num_samples": n,
        "num_groups": None if groups is None else len(set(torch.as_tensor(groups).tolist())),
        "features": samples.shape[1],
        "shrinkage": shrinkage,
        "seed": seed,
        "data": hashlib.sha256(samples.numpy().tobytes()).hexdigest()[:16],
        "versions": _versions(),
    }
    if any(m is not None for f in learned for m in reduction.graph.nodes[f]["maps"]):
        # Factors that see different parts of one node have no joint model of the node to be marginals of.
        potentials, record["shrinkage_intensity"] = _pairwise(reduction, learned, samples, shrinkage, blocks)
        record["estimator"] = "pairwise"
    else:
        if len(test):
            record["heldout_samples"] = len(test)
            for key, over in [("", network), ("_independent", nx.create_empty_copy(network))]:
                mean, _, selection = _estimate(samples[train], shrinkage, over, blocks)
                score = _log_likelihood(samples[test], mean, selection.precision)
                record[f"heldout_log_likelihood{key}"] = score
        mean, record["shrinkage_intensity"], selection = _estimate(samples, shrinkage, network, blocks)
        record["sweeps"], record["clique_error"] = selection.sweeps, selection.error
        potentials = _potentials(reduction, learned, mean, selection, blocks)
    fitted = graph.with_potentials(potentials)
    fitted.graph["fit"] = record
    return fitted


def _learned_factors(graph: FactorGraph) -> list[Name]:
    learned = [f for f in graph.factors if isinstance(graph.potential(f), JointGaussian)]
    if not learned:
        raise ParameterError(
            f"{graph!r} has no JointGaussian factor to fit; add_factor(name, [a, b], JointGaussian()) makes one"
        )
    return learned


def _fit_gathered(
    graph: FactorGraph,
    reduction: Reduction,
    learned: list[Name],
    moments: FeatureMoments,
    shrinkage: str | float,
) -> FactorGraph:
    """Eq. 14 from moments that were gathered batch by batch."""
    if moments.count < FEWEST:
        raise BatchError(f"the moments are of {moments.count} samples; at least {FEWEST} needed")
    sizes = {name: f.out_size for name, f in reduction.features.items()}
    known = {name: f.out_size for name, f in moments._reduction.features.items()}
    if sizes != known:
        raise ParameterError(f"the moments are of features {known}, the graph's factors see {sizes}")
    covariance, intensity = shrink_moments(moments.covariance, moments.count, shrinkage)
    blocks = _blocks(reduction)
    selection = select_covariance(covariance, reduction.graph.markov_network(), blocks)
    fitted = graph.with_potentials(_potentials(reduction, learned, moments.mean, selection, blocks))
    fitted.graph["fit"] = {
        "method": "moments",
        "estimator": "joint, gathered in batches",
        "num_samples": moments.count,
        "features": len(covariance),
        "shrinkage": shrinkage,
        "shrinkage_intensity": intensity,
        "sweeps": selection.sweeps,
        "clique_error": selection.error,
        "versions": _versions(),
    }
    return fitted


def _versions() -> dict[str, str]:
    return {p: importlib.metadata.version(p) for p in ("pgm_sync", "torch", "scikit-learn")}


def _fit_single_view(
    graph: FactorGraph,
    reduction: Reduction,
    learned: list[Name],
    data: Any,
    positions: Mapping[Name, int] | None,
    axis: int,
) -> FactorGraph:
    """Eq. 15: the joint covariance of a stationary model, then the same maximum likelihood as from moments."""
    if any(m is not None for f in learned for m in reduction.graph.nodes[f]["maps"]):
        raise UnsupportedError(
            "method='single_view' needs factors that see the same features of a trajectory; use method='moments'"
        )
    names = list(reduction.features)
    views = single_views(data, {name: graph.shape(name) for name in names})
    if not -len(graph.shape(names[0])) <= axis < 0:
        raise ParameterError(
            f"axis={axis} must be negative and inside the shape {graph.shape(names[0])}", axis=axis
        )
    places = require_positions(positions, names)
    mean, covariance, model = joint_covariance(views, reduction.features, places, axis)
    blocks = _blocks(reduction)
    selection = select_covariance(covariance, reduction.graph.markov_network(), blocks)
    fitted = graph.with_potentials(_potentials(reduction, learned, mean, selection, blocks))
    share = model.variance / model.variance.sum()
    fitted.graph["fit"] = {
        "method": "single_view",
        "estimator": "stationary",
        "num_samples": len(views),
        "features": len(mean),
        "positions": [[repr(name), place] for name, place in places.items()],
        "axis": axis,
        "kernel_scales": [s if math.isfinite(s) else None for s in model.scales.tolist()],
        "kernel_weights": (share @ model.weights).tolist(),
        "data": hashlib.sha256(views.numpy().tobytes()).hexdigest()[:16],
        "versions": _versions(),
    }
    return fitted


def _fit_score(
    graph: FactorGraph,
    reduction: Reduction,
    learned: list[Name],
    data: Mapping[Name, Any],
    denoisers: Mapping[Name, Denoiser] | Denoiser | None,
    levels: Sequence[NoiseLevel] | None,
    iterations: int,
    progress: bool,
    options: dict[str, Any],
) -> FactorGraph:
    """Eq. 16, from the fit by moments."""
    if denoisers is None:
        raise ParameterError("method='score' needs denoisers={trajectory: denoiser}, or one for all")
    if find_carriers(graph).shared:
        raise UnsupportedError(
            "method='score' is for trajectories that do not share a canvas; use method='moments'"
        )
    if any(m is not None for f in learned for m in reduction.graph.nodes[f]["maps"]):
        raise UnsupportedError(
            "method='score' needs factors that see the same features of a trajectory; use method='moments'"
        )
    samples = _features(graph, reduction, learned, data)
    names, blocks = list(reduction.features), _blocks(reduction)
    network = reduction.graph.markov_network()
    train, test = _split(len(samples), options["heldout"], options["groups"], options["seed"])
    mean, intensity, selection = _estimate(samples[train], options["shrinkage"], network, blocks)
    levels = default_levels() if levels is None else list(levels)
    generator = torch.Generator().manual_seed(options["seed"])
    contents = {name: torch.as_tensor(data[name]).detach().cpu() for name in names}
    seen, unseen = (
        denoised_moments(
            {name: x[rows] for name, x in contents.items()}, denoisers, reduction.features, levels, mean, generator,
            progress=progress,
        )
        if len(rows)
        else []
        for rows in (train, test)
    )  # fmt: skip
    found = fit_precision(selection.precision, network, blocks, seen, unseen, iterations)
    learned_selection = Selection(found.precision, selection.sweeps, selection.error)
    fitted = graph.with_potentials(_potentials(reduction, learned, mean, learned_selection, blocks))
    fitted.graph["fit"] = {
        "method": "score",
        "estimator": "joint",
        "num_samples": len(samples),
        "features": samples.shape[1],
        "shrinkage_intensity": intensity,
        "levels": [[float(level.alpha), float(level.sigma)] for level in levels],
        "losses": found.losses,
        "heldout_losses": found.heldout,
        "heldout_samples": len(test),
        "iteration": found.best,
        "seed": options["seed"],
        "data": fingerprint(contents),
        "versions": _versions(),
    }
    return fitted


def features_of(graph: FactorGraph, data: Mapping[Name, Any]) -> tuple[Tensor, dict[Name, Tensor]]:
    """Features ``(n, P)`` that the `JointGaussian` factors of a graph see, and the columns of every trajectory.

    Errors on data as `fit`.
    """
    learned = _learned_factors(graph)
    reduction = reduce(_only(graph, learned))
    return _features(graph, reduction, learned, data), _blocks(reduction)


def log_densities(
    samples: Tensor,
    blocks: dict[Name, Tensor],
    network: nx.Graph,
    parts: Sequence[Tensor],
    shrinkage: str | float,
) -> Tensor:
    """Held-out log density of every sample ``(n)``, each from the fit on all parts but its own.

    `parts` are masks ``(n)`` that cover every sample once.
    """
    out = samples.new_zeros(len(samples))
    for part in parts:
        mean, _, selection = _estimate(samples[~part], shrinkage, network, blocks)
        offset = samples[part] - mean
        quadratic = ((offset @ selection.precision) * offset).sum(1)
        constant = torch.logdet(selection.precision) - samples.shape[1] * math.log(2 * math.pi)
        out[part] = 0.5 * (constant - quadratic)
    return out


def _only(graph: FactorGraph, factors: list[Name]) -> FactorGraph:
    """The graph with placeholders in the place of the learned potentials, and no other factor."""
    copy = FactorGraph()
    ends = {end for f in factors for end in graph.scope(f)}
    for name in graph.variables:
        if name in ends:
            copy.add_trajectory(name, graph.shape(name))
    for f in factors:
        copy.add_factor(f, graph.scope(f), JointGaussian(), graph.nodes[f]["maps"])
    return copy


def _blocks(reduction: Reduction) -> dict[Name, Tensor]:
    blocks, start = {}, 0
    for name, feature in reduction.features.items():
        blocks[name] = torch.arange(start, start + feature.out_size)
        start += feature.out_size
    return blocks


def _features(
    graph: FactorGraph, reduction: Reduction, learned: list[Name], data: Mapping[Name, Any]
) -> Tensor:
    """Features of all coupled nodes, ``(n, P)`` float64."""
    given = {name: torch.as_tensor(value) for name, value in data.items()}
    counts = {}
    for name, value in given.items():
        if name not in graph.variables:
            raise UnknownNameError(
                f"data for {name!r}, which is no trajectory or variable of the graph", name=name
            )
        shape = graph.shape(name)
        if tuple(value.shape[1:]) != shape:
            raise ShapeError(
                f"data for {name!r} has shape {tuple(value.shape)}, expected (n, {', '.join(map(str, shape))})",
                name=name,
                expected=shape,
                got=tuple(value.shape),
            )
        require_finite(value, f"data for {name!r}")
        counts[name] = len(value)
    if len(set(counts.values())) != 1:
        raise BatchError(f"all nodes need the same number of joint samples, got {counts}", counts=counts)
    if next(iter(counts.values())) < FEWEST:
        raise BatchError(f"a covariance needs at least {FEWEST} samples, got {counts}", counts=counts)
    carriers = find_carriers(graph)
    parts = []
    for name, feature in reduction.features.items():
        if name not in given:
            canvas = carriers.carriers[carriers.views[name].carrier].name if name in carriers.views else None
            if canvas not in given:
                raise UnknownNameError(
                    f"no data for {name!r}, which factor {next(f for f in learned if name in graph.scope(f))!r} joins",
                    name=name,
                )
            index = carriers.views[name].index
            value = given[canvas].flatten(1)[:, index].reshape(-1, *graph.shape(name))
        else:
            value = given[name]
        parts.append(feature.apply(value.detach().cpu().double()).flatten(1))
    return torch.cat(parts, 1)


def _estimate(
    samples: Tensor, shrinkage: str | float, network: nx.Graph, blocks: dict[Name, Tensor]
) -> tuple[Tensor, float, Selection]:
    """Mean, shrinkage intensity, and the maximum-likelihood precision under the graph."""
    mean = samples.mean(0)
    covariance, intensity = shrunk_covariance(samples - mean, shrinkage)
    return mean, intensity, select_covariance(covariance, network, blocks)


def _potentials(
    reduction: Reduction,
    learned: list[Name],
    mean: Tensor,
    selection: Selection,
    blocks: dict[Name, Tensor],
) -> dict[Name, Potential]:
    """The model cut into factors: marginals of each scope, and each factor's share of the joint precision.

    Where the ratios g_ij / (g_i g_j) of the scopes' marginals already multiply to the model (trees), the factors
    are those. On loops they carry their share explicitly: off-diagonal blocks go to the factor that joins the two
    nodes (in equal parts where several do), what Lambda_ii has beyond Sigma_ii^{-1} in equal parts to all of i.
    """
    graph = reduction.graph
    model = torch.linalg.inv(selection.precision)
    own = {name: torch.linalg.inv(model[rows[:, None], rows]) for name, rows in blocks.items()}
    ratios = torch.zeros_like(model)
    for rows in (torch.cat([blocks[n] for n in graph.scope(f)]) for f in learned):
        ratios[rows[:, None], rows] += torch.linalg.inv(model[rows[:, None], rows])
    for f in learned:
        for name in graph.scope(f):
            rows = blocks[name]
            ratios[rows[:, None], rows] -= own[name]
    total = selection.precision.clone()
    for name, rows in blocks.items():
        total[rows[:, None], rows] -= own[name]
    product_of_ratios = torch.allclose(ratios, total, atol=1e-9 * total.abs().max().item())
    log_ratio = 0.5 * torch.logdet(selection.precision) - 0.5 * sum(torch.logdet(o) for o in own.values())
    potentials: dict[Name, Potential] = {}
    for f in learned:
        scope = graph.scope(f)
        rows = torch.cat([blocks[n] for n in scope])
        share = None
        if not product_of_ratios:
            share = torch.zeros(len(rows), len(rows), dtype=model.dtype)
            edges = [0, *torch.tensor([len(blocks[n]) for n in scope]).cumsum(0).tolist()]
            for i, a in enumerate(scope):
                for j, b in enumerate(scope):
                    together = sum(a in graph.scope(g) and b in graph.scope(g) for g in learned)
                    block = total[blocks[a][:, None], blocks[b]] / together
                    share[edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = block
        covariance_f, mean_f = model[rows[:, None], rows], mean[rows]
        potentials[f] = JointGaussian(
            mean_f,
            (covariance_f + covariance_f.mT) / 2,
            None if share is None else (share + share.mT) / 2,
            None if share is None else log_ratio.item() / len(learned),
        )
    return potentials


def _pairwise(
    reduction: Reduction,
    learned: list[Name],
    samples: Tensor,
    shrinkage: str | float,
    blocks: dict[Name, Tensor],
) -> tuple[dict[Name, Potential], float]:
    """Every factor from the moments of what it sees by itself, g_ij / (g_i g_j); and the mean shrinkage intensity."""
    potentials: dict[Name, Potential] = {}
    intensities = []
    for f in learned:
        seen = [
            samples[:, blocks[name]] @ m.dense().T
            for name, m in zip(reduction.graph.scope(f), reduction.graph.maps(f), strict=True)
        ]
        own = torch.cat(seen, 1)
        mean = own.mean(0)
        covariance, intensity = shrunk_covariance(own - mean, shrinkage)
        potentials[f] = JointGaussian(mean, covariance)
        intensities.append(intensity)
    return potentials, sum(intensities) / len(intensities)


def _split(n: int, heldout: float, groups: Sequence[int] | Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    if not 0 <= heldout < 1:
        raise ParameterError(f"heldout={heldout} must lie in [0, 1)", heldout=heldout)
    labels = torch.arange(n) if groups is None else torch.as_tensor(groups)
    if labels.shape != (n,):
        raise BatchError(f"{len(labels)} group labels for {n} samples")
    kinds = labels.unique()
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    count = math.floor(heldout * len(kinds))
    test = torch.isin(labels, kinds[order[:count]])
    if n - int(test.sum()) < FEWEST:
        test = torch.zeros_like(test)
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def _log_likelihood(samples: Tensor, mean: Tensor, precision: Tensor) -> float:
    """Mean log density per sample."""
    offset = samples - mean
    quadratic = ((offset @ precision) * offset).sum(1).mean()
    constant = 0.5 * (torch.logdet(precision) - samples.shape[1] * math.log(2 * math.pi))
    return (constant - 0.5 * quadratic).item()
