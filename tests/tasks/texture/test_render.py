"""Renders, depth images and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from pgm_sync.errors import CameraError, ParameterError, SavedFileError, ShapeError
from pgm_sync.tasks.texture import (
    Camera,
    cast,
    depth_image,
    dilate,
    load_surface,
    load_textured,
    look_up,
    project_views,
    render,
    ring_cameras,
    save_textured,
    save_turntable,
    sphere_cameras,
    turntable,
)


def test_look_ups_agree_with_trimeshs_own():
    pixels = (255 * torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))).round()
    image = Image.fromarray(pixels.permute(1, 2, 0).to(torch.uint8).numpy())
    # trimesh lets u = 0 and u = 1 be the middles of the outermost texels, we their outer borders
    inner = np.random.default_rng(0).random((50, 2))
    ours = (inner * [6, 8] + 0.5) / [7, 9]
    expected = trimesh.visual.color.uv_to_interpolated_color(inner, image)[:, :3]
    np.testing.assert_allclose(look_up(pixels, ours).T.numpy(), expected, atol=1.01)  # it rounds to bytes


def test_a_plane_from_straight_above_renders_its_texture(sheet):
    texture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    camera = Camera((0, 0, 3), resolution=(16, 16), extent=2.0)
    torch.testing.assert_close(render(sheet, texture, camera, samples=1), texture, atol=1e-5, rtol=0)
    far = Camera((0, 0, 3), resolution=(16, 16), extent=4.0)
    assert torch.equal(render(sheet, texture, far, background=0.5)[:, 0], torch.full((3, 16), 0.5))


def test_shading_follows_the_cosine_law(ball):
    white = torch.ones(1, 8, 8, dtype=torch.float64)
    camera = ring_cameras(ball, 1, resolution=(24, 24))[0]
    shaded = render(ball, white, camera, shading=1.0, light=(0, 0, 1), background=0.0, samples=1)[0]
    view = cast(ball, camera)
    inner = view.visible & (view.cosine > 0.3)
    np.testing.assert_allclose(shaded.numpy()[inner], view.position[inner][:, 2], atol=0.02)  # z on the unit sphere
    half = render(ball, white, camera, shading=0.5, light=(0, 0, 1), background=0.0, samples=1)[0]
    torch.testing.assert_close(half[inner], 0.5 + 0.5 * shaded[inner])
    away = render(ball, white, camera, shading=1.0, light=(0, 0, -1), background=0.0, samples=1)[0]
    assert away.abs().max() < 0.2


def test_depth_is_inverse_and_near_is_bright(ball):
    view = cast(ball, ring_cameras(ball, 1)[0])
    image = depth_image(view)
    seen = torch.from_numpy(view.visible)
    assert image.min() == 0
    assert image.max() == 1
    assert bool((image[~seen] == 0).all())
    inverse = torch.from_numpy(1 / view.depth[view.visible])
    expected = (inverse - inverse.min()) / (inverse.max() - inverse.min())
    torch.testing.assert_close(image[seen].double(), expected, atol=1e-6, rtol=0)
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(y - 11.5) < 2
    assert abs(x - 11.5) < 2
    with pytest.raises(CameraError, match="shows nothing"):
        depth_image(cast(ball, Camera((0, 0, 3), (0, 0, 5))))


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_files_render_as_what_was_saved(ball, suffix, tmp_path):
    texture = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(texture[None], (64, 48), mode="bilinear")[0]
    files = save_textured(ball, texture, tmp_path / f"ball.{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in files)
    assert len(files) == (3 if suffix == "obj" else 1)
    surface, loaded = load_textured(files[0])
    torch.testing.assert_close(loaded, texture, atol=0.5 / 255 + 1e-6, rtol=0)
    assert surface.uv.shape == ball.uv.shape
    frames = [turntable(s, t, 2, resolution=(32, 32)) for s, t in ((ball, texture), (surface, loaded))]
    # bytes instead of floats; single precision of vertices moves pixels on the limb
    assert (frames[0] - frames[1]).abs().mean() < 0.005
    assert ((frames[0] - frames[1]).abs() > 0.02).double().mean() < 0.01


def test_films_and_sheets_have_all_frames(ball, tmp_path):
    frames = turntable(ball, torch.rand(3, 8, 8), 3, resolution=(20, 16))
    assert frames.shape == (3, 3, 20, 16)
    for suffix in ("gif", "webp"):
        with Image.open(save_turntable(frames, tmp_path / f"film.{suffix}")) as film:
            assert film.n_frames == 3
            assert film.size == (16, 20)
            assert film.info["loop"] == 0
    with Image.open(save_turntable(frames, tmp_path / "sheet.png", columns=3)) as image:
        assert image.size == (3 * 24 + 8, 36)


def test_bad_input_is_named(ball, tmp_path):
    texture = torch.rand(3, 8, 8)
    for save in (lambda path: save_textured(ball, texture, path), lambda path: save_turntable(texture[None], path)):
        with pytest.raises(ParameterError, match=r"x\.stl"):
            save(tmp_path / "x.stl")
    with pytest.raises(ShapeError, match="texture"):
        render(ball, texture[0], Camera((0, 0, 3)))
    with pytest.raises(ParameterError, match="shading=2"):
        render(ball, texture, Camera((0, 0, 3)), shading=2)
    trimesh.creation.box().export(tmp_path / "plain.obj")
    with pytest.raises(SavedFileError, match="no texture picture"):
        load_textured(tmp_path / "plain.obj")
    with pytest.raises(SavedFileError, match="cannot read"):
        load_textured(tmp_path / "missing.obj")


def test_places_in_a_picture_are_where_rays_hit(ball):
    for camera in (Camera((1, 2, 3), resolution=(10, 14)), Camera((1, 2, 3), resolution=(10, 14), extent=1.5)):
        view = cast(ball, camera)
        seen = view.visible
        place, depth = camera.project(view.position[seen])
        rows, columns = np.nonzero(seen)
        np.testing.assert_allclose(place, np.stack([columns, rows], 1) + 0.5, atol=1e-4)
        np.testing.assert_allclose(depth, view.depth[seen], atol=1e-9)


def test_renders_projected_back_give_the_texture(ball):
    position = torch.from_numpy(ball.texels((64, 64)).position).permute(2, 0, 1)
    smooth = dilate(0.5 + 0.4 * torch.sin(2 * position), torch.from_numpy(ball.texels((64, 64)).covered))
    cameras = sphere_cameras(ball, 12, resolution=(64, 64))
    pictures = {f"view {k}": render(ball, smooth, camera, samples=1) for k, camera in enumerate(cameras)}
    back = project_views(ball, cameras, pictures, (64, 64))
    covered = torch.from_numpy(ball.texels((64, 64)).covered)
    assert (back - smooth)[:, covered].abs().mean() < 0.005
    assert (back - smooth)[:, covered].abs().max() < 0.1


def test_what_is_hidden_in_a_picture_takes_nothing_from_it(sheet):
    # a small square before the middle of the large one
    two = trimesh.util.concatenate(
        [trimesh.creation.box((2, 2, 0.02)), trimesh.creation.box((0.5, 0.5, 0.02)).apply_translation([0, 0, 1])]
    )
    surface = load_surface(two)
    camera = Camera((0, 0, 6), resolution=(64, 64), field_of_view=30.0)
    view = cast(surface, camera)
    front = torch.from_numpy((view.position[..., 2] > 0.5).astype(np.float32))
    texels = surface.texels((96, 96))
    texture = project_views(surface, [camera], {"view 0": front[None]}, (96, 96))[0]
    back = (np.abs(texels.position[..., 2] - 0.01) < 1e-3) & (texels.normal[..., 2] > 0.9)
    # bilinear look-ups mix at the outline of the small square; most of the large one has no trace of it
    assert (texture[torch.from_numpy(back)] > 0.5).float().mean() < 0.02
    ahead = (texels.position[..., 2] > 1.005) & (texels.normal[..., 2] > 0.9)
    assert texture[torch.from_numpy(ahead)].mean() > 0.9
    with pytest.raises(CameraError, match="none of the 1 pictures"):
        project_views(sheet, [Camera((0, 0, 3), (0, 0, 5))], {"view 0": front[None]}, (8, 8))
    with pytest.raises(ShapeError, match="'view 0' to 'view 0'"):
        project_views(sheet, [camera], {"front": front[None]}, (8, 8))
