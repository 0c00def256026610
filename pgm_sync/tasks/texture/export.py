"""Textured meshes as files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ParameterError, SavedFileError
from ...graph.serialization import write_atomically
from ...inspection.images import picture
from . import extra
from .mesh import Surface, load_surface

SUFFIXES = (".obj", ".glb")


def save_textured(surface: Surface, texture: Tensor, path: str | Path) -> list[Path]:
    """Write a mesh `surface` and its `texture` ``(3, H, W)`` in [0, 1] to `path`; returns the files, the mesh first.

    ``name.obj`` comes with ``name.mtl`` and ``name.png`` beside it; ``name.glb`` holds everything.

    >>> import tempfile, trimesh
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = save_textured(load_surface(trimesh.creation.box()), torch.zeros(3, 4, 4), f"{folder}/box.obj")
    >>> [file.name for file in files]
    ['box.obj', 'box.png', 'box.mtl']

    Raises ParameterError for another suffix, ShapeError, NotFiniteError.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ParameterError(f"cannot write {path.name!r}; the suffix must be one of {', '.join(SUFFIXES)}", path=path)
    trimesh = extra.trimesh()
    image = picture(texture).convert("RGB")
    if path.suffix == ".glb":
        material = trimesh.visual.material.PBRMaterial(
            name=path.stem, baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0
        )
        files = {path.name: _mesh(surface, material).export(file_type="glb")}
    else:
        material = trimesh.visual.material.SimpleMaterial(image=image, name=path.stem)
        text, files = trimesh.exchange.obj.export_obj(
            _mesh(surface, material), return_texture=True, mtl_name=f"{path.stem}.mtl", digits=9
        )
        files = {path.name: text.encode(), **files}
    for name, content in files.items():
        write_atomically(path.with_name(name), content)
    return [path.with_name(name) for name in files]


def load_textured(path: str | Path) -> tuple[Surface, Tensor]:
    """The mesh at `path` and its texture ``(3, H, W)`` in [0, 1].

    >>> import tempfile, trimesh
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     box = load_surface(trimesh.creation.box())
    ...     _ = save_textured(box, torch.full((3, 4, 4), 0.6), f"{folder}/box.glb")
    ...     surface, texture = load_textured(f"{folder}/box.glb")
    >>> surface.faces.shape, round(texture.mean().item(), 2)
    ((12, 3), 0.6)

    Raises SavedFileError where it cannot be read, or has none.
    """
    try:
        mesh = extra.trimesh().load(path, process=False, force="mesh")
    except Exception as error:  # of any of trimesh's many readers
        raise SavedFileError(f"cannot read the mesh {str(path)!r}: {error}", path=str(path)) from error
    material: Any = getattr(mesh.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        raise SavedFileError(f"the mesh {str(path)!r} has no texture picture", path=str(path))
    pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return load_surface(mesh), torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _mesh(surface: Surface, material: Any) -> Any:
    trimesh = extra.trimesh()
    visual = trimesh.visual.TextureVisuals(uv=surface.uv, material=material)
    return trimesh.Trimesh(
        surface.vertices, surface.faces, vertex_normals=surface.normals, visual=visual, process=False
    )
