"""What is measured on a canvas of windows: whole pictures where there are real ones of its size, else windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..evaluation import (
    energy_distance,
    far_correlation,
    intra_distance,
    kernel_distance,
    mean,
    off_grid_windows,
    seam_gradient,
)
from ..maps import Crop
from ..metrics import Estimate
from .base import DRAWS, Measure, Results, distance_to
from .models import Model
from .reading import photo_features, photo_maps

ENDS = "between the mean brightness of the two ends"


@dataclass(frozen=True)
class CanvasMeasures:
    """Of contents ``(n, C, H, W)`` made of the windows of a model, all of one size."""

    model: Model
    views: Sequence[Crop]  # what every window sees
    strides: tuple[int, int]  # down and across
    along: int  # the axis from end to end, -1 or -2
    wrap: bool  # the right border continues at the left

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of a window."""
        return self.model.size

    def of_pictures(self, real: Tensor) -> list[Measure]:
        """Against real pictures of the canvas's size."""
        between = self.between(real)
        return [
            distance_to(real, "of whole pictures to held-out photographs; 0: the same distribution"),
            Measure(
                "off-grid windows", "energy distance of windows half way between those that were denoised", "lower",
                lambda r: energy_distance(self.between(r.content), between, draws=DRAWS),
            ),
            Measure(
                "KID", "of the same windows: squared MMD in features of the embedded classifier, no unit; 0: the same",
                "lower",
                lambda r: kernel_distance(
                    self.between(r.content), between, self._features, draws=DRAWS, batch=self._at_once
                ),
            ),
            self.seams(),
            *self._coherence(real),
            Measure(
                "far correlation", f"{ENDS}; of photographs as in the last row", self.far(real).value,
                lambda r: self.far(r.content),
            ),
        ]  # fmt: skip

    def of_windows(
        self,
        prompts: Sequence[str | None],  # of each window; the keys of `real`
        real: Callable[[], Mapping[str | None, Tensor]],  # held-out windows (n, *window) by prompt
    ) -> list[Measure]:
        """Against real windows, for want of pictures as large as the canvas."""

        def distance(results: Results) -> Estimate:
            held = real()
            shares = [sum(p == prompt for p in prompts) for prompt in held]
            most = max(map(len, held.values()))
            counts = [round(most * share / max(shares)) for share in shares]
            mixed = torch.cat([x[:count] for x, count in zip(held.values(), counts, strict=True)])
            return energy_distance(self.in_turn(results.content)[0], mixed, draws=DRAWS)

        return [
            Measure(
                "windows", "energy distance of windows, one per picture, to held-out ones of their prompts", "lower",
                distance,
            ),
            self.seams(),
            Measure("far correlation", ENDS, "higher", lambda r: self.far(r.content)),
        ]

    def seams(self) -> Measure:
        """Whether they can be seen."""
        columns, rows = self.middles
        return Measure(
            "seams", "mean step across the middle of overlaps over that elsewhere; 1: seamless", 1.0,
            lambda r: seam_gradient(self._closed(r.content), columns, rows),
        )  # fmt: skip

    def prompts(
        self, probability: Callable[[Tensor, list[int]], Tensor]  # (n, *window), which window -> (n)
    ) -> Measure:
        """Whether windows show what they should, as a classifier says."""
        return Measure(
            "prompts", "probability of its prompt in a window, one per picture, by a linear classifier of pixels",
            "higher", lambda r: mean(probability(*self.in_turn(r.content))),
        )  # fmt: skip

    def in_turn(self, content: Tensor) -> tuple[Tensor, list[int]]:
        """Of every picture one window, the next one of the next picture, so that they are independent; and which."""
        order = [k % len(self.views) for k in range(len(content))]
        return torch.stack([self.views[v].apply(content[k : k + 1])[0] for k, v in enumerate(order)]), order

    def between(self, content: Tensor) -> Tensor:
        """Of every picture one window half way between those that were denoised, in turn too."""
        found, groups = off_grid_windows(content, self.window, self.strides)
        count = int((groups == 0).sum())
        return torch.stack([found[count * k + k % count] for k in range(len(content))])

    def far(self, content: Tensor) -> Estimate:
        """Of opposite windows of a circle, of the first and last columns, or rows, of other canvases."""
        content = content if self.along == -1 or self.wrap else content.mT
        window, whole = self.model.shape[self.along], content.shape[-1]
        return far_correlation(content, window, whole // 2 if self.wrap else whole - window)

    @cached_property
    def middles(self) -> tuple[list[int], list[int]]:
        """Columns and rows in the middle of overlaps."""
        around = self.views[0].in_shape[-1] if self.wrap else None

        def places(axis: int) -> list[int]:
            starts = sorted({view.start[axis] for view in self.views})
            ends = [*starts[1:], starts[0] + around] if axis and around else starts[1:]
            return [-(-(a + self.window[axis] + b) // 2) for a, b in zip(starts, ends, strict=False)]

        columns = sorted({(c - 1) % around + 1 for c in places(1)}) if around else places(1)
        return columns, places(0)

    def _closed(self, content: Tensor) -> Tensor:
        """With the first column once more at the end of a circle, so that steps across its border count."""
        return torch.cat([content, content[..., :1]], -1) if self.wrap else content

    def _coherence(self, real: Tensor) -> list[Measure]:
        """Where a picture has two windows that do not overlap."""
        if all(size < 2 * extent for size, extent in zip(real.shape[-2:], self.window, strict=True)):
            return []

        def found(content: Tensor) -> Estimate:
            return intra_distance(content, self.window, self._maps, batch=self._at_once)

        return [
            Measure(
                "coherence", "LPIPS, in the embedded classifier's layers, between windows of one picture that do not "
                "overlap; of photographs as in the last row", found(real).value, lambda r: found(r.content),
            )
        ]  # fmt: skip

    def _features(self, contents: Tensor) -> Tensor:
        return photo_features(self.model.decode(contents))

    def _maps(self, contents: Tensor) -> list[Tensor]:
        return photo_maps(self.model.decode(contents))

    @property
    def _at_once(self) -> int:
        """Windows that are decoded together."""
        return max(1, 256 // self.model.scale**2)
