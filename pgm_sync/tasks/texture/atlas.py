"""The texture as a hidden canvas: its sites, where they lie on the atlas, and how much each view counts there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.spatial import cKDTree
from torch import Tensor

from ...errors import CameraError, ParameterError, ShapeError
from .cameras import Camera, check_cameras
from .matching import match
from .mesh import Surface, Texels
from .views import View, cast_all

LEAST_COSINE = 0.3  # rays that graze the surface more than this show no texel
POWER = 8.0  # of the cosine in the canvas weights: nearly the steepest view alone, because means of views are blurred
NEIGHBOURS = 4  # shown texels that one between them is filled from


@dataclass(frozen=True, eq=False)
class Atlas:
    """Sites of the hidden canvas: the texels that some view shows, then the pixels that only one view shows.

    A canvas has shape ``(*channels, sites)``; made by `make_atlas`.

    >>> import torch, trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> surface = load_surface(trimesh.creation.icosphere(2))
    >>> atlas = make_atlas(surface, ring_cameras(surface, 4, resolution=(12, 12)))
    >>> colours = torch.rand(3, *atlas.size, generator=torch.Generator().manual_seed(0))
    >>> canvas = atlas.canvas(colours)  # one number per channel and site
    >>> canvas.shape == (3, atlas.count), torch.equal(atlas.canvas(atlas.texture(canvas)), canvas)
    (True, True)
    """

    surface: Surface  # the mesh
    texels: Texels  # what the texels show
    views: Mapping[str, View]  # "view 0", "view 1", ...
    shown: np.ndarray  # (K,) flat texel number of the first K sites
    sites: Mapping[str, np.ndarray]  # (h, w) site of every pixel, by view
    weights: Mapping[str, np.ndarray]  # (h, w) float64: Eq. 10, a partition of unity

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the texture picture."""
        return self.texels.size

    @cached_property
    def count(self) -> int:
        """Number of sites."""
        return 1 + max(int(s.max()) for s in self.sites.values())

    def tied(self, name: str) -> np.ndarray:
        """``(h, w)`` bool: pixels of the view `name` that show a texel."""
        return self.sites[name] < len(self.shown)

    @property
    def spacing(self) -> float:
        """Distance between neighbouring texels on the surface."""
        return _spacing(self.surface, self.size)

    def shares(self) -> dict[str, float]:
        """How well views are tied.

        "tied": pixels that show a texel, among those that see the surface; "shared": tied pixels whose texel another
        view shows too; "covered": texels of the surface that some view shows.
        """
        seen = sum(int(v.visible.sum()) for v in self.views.values())
        counts = np.zeros(self.count)
        for s in self.sites.values():
            counts[s.ravel()] += 1
        tied = counts[: len(self.shown)]
        return {
            "tied": float(tied.sum() / seen),
            "shared": float(tied[tied > 1].sum() / tied.sum()),
            "covered": len(self.shown) / int(self.texels.covered.sum()),
        }

    def overlap(self, a: str, b: str) -> int:
        """How many texels the views `a` and `b` show both."""
        first, second = (self.sites[name][self.tied(name)] for name in (a, b))
        return len(np.intersect1d(first, second))

    @cached_property
    def _filling(self) -> Any:
        return filling(self.texels, self.shown)

    def texture(self, canvas: Tensor) -> Tensor:  # (*batch, sites) -> (*batch, H, W)
        """The texture picture of a canvas.

        Texels that no view shows are filled from the nearest on the surface that one does; those off the charts from
        the nearest on a chart (`dilate`), so that filtering across their borders does not bleed.

        Raises ShapeError.
        """
        if canvas.ndim < 1 or canvas.shape[-1] != self.count:
            raise ShapeError(
                f"a canvas of shape {tuple(canvas.shape)} does not end in {self.count} sites",
                expected=self.count,
                got=tuple(canvas.shape),
            )
        return filled(self.texels, self.shown, canvas[..., : len(self.shown)], self._filling)

    def canvas(self, textures: Tensor, background: Mapping[str, Tensor] | None = None) -> Tensor:
        """`textures` ``(*batch, H, W)`` as canvases ``(*batch, sites)``, the inverse of `texture` on shown texels.

        `background`, ``{view: (*batch, h, w)}``, is what the pixels show that belong to one view alone; they are 0
        without. Raises ShapeError.
        """
        if textures.ndim < 2 or tuple(textures.shape[-2:]) != self.size:
            raise ShapeError(
                f"textures of shape {tuple(textures.shape)} are not of {self.size} texels",
                expected=self.size,
                got=tuple(textures.shape),
            )
        flat = textures.flatten(-2)[..., torch.from_numpy(self.shown)]
        canvas = torch.cat([flat, flat.new_zeros(*flat.shape[:-1], self.count - len(self.shown))], -1)
        for name, value in (background or {}).items():
            own = torch.from_numpy(~self.tied(name))
            canvas[..., torch.from_numpy(self.sites[name])[own]] = value[..., own].to(canvas)
        return canvas


def filling(texels: Texels, shown: np.ndarray) -> Any:
    """Every texel from the nearest ones `shown` (flat numbers): sparse ``(H W, K)``, rows on the charts summing to one.

    Shown texels keep their value; the others take means of a few, weighted by inverse squared distance on the surface's
    points, so across the borders of charts.
    """
    covered, points = texels.covered.ravel(), texels.position.reshape(-1, 3)
    known = np.zeros(covered.size, dtype=bool)
    known[shown] = True
    holes = np.flatnonzero(covered & ~known)
    k = min(NEIGHBOURS, len(shown))
    distance, near = cKDTree(points[shown]).query(points[holes], k=k)
    distance, near = distance.reshape(-1, k), near.reshape(-1, k)
    share = 1 / np.maximum(distance, 1e-9 * np.abs(points).max() + 1e-300) ** 2
    share /= share.sum(1, keepdims=True)
    rows = np.concatenate([shown, np.repeat(holes, k)])
    columns = np.concatenate([np.arange(len(shown)), near.ravel()])
    values = np.concatenate([np.ones(len(shown)), share.ravel()])
    return sparse.csr_array((values, (rows, columns)), shape=(covered.size, len(shown)))


def filled(texels: Texels, shown: np.ndarray, values: Tensor, table: Any = None) -> Tensor:
    """A picture ``(*batch, H, W)`` from values ``(*batch, K)`` of the texels `shown`: no holes, no bleeding borders."""
    table = filling(texels, shown) if table is None else table
    flat = values.detach().cpu().reshape(-1, len(shown)).double().numpy()
    picture = torch.from_numpy((table @ flat.T).T.copy()).reshape(*values.shape[:-1], *texels.size)
    return dilate(picture, torch.from_numpy(texels.covered)).to(values.dtype)


def dilate(picture: Tensor, known: Tensor) -> Tensor:  # (*batch, H, W), (H, W) bool
    """Every pixel of a `picture` ``(*batch, H, W)`` outside `known` ``(H, W)`` takes the value of the nearest inside.

    >>> import torch
    >>> dilate(torch.tensor([[1.0, 0.0, 0.0, 2.0]]), torch.tensor([[True, False, False, True]]))
    tensor([[1., 1., 2., 2.]])

    Raises ShapeError, ParameterError where no pixel is known.
    """
    if tuple(picture.shape[-2:]) != tuple(known.shape):
        raise ShapeError(f"a mask of {tuple(known.shape)} does not fit pictures of shape {tuple(picture.shape)}")
    if not bool(known.any()):
        raise ParameterError("no pixel is known; there is nothing to fill the others from")
    rows, columns = ndimage.distance_transform_edt(
        ~known.cpu().numpy(), return_distances=False, return_indices=True
    )
    return picture[..., torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]


def _spacing(surface: Surface, size: tuple[int, int]) -> float:
    u, v = surface.stretch()
    return math.sqrt(u / size[1] * v / size[0])


def fitting_size(surface: Surface, views: Mapping[str, View], density: float = 1.0) -> tuple[int, int]:
    """Height and width of an atlas whose texels are as far apart as pixels on surfaces seen from straight above.

    `surface` and its `views` as of `cast_all`. `density` counts texels per pixel side.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import cast_all, load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> views = cast_all(ball, ring_cameras(ball, 3))
    >>> coarse, fine = fitting_size(ball, views), fitting_size(ball, views, density=2.0)
    >>> abs(fine[0] - 2 * coarse[0]) <= 1
    True
    """
    pixel = float(
        np.median(np.concatenate([v.camera.pixel_size(v.depth[v.visible & (v.cosine > 0.5)]) for v in views.values()]))
    )
    u, v = surface.stretch()
    return max(1, math.ceil(density * v / pixel)), max(1, math.ceil(density * u / pixel))


def make_atlas(
    surface: Surface,
    cameras: Sequence[Camera],
    size: tuple[int, int] | None = None,
    least_cosine: float = LEAST_COSINE,
    power: float = POWER,
) -> Atlas:
    """Match pixels of all views with texels, one to one in each view.

    Parameters
    ----------
    surface, cameras
        a mesh as `load_surface` makes it, and who looks at it.
    size
        height and width of the atlas; None: texels as far apart as pixels (`fitting_size`).
    least_cosine
        of the angle between ray and normal, for a pixel to show a texel. Others are the view's own, like background.
    power
        views count on a texel by ``cosine ** power``, divided by their sum (Eq. 10).

    Raises CameraError naming the view (inside the mesh, or without a texel), ParameterError, ShapeError.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> near = make_atlas(ball, ring_cameras(ball, 6, resolution=(12, 12)))
    >>> near.overlap("view 0", "view 1") > near.overlap("view 0", "view 3")  # neighbours, and opposite ones
    True
    """
    if not 0 <= least_cosine < 1 or not power >= 0:
        raise ParameterError(f"least_cosine={least_cosine} must lie in [0, 1), power={power} be at least 0")
    views = cast_all(surface, check_cameras(cameras))
    if size is None:
        size = fitting_size(surface, views)
    if len(tuple(size)) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ShapeError(f"atlas={size!r} must be (height, width)", got=size)
    texels = surface.texels((size[0], size[1]))
    numbers = np.flatnonzero(texels.covered)
    if len(numbers) == 0:
        raise ShapeError(f"an atlas of {size} texels is too coarse: none of their middles lies on a face", got=size)
    tree = cKDTree(texels.position.reshape(-1, 3)[numbers])
    used = np.zeros(texels.covered.size, dtype=bool)
    matched = {}
    for name, view in views.items():
        found = match(view, texels, tree, numbers, _spacing(surface, size), used, least_cosine)
        if not (found >= 0).any():
            raise CameraError(
                f"{name!r}: none of its {int(view.visible.sum())} pixels on the mesh shows a texel of the "
                f"{size[0]} x {size[1]} atlas: all rays graze the surface (cosines below {least_cosine:g}), or the "
                "atlas is too coarse",
                name=name,
            )
        used[found[found >= 0]] = True
        matched[name] = found
    shown = np.flatnonzero(used)
    place = np.full(used.size, -1)
    place[shown] = np.arange(len(shown))
    sites, total, start = {}, np.zeros(len(shown)), len(shown)
    raised = {name: np.maximum(view.cosine, 1e-6) ** power for name, view in views.items()}
    for name, found in matched.items():
        tied = found >= 0
        sites[name] = np.where(tied, place[found], -1)
        sites[name][~tied] = np.arange(start, start + int((~tied).sum()))
        start += int((~tied).sum())
        total[sites[name][tied]] += raised[name][tied]
    weights = {}
    for name, found in matched.items():
        tied = found >= 0
        weights[name] = np.ones(found.shape)
        weights[name][tied] = raised[name][tied] / total[sites[name][tied]]
    return Atlas(surface, texels, views, shown, sites, weights)
