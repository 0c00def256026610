"""A texture from finished pictures of a mesh: decoded views, or renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ...errors import CameraError, ShapeError
from ...errors import listed as listing
from .atlas import LEAST_COSINE, POWER, filled
from .cameras import Camera, check_cameras
from .mesh import Surface, Texels


def project_views(
    surface: Surface,
    cameras: Sequence[Camera],
    pictures: Mapping[str, Tensor],
    size: tuple[int, int],
    least_cosine: float = LEAST_COSINE,
    power: float = POWER,
) -> Tensor:  # (C, H, W)
    """What the cameras' `pictures` ``{"view 0": (C, h, w), ...}`` say about a texture of `size` of a `surface`.

    Every texel is looked up, bilinearly, in all pictures that show it (nothing is in front, and the ray's cosine is at
    least `least_cosine`), and takes their mean, weighted by ``cosine ** power``. Texels that no picture shows are
    filled as by `Atlas.texture`. Pictures may be finer than their camera's resolution: of latents, decode them first.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> pictures = {f"view {k}": torch.full((3, 24, 24), 0.5) for k in range(3)}
    >>> texture = project_views(ball, ring_cameras(ball, 3), pictures, size=(8, 8))
    >>> texture.shape, texture.unique().tolist()
    (torch.Size([3, 8, 8]), [0.5])

    Raises ShapeError, CameraError where no picture shows any texel.
    """
    listed = check_cameras(cameras)
    names = [f"view {k}" for k in range(len(listed))]
    if set(pictures) != set(names):
        raise ShapeError(
            f"{len(listed)} cameras need pictures called {names[0]!r} to {names[-1]!r}, not {listing(pictures)}",
            got=list(pictures),
        )
    texels = surface.texels(size)
    numbers = np.flatnonzero(texels.covered)
    channels = {len(p) for p in pictures.values()}
    if any(p.ndim != 3 for p in pictures.values()) or len(channels) != 1:
        raise ShapeError("pictures must be (C, h, w), all with the same channels")
    total = torch.zeros(channels.pop(), len(numbers), dtype=torch.float64)
    weights = np.zeros(len(numbers))
    for name, camera in zip(names, listed, strict=True):
        picture = pictures[name]
        fine = replace(camera, resolution=(picture.shape[1], picture.shape[2]))
        place, cosine = _seen(surface, texels, numbers, fine)
        counts = np.flatnonzero(cosine >= max(least_cosine, 1e-6))
        grid = torch.from_numpy(2 * place[counts] / [picture.shape[2], picture.shape[1]] - 1)
        looked = grid_sample(
            picture[None].detach().cpu().double(),
            grid[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        total[:, torch.from_numpy(counts)] += looked[0, :, 0] * torch.from_numpy(cosine[counts] ** power)
        weights[counts] += cosine[counts] ** power
    known = weights > 0
    if not known.any():
        raise CameraError(f"none of the {len(listed)} pictures shows a texel")
    values = total[:, torch.from_numpy(known)] / torch.from_numpy(weights[known])
    return filled(texels, numbers[known], values).to(next(iter(pictures.values())).dtype)


def _seen(
    surface: Surface, texels: Texels, numbers: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:  # (n, 2), (n,)
    """Places of texels in a picture, and cosines of the rays that show them, 0 for what is hidden or outside."""
    points, normals = (a.reshape(-1, 3)[numbers] for a in (texels.position, texels.normal))
    place, depth = camera.project(points)
    if camera.extent is None:
        rays = points - np.asarray(camera.position)
        rays = rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-300)
    else:
        rays = np.broadcast_to(camera.axes()[2], points.shape)
    cosine = np.abs((rays * normals).sum(1))
    inside = (depth > 0) & (place > 0).all(1) & (place < np.array(camera.resolution[::-1])).all(1)
    # towards the camera, from a little off the surface on the camera's side: what is hit hides the texel
    step = 1e-4 * surface.radius
    start = points - step * rays / np.maximum(cosine, 0.05)[:, None]
    index = np.flatnonzero(inside)
    _, ray, hits = surface.rays.intersects_id(
        start[index], -rays[index], multiple_hits=False, return_locations=True
    )
    ray = np.asarray(ray, dtype=int)
    if len(ray):
        distance = np.linalg.norm(hits - start[index[ray]], axis=1)
        limit = depth if camera.extent is not None else np.linalg.norm(points - np.asarray(camera.position), axis=1)
        inside[index[ray[distance < limit[index[ray]]]]] = False
    return place, np.where(inside, cosine, 0.0)
