"""Which texel every pixel shows, none twice in one view: an assignment problem.

Where several pixels of a view showed one texel, their noise would be one and the same number, which no denoiser has
seen in training. So pixels and texels are matched one to one, each pixel to a texel near the point that it hits, at
the least total squared distance.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from .mesh import Texels
from .views import View

CANDIDATES = 16  # texels that a pixel may show
REACH = 2.0  # texel spacings that a pixel may be off
# What a texel costs that no earlier view shows, in squared spacings. Pixels of different views meet more often for it.
FRESH = 1.0
LARGEST = 5000  # pixels up to which the best of all matchings is looked for
SAME_SIDE = 0.2  # cosine between normals; a thin sheet's other side is near, but another place


def match(
    view: View,
    texels: Texels,
    tree: cKDTree,
    numbers: np.ndarray,  # (K,) flat texel number of every point in the tree
    spacing: float,
    used: np.ndarray,  # (H W) bool: texels that earlier views show
    least_cosine: float,
) -> np.ndarray:  # (h, w) flat texel numbers, -1 for pixels without
    """Texels for the pixels of a view that see the surface at more than `least_cosine`."""
    out = np.full(view.face.size, -1)
    pixels = np.flatnonzero(view.visible & (view.cosine >= least_cosine))
    if len(pixels) == 0:
        return out.reshape(view.face.shape)
    count = min(CANDIDATES, len(numbers))
    distance, near = tree.query(view.position.reshape(-1, 3)[pixels], k=count, distance_upper_bound=REACH * spacing)
    distance, near = distance.reshape(len(pixels), count), near.reshape(len(pixels), count)
    row, column = np.nonzero(np.isfinite(distance))
    texel = numbers[near[row, column]]
    # smooth normals are turned to the camera, so a face seen from behind meets the texels of its own side
    same = np.abs((view.normal.reshape(-1, 3)[pixels][row] * texels.normal.reshape(-1, 3)[texel]).sum(1)) > SAME_SIDE
    row, column, texel = row[same], column[same], texel[same]
    cost = (distance[row, column] / spacing) ** 2 + FRESH * ~used[texel]
    chosen = (assign if len(pixels) <= LARGEST else take_best)(row, texel, cost)
    out[pixels[row[chosen]]] = texel[chosen]
    return out.reshape(view.face.shape)


def assign(row: np.ndarray, texel: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Pairs, as positions in the lists, that use no end twice and cost least; being alone costs the most."""
    count = int(row.max()) + 1 if len(row) else 0
    known, position = np.unique(texel, return_inverse=True)
    # a column for every row to stay alone makes a full matching exist; scipy drops costs of zero, hence the 1
    alone = np.arange(count)
    table = coo_array(
        (
            np.concatenate([1 + cost, np.full(count, 1 + REACH**2 + FRESH + 1)]),
            (np.concatenate([row, alone]), np.concatenate([position, len(known) + alone])),
        ),
        shape=(count, len(known) + count),
    ).tocsr()
    rows, columns = min_weight_full_bipartite_matching(table)
    partner = np.full(count, -1)
    partner[rows] = columns
    return np.flatnonzero(partner[row] == position)


def take_best(row: np.ndarray, texel: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """As `assign`, but one pair after the other from the cheapest on: nearly as good, and quick."""
    left = np.argsort(cost, kind="stable")
    chosen = []
    free_row, free_texel = np.ones(row.max(initial=-1) + 1, dtype=bool), np.ones(texel.max(initial=-1) + 1, dtype=bool)
    while len(left):
        first = np.zeros((2, len(left)), dtype=bool)
        for k, end in enumerate((row, texel)):
            first[k, np.unique(end[left], return_index=True)[1]] = True
        best = left[first.all(0)]  # cheapest for both of their ends: taken one by one, they would be too
        chosen.append(best)
        free_row[row[best]], free_texel[texel[best]] = False, False
        left = left[free_row[row[left]] & free_texel[texel[left]]]
    return np.concatenate(chosen) if chosen else left
