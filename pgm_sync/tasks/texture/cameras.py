"""Pinhole cameras around a mesh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ParameterError, ShapeError
from .mesh import Surface


@dataclass(frozen=True)
class Camera:
    """Looks from `position` at `target`; the middle row and column of its picture meet there.

    Parameters
    ----------
    field_of_view
        the angle between the upper and the lower border, in degrees.
    resolution
        height and width in pixels, which are square.
    up
        what is shown upright; another axis is taken where this is the direction of view.
    extent
        a height in units of the mesh makes all rays parallel (an orthographic camera); None: a pinhole.

    Raises ParameterError, ShapeError.

    >>> camera = Camera(position=(0.0, 0.0, 5.0), resolution=(24, 24))
    >>> place, depth = camera.project(np.zeros((1, 3)))  # the target, in the middle
    >>> place.round(6).tolist(), depth.tolist()
    ([[12.0, 12.0]], [5.0])
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    field_of_view: float = 40.0
    resolution: tuple[int, int] = (24, 24)
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    extent: float | None = None

    def __post_init__(self) -> None:
        for name in ("position", "target", "up"):
            value = tuple(float(x) for x in getattr(self, name))
            if len(value) != 3 or not all(map(math.isfinite, value)):
                raise ParameterError(f"Camera: {name}={getattr(self, name)!r} is no finite point", name=name)
            object.__setattr__(self, name, value)
        size = tuple(self.resolution)
        if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ShapeError(f"Camera: resolution={self.resolution!r} must be (height, width)", got=self.resolution)
        object.__setattr__(self, "resolution", size)
        if not 0 < self.field_of_view < 180:
            raise ParameterError(f"Camera: field_of_view={self.field_of_view} degrees must lie between 0 and 180")
        if self.extent is not None and not (math.isfinite(self.extent) and self.extent > 0):
            raise ParameterError(f"Camera: extent={self.extent} must be positive")
        if math.dist(self.position, self.target) == 0:
            raise ParameterError(f"Camera: position and target are both {self.position}")

    def axes(self) -> np.ndarray:
        """Unit vectors to the right, upwards and forward, ``(3, 3)``."""
        forward = _unit(np.subtract(self.target, self.position))
        up = np.array(self.up)
        if np.linalg.norm(np.cross(forward, up)) < 1e-6 * np.linalg.norm(up) or not up.any():
            up = np.eye(3)[int(np.abs(forward).argmin())]
        right = _unit(np.cross(forward, up))
        return np.stack([right, np.cross(right, forward), forward])

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins and unit directions of the rays through the middles of all pixels, ``(h w, 3)`` each."""
        h, w = self.resolution
        x, y = np.meshgrid((np.arange(w) + 0.5 - w / 2) / (h / 2), (h / 2 - np.arange(h) - 0.5) / (h / 2))
        plane = np.stack([x.ravel(), y.ravel()], 1)
        right, up, forward = self.axes()
        across = plane @ np.stack([right, up])
        if self.extent is not None:
            directions = np.broadcast_to(forward, across.shape)
            return np.asarray(self.position) + self.extent / 2 * across, directions
        directions = forward + math.tan(math.radians(self.field_of_view) / 2) * across
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(np.asarray(self.position), directions.shape), directions

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points ``(n, 3)`` are seen: column and row ``(n, 2)``, and depth ``(n,)``.

        The first pixel reaches from 0 to 1. Points behind the camera have a depth of 0 or less, and no proper place.
        """
        right, up, forward = self.axes()
        offset = points - np.asarray(self.position)
        depth = offset @ forward
        if self.extent is not None:
            half = np.full(len(points), self.extent / 2)
        else:
            half = np.maximum(depth, 1e-12) * math.tan(math.radians(self.field_of_view) / 2)
        h, w = self.resolution
        x, y = offset @ right / half, offset @ up / half
        return np.stack([w / 2 + x * h / 2, h / 2 - y * h / 2], 1), depth

    def pixel_size(self, depth: np.ndarray | float) -> np.ndarray:
        """Height of a pixel, in units of the mesh, at a depth along the forward axis."""
        if self.extent is not None:
            return np.full_like(np.asarray(depth, dtype=float), self.extent / self.resolution[0])
        return np.asarray(depth) * (2 * math.tan(math.radians(self.field_of_view) / 2) / self.resolution[0])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def framing_distance(surface: Surface, field_of_view: float, resolution: tuple[int, int], margin: float = 1.1) -> float:
    """How far away a camera shows the whole mesh, with `margin` times its size around."""
    tangent = math.tan(math.radians(field_of_view) / 2) * min(1.0, resolution[1] / resolution[0])
    return margin * surface.radius / math.sin(math.atan(tangent))


def ring_cameras(
    surface: Surface,
    n: int,
    elevation: float = 0.0,
    start: float = 0.0,
    distance: float | None = None,
    field_of_view: float = 40.0,
    resolution: tuple[int, int] = (24, 24),
) -> list[Camera]:
    """`n` cameras at equal angles around the vertical axis (y) of a `surface`, `elevation` degrees above the horizon.

    The first stands `start` degrees from the z axis. `distance` is None to show the whole mesh. `field_of_view` and
    `resolution` as of `Camera`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> [tuple(round(x, 3) + 0.0 for x in camera.position) for camera in ring_cameras(ball, 2, distance=3.0)]
    [(0.0, 0.0, 3.0), (0.0, 0.0, -3.0)]

    Raises ParameterError.
    """
    angles = math.radians(start) + 2 * math.pi * np.arange(_count(n)) / n
    rise = math.radians(elevation)
    ways = np.stack(
        [np.sin(angles) * math.cos(rise), np.full(n, math.sin(rise)), np.cos(angles) * math.cos(rise)], 1
    )
    return _around(surface, ways, distance, field_of_view, resolution)


def sphere_cameras(
    surface: Surface,
    n: int,
    distance: float | None = None,
    field_of_view: float = 40.0,
    resolution: tuple[int, int] = (24, 24),
) -> list[Camera]:
    """`n` cameras spread over a sphere around a `surface`: a Fibonacci lattice from above to below.

    `distance` is None to show the whole mesh; `field_of_view` and `resolution` as of `Camera`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface
    >>> cameras = sphere_cameras(load_surface(trimesh.creation.icosphere(2)), 8)
    >>> cameras[0].position[1] > 0 > cameras[-1].position[1]
    True

    Raises ParameterError.
    """
    k = np.arange(_count(n)) + 0.5
    height, angle = 1 - 2 * k / n, math.pi * (1 + math.sqrt(5)) * k
    flat = np.sqrt(1 - height**2)
    ways = np.stack([flat * np.sin(angle), height, flat * np.cos(angle)], 1)
    return _around(surface, ways, distance, field_of_view, resolution)


def _around(
    surface: Surface,
    ways: np.ndarray,
    distance: float | None,
    field_of_view: float,
    resolution: tuple[int, int],
) -> list[Camera]:
    first = Camera((0, 0, 1), (0, 0, 0), field_of_view, resolution)  # raises on the settings
    if distance is None:
        distance = framing_distance(surface, field_of_view, resolution)
    if not (math.isfinite(distance) and distance > 0):
        raise ParameterError(f"distance={distance} must be positive", distance=distance)
    places = surface.centre + distance * ways
    return [replace(first, position=tuple(place), target=tuple(surface.centre)) for place in places]


def close_cameras(
    surface: Surface,
    size: float,
    spacing: float | None = None,
    field_of_view: float = 20.0,
    resolution: tuple[int, int] = (24, 24),
    seed: int = 0,
) -> list[Camera]:
    """Cameras that each show a patch of the `surface`, `size` units high, from straight above it.

    Where another part of the mesh is in the way, a camera stands half as far as that, with a wider field of view.

    Their targets are chosen farthest first, among points drawn from `seed`, until every point of the surface lies
    within `spacing` of one (None: half of `size`). Small denoisers cover large textures this way. `field_of_view` and
    `resolution` as of `Camera`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> len(close_cameras(ball, size=2.0)) < len(close_cameras(ball, size=1.0))
    True

    Raises ParameterError.
    """
    spacing = size / 2 if spacing is None else spacing
    if not (size > 0 and spacing > 0):
        raise ParameterError(f"size={size} and spacing={spacing} must be positive", size=size, spacing=spacing)
    count = int(np.clip(200 * surface.areas.sum() / spacing**2, 1000, 200_000))
    generator = np.random.default_rng(seed)
    face = generator.choice(len(surface.faces), count, p=surface.areas / surface.areas.sum())
    weights = generator.dirichlet(np.ones(3), count)
    points = surface.at(surface.vertices, face, weights)
    normals = surface.at(surface.normals, face, weights)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    distance = size / (2 * math.tan(math.radians(field_of_view) / 2))
    chosen = [0]
    # a patch on the other side of a thin sheet is far away: 4 radii for opposite normals
    gap = _gap(points, normals, 0, spacing)
    while gap.max() > spacing and len(chosen) < count:
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, _gap(points, normals, chosen[-1], spacing))
    targets, ways = points[chosen], normals[chosen]
    start = targets + 1e-4 * surface.radius * ways
    _, ray, hits = surface.rays.intersects_id(start, ways, multiple_hits=False, return_locations=True)
    room = np.full(len(chosen), distance)
    room[ray] = np.minimum(distance, np.linalg.norm(hits - start[ray], axis=1) / 2)
    room = np.maximum(room, size / 8)  # below, perspective would be grotesque; the view then names itself if inside
    return [
        Camera(tuple(t + d * way), tuple(t), math.degrees(2 * math.atan(size / (2 * d))), resolution)
        for t, way, d in zip(targets, ways, room, strict=True)
    ]


def _gap(points: np.ndarray, normals: np.ndarray, k: int, spacing: float) -> np.ndarray:
    turned = 1 - np.clip(normals @ normals[k], -1, 1)
    return np.sqrt(((points - points[k]) ** 2).sum(1) + (2 * spacing * turned) ** 2)


def _count(n: int) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ParameterError(f"n={n!r} cameras: a positive integer needed", n=n)
    return n


def check_cameras(cameras: Sequence[Camera]) -> list[Camera]:
    """A list of cameras, or ParameterError."""
    listed = list(cameras) if isinstance(cameras, Sequence) else [cameras]
    wrong = [c for c in listed if not isinstance(c, Camera)]
    if not listed or wrong:
        raise ParameterError(f"cameras: {wrong[0]!r} is no Camera" if wrong else "there are no cameras")
    return listed
