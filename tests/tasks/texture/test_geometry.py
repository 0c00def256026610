"""Unwrapping, cameras and first hits, against trimesh's own functions and closed forms."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import trimesh

from pgm_sync.errors import (
    CameraError,
    MeshError,
    MissingPackageError,
    NotFiniteError,
    ParameterError,
    SavedFileError,
    ShapeError,
)
from pgm_sync.tasks.texture import (
    Camera,
    Surface,
    cast,
    cast_all,
    close_cameras,
    load_surface,
    ring_cameras,
    sphere_cameras,
)


def test_rays_meet_a_sphere_where_the_quadratic_formula_says():
    mesh = trimesh.creation.icosphere(5, radius=2.0)
    ball = Surface(mesh.vertices, mesh.faces, np.zeros((len(mesh.vertices), 2)), mesh.vertex_normals)
    camera = Camera((3.0, 2.0, 4.0), (0, 0, 0), 40.0, (20, 30))
    view = cast(ball, camera)
    origins, directions = camera.rays()
    b = (origins * directions).sum(1)
    root = b**2 - (origins**2).sum(1) + 4
    seen = (root > 0).reshape(20, 30)
    clear = (np.abs(root) > 0.3).reshape(20, 30)  # not on the limb, where a polyhedron is smaller
    np.testing.assert_array_equal(view.visible[clear], seen[clear])
    points = (origins + (-b - np.sqrt(np.maximum(root, 0)))[:, None] * directions).reshape(20, 30, 3)
    inner = seen & clear
    assert inner.sum() > 100
    np.testing.assert_allclose(view.position[inner], points[inner], atol=0.005)
    np.testing.assert_allclose(view.normal[inner], points[inner] / 2, atol=0.005)
    np.testing.assert_allclose(
        view.cosine[inner], np.sqrt(np.maximum(root, 0)).reshape(20, 30)[inner] / 2, atol=0.03
    )


def test_rays_meet_a_tilted_plane_where_the_linear_equation_says(sheet):
    camera = Camera((0.5, -3.0, 2.0), (0.1, 0.0, 0.0), 30.0, (16, 12))
    view = cast(sheet, camera)
    origins, directions = camera.rays()
    points = origins - origins[:, 2:] / directions[:, 2:] * directions
    seen = (np.abs(points[:, :2]).max(1) < 1).reshape(16, 12)
    points = points.reshape(16, 12, 3)
    np.testing.assert_array_equal(view.visible, seen)
    np.testing.assert_allclose(view.position[seen], points[seen], atol=1e-6)
    np.testing.assert_allclose(view.uv[seen], (points[seen][:, :2] + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(view.cosine[seen], np.abs(directions[:, 2]).reshape(16, 12)[seen], atol=1e-9)
    forward = np.subtract(camera.target, camera.position) / np.linalg.norm(np.subtract(camera.target, camera.position))
    np.testing.assert_allclose(view.depth[seen], (points[seen] - camera.position) @ forward, atol=1e-6)


def test_the_middle_of_the_picture_shows_the_target_upright(sheet):
    view = cast(sheet, Camera((0, 0, 4), (0, 0, 0), 40.0, (11, 11)))
    np.testing.assert_allclose(view.position[5, 5], 0, atol=1e-6)
    assert view.position[4, 5][1] > 0 > view.position[6, 5][1]
    assert view.position[5, 6][0] > 0 > view.position[5, 4][0]


def test_texture_coordinates_are_interpolated_as_trimesh_does(ball):
    view = cast(ball, ring_cameras(ball, 1)[0])
    seen = view.visible
    face, points = view.face[seen], view.position[seen]
    weights = trimesh.triangles.points_to_barycentric(ball.vertices[ball.faces[face]], points)
    np.testing.assert_allclose(view.barycentric[seen], weights, atol=1e-6)
    np.testing.assert_allclose(view.uv[seen], np.einsum("nk,nkd->nd", weights, ball.uv[ball.faces[face]]), atol=1e-6)
    closest, distance, _ = trimesh.proximity.closest_point_naive(ball.mesh, points[::20])
    np.testing.assert_allclose(distance, 0, atol=1e-6)


def test_what_is_behind_is_hidden(ball):
    two = trimesh.util.concatenate([trimesh.creation.box(), trimesh.creation.box().apply_translation([0, 0, -3])])
    view = cast(load_surface(two), Camera((0, 0, 6), (0, 0, 0), 20.0))
    assert view.visible.any()
    assert view.position[view.visible][:, 2].min() > -0.6


def test_an_unwrapped_mesh_covers_the_unit_square_without_overlaps(ball):
    assert ball.uv.min() >= 0
    assert ball.uv.max() <= 1
    assert ball.closed
    corners = ball.uv[ball.faces]
    edges = corners[:, 1:] - corners[:, :1]
    area = np.abs(np.linalg.det(edges)).sum() / 2
    # a fine grid point lies in as many triangles as cover it: the covered area is the sum of areas only without overlap
    n = 100
    grid = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2), -1).reshape(-1, 2)
    inverse = np.linalg.inv(edges.transpose(0, 2, 1))
    count = np.zeros(len(grid), dtype=int)
    for k in range(len(corners)):
        local = (grid - corners[k, 0]) @ inverse[k].T
        count += (local.min(1) > 0) & (local.sum(1) < 1)
    assert count.max() == 1
    assert abs((count > 0).mean() - area) < 0.015


def test_texels_show_the_points_that_their_coordinates_name(sheet, ball):
    texels = sheet.texels((4, 8))
    assert texels.covered.all()
    np.testing.assert_allclose(texels.position[0, 0], [-1 + 1 / 8, 1 - 1 / 4, 0], atol=1e-6)
    texels = ball.texels((40, 40))
    np.testing.assert_allclose(np.linalg.norm(texels.position[texels.covered], axis=1), 1, atol=0.02)
    assert 0.4 < texels.covered.mean() < 0.95


def test_given_coordinates_are_kept_unless_a_texel_would_show_two_places(ball):
    mesh = ball.mesh.copy()
    mesh.visual = trimesh.visual.TextureVisuals(uv=ball.uv)
    np.testing.assert_array_equal(load_surface(mesh).uv, ball.uv)
    assert not np.array_equal(load_surface(mesh, unwrap=True).uv, ball.uv)
    mirrored = ball.uv.copy()
    mirrored[:, 0] = 2 * np.minimum(mirrored[:, 0], 1 - mirrored[:, 0])
    for uv in (3 * ball.uv, mirrored):
        mesh.visual = trimesh.visual.TextureVisuals(uv=uv)
        made = load_surface(mesh)
        assert made.uv.max() <= 1
        corners = made.uv[made.faces]
        area = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum() / 2
        assert abs(area - made.texels((300, 300)).covered.mean()) < 0.02


def test_cameras_stand_where_they_should(ball):
    ring = ring_cameras(ball, 4, elevation=30.0, distance=2.0)
    places = np.array([c.position for c in ring])
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 2)
    np.testing.assert_allclose(places[:, 1], 1)
    np.testing.assert_allclose(places[0], [0, 1, np.sqrt(3)], atol=1e-12)
    lattice = np.array([c.position for c in sphere_cameras(ball, 200, distance=1.0)])
    np.testing.assert_allclose(lattice.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(lattice.T), np.eye(3) / 3, atol=0.02)
    for view in cast_all(ball, ring_cameras(ball, 2)).values():  # the whole mesh is in the picture
        border = np.concatenate([view.visible[[0, -1]].ravel(), view.visible[:, [0, -1]].ravel()])
        assert not border.any()


def test_close_cameras_leave_no_gap(ball):
    cameras = close_cameras(ball, 0.8, resolution=(8, 8))
    targets = np.array([c.target for c in cameras])
    points, _ = trimesh.sample.sample_surface(ball.mesh, 500, seed=1)
    gaps = np.linalg.norm(points[:, None] - targets, axis=2).min(1)
    assert gaps.max() < 0.4 * 1.1
    for view in cast_all(ball, cameras).values():
        assert view.visible.all()


def test_close_cameras_stand_on_this_side_of_what_is_in_the_way():
    ring = load_surface(trimesh.creation.torus(1, 0.45, major_sections=24, minor_sections=12))
    assert len(cast_all(ring, close_cameras(ring, 0.8))) > 20  # none inside the mesh


def test_bad_input_is_named(ball, tmp_path):
    with pytest.raises(MeshError, match="no faces"):
        load_surface(trimesh.Trimesh(np.eye(3)))
    with pytest.raises(MeshError, match="no faces"):
        load_surface(trimesh.PointCloud(np.eye(3)))
    with pytest.raises(MeshError, match="area 0"):
        load_surface(trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False))
    with pytest.raises(ParameterError, match="neither a path nor"):
        load_surface(7)
    with pytest.raises(SavedFileError, match=r"missing\.obj"):
        load_surface(tmp_path / "missing.obj")
    broken = trimesh.creation.box()
    broken.vertices[0, 0] = np.nan
    with pytest.raises(NotFiniteError, match="vertices"):
        load_surface(broken)
    with pytest.raises(CameraError, match="'view 1'.*inside the mesh") as caught:
        cast_all(ball, [Camera((0, 0, 3)), Camera((0, 0, 0.1))])
    assert caught.value.name == "view 1"
    with pytest.raises(CameraError, match="'view 0'.*sees nothing"):
        cast_all(ball, [Camera((0, 0, 3), (0, 0, 5))])
    for wrong in ({"field_of_view": 180.0}, {"position": (0, np.nan, 0)}, {"target": (0, 0, 1)}, {"extent": 0.0}):
        with pytest.raises(ParameterError):
            Camera(**{"position": (0, 0, 1), **wrong})
    with pytest.raises(ShapeError, match="resolution"):
        Camera((0, 0, 1), resolution=(0, 4))
    with pytest.raises(ParameterError, match="n=0"):
        ring_cameras(ball, 0)


@pytest.mark.parametrize("package", ["trimesh", "xatlas", "embreex"])
def test_missing_packages_name_the_extra(package, monkeypatch):
    box = trimesh.creation.box()
    surface = load_surface(trimesh.creation.box())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package}, which is not installed.*pgm_sync\[meshes\]"):
        cast(surface, Camera((0, 0, 3))) if package == "embreex" else load_surface(box)
