"""What a texture is made of: texels where a model's views are pictures, decoded views where they are latents."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...graph.factor_graph import Name
from ..models import Model
from .atlas import Atlas
from .cameras import Camera
from .mesh import Surface
from .projection import project_views
from .solids import joint_samples, view_pictures
from .views import View, cast_all

LEARN_FROM, HELD_OUT = 2000, 400  # simulated textures
OF_LATENTS = 120  # of either: every view of each has to be encoded
AT_ONCE = 8  # textures whose views are held as pictures


@dataclass
class Contents(abc.ABC):
    """Results of a model on the views of an `atlas`; simulated ones are of `pictures`, or of those in a `folder`."""

    model: Model
    surface: Surface
    cameras: Sequence[Camera]  # of the model's resolution
    atlas: Atlas
    pictures: tuple[str, ...]
    folder: str | None

    @cached_property
    def fine(self) -> dict[str, View]:
        """The views, pixel by pixel of what the model decodes."""
        height, width = (size * self.model.scale for size in self.model.size)
        return cast_all(self.surface, [replace(camera, resolution=(height, width)) for camera in self.cameras])

    @abc.abstractmethod
    def joint(self, draws: torch.Generator) -> tuple[dict[Name, Tensor], Tensor]:
        """Joint contents of the graph to learn from, and the picture of each."""

    @abc.abstractmethod
    def real(self, draws: torch.Generator) -> Tensor:
        """Held-out simulated textures, ``(n, 3, texels)``."""

    @abc.abstractmethod
    def of(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The result, from samples of the graph."""

    @abc.abstractmethod
    def texels(self, content: Tensor) -> Tensor:
        """What results say of the atlas' texels that some view shows, ``(n, 3, texels)`` in [-1, 1]."""

    @abc.abstractmethod
    def textures(self, content: Tensor) -> Tensor:
        """Texture pictures ``(n, 3, H, W)`` in [-1, 1]."""


class Texels(Contents):
    """The result is the texels themselves, ``(n, 3, texels)``."""

    def joint(self, draws: torch.Generator) -> tuple[dict[Name, Tensor], Tensor]:
        canvases, photos = joint_samples(self.atlas, LEARN_FROM, "train", draws, self.pictures, self.folder)
        return {"atlas": canvases}, photos

    def real(self, draws: torch.Generator) -> Tensor:
        return self.of({"atlas": joint_samples(self.atlas, 2 * HELD_OUT, "test", draws, self.pictures, self.folder)[0]})

    def of(self, samples: Mapping[Name, Tensor]) -> Tensor:
        return samples["atlas"][..., : len(self.atlas.shown)]

    def texels(self, content: Tensor) -> Tensor:
        return content

    def textures(self, content: Tensor) -> Tensor:
        canvas = content.new_zeros(len(content), 3, self.atlas.count)
        canvas[..., : content.shape[-1]] = content
        return self.atlas.texture(canvas)


class DecodedViews(Contents):
    """The result is pictures of all views, ``(n, views, 3, H, W)``: a single latent says little about a colour."""

    def joint(self, draws: torch.Generator) -> tuple[dict[Name, Tensor], Tensor]:
        made, photos = [], []
        for k in range(0, OF_LATENTS, AT_ONCE):
            shown, labels = self._simulated(min(AT_ONCE, OF_LATENTS - k), "train", draws)
            made.append(self.model.encode(shown.flatten(0, 1)).unflatten(0, shown.shape[:2]))
            photos.append(labels)
        return dict(zip(self.atlas.sites, torch.cat(made).unbind(1), strict=True)), torch.cat(photos)

    def real(self, draws: torch.Generator) -> Tensor:
        counts = [min(AT_ONCE, OF_LATENTS - k) for k in range(0, OF_LATENTS, AT_ONCE)]
        return torch.cat([self.texels(self._simulated(count, "test", draws)[0]) for count in counts])

    def _simulated(self, n: int, split: str, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        return view_pictures(self.fine, n, split, draws, self.pictures, self.folder)

    def of(self, samples: Mapping[Name, Tensor]) -> Tensor:
        views = torch.stack([samples[name] for name in self.atlas.sites], 1)
        return self.model.decode(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def texels(self, content: Tensor) -> Tensor:
        """Means over views (Eq. 10) of the pixels that a latent stands for."""
        small = avg_pool2d(content.flatten(0, 1), self.model.scale).unflatten(0, content.shape[:2])
        out = small.new_zeros(len(content), 3, len(self.atlas.shown))
        for k, (name, sites) in enumerate(self.atlas.sites.items()):
            tied = torch.from_numpy(self.atlas.tied(name)).to(small.device)
            weight = torch.from_numpy(self.atlas.weights[name]).to(small)[tied]
            out.index_add_(-1, torch.from_numpy(sites).to(small.device)[tied], weight * small[:, k, :, tied])
        return out

    def textures(self, content: Tensor) -> Tensor:
        height, width = (size * self.model.scale for size in self.atlas.size)
        return torch.stack([
            project_views(
                self.surface, self.cameras, dict(zip(self.atlas.sites, views, strict=True)), (height, width)
            )
            for views in content.float().cpu()
        ])  # fmt: skip
