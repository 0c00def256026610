"""Small meshes, each made once."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from pgm_sync.tasks.texture import Atlas, Surface, load_surface, make_atlas, ring_cameras


@pytest.fixture(scope="session")
def ball() -> Surface:
    return load_surface(trimesh.creation.icosphere(3))


@pytest.fixture(scope="session")
def sheet() -> Surface:
    """The square [-1, 1]^2 in the plane z = 0, facing +z, its picture upright."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
    visual = trimesh.visual.TextureVisuals(uv=(vertices[:, :2] + 1) / 2)
    return load_surface(trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False))


@pytest.fixture(scope="session")
def around(ball) -> Atlas:
    """Six views of the ball, 12 x 12 pixels each."""
    return make_atlas(ball, ring_cameras(ball, 6, resolution=(12, 12)))
