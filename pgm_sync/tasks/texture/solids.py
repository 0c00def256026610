"""Textured versions of a mesh to learn from: every photograph crop a solid block that the mesh is cut out of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ...errors import ParameterError, ShapeError
from ...zoo import PHOTOGRAPHS
from ..photos import crops as photo_crops
from ..photos import kinds as kinds_of
from .atlas import Atlas
from .views import View

SHARPNESS = 4  # power of the normal's entries, by which the three projections are mixed
CROP = (32, 64)  # as large as the bands of all photographs allow


def solid_colours(
    points: np.ndarray,  # (m, 3)
    normals: np.ndarray,  # (m, 3)
    pixel: float,
    n: int,
    split: str = "train",
    generator: torch.Generator | None = None,
    pictures: Sequence[str] = PHOTOGRAPHS,
    folder: str | None = None,
    crop: tuple[int, int] = CROP,
) -> tuple[Tensor, Tensor]:  # (n, 3, m) float32 in [-1, 1], (n) int64
    """Colours of points on a surface in `n` textured versions of it, and the position in `pictures` of each.

    Three crops of one photograph are projected along three axes and mixed by the normal (triplanar mapping), one crop
    pixel as large as `pixel` in units of the mesh. The axes are turned around the vertical (y), which stays upright,
    and moved at random; beyond their borders crops are mirrored.

    `points` and their unit `normals` are ``(m, 3)``; `split`, `generator`, `pictures` and `folder`, of pictures to take
    instead, as of `tasks.photos.crops`; a `crop` is ``(height, width)``, in pixels.

    >>> points = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    >>> colours, photographs = solid_colours(points, points, pixel=0.1, n=2, generator=torch.Generator().manual_seed(0))
    >>> colours.shape, torch.equal(colours[..., 0], colours[..., 1])  # one point, one colour
    (torch.Size([2, 3, 3]), True)

    Raises ShapeError, ParameterError, and as `tasks.photos.crops`.
    """
    if points.ndim != 2 or points.shape != normals.shape or points.shape[1] != 3:
        raise ShapeError(f"points {points.shape} and normals {normals.shape} must both be (m, 3)")
    if not isinstance(n, int) or n < 1 or not pixel > 0:
        raise ParameterError(f"n={n!r} must be a positive integer, pixel={pixel} positive", n=n)
    kinds = kinds_of(pictures, folder, split)
    crops, photos = photo_crops((3, *crop), 3 * kinds * math.ceil(n / kinds), split, generator, pictures, folder)
    crops = crops[torch.argsort(photos, stable=True)].unflatten(0, (kinds, -1, 3)).transpose(0, 1).flatten(0, 1)
    labels = torch.arange(len(crops)) % kinds
    order = torch.randperm(len(crops), generator=generator)[:n]
    crops, labels = crops[order], labels[order]
    turn = 2 * math.pi * torch.rand(n, generator=generator)
    offset = torch.rand(n, 3, generator=generator) * torch.tensor([crop[1], crop[0], crop[1]])
    p, q = (torch.from_numpy(np.ascontiguousarray(a)).float() for a in (points / pixel, normals))
    centre = (p.amin(0) + p.amax(0)) / 2
    out = torch.empty(n, 3, len(p))
    for k in range(n):
        c, s = math.cos(turn[k]), math.sin(turn[k])
        rotation = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        x, facing = (p - centre) @ rotation + offset[k], (q @ rotation).abs() ** SHARPNESS
        planes = torch.stack([x[:, [2, 1]], x[:, [0, 2]], x[:, [0, 1]]])  # across and up, by the axis looked along
        grid = torch.stack([planes[..., 0] / crop[1], -planes[..., 1] / crop[0]], -1) * 2
        colours = grid_sample(
            crops[k], grid[:, None], mode="bilinear", padding_mode="reflection", align_corners=False
        )
        share = facing / facing.sum(1, keepdim=True).clamp_min(1e-12)
        out[k] = torch.einsum("acm,ma->cm", colours[:, :, 0], share)
    return out, labels


def joint_samples(
    atlas: Atlas,
    n: int,
    split: str = "train",
    generator: torch.Generator | None = None,
    pictures: Sequence[str] = PHOTOGRAPHS,
    folder: str | None = None,
) -> tuple[Tensor, Tensor]:  # (n, 3, sites), (n)
    """Canvases of `n` textured versions of a mesh for ``ps.fit(graph, {"atlas": canvases}, groups=photographs)``.

    A texel has the colour of its point (`solid_colours`), pixels as large as texels are apart. Pixels that belong to
    one view alone show crops of other photographs: what is behind a mesh says nothing about it. `atlas` is what
    `make_atlas` made; `split`, `generator`, `pictures` and `folder` as of `solid_colours`, whose errors it raises.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, make_atlas, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> atlas = make_atlas(ball, ring_cameras(ball, 3, resolution=(8, 8)))
    >>> canvases, photographs = joint_samples(atlas, 2, generator=torch.Generator().manual_seed(0))
    >>> canvases.shape == (2, 3, atlas.count), photographs.shape
    (True, torch.Size([2]))
    """
    flat = atlas.texels.position.reshape(-1, 3)[atlas.shown], atlas.texels.normal.reshape(-1, 3)[atlas.shown]
    source = (split, generator, pictures, folder)
    colours, photos = solid_colours(flat[0], flat[1], atlas.spacing, n, *source)
    canvas = torch.cat([colours, colours.new_zeros(n, 3, atlas.count - len(atlas.shown))], -1)
    for name, sites in atlas.sites.items():
        own = torch.from_numpy(~atlas.tied(name))
        if bool(own.any()):
            behind, _ = photo_crops((3, *sites.shape), n, *source)
            canvas[..., torch.from_numpy(sites)[own]] = behind[..., own]
    return canvas, photos


def view_pictures(
    views: Mapping[str, View],
    n: int,
    split: str = "train",
    generator: torch.Generator | None = None,
    pictures: Sequence[str] = PHOTOGRAPHS,
    folder: str | None = None,
) -> tuple[Tensor, Tensor]:  # (n, views, 3, h, w) in [-1, 1], (n)
    """What `views` of a mesh show of `n` textured versions of it, and the photograph of each.

    `views` are as `cast_all` makes them. Every pixel has the colour of the point that it shows (`solid_colours`), crops
    as large as a view; behind the mesh are crops of other photographs. `split`, `generator`, `pictures` and `folder` as
    of `solid_colours`, whose errors it raises.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import cast_all, load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> views = cast_all(ball, ring_cameras(ball, 3, resolution=(24, 24)))
    >>> shown, photographs = view_pictures(views, 2, generator=torch.Generator().manual_seed(0))
    >>> shown.shape, photographs.shape
    (torch.Size([2, 3, 3, 24, 24]), torch.Size([2]))
    """
    masks = [view.visible for view in views.values()]
    points, normals = (
        np.concatenate([getattr(view, kind)[mask] for view, mask in zip(views.values(), masks, strict=True)])
        for kind in ("position", "normal")
    )
    pixel = float(np.median(np.concatenate([v.camera.pixel_size(v.depth[v.visible]) for v in views.values()])))
    size, source = masks[0].shape, (split, generator, pictures, folder)
    colours, photos = solid_colours(points, normals, pixel, n, *source, crop=size)
    behind, _ = photo_crops((3, *size), n * len(views), *source)
    shown = behind.unflatten(0, (n, len(views)))
    start = 0
    for k, mask in enumerate(masks):
        count = int(mask.sum())
        shown[:, k, :, torch.from_numpy(mask)] = colours[..., start : start + count]
        start += count
    return shown, photos


def view_samples(atlas: Atlas, canvas: Tensor) -> dict[str, Tensor]:
    """What every view of an `atlas` shows of a `canvas` ``(*batch, sites)``, or several: ``{view: (*batch, h, w)}``.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, make_atlas, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> atlas = make_atlas(ball, ring_cameras(ball, 3, resolution=(8, 8)))
    >>> views = view_samples(atlas, torch.arange(atlas.count))
    >>> views["view 2"].shape, torch.equal(views["view 2"], torch.from_numpy(atlas.sites["view 2"]))
    (torch.Size([8, 8]), True)

    Raises ShapeError.
    """
    if canvas.ndim < 1 or canvas.shape[-1] != atlas.count:
        raise ShapeError(f"canvases of shape {tuple(canvas.shape)} do not end in {atlas.count} sites")
    return {name: canvas[..., torch.from_numpy(sites)] for name, sites in atlas.sites.items()}
