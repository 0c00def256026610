"""A real picture of which one region becomes something else, in the light of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

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
from ..score import Scaled, Surrogate
from .base import Measure, Results, Scene, generator
from .mask import Mask
from .photos import check_share, read_mask, read_square
from .regions import derived_region

CERTAIN = 1e-6  # variance of a content that is known
SIMILAR = 3  # pixels a side of the windows of SSIM, which must lie outside the region


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
        "disc"; the file of a mask, white where the picture is to change; or "derived": where the denoiser sees `source`
        otherwise under the new prompt than under the old one (`derived_region`).
    background
        "known", or "inverted": it starts from the noise that the sampler turns into the picture (`ps.invert`), under
        the old prompt, and is free to follow the region.

    The others are those of `Mask`. Raises ParameterError, UnknownNameError, SavedFileError.
    """

    name: ClassVar[str] = "edit"
    prompts: tuple[str, ...] = ("china", "flower", "coffee")
    source: str | None = None
    region: str = "disc"
    background: str = "known"

    def __post_init__(self) -> None:
        if self.regions:
            raise ParameterError("an edit has one region: region=FILE", setting="regions")
        if len(self.prompts) != 3:
            raise ParameterError(f"prompts={self.prompts!r}: the background, what the region is, and what it becomes")
        if self.background not in ("known", "inverted"):
            raise ParameterError(f"background={self.background!r} is neither 'known' nor 'inverted'")
        if self.region == "derived" and self.source is None:
            raise ParameterError("region='derived' is that of one picture: pass source=FILE")

    @property
    def shown(self) -> tuple[str, ...]:
        """The background, and what the region becomes."""
        return self.prompts[0], self.prompts[2]

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        if self.region == "disc":
            return super().masks
        if self.region == "derived":
            draws = generator(self.seed, 6)
            inside = derived_region(self._model, self._source, self.prompts[1], self.prompts[2], draws)
        else:
            inside = read_mask(self.region, self._model.shape[-1])
        check_share(inside, self.region)
        return {"background": 1 - inside, "region 1": inside}

    @cached_property
    def _source(self) -> Tensor:  # of the model's shape
        assert self.source is not None
        return self._model.encode(read_square(self.source, self._model.shape[-1] * self._model.scale)[None])[0]

    @cached_property
    def scene(self) -> Scene:
        regions = super().scene
        own = self.subject.denoiser
        if self.background == "inverted":
            return replace(regions, denoisers={"background": own, "region 1": own})
        # What is known has no posterior variance; the region has the surrogate's, which does better here than its own
        certain = Scaled(Surrogate(), {"background": CERTAIN})
        ours = {key: value or {"posterior_covariance": certain} for key, value in regions.options.items()}
        denoisers: dict[Name, Denoiser] = {"background": KnownDenoiser(own.shape), "region 1": own}
        return replace(regions, denoisers=denoisers, options=ours)

    def sources(self, seeds: Sequence[int]) -> Tensor:
        """The contents to be edited, ``(n, *shape)``, one for each seed."""
        if self.source is not None:
            return self._source.expand(len(seeds), -1, -1, -1)
        draws = (torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + seed) for seed in seeds)
        return torch.cat([self.subject.draw(self.prompts[:2], draw) for draw in draws])

    def initial_noise(self, seeds: Sequence[int], steps: int, graph: FactorGraph) -> dict[Name, Tensor] | None:
        if self.background == "known":
            return None
        alone, own = FactorGraph(), self.subject.denoiser
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
                "background SSIM", "structural similarity of what should stay, in 256 levels; 1: the same", "higher",
                lambda r: self._kept(r, _ssim),
            ),
        ]  # fmt: skip

    def _kept(self, results: Results, measure: Callable[..., Estimate]) -> Estimate:
        if not results.samples:  # real pictures are edits of none
            return Estimate(math.nan, math.nan, math.nan, 0)
        made, before = (self._model.decode(x) for x in (results.content, self.sources(results.seeds)))
        stays = self.masks["background"] > 0.99
        for axis in (0, 1):
            stays = stays.repeat_interleave(self._model.scale, axis)
        return measure(made, before, stays)


def _ssim(pictures: Tensor, originals: Tensor, mask: Tensor) -> Estimate:
    """Of pictures as files hold them: below their levels there is nothing to see."""
    pictures, originals = ((x * 127.5).round() / 127.5 for x in (pictures, originals))
    return ssim(pictures, originals, mask, window=SIMILAR)
