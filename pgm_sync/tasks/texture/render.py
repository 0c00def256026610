"""Pictures of textured meshes, turntables, and depth images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from ...errors import CameraError, ParameterError, ShapeError
from ...graph.serialization import write_atomically
from ...inspection.images import picture, png, sheet
from .cameras import Camera, ring_cameras
from .mesh import Surface
from .views import View, cast

FORMATS = (".png", ".gif", ".webp")


def look_up(texture: Tensor, uv: np.ndarray) -> Tensor:
    """Bilinear look-ups ``(C, m)`` of a `texture` ``(C, H, W)``, row 0 at v = 1, at coordinates `uv` ``(m, 2)``.

    >>> texture = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> look_up(texture, np.array([[0.25, 0.75], [0.5, 0.5]]))  # the middle of the first texel, and between all four
    tensor([[0.0000, 1.5000]])
    """
    grid = torch.from_numpy(np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)).to(texture)
    found = grid_sample(texture[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0]


def render(
    surface: Surface,
    texture: Tensor,  # (C, H, W)
    camera: Camera,
    shading: float = 0.0,
    light: Sequence[float] | None = None,
    background: float = 1.0,
    samples: int = 2,
) -> Tensor:  # (C, h, w)
    """A picture of a textured mesh, values as in the texture.

    Parameters
    ----------
    surface, texture, camera
        a mesh as `load_surface` makes it, its texture ``(C, H, W)``, and who looks at it.
    shading
        share of Lambert's cosine law in the brightness: 0 shows the texture as it is, 1 leaves what is turned away from
        the light black. For textures in [0, 1].
    light
        the direction towards the light; None: from the camera.
    background
        the value where the mesh is not.
    samples
        rays per pixel side.

    Raises ShapeError, ParameterError.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import Camera, load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> shown = render(ball, torch.full((3, 8, 8), 0.25), Camera((0.0, 0.0, 3.0), resolution=(9, 9)))
    >>> shown[0, 4, 4].item(), shown[0, 0, 0].item()  # the texture, and background
    (0.25, 1.0)
    """
    if texture.ndim != 3 or not texture.is_floating_point():
        raise ShapeError(f"a texture is a floating-point (C, H, W), not {tuple(texture.shape)}", got=texture.shape)
    if not 0 <= shading <= 1 or not isinstance(samples, int) or samples < 1:
        raise ParameterError(f"shading={shading} must lie in [0, 1], samples={samples} be a positive integer")
    h, w = camera.resolution
    view = cast(surface, replace(camera, resolution=(samples * h, samples * w)))
    seen = view.visible
    out = texture.new_full((len(texture), samples * h, samples * w), background)
    colours = look_up(texture, view.uv[seen])
    if shading:
        towards = np.asarray(camera.position, dtype=float) - view.position[seen] if light is None else np.array([light])
        towards = towards / np.linalg.norm(towards, axis=1, keepdims=True)
        lambert = np.clip((view.normal[seen] * towards).sum(1), 0, 1)
        colours = colours * torch.from_numpy(1 - shading + shading * lambert).to(colours)
    out[:, torch.from_numpy(seen)] = colours
    return avg_pool2d(out[None], samples)[0]


def turntable(
    surface: Surface,
    texture: Tensor,
    frames: int = 8,
    elevation: float = 15.0,
    resolution: tuple[int, int] = (128, 128),
    shading: float = 0.4,
    background: float = 1.0,
) -> Tensor:  # (frames, C, h, w)
    """Pictures ``(frames, C, h, w)`` of a `surface` with a `texture` from cameras around the vertical axis.

    `elevation` and `resolution` as of `ring_cameras`, `shading` and `background` as of `render`.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(1))
    >>> turntable(ball, torch.full((3, 8, 8), 0.25), frames=2, resolution=(16, 16)).shape
    torch.Size([2, 3, 16, 16])

    Raises as `render`: ShapeError, ParameterError.
    """
    cameras = ring_cameras(surface, frames, elevation, resolution=resolution, field_of_view=30.0)
    return torch.stack([render(surface, texture, c, shading, background=background) for c in cameras])


def save_turntable(frames: Tensor, path: str | Path, columns: int = 4, seconds: float = 4.0) -> Path:
    """Write `frames` ``(n, C, h, w)`` in [0, 1] to `path`: a sheet of `columns` (.png), or an endless film of `seconds`
    (.gif, .webp).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_turntable(torch.rand(8, 3, 16, 16), f"{folder}/turn.gif").name
    'turn.gif'

    Raises ParameterError for another suffix, ShapeError, NotFiniteError.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ParameterError(f"cannot write {path.name!r}; the suffix must be one of {', '.join(FORMATS)}", path=path)
    if path.suffix == ".png":
        write_atomically(path, png(sheet(frames, columns, scale=1)))
        return path
    images = [picture(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format=path.suffix[1:].upper(),
        save_all=True,
        append_images=images[1:],
        duration=max(1, round(1000 * seconds / len(images))),
        loop=0,
    )
    write_atomically(path, buffer.getvalue())
    return path


def depth_image(view: View, name: str = "the view") -> Tensor:  # (h, w) float32
    """Inverse depth scaled to [0, 1] over the mesh, near bright, background 0: what depth ControlNets are trained on.

    ``depth_image(view).expand(3, -1, -1)`` is the control image; `name` is that of the `view` in messages.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import Camera, cast, load_surface
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> depth = depth_image(cast(ball, Camera((0.0, 0.0, 3.0), resolution=(9, 9))))
    >>> depth[4, 4].item(), depth[0, 0].item()  # the nearest point, and background
    (1.0, 0.0)

    Raises CameraError where the view shows nothing.
    """
    seen = view.visible
    if not seen.any():
        raise CameraError(f"{name} shows nothing of the mesh, so it has no depth", name=name)
    inverse = 1 / np.maximum(view.depth[seen], 1e-12)
    low, high = inverse.min(), inverse.max()
    out = np.zeros(view.face.shape, dtype=np.float32)
    out[seen] = (inverse - low) / (high - low) if high > low else 1.0
    return torch.from_numpy(out)
