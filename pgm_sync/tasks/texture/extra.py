"""trimesh, xatlas and embreex, which the extra `meshes` brings."""

from __future__ import annotations

from typing import Any

from ...extras import optional


def trimesh() -> Any:
    """The module. Raises MissingPackageError."""
    return optional("trimesh", "meshes need", "meshes")


def xatlas() -> Any:
    """The module. Raises MissingPackageError."""
    return optional("xatlas", "unwrapping a mesh without UV coordinates needs", "meshes")


def intersector(mesh: Any) -> Any:
    """trimesh's ray intersector on Embree for a mesh. Raises MissingPackageError."""
    optional("embreex", "casting rays needs", "meshes")  # trimesh's module imports without it, and fails later
    return optional("trimesh.ray.ray_pyembree", "casting rays needs", "meshes", "embreex").RayMeshIntersector(mesh)
