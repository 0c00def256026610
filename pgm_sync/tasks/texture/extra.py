"""trimesh, xatlas and embreex, which the extra `meshes` brings."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import MissingPackageError


def trimesh() -> Any:
    """The module. Raises MissingPackageError."""
    return _module("trimesh", "trimesh", "meshes")


def xatlas() -> Any:
    """The module. Raises MissingPackageError."""
    return _module("xatlas", "xatlas", "unwrapping a mesh without UV coordinates")


def intersector(mesh: Any) -> Any:
    """trimesh's ray intersector on Embree for a mesh. Raises MissingPackageError."""
    return _module("trimesh.ray.ray_pyembree", "embreex", "casting rays").RayMeshIntersector(mesh)


def _module(module: str, package: str, what: str) -> Any:
    try:
        if package == "embreex":
            importlib.import_module(package)  # trimesh's module imports without it, and fails later
        return importlib.import_module(module)
    except ImportError as error:
        verb = "need" if what.endswith("es") else "needs"
        raise MissingPackageError(
            f"{what} {verb} {package}, which is not installed: pip install 'pgm_sync[meshes]'", package=package
        ) from error
