"""Wide pictures from the windows of a patch denoiser: panoramas, tall and grid canvases, 360 degrees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import zoo
from ..evaluation import energy_distance, far_correlation, off_grid_windows, seam_gradient
from ..graph import FactorGraph, wide_canvas
from ..maps import DCT
from .base import DRAWS, Measure, Results, Scene, Task, Unfitted, generator
from .models import load_model

CROPS = 2000  # photograph crops to learn from
HELD_OUT = 500  # other ones to compare with


@dataclass
class Wide(Task):
    """Windows of photographs, tied by the pixels in which they overlap and by what far windows have in common.

    Sizes in pixels. Potentials couple `modes` cosine modes per channel of all pairs of windows, learned from wide crops
    of photographs; the windows of the measures lie between those that were denoised.

    Raises ShapeError, ParameterError where windows do not fit the canvas.
    """

    name: ClassVar[str] = "wide"
    width: int = 96
    height: int = 24
    window: int = 24
    stride: int = 18
    modes: int = 4
    seed: int = 0

    @cached_property
    def scene(self) -> Scene:
        model = load_model("photo-patches")
        return Scene(
            self._graph(coupled=False),
            model.denoiser,
            model.scheduler,
            self.unfitted.fit(seed=self.seed),
            {"": {"posterior_covariance": "denoiser"}, "surrogate C": {}},
        )

    @cached_property
    def unfitted(self) -> Unfitted:
        crops, photos = zoo.wide_crops(
            self._shape, CROPS, "train", generator=generator(self.seed, 0), return_photos=True
        )
        return Unfitted(self._graph(coupled=True), {"canvas": crops}, photos)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return 3, self.height, self.width

    def _graph(self, coupled: bool) -> FactorGraph:
        features: Any = (lambda shape: DCT(shape, self.modes)) if coupled else None
        window = (self.window, self.window)
        return wide_canvas(self._shape, window, self.stride, features=features, neighbours="all")

    @cached_property
    def _heldout(self) -> tuple[Tensor, Tensor]:
        """Two sets that share no crop: one to measure with, one to stand beside the methods."""
        crops = zoo.wide_crops(self._shape, 2 * HELD_OUT, "test", generator=generator(self.seed, 1))
        return crops[:HELD_OUT], crops[HELD_OUT:]

    def reference(self) -> Tensor:
        return self._heldout[1]

    def measures(self) -> list[Measure]:
        real = self._heldout[0]
        far = self.width - self.window
        seams = list(range(self.window - (self.window - self.stride) // 2, self.width, self.stride))
        return [
            Measure(
                "energy distance", "of whole pictures to held-out photographs; 0: the same distribution",
                "lower", lambda r: energy_distance(r.content, real, draws=DRAWS),
            ),
            Measure(
                "off-grid windows", "energy distance of windows half way between those that were denoised",
                "lower",
                lambda r: energy_distance(self._between(r), self._between(Results(real, {}, [])), draws=DRAWS),
            ),
            Measure(
                "seams", "mean step across the middle of overlaps over that elsewhere; 1: seamless",
                1.0, lambda r: seam_gradient(r.content, seams),
            ),
            Measure(
                "far correlation", "between the mean brightness of the two ends; of photographs as in the last row",
                far_correlation(real, self.window, far).value,
                lambda r: far_correlation(r.content, self.window, far),
            ),
        ]  # fmt: skip

    def _between(self, results: Results) -> Tensor:
        """One window per picture, in turn, so that windows are independent."""
        windows, groups = off_grid_windows(
            results.content, (self.window, self.window), (self.height, self.stride)
        )
        count = int((groups == 0).sum())
        return torch.stack([windows[count * k + k % count] for k in range(len(results.content))])
