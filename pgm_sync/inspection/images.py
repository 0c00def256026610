"""Pictures as PNG files, with Pillow alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import NotFiniteError, ShapeError

PAPER = (250, 250, 248)
INK = (34, 34, 34)


def image_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of contents of a `shape` that are pictures, or None.

    Pictures are (H, W), (1, H, W) or (3, H, W), no side of length 1.

    >>> image_shape((12, 48)), image_shape((3, 12, 48)), image_shape((4, 32))
    ((1, 12, 48), (3, 12, 48), (1, 4, 32))
    """
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    if len(full) != 3 or full[0] not in (1, 3) or min(full[1:]) < 2:
        return None
    return full[0], full[1], full[2]


def picture(image: Tensor, scale: int = 1) -> Image.Image:
    """One image ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, each pixel a square of `scale`.

    Values outside [0, 1] are clipped. Raises ShapeError, NotFiniteError.

    >>> import torch
    >>> picture(torch.zeros(3, 4, 6), scale=10).size  # width and height
    (60, 40)
    """
    shown = image.detach().cpu()
    shown = shown[None] if shown.ndim == 2 else shown
    if shown.ndim != 3 or shown.shape[0] not in (1, 3):
        raise ShapeError(
            f"a picture has shape (H, W), (1, H, W) or (3, H, W), not {tuple(image.shape)}",
            got=tuple(image.shape),
        )
    if not torch.isfinite(shown).all():
        raise NotFiniteError(f"a picture of shape {tuple(image.shape)} has NaN or infinite values")
    values = (shown.double().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    made = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    return made.resize((made.width * scale, made.height * scale), Image.Resampling.NEAREST)


def sheet(images: Tensor, columns: int = 1, scale: int = 8, gap: int = 8) -> Image.Image:
    """Images ``(n, C, H, W)`` with values in [0, 1] in rows of `columns`, on paper.

    A pixel becomes `scale` pixels a side; `images` are `gap` pixels apart.

    >>> import torch
    >>> sheet(torch.zeros(6, 3, 4, 4), columns=3, scale=1, gap=1).size  # 3 * 4 + 4 wide, 2 * 4 + 3 high
    (16, 11)

    Raises ShapeError, NotFiniteError.
    """
    if len(images) == 0:
        raise ShapeError("a sheet needs at least one image")
    tiles = [picture(image, scale) for image in images]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    w, h = tiles[0].size
    made = Image.new("RGB", (columns * (w + gap) + gap, rows * (h + gap) + gap), PAPER)
    for k, tile in enumerate(tiles):
        made.paste(tile, (gap + k % columns * (w + gap), gap + k // columns * (h + gap)))
    return made


def comparison(pictures: Mapping[str, Tensor], columns: int = 2, scale: int = 8, gap: int = 8) -> Image.Image:
    """Named sheets beside each other, each under its name: `pictures` ``{name: (n, C, H, W)}`` in [0, 1].

    `columns` sheets in a row; `scale` and `gap` as of `sheet`.

    >>> import torch
    >>> one = comparison({"averaging": torch.zeros(2, 3, 8, 8)})
    >>> two = comparison({"averaging": torch.zeros(2, 3, 8, 8), "learned": torch.zeros(2, 3, 8, 8)})
    >>> two.width == 2 * one.width, two.height == one.height
    (True, True)

    Raises ShapeError, NotFiniteError.
    """
    sheets = {name: sheet(images, scale=scale, gap=gap) for name, images in pictures.items()}
    if not sheets:
        raise ShapeError("a comparison needs at least one sheet")
    columns = min(columns, len(sheets))
    w, h = (max(s.size[k] for s in sheets.values()) for k in (0, 1))
    bar = max(22, 3 * scale)
    font = ImageFont.load_default(size=int(bar * 0.62))
    rows = -(-len(sheets) // columns)
    made = Image.new("RGB", (columns * w, rows * (h + bar)), PAPER)
    draw = ImageDraw.Draw(made)
    for k, (name, tile) in enumerate(sheets.items()):
        x, y = k % columns * w, k // columns * (h + bar)
        draw.text((x + gap, y + bar / 2 + gap / 2), name, fill=INK, font=font, anchor="lm")
        made.paste(tile, (x, y + bar))
    return made


def png(image: Image.Image) -> bytes:
    r"""The `image` as the content of a PNG file.

    >>> import torch
    >>> png(picture(torch.zeros(3, 4, 4)))[:4]
    b'\x89PNG'
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
