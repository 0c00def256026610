"""Pictures of methods side by side, and pictures as addresses."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from torch import Tensor

from ..images import picture, png


class Sheet(NamedTuple):
    """Pictures of one method, for `report`.

    >>> import torch
    >>> from pgm_sync.inspection.report import report
    >>> sheet = Sheet("learned", torch.zeros(4, 3, 12, 48), caption="five windows")
    >>> report("Samples", sheets=[sheet]).count("data:image/png")
    4
    """

    name: str  # of the method
    images: Tensor  # (n, C, H, W), values in [0, 1]
    caption: str = ""  # under the pictures
    windows: Sequence[tuple[float, float]] = ()  # left and right end of each window, as shares of the width


def data_uri(image: Tensor) -> str:
    """An image ``(C, H, W)`` in [0, 1] as a PNG in a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png(picture(image))).decode()


def pictures(sheets: Sequence[Sheet]) -> str:
    """A figure per method, one picture under the other."""
    figures = []
    for s in sheets:
        height, width = s.images.shape[-2:]
        rows = "".join(
            f'<img src="{data_uri(image)}" width="{width}" height="{height}" alt="{escape(s.name)}, sample {k + 1}">'
            for k, image in enumerate(s.images)
        )
        figures.append(
            f'<figure class="sheet"><figcaption><b>{escape(s.name)}</b> {escape(s.caption)}</figcaption>'
            f'{_ruler(s.windows)}<div class="pictures">{rows}</div></figure>'
        )
    return f'<div class="sheets">{"".join(figures)}</div>'


def _ruler(windows: Sequence[tuple[float, float]]) -> str:
    """Where the windows lie, as brackets over the pictures, overlapping ones at two heights."""
    lines = "".join(
        f'<path d="M{1000 * a + 3:.0f} {7 - 4 * (k % 2)}v-2H{1000 * b - 3:.0f}v2"/>'
        for k, (a, b) in enumerate(windows)
    )
    box = 'viewBox="0 0 1000 8" preserveAspectRatio="none"'
    return f'<svg class="ruler" {box} aria-hidden="true">{lines}</svg>'
