"""Regions of one picture, each with a class of its own, in one light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import zoo
from ..denoisers import MixtureDenoiser
from ..errors import ParameterError
from ..evaluation import energy_distance, kernel_distance, mean
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..maps import DCT, Features
from ..potentials import Equality, JointGaussian
from ..zoo.light import lights, lit
from .base import DRAWS, Measure, Results, Scene, Task, Unfitted, generator
from .models import Model, load_model
from .reading import photo_features, pixel_classifier

SIDE = 24
LEARN_FROM = 2000  # composed pictures
HELD_OUT = 500
ROOM = 1.8  # largest value that is told from others in pictures
SOFT = 0.75  # pixels over which a region fades into the background


@dataclass
class Mask(Task):
    """A background and regions in it, photographs of other classes, that stand in the same light.

    The light differs from picture to picture, and every denoiser knows pictures in any light. What ties the
    trajectories is learned from composed pictures: features are `modes` cosine modes per channel over what a
    trajectory contributes, the first its mean colour, so that only pixels that are visible are looked at. Published
    methods paint all trajectories on one canvas, weighted by their masks.

    `prompts` are the background's class and one per region; regions are discs side by side.

    Raises ParameterError, UnknownNameError.
    """

    name: ClassVar[str] = "mask"
    prompts: tuple[str, ...] = ("china", "flower", "coffee")
    modes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= len(self.prompts) <= 5:
            raise ParameterError(f"prompts={self.prompts!r}: one of the background and one to four of regions")

    @property
    def shown(self) -> tuple[str, ...]:
        """The classes of a finished picture, the background's first."""
        return self.prompts

    @property
    def names(self) -> list[str]:
        """Of the trajectories, the background first."""
        return ["background", *(f"region {k}" for k in range(1, len(self.shown)))]

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """How much every trajectory counts at every pixel, ``(24, 24)``; they sum to one."""
        count = len(self.shown) - 1
        y, x = (torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2 for _ in range(2))
        radius = min(7.0, 0.42 * SIDE / count)
        found = {}
        for k, name in enumerate(self.names[1:]):
            middle = ((k + 0.5) / count - 0.5) * SIDE
            distance = (y[:, None] ** 2 + (x - middle) ** 2).sqrt()
            found[name] = ((radius - distance) / SOFT + 0.5).clamp(0, 1)
        return {"background": 1 - torch.stack(list(found.values())).sum(0), **found}

    @cached_property
    def _model(self) -> Model:
        return load_model("photo-patches")

    @cached_property
    def scene(self) -> Scene:
        own = self._model.denoiser
        assert isinstance(own, MixtureDenoiser)
        shape, graph = own.shape, FactorGraph()
        graph.add_variable("picture", shape)
        for name, mask in self.masks.items():
            graph.add_trajectory(name, shape)
            graph.add_factor(f"see {name}", [name, "picture"], Equality(mask.expand(shape)))
        ours = {"": {}, "denoiser's C": {"posterior_covariance": "denoiser"}}
        return Scene(graph, lit(own), self._model.scheduler, self.unfitted.fit(seed=self.seed), ours)

    @cached_property
    def unfitted(self) -> Unfitted:
        graph = FactorGraph()
        for name in self.names:
            graph.add_trajectory(name, self._model.shape)
        graph.add_factor("light", self.names, JointGaussian(), maps=[self._seen(name) for name in self.names])
        return Unfitted(graph, dict.fromkeys(self.names, self.composed(LEARN_FROM, 0)))

    def _seen(self, name: str) -> Features:
        """Cosine modes of what is only this trajectory's; the first are its mean colour."""
        inside = (self.masks[name] > 0.99).double()
        rows = DCT(self._model.shape, self.modes).dense().reshape(-1, 3, SIDE, SIDE)
        return Features.orthonormalise(rows.double() * inside)

    def conditions(self, seeds: Sequence[int]) -> dict[Name, Any]:
        given = zip(self.names, self.shown, strict=True)
        return {name: self._model.condition([prompt] * len(seeds)) for name, prompt in given}

    def content(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The trajectories under their masks; on a canvas these are its own pixels."""
        first = samples["background"]
        return torch.stack([samples[n] * mask.to(first) for n, mask in self.masks.items()]).sum(0)

    def composed(self, n: int, k: int) -> Tensor:
        """Real crops under their masks and in one light, ``(n, 3, 24, 24)``; other ones for every k.

        From the bands that the denoiser was made of: another band of one photograph shows something else.
        """
        draws = generator(self.seed, k)
        light = lights(n, generator=draws)
        total = torch.zeros(n, 3, SIDE, SIDE)
        for mask, prompt in zip(self.masks.values(), self.shown, strict=True):
            crops = zoo.wide_crops((3, SIDE, SIDE), n, "train", generator=draws, pictures=(prompt,))
            total += mask.float() * crops
        return total + light

    @cached_property
    def _heldout(self) -> tuple[Tensor, Tensor]:
        return self.composed(HELD_OUT, 1), self.composed(HELD_OUT, 2)

    def reference(self) -> Tensor:
        return self._heldout[1]

    def pictures(self, content: Tensor) -> Tensor:
        """Darker and paler than they are, with room for bright lights."""
        return super().pictures(content / ROOM)

    def _shown(self, content: Tensor) -> Tensor:
        """`pictures` in [-1, 1]."""
        return 2 * self.pictures(content) - 1

    def measures(self) -> list[Measure]:
        real = self._heldout[0]
        return [
            Measure(
                "energy distance", "of pictures to other photograph crops composed in one light; 0: the same", "lower",
                lambda r: energy_distance(r.content, real, draws=DRAWS),
            ),
            Measure(
                "KID", "squared MMD to them in features of the embedded classifier, no unit; 0: the same", "lower",
                lambda r: kernel_distance(self._shown(r.content), self._shown(real), photo_features, draws=DRAWS),
            ),
            Measure(
                "light mismatch", "root mean square difference of brightness, beyond that of the classes, between "
                "a region and the background; composed photographs as in the last row",
                self._mismatch(real).mean().item(), lambda r: mean(self._mismatch(r.content)),
            ),
            Measure(
                "prompts", "probability of its prompt in every region, by a linear classifier of their pixels",
                "higher", lambda r: mean(self._probability(r)),
            ),
        ]  # fmt: skip

    def _mismatch(self, pictures: Tensor) -> Tensor:  # (n)
        """Per picture; the brightness that a class has by itself is taken out, by training pictures."""
        own = self._brightness(pictures) - self._usual
        return (own[:, 1:] - own[:, :1]).square().mean(1).sqrt()

    @cached_property
    def _usual(self) -> Tensor:  # (trajectories)
        """The mean brightness of what is shown, over pictures."""
        return self._brightness(self.composed(LEARN_FROM, 0)).mean(0)

    def _brightness(self, pictures: Tensor) -> Tensor:  # (n, trajectories)
        inside = torch.stack([(mask > 0.99).to(pictures) for mask in self.masks.values()])
        return torch.einsum("nchw,mhw->nm", pictures, inside) / (3 * inside.sum((1, 2)))

    def _probability(self, results: Results) -> Tensor:  # (n)
        wanted = [self._classes.index(prompt) for prompt in self.shown]
        found = [
            torch.from_numpy(classifier.predict_proba(self._pixels(results.content, name)))[:, k]
            for (name, classifier), k in zip(self._classifiers.items(), wanted, strict=True)
        ]
        return torch.stack(found, 1).mean(1)

    @property
    def _classes(self) -> tuple[str, ...]:
        return self._model.classes

    def _pixels(self, pictures: Tensor, name: str) -> Any:
        return pictures[:, :, self.masks[name] > 0.99].flatten(1).double().numpy()

    @cached_property
    def _classifiers(self) -> dict[str, Any]:
        """Of the pixels of each region, in any light: principal components, and logistic regression on them."""
        draws = generator(self.seed, 3)
        crops, labels = zoo.wide_crops((3, SIDE, SIDE), 3500, "train", generator=draws, return_photos=True)
        crops = crops + lights(len(crops), generator=draws)
        return {
            name: pixel_classifier(self._pixels(crops, name), labels)
            for name in self.names
        }
