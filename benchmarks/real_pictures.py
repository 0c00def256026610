"""Photographs, a stereo pair and faces, held out: how far learned potentials get to a denoiser of whole pictures.

Needs the extra `zoo`, for pictures that lie in scikit-image's package.
"""

from __future__ import annotations

from _table import main  # first: it pins the threads

import sys

from _real_data import faces, photographs, stereo
from _real_joint import FEW, WAYS, Choices, Way, report


def build(quick: bool) -> str:
    data = [
        (photographs(quick), 70 if quick else 250),
        (stereo(quick), 80 if quick else 400),
        (faces(2 if quick else 5), 80 if quick else 400),
    ]
    ways = WAYS | {"asked twice": Way("again", {}, 2)}
    return report(data, ways, FEW if quick else Choices(), quick, "--write" in sys.argv)


if __name__ == "__main__":
    main("real_pictures", build)
