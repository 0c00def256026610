"""The gallery in the order in which its header goes through it: that page is the one place for the order."""

from __future__ import annotations

import re
from pathlib import Path


def lessons(folder: str | Path) -> list[str]:
    """Examples, by file name without ``.py``, as the header of a gallery links them."""
    header = (Path(folder) / "GALLERY_HEADER.rst").read_text()
    return list(dict.fromkeys(re.findall(r":doc:`(?:[^`<]*<)?(\w+)>?`", header)))


class TeachingOrder:
    """For sphinx-gallery's ``within_subsection_order``; examples that the header leaves out come last."""

    def __init__(self, folder: str | Path):
        self.known = lessons(folder) if folder else []

    def __call__(self, name: str | Path) -> tuple[int, str]:
        stem = Path(name).stem
        return (self.known.index(stem) if stem in self.known else len(self.known), stem)

    def __repr__(self) -> str:
        return "TeachingOrder()"
