"""Pictures of several methods side by side, a row per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import ShapeError
from ..inspection.images import INK, PAPER, picture


def method_sheet(
    pictures: Mapping[str, Tensor],  # (n, C, H, W), values in [0, 1]
    seeds: Sequence[int | str] | None = None,  # (n)
    scale: int = 1,
    gap: int = 6,
) -> Image.Image:
    """A column per method under its name, a row per seed beside its number; row k of all methods is one seed.

    Names that are wider than the pictures are broken at spaces; pictures are as wide as the longest word of a name at
    least. Methods may have `pictures` of different sizes. A pixel becomes `scale` pixels a side, pictures are `gap`
    pixels apart.

    >>> import torch
    >>> sheet = method_sheet({"averaging": torch.zeros(2, 3, 16, 48), "learned": torch.ones(2, 3, 16, 48)}, scale=2)
    >>> sheet.width > 2 * 96, sheet.height > 2 * 32
    (True, True)

    Raises ShapeError where methods have different numbers of pictures, or seeds do not match; NotFiniteError.
    """
    counts = {len(images) for images in pictures.values()}
    if len(counts) != 1 or not min(counts):
        raise ShapeError(
            f"a sheet needs methods with one number of pictures, got {sorted(counts) or 'no method'}"
        )
    n = counts.pop()
    labels = [str(seed) for seed in (range(n) if seeds is None else seeds)]
    if len(labels) != n:
        raise ShapeError(f"{len(labels)} seeds for {n} pictures of each method")
    tiles = {name: [picture(image, scale) for image in images] for name, images in pictures.items()}
    font = _font(13)
    line = 16
    words = [max(font.getlength(word) for word in name.split() or [""]) for name in tiles]
    widths = [max(row[0].width, round(w) + 1) for row, w in zip(tiles.values(), words, strict=True)]
    names = [_broken(name, width, font) for name, width in zip(tiles, widths, strict=True)]
    heights = [max(row[k].height for row in tiles.values()) for k in range(n)]
    left = gap + round(max(font.getlength(label) for label in labels)) + gap
    top = gap + line * max(len(lines) for lines in names) + gap
    size = (left + sum(widths) + gap * len(widths), top + sum(heights) + gap * n)
    made = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(made)
    x = left
    for lines, width, column in zip(names, widths, tiles.values(), strict=True):
        draw.multiline_text((x, top - gap), "\n".join(lines), fill=INK, font=font, anchor="ld", spacing=2)
        y = top
        for tile, height in zip(column, heights, strict=True):
            made.paste(tile, (x, y))
            y += height + gap
        x += width + gap
    y = top
    for label, height in zip(labels, heights, strict=True):
        draw.text((left - gap, y + height / 2), label, fill=INK, font=font, anchor="rm")
        y += height + gap
    return made


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One with Greek letters where there is one (names of methods have them): matplotlib's, else Pillow's own."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size=size)


def _broken(name: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
