"""Long motions from a denoiser of short windows, tied by overlaps and by what far windows have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..evaluation import mean, residual, transition_jump
from ..graph import FactorGraph, wide_canvas
from ..graph.factor_graph import Name
from ..learning.learned_features import pca_features
from ..zoo.data.motion import FRAMES, SCALE, energy, motions, physics_residual
from .base import Measure, Scene, Task, Unfitted, distance_to, generator
from .models import Model, load_model

LEARN_FROM = 2000  # simulated long motions
HELD_OUT = 400
HIGHEST = 2.2  # radians, in pictures
COLOURS = ((0.85, 0.45, 0.1), (0.42, 0.3, 0.75))


@dataclass
class Motion(Task):
    """A double pendulum that swings on: windows of 32 frames on a canvas of `frames`, whose energy nobody may change.

    Potentials couple `modes` principal components of all pairs of windows, learned from simulated long motions. Frames
    are .1 s apart.

    Raises ShapeError, ParameterError where windows do not fit.
    """

    name: ClassVar[str] = "motion"
    frames: int = 104
    stride: int = 24
    modes: int = 16
    model: str = "motion-unet"
    device: str = "cpu"
    seed: int = 0

    @cached_property
    def _model(self) -> Model:
        return load_model(self.model, device=self.device)

    @cached_property
    def scene(self) -> Scene:
        learned = self.unfitted.fit(seed=self.seed)
        return Scene(self._graph(None), self._model.denoiser, self._model.scheduler, learned, device=self.device)

    @cached_property
    def unfitted(self) -> Unfitted:
        long, _ = motions(LEARN_FROM, self.frames, generator=generator(self.seed, 0))
        data: dict[Name, Tensor] = {"canvas": long.float()}
        return Unfitted(pca_features(self._graph(features=lambda shape: None), data, self.modes), data)

    def _graph(self, features: Any) -> FactorGraph:
        shape = self._model.shape  # (features, frames of a window)
        return wide_canvas((shape[0], self.frames), shape, self.stride, features=features, neighbours="all")

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor]:
        """Two sets of simulated motions: one to measure with, one to stand beside the methods."""
        found = motions(2 * HELD_OUT, self.frames, generator=generator(self.seed, 1))[0].float()
        return found[:HELD_OUT], found[HELD_OUT:]

    def reference(self) -> Tensor:
        return self._real[1]

    def measures(self) -> list[Measure]:
        real = self._real[0]
        borders = range(FRAMES - (FRAMES - self.stride) // 2, self.frames, self.stride)
        return [
            distance_to(real, "of whole motions to simulated ones; 0: the same distribution"),
            Measure(
                "physics residual", "root mean square violation of the equations of motion, in units of windows",
                "lower", lambda r: residual(r.content, physics_residual),
            ),
            Measure(
                "energy drift", "standard deviation of a motion's energy between its quarters, J; simulated ones: 0",
                "lower", lambda r: mean(drift(r.content)),
            ),
            Measure(
                "transitions", "jump of velocities at the middle of overlaps over that elsewhere; 1: not to be told",
                1.0, lambda r: transition_jump(r.content, borders, time=2),
            ),
        ]  # fmt: skip

    def pictures(self, content: Tensor) -> Tensor:
        """Angles over time, ``(n, 3, 64, 128)``."""
        return torch.stack([curves(motion) for motion in content.float().cpu()])


def drift(motion: Tensor) -> Tensor:  # (n, 4, frames) -> (n)
    """Standard deviation of the mean energies of the quarters of a motion, joules."""
    quarters = energy(motion).tensor_split(4, -1)
    return torch.stack([quarter.mean(-1) for quarter in quarters], -1).std(-1)


def curves(motion: Tensor, size: int = 64) -> Tensor:  # (4, frames) -> (3, size, 2 size) in [0, 1]
    """Both angles over time, the inner one's in orange, the outer one's in violet."""
    picture = torch.ones(3, size, 2 * size)
    angles = motion[:2] * torch.tensor(SCALE)[:2, None]
    dense = torch.nn.functional.interpolate(angles[None], size=16 * size, mode="linear", align_corners=True)[0]
    column = torch.arange(16 * size) // 8
    for angle, colour in zip(dense, COLOURS, strict=True):
        row = ((1 - angle / HIGHEST) / 2 * (size - 1)).round().long().clamp(0, size - 1)
        picture[:, row, column] = torch.tensor(colour)[:, None]
    return picture
