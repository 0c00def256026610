"""Meshes with texture coordinates: loading, unwrapping, first hits of rays, and the surface points of an atlas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MeshError, NotFiniteError, ParameterError, SavedFileError, ShapeError
from . import extra

RESOLUTION = 128  # texels per side that charts are packed for: PADDING texels of it lie between them
PADDING = 2


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles with a place on the texture for every corner.

    u runs to the right of the texture picture and v upwards, both in [0, 1], as in OBJ files.

    >>> corners = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> flat = Surface(corners, np.array([[0, 1, 2]]), uv=corners[:, :2] / 2, normals=np.tile([0.0, 0.0, 1.0], (3, 1)))
    >>> flat.areas.tolist(), flat.stretch()  # a unit of u or v is two units long
    ([2.0], (2.0, 2.0))

    Raises MeshError (no faces, no area), NotFiniteError.
    """

    vertices: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64
    uv: np.ndarray  # (V, 2) float64
    normals: np.ndarray  # (V, 3) unit vectors, for smooth shading

    def __post_init__(self) -> None:
        if len(self.faces) == 0:
            raise MeshError("the mesh has no faces; a texture needs a surface, not points or lines")
        for what, array in (("vertices", self.vertices), ("UV coordinates", self.uv)):
            if not np.isfinite(array).all():
                raise NotFiniteError(f"the {what} of the mesh have NaN or infinite entries")
        if not self.areas.sum() > 0:
            raise MeshError(f"all {len(self.faces)} faces of the mesh have area 0")

    def __repr__(self) -> str:
        return f"Surface({len(self.vertices)} vertices, {len(self.faces)} faces)"

    @cached_property
    def centre(self) -> np.ndarray:
        """Middle of the bounding box, ``(3,)``."""
        return (self.vertices.min(0) + self.vertices.max(0)) / 2

    @cached_property
    def radius(self) -> float:
        """Of the smallest sphere around `centre` that holds the mesh."""
        return float(np.linalg.norm(self.vertices - self.centre, axis=1).max())

    @cached_property
    def corners(self) -> np.ndarray:
        """``(F, 3 corners, 3)``."""
        return self.vertices[self.faces]

    @cached_property
    def _crosses(self) -> np.ndarray:
        a, b, c = self.corners[:, 0], self.corners[:, 1], self.corners[:, 2]
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> np.ndarray:
        """Of every face, ``(F,)``."""
        return np.linalg.norm(self._crosses, axis=1) / 2

    @cached_property
    def face_normals(self) -> np.ndarray:
        """Unit vectors ``(F, 3)``; zero for faces without area."""
        return self._crosses / np.maximum(2 * self.areas, 1e-300)[:, None]

    @cached_property
    def mesh(self) -> Any:
        """The same triangles as a `trimesh.Trimesh`."""
        return extra.trimesh().Trimesh(self.vertices, self.faces, vertex_normals=self.normals, process=False)

    @cached_property
    def closed(self) -> bool:
        """Whether the triangles bound a volume. Seams of the texture, where vertices are listed twice, do not count."""
        return bool(extra.trimesh().Trimesh(self.vertices, self.faces, process=True).is_watertight)

    @cached_property
    def rays(self) -> Any:
        """The ray intersector."""
        return extra.intersector(self.mesh)

    def barycentric(self, face: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Barycentric coordinates ``(n, 3)`` of `points` ``(n, 3)`` on faces `face`, clipped to the triangle."""
        return _barycentric(self.corners[face], points)

    def at(self, values: np.ndarray, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        """`values` per vertex ``(V, k)`` interpolated to ``(n, k)``, on faces `face` at `barycentric` coordinates."""
        return (values[self.faces[face]] * barycentric[:, :, None]).sum(1)

    def stretch(self) -> tuple[float, float]:
        """Length on the surface per unit of u and of v, area-weighted root mean squares.

        Raises MeshError where the coordinates put every face on a line.
        """
        edges = self.corners[:, 1:] - self.corners[:, :1]  # (F, 2, 3)
        flat = self.uv[self.faces]
        flat = flat[:, 1:] - flat[:, :1]  # (F, 2, 2)
        usable = np.abs(np.linalg.det(flat)) > 1e-14
        if not usable.any():
            raise MeshError("the UV coordinates put every face on a line; leave them out, and it is unwrapped")
        tangents = np.linalg.solve(flat[usable], edges[usable])  # (F, 2, 3): dP/du, dP/dv
        squares = (tangents**2).sum(2)
        u, v = np.sqrt(np.average(squares, axis=0, weights=self.areas[usable] + 1e-300))
        return float(u), float(v)

    def texels(self, size: tuple[int, int]) -> Texels:
        """What the texels of an atlas of `size` ``(height, width)`` show."""
        h, w = size
        flat = np.concatenate([self.uv, np.zeros((len(self.uv), 1))], 1)
        sheet = extra.intersector(extra.trimesh().Trimesh(flat, self.faces, process=False))
        u = (np.arange(w) + 0.5) / w
        v = 1 - (np.arange(h) + 0.5) / h
        places = np.stack(np.broadcast_arrays(u[None, :], v[:, None], 1.0), -1).reshape(-1, 3)
        down = np.broadcast_to([0.0, 0.0, -1.0], places.shape)
        face, ray = sheet.intersects_id(places, down, multiple_hits=False)[:2]
        corners = self.uv[self.faces[face]]
        weights = _barycentric(np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], 2), places[ray] * [1, 1, 0])
        index = np.full(h * w, -1)
        index[ray] = face
        position, normal = np.zeros((2, h * w, 3))
        position[ray] = self.at(self.vertices, face, weights)
        normal[ray] = self.face_normals[face]
        return Texels((h, w), index.reshape(h, w), position.reshape(h, w, 3), normal.reshape(h, w, 3))


@dataclass(frozen=True, eq=False)
class Texels:
    """The points of a surface that the middles of an atlas' texels show, row 0 at v = 1; made by `Surface.texels`.

    >>> corners = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    >>> faces, up = np.array([[0, 1, 2], [0, 2, 3]]), np.tile([0.0, 0.0, 1.0], (4, 1))
    >>> square = Surface(corners, faces, uv=corners[:, :2] / 2, normals=up)
    >>> texels = square.texels((2, 2))
    >>> texels.position[0, 0].round(6).tolist()  # upper left, where u is 1/4 and v 3/4
    [0.5, 1.5, 0.0]
    """

    size: tuple[int, int]  # (H, W)
    face: np.ndarray  # (H, W) int64, -1 where no face lies
    position: np.ndarray  # (H, W, 3)
    normal: np.ndarray  # (H, W, 3) of the face

    @property
    def covered(self) -> np.ndarray:
        """``(H, W)`` bool: where the surface is."""
        return self.face >= 0


def _barycentric(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    weights = extra.trimesh().triangles.points_to_barycentric(triangles, points)
    weights = np.clip(np.nan_to_num(weights, nan=1 / 3), 0, 1)
    return weights / weights.sum(1, keepdims=True)


def load_surface(source: Any, unwrap: bool = False, resolution: int = RESOLUTION) -> Surface:
    """A mesh with texture coordinates, from a file (OBJ, GLB, PLY, ...), a `trimesh.Trimesh` or a scene of them.

    `source` is one of these.
    A mesh without UV coordinates, or any with ``unwrap=True``, is cut into charts by xatlas, packed for an atlas of
    about `resolution` texels per side. Coordinates that leave [0, 1] (repeated textures) or lie on each other (mirrored
    ones) are replaced as well, because one texel would then show several places.

    >>> import trimesh
    >>> surface = load_surface(trimesh.creation.box())
    >>> surface.faces.shape, round(float(surface.areas.sum()), 6), bool((surface.uv >= 0).all())
    ((12, 3), 6.0, True)

    Raises MeshError (no faces), SavedFileError (a file that cannot be read), ParameterError, NotFiniteError,
    MissingPackageError.
    """
    if isinstance(source, Surface):
        return _unwrapped(source.mesh, resolution) if unwrap else source
    trimesh = extra.trimesh()
    mesh = source
    if isinstance(source, str | Path):
        try:
            mesh = trimesh.load(source, process=False)
        except Exception as error:  # of any of trimesh's many readers
            raise SavedFileError(f"cannot read the mesh {str(source)!r}: {error}", path=str(source)) from error
    if isinstance(mesh, trimesh.Scene):
        mesh = mesh.to_mesh() if mesh.geometry else trimesh.Trimesh()
    if not isinstance(mesh, trimesh.Trimesh):
        if isinstance(mesh, trimesh.parent.Geometry):
            raise MeshError(f"a {type(mesh).__name__} has no faces; a texture needs a surface")
        raise ParameterError(f"{source!r} is neither a path nor a trimesh mesh", value=source)
    if len(mesh.faces) == 0:
        raise MeshError("the mesh has no faces; a texture needs a surface, not points or lines")
    uv = getattr(mesh.visual, "uv", None)
    usable = uv is not None and len(uv) == len(mesh.vertices) and bool(((uv >= -1e-6) & (uv <= 1 + 1e-6)).all())
    if unwrap or not usable:
        return _unwrapped(mesh, resolution)
    surface = Surface(
        np.asarray(mesh.vertices, dtype=float),
        np.asarray(mesh.faces, dtype=np.int64),
        np.clip(np.asarray(uv, dtype=float), 0, 1),
        np.asarray(mesh.vertex_normals, dtype=float),
    )
    return _unwrapped(mesh, resolution) if _overlaps(surface) else surface


def _overlaps(surface: Surface) -> bool:
    """Whether the faces' areas on the texture add up to clearly more than they cover."""
    corners = surface.uv[surface.faces]
    area = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum() / 2
    return bool(area > 1.05 * surface.texels((256, 256)).covered.mean() + 0.01)


def _unwrapped(mesh: Any, resolution: int) -> Surface:
    if not isinstance(resolution, int) or resolution < 8:
        raise ParameterError(f"resolution={resolution!r} must be an integer of at least 8", resolution=resolution)
    module = extra.xatlas()
    mesh = mesh.copy()
    mesh.update_faces(mesh.area_faces > 0)
    if len(mesh.faces) == 0:
        raise MeshError("all faces of the mesh have area 0")
    if not np.isfinite(mesh.vertices).all():
        raise NotFiniteError("the vertices of the mesh have NaN or infinite entries")
    atlas, pack = module.Atlas(), module.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = resolution, PADDING, True
    atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    atlas.generate(module.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise ShapeError(f"the charts do not fit one atlas of {resolution} texels; give a larger resolution")
    source, faces, uv = atlas[0]
    return Surface(
        np.asarray(mesh.vertices, dtype=float)[source],
        faces.astype(np.int64),
        np.clip(uv.astype(float), 0, 1),
        np.asarray(mesh.vertex_normals, dtype=float)[source],
    )
