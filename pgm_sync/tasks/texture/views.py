"""What the pixels of a camera show of a mesh: first hits of their rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import CameraError
from .cameras import Camera
from .mesh import Surface


@dataclass(frozen=True, eq=False)
class View:
    """Per pixel of a camera, row 0 at the top; background pixels have face -1 and zeros elsewhere. Made by `cast`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import Camera, load_surface
    >>> view = cast(load_surface(trimesh.creation.icosphere(2)), Camera((0.0, 0.0, 3.0), resolution=(9, 9)))
    >>> bool(view.visible[4, 4]), round(float(view.depth[4, 4]), 1), bool(view.visible[0, 0])
    (True, 2.0, False)
    """

    camera: Camera  # whose pixels they are
    face: np.ndarray  # (h, w) int64
    barycentric: np.ndarray  # (h, w, 3)
    uv: np.ndarray  # (h, w, 2)
    position: np.ndarray  # (h, w, 3)
    normal: np.ndarray  # (h, w, 3) smooth, turned to the camera
    depth: np.ndarray  # (h, w) along the forward axis
    cosine: np.ndarray  # (h, w) in [0, 1], between the face's normal and the ray; 1: seen from straight above

    @property
    def visible(self) -> np.ndarray:
        """``(h, w)`` bool: where the mesh is."""
        return self.face >= 0


def cast(surface: Surface, camera: Camera) -> View:
    """The first hits of the rays of a `camera` on a `surface`; what is behind them is hidden by construction.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import Camera, load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(2))  # of radius 1
    >>> view = cast(ball, Camera((0.0, 0.0, 3.0), extent=2.0, resolution=(40, 40)))
    >>> round(float(view.visible.mean()), 2)  # pi / 4 of the square, less what the triangles leave out
    0.77
    """
    h, w = camera.resolution
    origins, directions = camera.rays()
    hit, ray, points = surface.rays.intersects_id(origins, directions, multiple_hits=False, return_locations=True)
    hit, ray = np.asarray(hit, dtype=np.int64), np.asarray(ray, dtype=np.int64)
    weights = surface.barycentric(hit, points)
    points = surface.at(surface.vertices, hit, weights)
    along = -(surface.face_normals[hit] * directions[ray]).sum(1)
    normals = surface.at(surface.normals, hit, weights) * np.where(along < 0, -1.0, 1.0)[:, None]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def picture(values: np.ndarray, fill: float = 0) -> np.ndarray:
        out = np.full((h * w, *values.shape[1:]), fill, dtype=values.dtype)
        out[ray] = values
        return out.reshape(h, w, *values.shape[1:])

    return View(
        camera,
        picture(hit, -1),
        picture(weights),
        picture(surface.at(surface.uv, hit, weights)),
        picture(points),
        picture(normals),
        picture((points - camera.position) @ camera.axes()[2]),
        picture(np.clip(np.abs(along), 0, 1)),
    )


def cast_all(surface: Surface, cameras: Sequence[Camera]) -> dict[str, View]:
    """``{"view 0": ..., "view 1": ...}``, the `View` of each of the `cameras` of a `surface`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> list(cast_all(ball, ring_cameras(ball, 3)))
    ['view 0', 'view 1', 'view 2']

    Raises CameraError, naming the view, for a camera inside a closed mesh, and for one that sees nothing of it.
    """
    views = {}
    for k, camera in enumerate(cameras):
        name = f"view {k}"
        if camera.extent is None and surface.closed and _inside(surface, camera):
            raise CameraError(
                f"{name!r}: the camera at {_point(camera.position)} is inside the mesh, whose points lie within "
                f"{surface.radius:.4g} of {_point(surface.centre)}; move it away",
                name=name,
            )
        views[name] = cast(surface, camera)
        if not views[name].visible.any():
            raise CameraError(
                f"{name!r}: the camera at {_point(camera.position)} looking at {_point(camera.target)} sees nothing of "
                f"the mesh, whose points lie within {surface.radius:.4g} of {_point(surface.centre)}",
                name=name,
            )
    return views


def _inside(surface: Surface, camera: Camera) -> bool:
    """Whether a ray away from the camera leaves a closed mesh an odd number of times, for most of a few rays."""
    directions = np.random.default_rng(0).standard_normal((5, 3))
    origins = np.broadcast_to(camera.position, directions.shape)
    _, ray = surface.rays.intersects_id(origins, directions, multiple_hits=True)[:2]
    return (np.bincount(np.asarray(ray, dtype=int), minlength=5) % 2).sum() >= 3


def _point(values: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
