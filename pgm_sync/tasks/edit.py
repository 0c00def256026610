"""A real picture of which one region becomes something else, in the light of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import zoo
from ..denoisers import Denoiser
from ..denoisers.base import DenoisedPosterior
from ..errors import ParameterError, ShapeError
from ..evaluation import psnr, ssim
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..levels import NoiseLevel
from ..maps import LinearMap
from ..metrics import Estimate
from ..sampling import invert
from ..zoo.light import lights
from .base import Measure, Results, Scene, generator
from .mask import SIDE, Mask
from .photos import read_square

CERTAIN = 1e-6  # variance of a content that is known
SIMILAR = 5  # pixels a side of the windows of SSIM, which must lie outside the region


class KnownDenoiser(Denoiser):
    """Of a content that is known: it is the condition, ``(*batch, *shape)``, whatever the noisy state looks like."""

    has_covariance = True

    def __init__(self, shape: tuple[int, ...]):
        self.shape = tuple(shape)

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """The condition. Raises ShapeError where it is missing or of another shape."""
        if not isinstance(condition, Tensor) or condition.shape != noisy.shape:
            got = tuple(condition.shape) if isinstance(condition, Tensor) else condition
            raise ShapeError(f"the condition is the known content, of shape {tuple(noisy.shape)}, got {got}")
        return condition.to(noisy)

    def posterior(
        self, noisy: Tensor, level: NoiseLevel, condition: Any = None, features: LinearMap | None = None
    ) -> DenoisedPosterior:
        """The condition, and next to no variance."""
        size = torch.Size(self.shape).numel() if features is None else features.out_size
        batch = noisy.shape[: noisy.ndim - len(self.shape)]
        covariance = CERTAIN * torch.eye(size, dtype=noisy.dtype, device=noisy.device)
        return DenoisedPosterior(self.denoise(noisy, level, condition), covariance.expand(*batch, size, size))


@dataclass
class Edit(Mask):
    """The first two of `prompts` are in the picture, background and region; the region is to become the third.

    Every joint sample has a picture of its own, photograph crops composed in one light, and its background is known
    (`KnownDenoiser`). What ties the region to it is learned as in `Mask`, from pictures of the background's class with
    regions of the new one: the new region stands in the light of the old picture, and the rest is left alone.

    Parameters
    ----------
    source
        a picture's file, whose middle square is edited in every joint sample; by default every one has its own.
    region
        "disc", or the file of a mask, white where the picture is to change.
    background
        "known", or "inverted": it starts from the noise that the sampler turns into the picture (`ps.invert`), under
        the old prompt, and is free to follow the region.

    Raises ParameterError, UnknownNameError, SavedFileError.
    """

    name: ClassVar[str] = "edit"
    prompts: tuple[str, ...] = ("china", "flower", "coffee")
    source: str | None = None
    region: str = "disc"
    background: str = "known"

    def __post_init__(self) -> None:
        if len(self.prompts) != 3:
            raise ParameterError(f"prompts={self.prompts!r}: the background, what the region is, and what it becomes")
        if self.background not in ("known", "inverted"):
            raise ParameterError(f"background={self.background!r} is neither 'known' nor 'inverted'")

    @property
    def shown(self) -> tuple[str, ...]:
        """The background, and what the region becomes."""
        return self.prompts[0], self.prompts[2]

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        if self.region == "disc":
            return super().masks
        inside = (read_square(self.region, SIDE).mean(0).double() + 1) / 2
        if not 0.02 < (inside > 0.99).double().mean() < 0.9:
            share = (inside > 0.99).double().mean().item()
            raise ParameterError(
                f"region={self.region!r} covers {100 * share:.0f} % of the picture; give a mask between 2 and 90 %"
            )
        return {"background": 1 - inside, "region 1": inside}

    @property
    def _source(self) -> Tensor:  # (3, 24, 24)
        assert self.source is not None
        return read_square(self.source, SIDE)

    @cached_property
    def scene(self) -> Scene:
        regions = super().scene
        own = regions.denoisers
        assert isinstance(own, Denoiser)  # one for all of them
        known = KnownDenoiser(own.shape) if self.background == "known" else own
        return replace(regions, denoisers={"background": known, "region 1": own})

    def sources(self, seeds: Sequence[int]) -> Tensor:
        """The pictures to be edited, ``(n, 3, 24, 24)``, one for each seed."""
        if self.source is not None:
            return self._source.expand(len(seeds), -1, -1, -1)
        found = []
        for seed in seeds:
            draws = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + seed)
            total = lights(1, generator=draws).expand(1, 3, SIDE, SIDE)
            for mask, prompt in zip(self.masks.values(), self.prompts[:2], strict=True):
                crop = zoo.wide_crops((3, SIDE, SIDE), 1, "train", generator=draws, pictures=(prompt,))
                total = total + mask.float() * crop
            found.append(total)
        return torch.cat(found)

    def initial_noise(self, seeds: Sequence[int], steps: int, graph: FactorGraph) -> dict[Name, Tensor] | None:
        if self.background == "known":
            return None
        alone, denoisers = FactorGraph(), self.scene.denoisers
        assert isinstance(denoisers, dict)
        own = denoisers["background"]
        alone.add_trajectory("background", own.shape)
        old = {"background": self._model.condition([self.prompts[0]] * len(seeds))}
        contents: dict[Name, Tensor] = {"background": self.sources(seeds)}
        inverse = invert(alone, own, self._model.scheduler, contents, steps, conditions=old, progress=False)
        noise = inverse["background"].float()
        if graph.hidden:  # published methods paint on a canvas, which starts as the picture
            return dict.fromkeys(graph.hidden, noise)
        draws = [torch.randn(own.shape, generator=generator(seed, 5)) for seed in seeds]
        return {"background": noise, "region 1": torch.stack(draws)}

    def conditions(self, seeds: Sequence[int]) -> dict[Name, Any]:
        old = self._model.condition([self.prompts[0]] * len(seeds))
        return {
            "background": self.sources(seeds) if self.background == "known" else old,
            "region 1": self._model.condition([self.prompts[2]] * len(seeds)),
        }

    def measures(self) -> list[Measure]:
        inherited = super().measures()
        return [
            *inherited,
            Measure(
                "background", "PSNR of what should stay, dB, at most 100", "higher", lambda r: self._kept(r, psnr)
            ),
            Measure(
                "background SSIM", "structural similarity of what should stay; 1: the same", "higher",
                lambda r: self._kept(r, ssim, window=SIMILAR),
            ),
        ]  # fmt: skip

    def _kept(self, results: Results, measure: Callable[..., Estimate], **options: Any) -> Estimate:
        if not results.samples:  # real pictures are edits of none
            return Estimate(math.nan, math.nan, math.nan, 0)
        return measure(results.content, self.sources(results.seeds), self.masks["background"] > 0.99, **options)
