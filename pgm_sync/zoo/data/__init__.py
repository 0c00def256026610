"""What the embedded denoisers are trained on, besides pictures: drawn characters and simulated motion."""

from .characters import CHARACTERS, FACES, glyphs
from .motion import STYLES, cut, energy, joints, motion_windows, motions, physics_residual

__all__ = [
    "CHARACTERS",
    "FACES",
    "STYLES",
    "cut",
    "energy",
    "glyphs",
    "joints",
    "motion_windows",
    "motions",
    "physics_residual",
]
