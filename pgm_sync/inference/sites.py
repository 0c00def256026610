"""Shared sites: elements that Equality factors make one and the same number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..errors import GraphStructureError, ShapeError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import element_index
from ..potentials import Equality

LARGEST = 2**31 - 1  # elements of all nodes together: scipy numbers the nodes of its graphs in int32


@dataclass(frozen=True, eq=False)
class Sites:
    """Where every element of every node lives.

    `index[name]` gives the site of each element of a node, flat. Without Equality factors the sites are just
    all elements of all nodes, in insertion order.
    """

    index: Mapping[Name, Tensor]  # (D_i,), int64
    size: int
    shapes: Mapping[Name, tuple[int, ...]]
    starts: Mapping[Name, int]  # the first site of every node whose sites are a range

    @cached_property
    def sizes(self) -> dict[Name, int]:
        """How many elements every node has."""
        return {name: len(index) for name, index in self.index.items()}

    @cached_property
    def elements(self) -> Tensor:
        """The sites of all elements of all nodes, in insertion order."""
        return torch.cat(list(self.index.values()))

    @cached_property
    def merged(self) -> bool:
        """Whether some elements share a site, or sites are not in the order of the elements."""
        return not torch.equal(self.elements, torch.arange(self.size))

    def gather(self, values: Tensor, name: Name) -> Tensor:
        """What a node sees of ``values (*batch, sites)``: ``(*batch, *shape)``, a view where that is possible."""
        index, start = self.index[name], self.starts.get(name)
        if start is not None:
            own = values.narrow(-1, start, len(index))
        else:
            own = values.index_select(-1, index.to(values.device))
        return own.reshape((*values.shape[:-1], *self.shapes[name]))


def shared_sites(graph: FactorGraph) -> Sites:
    """Merge the elements that Equality factors identify.

    Raises UnsupportedError for an Equality through a map that does more than pick elements, GraphStructureError
    if a trajectory would have to repeat one number in two of its elements, ShapeError for more than `LARGEST`
    elements.
    """
    offsets, size = {}, 0
    shapes = {name: graph.shape(name) for name in graph.variables}
    total = sum(map(math.prod, shapes.values()))
    if total > LARGEST:
        name = max(shapes, key=lambda n: math.prod(shapes[n]))
        raise ShapeError(
            f"the nodes have {total} elements together, more than {LARGEST}; the largest is {name!r} of shape "
            f"{shapes[name]}",
            name=name,
            got=shapes[name],
        )
    for name, shape in shapes.items():
        offsets[name] = size
        size += int(np.prod(shape))
    pairs = []
    for factor in graph.factors:
        if not isinstance(graph.potential(factor), Equality):
            continue
        ends = []
        for name, m in zip(graph.scope(factor), graph.maps(factor), strict=True):
            index = element_index(m)
            if index is None:
                raise UnsupportedError(
                    f"factor {factor!r}: Equality through a {type(m).__name__} on {name!r} does not pick elements; "
                    "use an index map (Crop, Flip, Rotate, Permutation, Mask), or a strong Attraction",
                    factor=factor,
                    name=name,
                )
            ends.append(offsets[name] + index.numpy())
        pairs += [(ends[0], other) for other in ends[1:]]
    labels = np.arange(size)
    if pairs:
        rows, columns = (np.concatenate(side) for side in zip(*pairs, strict=True))
        joined = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
        _, labels = connected_components(joined, directed=False)
        # number the sites by their first element, so that the order does not depend on scipy
        _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
        labels = np.argsort(np.argsort(first))[labels]
    where: dict[Name, Tensor] = {}
    for name, shape in shapes.items():
        own = labels[offsets[name] : offsets[name] + int(np.prod(shape))]
        if pairs and len(np.unique(own)) < len(own):
            raise GraphStructureError(
                f"the Equality factors make {len(own) - len(np.unique(own))} elements of {name!r} copies of others "
                "of its own elements; its denoiser could not see white noise",
                name=name,
            )
        where[name] = torch.from_numpy(own.astype(np.int64))
    starts = {
        name: int(own[0])
        for name, own in where.items()
        if len(own) and torch.equal(own, int(own[0]) + torch.arange(len(own)))
    }
    return Sites(where, int(labels.max()) + 1 if size else 0, shapes, starts)
