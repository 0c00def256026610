"""The same content seen by several trajectories: the shared canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import StructuralPotential


@dataclass(frozen=True, eq=False, repr=False)
class Equality(StructuralPotential):
    """Matching elements of the ends are one and the same number (section 4 of the theory).

    Through index maps, elements merge into shared sites when the graph is compiled, and the trajectories
    share the noise of these sites.
    """

    elementwise: ClassVar[bool] = True
