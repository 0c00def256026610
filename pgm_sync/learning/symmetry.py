"""Parameters tied across edges: moments that obey the symmetries of what is modelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError, UnknownNameError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Flip, Identity, LinearMap
from .problem import Problem
from .shrinkage import shrink_between

LARGEST_GROUP = 128
LEAST = 1e-3  # eigenvalue, own covariances whitened, that averages over displacements are kept above
Place = int | tuple[int, ...]


@dataclass(frozen=True)
class Symmetry:
    """Joint samples stay as likely when every trajectory's content, transformed, moves to another trajectory.

    `nodes` says where the content of a trajectory goes; those not named stay where they are. `maps` transforms the
    content that leaves a trajectory: one map for all, or ``{trajectory: map}``; orthogonal (`Flip`, `Rotate`,
    `Permutation`), the identity if not given. What the factors see must be closed under it, as cosine modes are under
    flips.

    A walk that may as well go the other way, so that both ends have one variance:

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(200, 2, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> swap = ps.Symmetry({0: 1, 1: 0})
    >>> fitted = ps.fit(ps.chain_graph(2, (1,)), {0: x[:, 0], 1: x[:, 1]}, ties=swap)
    >>> left, right = fitted.potential((0, 1)).covariance.diagonal()
    >>> abs((left - right).item()) < 1e-6
    True

    Checked by `fit`, which raises ParameterError unless `nodes` is a permutation that takes edges to edges.
    """

    nodes: Mapping[Name, Name]
    maps: Mapping[Name, LinearMap] | LinearMap | None = None

    def map(self, name: Name, shape: tuple[int, ...]) -> LinearMap:
        """What happens to the content of the trajectory `name`, of a `shape`."""
        chosen = self.maps.get(name) if isinstance(self.maps, Mapping) else self.maps
        return Identity(shape) if chosen is None else chosen


@dataclass(frozen=True)
class Stationary:
    """Trajectories at an equal displacement are alike: they share one cross-covariance, all share one mean and one
    covariance of their own.

    `positions` is ``{trajectory: place}``, places integers, or tuples of them on a grid. All trajectories see the same
    features.

    Shifts of a finite row are no group, so there is no orbit to average over: moments are averaged over all pairs of
    one displacement. That may leave the cliques of the graph indefinite; the blocks between trajectories then shrink by
    as little as makes them positive definite, which keeps equal what is equal (clipped eigenvalues would not).

    Correlations of neighbours in a row of three become one:

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(200, 3, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> data, places = {k: x[:, k] for k in range(3)}, ps.Stationary({k: k for k in range(3)})
    >>> first, second = ps.correlations(ps.fit(ps.chain_graph(3, (1,)), data, ties=places))
    >>> abs(first.rho - second.rho) < 1e-6
    True
    """

    positions: Mapping[Name, Place]


Tie = Symmetry | Stationary


def mirror(graph: FactorGraph, names: Sequence[Name] | None = None, axis: int = -1) -> Symmetry:
    """Trajectories in reverse order, each flipped along `axis` of its shape: what a mirrored picture shows.

    `names` are the trajectories in their order, all of the graph by default.

    >>> import pgm_sync as ps
    >>> ps.mirror(ps.chain_graph(3, shape=(1, 8, 4))).nodes
    {0: 2, 1: 1, 2: 0}

    Raises UnknownNameError.
    """
    names = graph.trajectories if names is None else list(names)
    return Symmetry(
        dict(zip(names, reversed(names), strict=True)),
        {name: Flip(graph.shape(name), (axis,)) for name in names},
    )


class Tied(NamedTuple):
    """Moments that obey all ties."""

    mean: Tensor  # (P,)
    covariance: Tensor  # (P, P)
    between: float  # by how much blocks between trajectories had to shrink


class Ties(NamedTuple):
    """Symmetries in the features that a graph's factors see."""

    group: list[Tensor]  # orthogonal (P, P), closed under products, the identity first
    displacements: list[list[tuple[Tensor, Tensor]]]  # classes of row pairs whose blocks are equal
    blocks: Mapping[Name, Tensor]
    sets: list[list[Name]]  # cliques of a chordal graph that has all edges: what has to be positive definite

    def moments(self, mean: Tensor, covariance: Tensor) -> Tied:
        """The closest moments (averages) that obey the symmetries, positive definite on all cliques.

        The covariance is taken about the tied mean: differences of means that the symmetry denies are variance.
        """
        tied = self._average(mean)
        off = mean - tied
        covariance = self._average(covariance + off[:, None] * off)
        between = self._excess(covariance) if self.displacements else 0.0
        return Tied(tied, shrink_between(covariance, self.blocks, between), between)

    def precision(self, precision: Tensor) -> Tensor:
        """Without what rounding and stopping left over, where the symmetries are a group of rotations."""
        return precision if self.displacements else self._average(precision)

    def _average(self, x: Tensor) -> Tensor:
        """Over the group, and over displacements; in turn, where there are both."""
        turns = 1 if len(self.group) == 1 or not self.displacements else 100
        for _ in range(turns):
            before = x
            x = sum((_moved(g, x) for g in self.group), torch.zeros_like(x)) / len(self.group)
            x = self._stationary(x)
            if turns > 1 and bool((x - before).abs().max() <= 1e-15 * x.abs().max()):
                break
        return (x + x.mT) / 2 if x.ndim == 2 else x

    def _stationary(self, x: Tensor) -> Tensor:
        x = x.clone()
        if x.ndim == 1:
            if self.displacements:
                rows = torch.stack(list(self.blocks.values()))
                x[rows] = x[rows].mean(0)
            return x
        for pairs in self.displacements:
            block = torch.stack([x[a[:, None], b] for a, b in pairs]).mean(0)
            for a, b in pairs:
                x[a[:, None], b] = block
                x[b[:, None], a] = block.mT
        return x

    def _excess(self, covariance: Tensor) -> float:
        """How much blocks between trajectories have to shrink, for every clique of `sets` to be positive definite."""
        rows = next(iter(self.blocks.values()))
        values, vectors = torch.linalg.eigh(covariance[rows[:, None], rows])
        root = (vectors * values.clamp_min(1e-12 * values[-1].item()).rsqrt()) @ vectors.mT
        least = 1.0
        for nodes in self.sets:
            rows = torch.cat([self.blocks[name] for name in nodes])
            whitener = torch.block_diag(*[root] * len(nodes))
            values = torch.linalg.eigvalsh(whitener @ covariance[rows[:, None], rows] @ whitener)
            least = min(least, values[0].item())
        return 0.0 if least >= LEAST else 1 - (1 - LEAST) / (1 - least)


def bind_ties(ties: Tie | Sequence[Tie] | None, problem: Problem) -> Ties | None:
    """Ties in the features of a problem; None without any.

    Raises ParameterError, UnknownNameError, ShapeError, UnsupportedError.
    """
    listed = [ties] if isinstance(ties, Symmetry | Stationary) else list(ties or [])
    if not listed:
        return None
    problem.require_whole("ties=")
    for tie in listed:
        if not isinstance(tie, Symmetry | Stationary):
            raise ParameterError(f"ties has {tie!r}, which is neither a Symmetry nor Stationary", tie=tie)
    stationary = [tie for tie in listed if isinstance(tie, Stationary)]
    if len(stationary) > 1:
        raise ParameterError(f"ties has {len(stationary)} Stationary entries; one says it all")
    rotations = [_rotation(tie, problem) for tie in listed if isinstance(tie, Symmetry)]
    displacements = _displacements(stationary[0], problem) if stationary else []
    chordal, _ = nx.complete_to_chordal_graph(problem.network)
    sets = [list(clique) for clique in nx.find_cliques(chordal)]
    return Ties(_closure(rotations, problem.size), displacements, problem.blocks, sets)


def describe_ties(ties: Tie | Sequence[Tie] | None) -> list[str]:
    """For the record of a fit."""
    listed = [ties] if isinstance(ties, Symmetry | Stationary) else list(ties or [])
    return [repr(tie) for tie in listed]


def _rotation(symmetry: Symmetry, problem: Problem) -> Tensor:
    """A symmetry as an orthogonal matrix ``(P, P)`` on the features."""
    names = list(problem.blocks)
    for name in [*symmetry.nodes, *symmetry.nodes.values()]:
        if name not in problem.blocks:
            raise UnknownNameError(f"a symmetry moves {name!r}, which no factor to fit joins", name=name)
    goes = {name: symmetry.nodes.get(name, name) for name in names}
    if sorted(map(names.index, goes.values())) != list(range(len(names))):
        raise ParameterError(
            f"a symmetry's nodes {dict(symmetry.nodes)} are no permutation: two go to one place"
        )
    for a, b in problem.network.edges:
        if not problem.network.has_edge(goes[a], goes[b]):
            raise ParameterError(
                f"a symmetry takes the edge {a!r} - {b!r} to {goes[a]!r} - {goes[b]!r}, which is none; add the edge, "
                "or leave the symmetry out",
                edge=(a, b),
            )
    rotation = torch.zeros(problem.size, problem.size, dtype=torch.float64)
    features = problem.reduction.features
    for a, b in goes.items():
        chosen = symmetry.map(a, problem.graph.shape(a))
        if chosen.in_shape != features[a].in_shape or chosen.out_shape != features[b].in_shape:
            raise ShapeError(
                f"a symmetry takes {a!r} of shape {features[a].in_shape} to {b!r} of shape {features[b].in_shape} by "
                f"{chosen!r}"
            )
        block = features[b].dense() @ chosen.dense() @ features[a].dense().T
        eye = torch.eye(len(block), block.shape[1], dtype=block.dtype)
        if block.shape[0] != block.shape[1] or bool(((block @ block.mT - eye).abs() > 1e-6).any()):
            raise UnsupportedError(
                f"what factors see of {a!r} and {b!r} is not closed under {chosen!r}; cosine modes (DCT) and whole "
                "contents are closed under flips",
                name=a,
            )
        rotation[problem.blocks[b][:, None], problem.blocks[a]] = block
    return rotation


def _closure(generators: Sequence[Tensor], size: int) -> list[Tensor]:
    """All products. Raises ParameterError where they do not end at `LARGEST_GROUP`."""
    probe = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = [torch.eye(size, dtype=torch.float64)]
    images = [probe]
    for element in group:  # grows as it goes
        for generator in generators:
            product = generator @ element
            image = product @ probe
            if all((image - other).abs().max() > 1e-6 for other in images):
                if len(group) == LARGEST_GROUP:
                    raise ParameterError(
                        f"the symmetries have more than {LARGEST_GROUP} different products; give fewer of them"
                    )
                group.append(product)
                images.append(image)
    return group


def _displacements(stationary: Stationary, problem: Problem) -> list[list[tuple[Tensor, Tensor]]]:
    """Pairs of rows at every displacement, one of d and -d."""
    names = list(problem.blocks)
    places = {}
    for name in names:
        if name not in stationary.positions:
            raise ParameterError(f"Stationary.positions has no entry for {name!r}", name=name)
        place = stationary.positions[name]
        places[name] = tuple(place) if isinstance(place, tuple | list) else (int(place),)
    if len({len(place) for place in places.values()}) > 1:
        raise ParameterError(f"Stationary.positions has places of different dimensions: {places}")
    first = problem.reduction.features[names[0]]
    for name in names[1:]:
        other = problem.reduction.features[name]
        if other.in_shape != first.in_shape or not torch.equal(other.dense(), first.dense()):
            raise UnsupportedError(
                f"Stationary needs the same features of all trajectories; {names[0]!r} and {name!r} differ",
                name=name,
            )
    classes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for a in names:
        for b in names:
            shift = tuple(q - p for p, q in zip(places[a], places[b], strict=True))
            if shift > tuple(0 for _ in shift) or a == b:
                classes.setdefault(shift, []).append((problem.blocks[a], problem.blocks[b]))
            elif not any(shift) and names.index(a) < names.index(b):
                raise ParameterError(f"Stationary.positions has {a!r} and {b!r} at one place {places[a]}")
    return list(classes.values())


def _moved(rotation: Tensor, x: Tensor) -> Tensor:
    return rotation @ x if x.ndim == 1 else rotation @ x @ rotation.mT
