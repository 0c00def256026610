"""Photographs, a stereo pair and faces, held out: how far learned potentials get to a denoiser of whole pictures.

Needs the extra `zoo`, for pictures that lie in scikit-image's package.
"""

from __future__ import annotations

from _table import main  # first: it pins the threads

import sys

from _real_data import faces, photographs, stereo
from _real_joint import FEW, WAYS, Choices, report

CHOICES = Choices(
    kernels=(0.3,),
    mixtures=((1, 32), (1, 96), (10, 48), (30, 64)),
    pooled=(0.5,),
    ranks=(8, 24),
    shrinkages=(0.02, 0.1),
)


def build(quick: bool) -> str:
    data = [
        (photographs(quick), 70 if quick else 210),
        (stereo(quick), 80 if quick else 300),
        (faces(2 if quick else 5), 80 if quick else 400),
    ]
    return report(data, WAYS, FEW if quick else CHOICES, quick, "--write" in sys.argv)


if __name__ == "__main__":
    main("real_pictures", build)
