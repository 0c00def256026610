"""Regions of one picture, each with a prompt of its own, that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ParameterError
from ..evaluation import Clip
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..potentials import Equality, JointGaussian
from .base import Measure, Results, Scene, Task, Unfitted
from .models import Model, load_model
from .photos import check_share, read_mask
from .reading import clip_score
from .region_pictures import Composed, RegionPictures, Whole

PATCHES = "photo-patches"  # the denoiser that knows pictures in any light
RADIUS = 0.42, 7 / 24  # of regions, at most, of the width that each has and of the picture's
DISCS = 4  # side by side, at most
SOFT = 1 / 32  # of the picture, over which a region fades into the background


@dataclass
class Mask(Task):
    """A background and regions in it, photographs of other classes, that stand in the same light.

    By default the light differs from picture to picture, and every denoiser knows pictures in any light. What ties the
    trajectories is learned from composed pictures: features are `modes` cosine modes per channel over what a
    trajectory contributes, the first its mean colour, so that only pixels that are visible are looked at. Published
    methods paint all trajectories on one canvas, weighted by their masks.

    Parameters
    ----------
    prompts
        the background's and one per region, classes of an embedded model or texts of a checkpoint.
    modes
        cosine modes per channel that are coupled.
    model
        by its name, as `load_model` takes it. With another than the default, what the background says of regions is
        learned from pictures as they are.
    guidance
        of a network or a checkpoint.
    data
        a folder of pictures to learn from; the embedded photographs by default. Needed for a checkpoint.
    regions
        files of masks, one per region, whose grey is how much the region counts; any number of them. Where they sum to
        more than white, they share; each needs pixels of its own, and so does the background. By default discs.
    clip
        a CLIP checkpoint by its name, which reads what regions show.

    Raises ParameterError, UnknownNameError, SavedFileError.
    """

    name: ClassVar[str] = "mask"
    prompts: tuple[str, ...] = ("china", "flower", "coffee")
    modes: int = 1
    model: str | Model = PATCHES
    guidance: float = 1.0
    data: str | None = None
    regions: tuple[str, ...] = ()
    clip: str | Clip | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        self.regions = (self.regions,) if isinstance(self.regions, str) else tuple(self.regions)
        if self.regions and len(self.prompts) != 1 + len(self.regions):
            raise ParameterError(f"{len(self.prompts)} prompts for a background and {len(self.regions)} regions")
        if not self.regions and not 2 <= len(self.prompts) <= 1 + DISCS:
            raise ParameterError(
                f"prompts={self.prompts!r}: one of the background and one to {DISCS} of discs; for more, give the "
                "files of their masks, regions=FILE,FILE"
            )

    @property
    def shown(self) -> tuple[str, ...]:
        """The prompts of a finished picture, the background's first."""
        return self.prompts

    @property
    def names(self) -> list[str]:
        """Of the trajectories, the background first."""
        return ["background", *(f"region {k}" for k in range(1, len(self.shown)))]

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """How much every trajectory counts at every element, ``(H, W)``; they sum to one."""
        found = self._of_files if self.regions else self._discs
        return {"background": (1 - torch.stack(list(found.values())).sum(0)).clamp_min(0), **found}

    @property
    def _of_files(self) -> dict[str, Tensor]:
        read = [read_mask(path, self._model.shape[-1]) for path in self.regions]
        total = torch.stack(read).sum(0)
        shared = [mask / total.clamp_min(1) for mask in read]
        for path, mask in zip(self.regions, shared, strict=True):
            check_share(mask, path)
        check_share(1 - total, "the background that regions leave")
        return dict(zip(self.names[1:], shared, strict=True))

    @property
    def _discs(self) -> dict[str, Tensor]:
        """Side by side."""
        count = len(self.shown) - 1
        height, width = self._model.size
        y, x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in (height, width))
        radius = min(RADIUS[0] / count, RADIUS[1]) * width
        found = {}
        for k, name in enumerate(self.names[1:]):
            middle = ((k + 0.5) / count - 0.5) * width
            distance = (y[:, None] ** 2 + (x - middle) ** 2).sqrt()
            found[name] = ((radius - distance) / (SOFT * width) + 0.5).clamp(0, 1)
        return found

    @cached_property
    def _model(self) -> Model:
        return self.model if isinstance(self.model, Model) else load_model(self.model, self.guidance, self.device)

    @cached_property
    def subject(self) -> RegionPictures:
        """What the pictures are of."""
        given = (self._model, self.masks, self.shown, self.seed)
        return Composed(*given) if self.model == PATCHES and self.data is None else Whole(*given, self.data)

    @cached_property
    def scene(self) -> Scene:
        own = self.subject.denoiser
        shape, graph = self._model.shape, FactorGraph()
        graph.add_variable("picture", shape)
        for name, mask in self.masks.items():
            graph.add_trajectory(name, shape)
            graph.add_factor(f"see {name}", [name, "picture"], Equality(mask.expand(shape)))
        ours: dict[str, dict[str, Any]] = {"": {}}
        if own.has_covariance:
            ours["denoiser's C"] = {"posterior_covariance": "denoiser"}
        return Scene(graph, own, self._model.scheduler, self.unfitted.fit(seed=self.seed), ours, self.device)

    @cached_property
    def unfitted(self) -> Unfitted:
        data, groups = self.subject.data()
        graph = FactorGraph()
        for name in self.names:
            graph.add_trajectory(name, self._model.shape)
        maps = [self.subject.seen(name, self.modes) for name in self.names]
        graph.add_factor("light", self.names, JointGaussian(), maps=maps)
        return Unfitted(graph, data, groups)

    def conditions(self, seeds: Sequence[int]) -> dict[Name, Any]:
        given = zip(self.names, self.shown, strict=True)
        return {name: self._model.condition([prompt] * len(seeds)) for name, prompt in given}

    def content(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The trajectories under their masks; on a canvas these are its own pixels."""
        first = samples["background"]
        return torch.stack([samples[n] * mask.to(first) for n, mask in self.masks.items()]).sum(0)

    def reference(self) -> Tensor | None:
        return self.subject.reference()

    def pictures(self, content: Tensor) -> Tensor:
        return super().pictures(self.subject.shown(content))

    def measures(self) -> list[Measure]:
        return [*self.subject.measures(), *clip_score(self.clip, self.device, self._parts)]

    def _parts(self, results: Results) -> list[tuple[Tensor, list[str]]]:
        """The whole picture, and the smallest box around each region; pictures, and prompts."""
        pictures = self.subject.shown(results.content)
        boxes = {name: pictures[..., self._extent(mask, 1), self._extent(mask, 0)] for name, mask in self.masks.items()}
        boxes["background"] = pictures
        return [(box, [prompt] * len(box)) for box, prompt in zip(boxes.values(), self.shown, strict=True)]

    def _extent(self, mask: Tensor, axis: int) -> slice:
        """Pixels from the first to the last that count by more than half, seen along an axis."""
        inside = (mask > 0.5).any(axis).nonzero().flatten() * self._model.scale
        return slice(int(inside[0]), int(inside[-1]) + self._model.scale)
