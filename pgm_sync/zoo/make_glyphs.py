"""Makes glyphs.png, the characters of the fonts that matplotlib bundles; needs the extra `plots`.

python -m pgm_sync.zoo.make_glyphs [file]
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import MissingPackageError
from .data.characters import CHARACTERS, FACES, SHEET, TILE

FONT_SIZE = 46  # capitals are about 34 pixels high, and a W still fits into a tile


def tile(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The character, bright on dark, the middle of its ink in the middle of the tile."""
    image = Image.new("L", (TILE, TILE), 0)
    left, top, right, bottom = font.getbbox(character)
    at = ((TILE - left - right) / 2, (TILE - top - bottom) / 2)
    ImageDraw.Draw(image).text(at, character, fill=255, font=font)
    return image


def main(argv: list[str] | None = None) -> None:
    """Draw every character in every face and write the sheet: a row per face, a column per character."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=SHEET)
    file = parser.parse_args(argv).file
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise MissingPackageError("the fonts come with matplotlib; install pgm_sync[plots]", package="matplotlib")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    rows = []
    for face in FACES:
        font = ImageFont.truetype(folder / f"{face}.ttf", FONT_SIZE)
        rows.append(np.concatenate([np.asarray(tile(font, c)) for c in CHARACTERS], axis=1))
    Image.fromarray(np.concatenate(rows)).save(file, optimize=True)
    print(f"{file}: {len(FACES)} faces, {len(CHARACTERS)} characters, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
