"""Views tied to the atlas through bilinear interpolation, by springs rather than by equality.

Rows of bilinear maps overlap, so noise of a canvas would not be white in a view through them, and the shared canvas of
section 4 needs `texture_graph`. Here every view keeps a state of its own; pixels are pulled to what the atlas shows at
their points, the harder the steeper they see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...errors import CameraError, ParameterError, ShapeError
from ...graph import FactorGraph
from ...inference import infer
from ...maps import Mask, SparseMap, as_shape
from ...potentials import Attraction, Evidence
from .atlas import LEAST_COSINE, fitting_size
from .cameras import Camera, check_cameras
from .mesh import load_surface
from .views import View, cast_all

PRECISION = 1000.0  # of a spring on a pixel seen from straight above, 1 / (content units)^2
FALL = 2.0  # power of the cosine in a spring's precision
# Texels per pixel side. With as many texels as pixels, those of two views would mostly interpolate between different
# ones, and nothing would tie them.
DENSITY = 0.6
WEAK = 1e-2  # prior precision of texels, which those need that no view sees


def bilinear_weights(view: View, size: tuple[int, int], pixels: np.ndarray) -> Any:
    """Sparse ``(P, H W)``: each of the P chosen `pixels` (h, w bool) as a mean of the four texels around its point."""
    h, w = size
    u, v = view.uv[pixels].T
    x, y = np.clip(u * w - 0.5, 0, w - 1), np.clip((1 - v) * h - 0.5, 0, h - 1)
    left, top = np.minimum(x.astype(int), max(0, w - 2)), np.minimum(y.astype(int), max(0, h - 2))
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    p, q = x - left, y - top
    rows = np.tile(np.arange(len(u)), 4)
    columns = np.concatenate([top * w + left, top * w + right, bottom * w + left, bottom * w + right])
    values = np.concatenate([(1 - q) * (1 - p), (1 - q) * p, q * (1 - p), q * p])
    return sparse.csr_array(sparse.coo_array((values, (rows, columns)), shape=(len(u), h * w)))


def bilinear_texture_graph(
    mesh: Any,
    cameras: Sequence[Camera],
    atlas: tuple[int, int] | None = None,
    view: Sequence[int] = (3, 24, 24),
    precision: float = PRECISION,
    least_cosine: float = LEAST_COSINE,
    power: float = FALL,
) -> FactorGraph:
    """Views of a mesh pulled to one hidden texture ``"atlas"``, ``(*channels, H, W)``, by bilinear look-ups.

    An `Attraction` factor ``"see view 0"`` of ``precision * cosine ** power`` ties each pixel that sees the surface at
    more than `least_cosine`. Attraction states no marginal, so sampling needs the contents' variance:
    ``ps.sample(graph, ..., posterior_covariance=0.3)``; `bake` then makes one texture of the views. `mesh`, `cameras`
    and `view` as of `texture_graph`. `atlas` is None for texels 1 / 0.6 times as far apart as pixels.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> surface = load_surface(trimesh.creation.icosphere(2))
    >>> bilinear_texture_graph(surface, ring_cameras(surface, 3, resolution=(6, 6)), (6, 6), view=(1, 6, 6))
    FactorGraph(3 trajectories, 1 hidden variable, 4 factors)

    Raises as `texture_graph`: CameraError, MeshError, ShapeError, ParameterError.
    """
    shape = as_shape(view, "view shape")
    if len(shape) < 3:
        raise ShapeError(f"view={shape} must be (*channels, height, width)", got=shape)
    if not precision > 0:
        raise ParameterError(f"precision={precision} must be positive", precision=precision)
    surface = load_surface(mesh)
    views = cast_all(surface, check_cameras(cameras))
    size = fitting_size(surface, views, DENSITY) if atlas is None else (int(atlas[0]), int(atlas[1]))
    channels = shape[:-2]
    count = int(np.prod(channels))
    texture = (*channels, *size)
    graph = FactorGraph()
    graph.add_variable("atlas", texture)
    graph.add_factor("weak prior", ["atlas"], Evidence(torch.zeros(texture), precision=WEAK))
    for name, seen in views.items():
        if seen.face.shape != shape[-2:]:
            raise ShapeError(
                f"{name!r}: the camera's resolution is {seen.face.shape}, the view has shape {shape}",
                expected=shape[-2:],
                got=seen.face.shape,
                name=name,
            )
        pixels = seen.visible & (seen.cosine >= least_cosine)
        if not pixels.any():
            raise CameraError(
                f"{name!r}: all rays graze the surface (cosines below {least_cosine:g})", name=name
            )
        weights = sparse.block_diag([bilinear_weights(seen, size, pixels)] * count)
        lookup = SparseMap.from_scipy(weights, texture, (weights.shape[0],))
        strength = torch.from_numpy(np.tile(precision * seen.cosine[pixels] ** power, count))
        graph.add_trajectory(name, shape)
        graph.add_factor(
            f"see {name}",
            [name, "atlas"],
            Attraction(strength),
            maps=[Mask(shape, torch.from_numpy(pixels)), lookup],
        )
    return graph


def bake(graph: FactorGraph, samples: Mapping[Any, Tensor]) -> Tensor:
    """The texture ``(n, *channels, H, W)`` of a `bilinear_texture_graph` that fits views best, weighted least squares.

    `samples` are ``{view: (n, *channels, h, w)}`` for every trajectory of `graph`. Texels that no view sees come out as
    0.

    >>> import torch, trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> surface = load_surface(trimesh.creation.icosphere(2))
    >>> graph = bilinear_texture_graph(surface, ring_cameras(surface, 3, resolution=(6, 6)), (6, 6), view=(1, 6, 6))
    >>> texture = bake(graph, {name: torch.full((1, 1, 6, 6), 0.5) for name in graph.trajectories})
    >>> texture.shape, round(texture.median().item(), 2)  # of views that are grey
    (torch.Size([1, 1, 6, 6]), 0.5)
    """
    precision = 1e6 * PRECISION  # views are given; the atlas moves
    posterior = infer(graph, {name: (samples[name].double(), precision) for name in graph.trajectories})
    return posterior.mean["atlas"].to(next(iter(samples.values())))
