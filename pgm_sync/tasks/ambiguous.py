"""One picture that reads differently when it is turned, flipped or rearranged: a class per view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import zoo
from ..denoisers import Denoiser
from ..errors import ParameterError, UnknownNameError, listed
from ..evaluation import Clip, alignment, concealment, embed, share, view_scores
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..levels import NoiseLevel
from ..maps import Flip, Identity, LinearMap, Permutation, Rotate, Shape
from ..potentials import Equality
from .base import Measure, Results, Scene, Task
from .models import Model, load_model
from .reading import load_clip


def _jigsaw(shape: Shape) -> Permutation:
    """Quarters of the picture in another order, each turned by 180 degrees."""
    channels, height, width = shape
    if height % 2 or width % 2:
        raise ParameterError(f"a jigsaw of quarters needs an even height and width, not {height} x {width}")
    elements = torch.arange(channels * height * width).reshape(channels, 2, height // 2, 2, width // 2)
    return Permutation(tuple(shape), elements.flip((1, 2, 4)).reshape(-1))


def _inner(shape: Shape) -> Permutation:
    """A quarter turn of the disc within the picture."""
    channels, height, width = shape
    if height != width:
        raise ParameterError(f"an inner rotation needs a square picture, not {height} x {width}")
    axis = torch.arange(height) - (height - 1) / 2
    inside = axis[:, None] ** 2 + axis**2 <= (height / 2) ** 2
    elements = torch.arange(channels * height * width).reshape(channels, height, width)
    return Permutation(tuple(shape), torch.where(inside, elements.rot90(1, (-2, -1)), elements).reshape(-1))


def _skewed(shape: Shape) -> Permutation:
    """Every column moved down by `SKEW` times its distance from the middle, round the border."""
    channels, height, width = shape
    elements = torch.arange(channels * height * width).reshape(channels, height, width)
    moved = [elements[..., k].roll(int(SKEW * (k - width // 2)), -1) for k in range(width)]
    return Permutation(tuple(shape), torch.stack(moved, -1).reshape(-1))


class NegatedDenoiser(Denoiser):
    """Of pictures whose negative the `denoiser` knows: ``-D(-x)``."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.shape = denoiser, denoiser.shape

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        return -self.denoiser.denoise(-noisy, level, condition)


SKEW = 1.5
NEGATED = "negated"  # the one view that is no map of elements: its denoiser sees the negative
VIEWS: dict[str, Callable[[Shape], LinearMap]] = {
    "turned": lambda shape: Rotate(shape, 2),
    "quarter turn": lambda shape: Rotate(shape, 1),
    "mirrored": lambda shape: Flip(shape, (-1,)),
    "upside down": lambda shape: Flip(shape, (-2,)),
    "jigsaw": _jigsaw,
    "inner rotation": _inner,
    "skewed": _skewed,
    NEGATED: Identity,
}
TEMPERATURE = 0.01  # of CLIP's cosines


@dataclass
class Ambiguous(Task):
    """A picture that shows one class as it is and another in each of `views`, names of `VIEWS`.

    Views are those of [Geng2024]_; latents of a checkpoint know no negative. Every joint sample has classes of its own,
    drawn by its seed from those of the model, unless `prompts` names one per view, the upright one first. `guidance` is
    that of all methods. What views show is read by the embedded classifier, or by `clip`, a checkpoint by its name, for
    models that take any text.

    Raises UnknownNameError, ParameterError.
    """

    name: ClassVar[str] = "ambiguous"
    views: tuple[str, ...] = ("turned",)
    prompts: tuple[str, ...] | None = None
    model: str | Model = "glyph-unet"
    guidance: float = 4.0
    clip: str | Clip | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.views = (self.views,) if isinstance(self.views, str) else tuple(self.views)
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or not self.views:
            raise UnknownNameError(
                f"no view is called {unknown[0] if unknown else ''!r}; there are {listed(VIEWS)}", views=self.views
            )
        if self.prompts is not None and len(self.prompts) != 1 + len(self.views):
            raise ParameterError(
                f"{len(self.prompts)} prompts for {1 + len(self.views)} views; the first is that of the upright picture"
            )

    @cached_property
    def _model(self) -> Model:
        return self.model if isinstance(self.model, Model) else load_model(self.model, self.guidance, self.device)

    @cached_property
    def scene(self) -> Scene:
        shape = self._model.shape
        graph = FactorGraph()
        graph.add_variable("picture", shape)
        for name, view in self._maps.items():
            graph.add_trajectory(name, shape)
            graph.add_factor(f"see {name}", [name, "picture"], Equality(), maps=[None, view])
        own = self._model.denoiser
        denoisers: Denoiser | dict[Name, Denoiser] = own
        if NEGATED in self.views:
            denoisers = {**dict.fromkeys(self._maps, own), NEGATED: NegatedDenoiser(own)}
        return Scene(graph, denoisers, self._model.scheduler, device=self.device)

    @cached_property
    def _maps(self) -> dict[str, LinearMap]:
        return self._views_of(self._model.shape)

    def _views_of(self, shape: Shape) -> dict[str, LinearMap]:
        return {"upright": Identity(shape), **{name: VIEWS[name](shape) for name in self.views}}

    def chosen(self, seeds: Sequence[int]) -> list[tuple[str, ...]]:
        """The prompts of every joint sample, one per view."""
        if self.prompts is not None:
            return [self.prompts] * len(seeds)
        if not self._model.classes:
            raise ParameterError(f"{self._model.name} takes any text; give prompts, one per view")
        found = []
        for seed in seeds:
            order = torch.randperm(len(self._model.classes), generator=torch.Generator().manual_seed(seed))
            found.append(tuple(self._model.classes[k] for k in order[: 1 + len(self.views)]))
        return found

    def conditions(self, seeds: Sequence[int]) -> dict[str, Any]:
        chosen = zip(*self.chosen(seeds), strict=True)
        return {name: self._model.condition(prompts) for name, prompts in zip(self._maps, chosen, strict=True)}

    def pictures(self, content: Tensor) -> Tensor:
        """All views side by side, the upright one first, with a white line between."""
        shown = self._model.decode(content)
        views = [view(shown) for view in self._views_shown(shown)]
        parts = [part for view in views for part in (view.new_ones(*view.shape[:-1], 1), view)]
        return super().pictures(torch.cat(parts[1:], -1))

    @cached_property
    def _classifier(self) -> Any:
        if not self._model.classes:
            raise ParameterError(f"what {self._model.name} paints is read by CLIP: clip=NAME", setting="clip")
        return zoo.classifier(self._model.name)

    @cached_property
    def _clip(self) -> Clip | None:
        return load_clip(self.clip, self.device)

    def _scores(self, results: Results) -> Tensor:  # (n, views, prompts)
        """Of every prompt in every view: log-probabilities, or CLIP's cosines."""
        if self._clip is None:
            classifier = self._classifier  # first: it says what to do where there is none
            views = self._views_shown(results.content)
            return view_scores(results.content, views, self._wanted(results), classifier)
        shown = self._model.decode(results.content)
        seen = torch.stack([self._clip(view(shown)) for view in self._views_shown(shown)], 1)
        texts = self._clip.texts([prompt for row in self.chosen(results.seeds) for prompt in row])
        return torch.einsum("nid,njd->nij", seen, texts.unflatten(0, seen.shape[:2]).to(seen))

    def _views_shown(self, pictures: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """The views of finished pictures ``(n, *shape)``, which a negative changes as well."""
        maps = self._views_of(tuple(pictures.shape[1:]))
        return [torch.neg if name == NEGATED else view.apply for name, view in maps.items()]

    def _wanted(self, results: Results) -> Tensor:  # (n, views)
        """The class that each view should be read as."""
        chosen = self.chosen(results.seeds)
        return torch.tensor([[self._model.classes.index(prompt) for prompt in row] for row in chosen])

    def measures(self) -> list[Measure]:
        if self._clip is None:
            score, temperature, reader = "log-probability of the prompt", 1.0, "the classifier reads as its prompt"
        else:
            score, temperature, reader = "CLIP's cosine of the prompt", TEMPERATURE, "is nearest to its prompt of all"
        best = 0 if self._clip is None else 1
        return [
            Measure(
                "alignment", f"{score} in the view that shows it worst; {best} is best", "higher",
                lambda r: alignment(self._scores(r)),
            ),
            Measure(
                "all views read", f"share of pictures whose every view {reader}", "higher",
                lambda r: share(self._read(r)),
            ),
            Measure(
                "concealment", "how well every view hides the prompts of the others; 1 is best", "higher",
                lambda r: concealment(self._scores(r), temperature),
            ),
        ]  # fmt: skip

    def _read(self, results: Results) -> Tensor:  # (n)
        """Whether every view is read as its prompt."""
        if self._clip is not None:
            scores = self._scores(results)
            return (scores.argmax(-1) == torch.arange(scores.shape[-1], device=scores.device)).all(1)
        views = self._views_shown(results.content)
        read = torch.stack([embed(view(results.content), self._classifier).argmax(-1) for view in views], 1)
        return (read.cpu() == self._wanted(results)).all(1)
