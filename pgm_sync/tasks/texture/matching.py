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
    known, position = np.unique(texel, return_inverse=True)
    # a column for every pixel to stay alone makes a full matching exist; scipy drops costs of zero, hence the 1
    alone = np.arange(len(pixels))
    table = coo_array(
        (
            np.concatenate([1 + cost, np.full(len(pixels), 1 + REACH**2 + FRESH + 1)]),
            (np.concatenate([row, alone]), np.concatenate([position, len(known) + alone])),
        ),
        shape=(len(pixels), len(known) + len(pixels)),
    ).tocsr()
    rows, columns = min_weight_full_bipartite_matching(table)
    found = columns < len(known)
    out[pixels[rows[found]]] = known[columns[found]]
    return out.reshape(view.face.shape)
