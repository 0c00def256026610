"""What pictures with regions are of: photographs composed in one light, or whatever the pictures of a model show."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..denoisers import Denoiser, MixtureDenoiser
from ..evaluation import energy_distance, kernel_distance, mean
from ..graph.factor_graph import Name
from ..maps import DCT, Features
from ..metrics import Estimate
from ..zoo import PHOTOGRAPHS
from ..zoo.light import lights, lit
from .base import DRAWS, Measure, distance_to, generator
from .models import Model
from .photos import class_means, contents
from .reading import photo_features, pixel_classifier

LEARN_FROM = 2000  # pictures
HELD_OUT = 500
ROOM = 1.8  # largest value that is told from others in lit pictures
READ = 3500  # crops that the classifier of pixels is made from


@dataclass
class RegionPictures(abc.ABC):
    """Pictures ``(n, *model.shape)``, parts of which count by `masks` and show `prompts`, the background first."""

    model: Model
    masks: Mapping[str, Tensor]  # (H, W) of every trajectory; they sum to one
    prompts: tuple[str, ...]  # one each
    seed: int

    @property
    @abc.abstractmethod
    def denoiser(self) -> Denoiser:
        """Of every trajectory."""

    @abc.abstractmethod
    def data(self) -> tuple[dict[Name, Tensor], Tensor | None]:
        """Joint contents of the trajectories to learn from, and the group of each, if any."""

    @abc.abstractmethod
    def draw(self, prompts: Sequence[str], draws: torch.Generator) -> Tensor:
        """One real picture, ``(1, *shape)``, that shows `prompts`, as far as there are such."""

    @abc.abstractmethod
    def measures(self) -> list[Measure]:
        """The main one first."""

    def reference(self) -> Tensor | None:
        """Real pictures with all prompts, where there are such."""
        return None

    def shown(self, content: Tensor) -> Tensor:
        """Contents as pictures in [-1, 1]."""
        return self.model.decode(content)

    def seen(self, name: str, modes: int) -> Features:
        """Cosine modes per channel of what is only this trajectory's; the first are its mean colour."""
        inside = (self.masks[name] > 0.99).double()
        rows = DCT(self.model.shape, modes).dense().reshape(-1, *self.model.shape)
        return Features.orthonormalise(rows.double() * inside)

    def mean_colours(self, content: Tensor) -> Tensor:  # (n, trajectories, C)
        """Of what is only one trajectory's."""
        inside = torch.stack([(mask > 0.99).to(content) for mask in self.masks.values()])
        return torch.einsum("nchw,mhw->nmc", content, inside) / inside.sum((1, 2))[:, None]

    def reading(self) -> Measure:
        """Whether every region is read as its prompt; of a model with classes."""
        return Measure(
            "prompts", "probability of its prompt in every region, by a linear classifier of their pixels", "higher",
            lambda r: mean(self._probability(r.content)),
        )  # fmt: skip

    def _probability(self, content: Tensor) -> Tensor:  # (n)
        wanted = [self.model.classes.index(prompt) for prompt in self.prompts]
        found = [
            torch.from_numpy(classifier.predict_proba(self._pixels(content, name)))[:, k]
            for (name, classifier), k in zip(self._classifiers.items(), wanted, strict=True)
        ]
        return torch.stack(found, 1).mean(1)

    def _pixels(self, pictures: Tensor, name: str) -> Any:
        return pictures[:, :, self.masks[name] > 0.99].flatten(1).double().numpy()

    @cached_property
    def _classifiers(self) -> dict[str, Any]:
        """Of the pixels of each region: principal components, and logistic regression on them."""
        found, labels = self.examples(READ, generator(self.seed, 3))
        return {name: pixel_classifier(self._pixels(found, name), labels) for name in self.masks}

    @abc.abstractmethod
    def examples(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures of one class each, ``(n, *shape)``, and their classes, as the denoiser knows them."""


class Composed(RegionPictures):
    """Photograph crops put together under their masks, all in one light that differs from picture to picture."""

    @cached_property
    def denoiser(self) -> Denoiser:
        """That knows single crops in any light."""
        assert isinstance(self.model.denoiser, MixtureDenoiser)
        return lit(self.model.denoiser)

    def composed(self, n: int, k: int) -> Tensor:
        """``(n, *shape)``; other ones for every k.

        From the bands that the denoiser was made of: another band of one photograph shows something else.
        """
        return self._composed(n, self.prompts, generator(self.seed, k))

    def _composed(self, n: int, prompts: Sequence[str], draws: torch.Generator) -> Tensor:
        total = lights(n, generator=draws).expand(n, *self.model.shape).clone()
        for mask, prompt in zip(self.masks.values(), prompts, strict=True):
            total += mask.float() * self._crops(n, draws, (prompt,))[0]
        return total

    def _crops(self, n: int, draws: torch.Generator, pictures: Sequence[str]) -> tuple[Tensor, Tensor]:
        return zoo.wide_crops(
            (3, *self.model.size), n, "train", generator=draws, pictures=pictures, return_photos=True
        )

    def data(self) -> tuple[dict[Name, Tensor], Tensor | None]:
        return dict.fromkeys(self.masks, self.composed(LEARN_FROM, 0)), None

    def draw(self, prompts: Sequence[str], draws: torch.Generator) -> Tensor:
        return self._composed(1, prompts, draws)

    def examples(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        found, labels = self._crops(n, draws, PHOTOGRAPHS)
        return found + lights(n, generator=draws), labels

    def shown(self, content: Tensor) -> Tensor:
        """Darker and paler than they are, with room for bright lights."""
        return (content / ROOM).clamp(-1, 1)

    @cached_property
    def _heldout(self) -> tuple[Tensor, Tensor]:
        return self.composed(HELD_OUT, 1), self.composed(HELD_OUT, 2)

    def reference(self) -> Tensor:
        return self._heldout[1]

    def measures(self) -> list[Measure]:
        real = self._heldout[0]
        return [
            distance_to(real, "of pictures to other photograph crops composed in one light; 0: the same"),
            Measure(
                "KID", "squared MMD to them in features of the embedded classifier, no unit; 0: the same", "lower",
                lambda r: kernel_distance(self.shown(r.content), self.shown(real), photo_features, draws=DRAWS),
            ),
            Measure(
                "light mismatch", "root mean square difference of brightness, beyond that of the classes, between "
                "a region and the background; composed photographs as in the last row",
                self._mismatch(real).mean().item(), lambda r: mean(self._mismatch(r.content)),
            ),
            self.reading(),
        ]  # fmt: skip

    def _mismatch(self, pictures: Tensor) -> Tensor:  # (n)
        """Per picture; the brightness that a class has by itself is taken out, by training pictures."""
        own = self.mean_colours(pictures).mean(-1) - self._usual
        return (own[:, 1:] - own[:, :1]).square().mean(1).sqrt()

    @cached_property
    def _usual(self) -> Tensor:  # (trajectories)
        """The mean brightness of what is shown, over pictures."""
        return self.mean_colours(self.composed(LEARN_FROM, 0)).mean((0, -1))


@dataclass
class Whole(RegionPictures):
    """Pictures as they are: what one part of them says of another is learned, whatever they show.

    From the embedded photographs, or from a `folder`. Where the model has classes, and pictures are of them, it is
    learned from what is left when every class's mean picture is taken away, and holds around the means of the prompts.
    """

    folder: str | None = None

    @property
    def denoiser(self) -> Denoiser:
        return self.model.denoiser

    def _pictures(self, n: int, split: str, k: int) -> tuple[Tensor, Tensor]:
        """Contents, and the picture that each is of; other ones for every k."""
        return self._crops(n, split, generator(self.seed, k), self._classes)

    def _crops(
        self, n: int, split: str, draws: torch.Generator, pictures: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        return contents(self.model, self.model.size, n, split, draws, pictures, self.folder)

    @property
    def _classes(self) -> tuple[str, ...]:
        return self.model.classes or PHOTOGRAPHS

    @property
    def _classed(self) -> bool:
        """Whether pictures to learn from are of the model's classes."""
        return self.folder is None and bool(self.model.classes)

    @cached_property
    def _training(self) -> tuple[Tensor, Tensor]:
        return self._pictures(LEARN_FROM, "train", 0)

    @cached_property
    def _means(self) -> Tensor:  # (classes, *shape)
        return class_means(*self._training, len(self._classes))

    def _of_prompts(self, contents: Tensor, labels: Tensor) -> dict[Name, Tensor]:
        """What every trajectory shows of pictures, as if they were of its prompt."""
        if not self._classed:
            return dict.fromkeys(self.masks, contents)
        rest = contents - self._means[labels]
        wanted = zip(self.masks, self.prompts, strict=True)
        return {name: rest + self._means[self._classes.index(prompt)] for name, prompt in wanted}

    def data(self) -> tuple[dict[Name, Tensor], Tensor | None]:
        return self._of_prompts(*self._training), self._training[1]

    def draw(self, prompts: Sequence[str], draws: torch.Generator) -> Tensor:
        """Of the background's class; of a folder any."""
        return self._crops(1, "test", draws, prompts[:1] if self._classed else self._classes)[0]

    def examples(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._crops(n, "train", draws, self._classes)

    @cached_property
    def _real_colours(self) -> Tensor:  # (n, trajectories, C)
        """Of held-out pictures, each trajectory's as if it were of its prompt."""
        own = self._of_prompts(*self._pictures(HELD_OUT, "test", 1))
        return torch.stack([self.mean_colours(own[name])[:, k] for k, name in enumerate(self.masks)], 1)

    def measures(self) -> list[Measure]:
        def distance(content: Tensor) -> Estimate:
            return energy_distance(self.mean_colours(content), self._real_colours, draws=DRAWS)

        found = [
            Measure(
                "mean colours", "energy distance, of the background's and regions' together, to those of held-out "
                "pictures; 0: the same distribution", "lower", lambda r: distance(r.content),
            )
        ]  # fmt: skip
        return [*found, self.reading()] if self._classed else found
