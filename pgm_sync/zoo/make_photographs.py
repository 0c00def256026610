"""Makes photographs/*.png from images that scikit-learn and scikit-image bundle; needs the extra `zoo`.

python -m pgm_sync.zoo.make_photographs [folder]
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from PIL import Image

from ..errors import MissingPackageError
from .pictures import BANDS, FOLDER, PICTURES

WIDTH = 384

# name -> package and path inside it
SOURCES = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "brick": ("skimage", "data/brick.png"),
    "gravel": ("skimage", "data/gravel.png"),
}


def source(name: str) -> Path:
    """Where the original of a photograph lies. Raises MissingPackageError."""
    package, path = SOURCES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingPackageError(
            f"the original of {name!r} comes with scikit-image; install pgm_sync[zoo]", package=package
        )
    return Path(found.origin).parent / path


def main(argv: list[str] | None = None) -> None:
    """Downsample every original to the same width and write it as PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        with Image.open(source(name)) as original:
            image = original.convert("L" if original.mode == "L" else "RGB")
        height = BANDS * round(image.height * WIDTH / image.width / BANDS)
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
        image.save(folder / f"{name}.png", optimize=True)
        print(f"{name}: {image.width} x {image.height}, {(folder / f'{name}.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
