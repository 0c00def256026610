"""Halves and quadrants of handwritten digits, held out: how near learned potentials come to a denoiser of digits."""

from __future__ import annotations

from _table import main  # first: it pins the threads

import sys

from _real_data import digits
from _real_joint import FEW, OWN, WAYS, Choices, Way, report

import pgm_sync as ps

LOOP = {
    "asked again 3 times, denoisers' C": Way("again", OWN, ps.Tilt(3, 0.7)),
    "loop of four, denoisers' C": Way("loop", OWN),
    "loop of four, asked again, denoisers' C": Way("loop", OWN, ps.Tilt(1, 0.7)),
}


def build(quick: bool) -> str:
    data = [
        (digits(rows, columns, name, quick), 100 if quick else 600)
        for rows, columns, name in ((1, 2, "digit halves"), (2, 2, "digit quadrants"))
    ]
    choices = FEW if quick else Choices(ranks=(8, 12, 24), shrinkages=(0.02, 0.1))
    return report(data, WAYS | LOOP, choices, quick, "--write" in sys.argv)


if __name__ == "__main__":
    main("real_digits", build)
