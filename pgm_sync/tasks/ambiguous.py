"""One picture that reads differently when it is turned, flipped or rearranged: a class per view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from .. import zoo
from ..errors import ParameterError, UnknownNameError, listed
from ..evaluation import alignment, concealment, embed, share, view_scores
from ..graph import FactorGraph
from ..maps import Flip, Identity, LinearMap, Permutation, Rotate, Shape
from ..potentials import Equality
from .base import Measure, Results, Scene, Task
from .models import Model, load_model


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


VIEWS = {
    "turned": lambda shape: Rotate(shape, 2),
    "quarter turn": lambda shape: Rotate(shape, 1),
    "mirrored": lambda shape: Flip(shape, (-1,)),
    "upside down": lambda shape: Flip(shape, (-2,)),
    "jigsaw": _jigsaw,
    "inner rotation": _inner,
}


@dataclass
class Ambiguous(Task):
    """A picture that shows one class as it is and another in each of `views`, names of `VIEWS`.

    Every joint sample has classes of its own, drawn by its seed from those of the model, unless `prompts` names one per
    view, the upright one first. `guidance` is that of all methods.

    Raises UnknownNameError, ParameterError.
    """

    name: ClassVar[str] = "ambiguous"
    views: tuple[str, ...] = ("turned",)
    prompts: tuple[str, ...] | None = None
    model: str = "glyph-unet"
    guidance: float = 4.0
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
        return load_model(self.model, self.guidance, self.device)

    @cached_property
    def scene(self) -> Scene:
        shape = self._model.shape
        graph = FactorGraph()
        graph.add_variable("picture", shape)
        for name, view in self._maps.items():
            graph.add_trajectory(name, shape)
            graph.add_factor(f"see {name}", [name, "picture"], Equality(), maps=[None, view])
        return Scene(graph, self._model.denoiser, self._model.scheduler, device=self.device)

    @cached_property
    def _maps(self) -> dict[str, LinearMap]:
        shape = self._model.shape
        return {"upright": Identity(shape), **{name: VIEWS[name](shape) for name in self.views}}

    def chosen(self, seeds: Sequence[int]) -> list[tuple[str, ...]]:
        """The prompts of every joint sample, one per view."""
        if self.prompts is not None:
            return [self.prompts] * len(seeds)
        if not self._model.classes:
            raise ParameterError(f"{self.model} takes any text; give prompts, one per view")
        found = []
        for seed in seeds:
            order = torch.randperm(len(self._model.classes), generator=torch.Generator().manual_seed(seed))
            found.append(tuple(self._model.classes[k] for k in order[: 1 + len(self.views)]))
        return found

    def conditions(self, seeds: Sequence[int]) -> dict[str, Any]:
        chosen = zip(*self.chosen(seeds), strict=True)
        return {name: self._model.condition(prompts) for name, prompts in zip(self._maps, chosen, strict=True)}

    @cached_property
    def _classifier(self) -> Any:
        return zoo.classifier(self.model)

    def _scores(self, results: Results) -> torch.Tensor:  # (n, views, prompts)
        """Log-probabilities of every prompt in every view."""
        views = [view.apply for view in self._maps.values()]
        return view_scores(results.content, views, self._wanted(results), self._classifier)

    def _wanted(self, results: Results) -> torch.Tensor:  # (n, views)
        """The class that each view should be read as."""
        chosen = self.chosen(results.seeds)
        return torch.tensor([[self._model.classes.index(prompt) for prompt in row] for row in chosen])

    def measures(self) -> list[Measure]:
        return [
            Measure(
                "alignment", "log-probability of the prompt in the view that shows it worst; 0 is best", "higher",
                lambda r: alignment(self._scores(r)),
            ),
            Measure(
                "all views read", "share of pictures whose every view the classifier reads as its prompt", "higher",
                lambda r: share(self._read(r)),
            ),
            Measure(
                "concealment", "how well every view hides the prompts of the others; 1 is best", "higher",
                lambda r: concealment(self._scores(r)),
            ),
        ]  # fmt: skip

    def _read(self, results: Results) -> torch.Tensor:  # (n)
        """Whether every view is read as its prompt."""
        views = (view.apply(results.content) for view in self._maps.values())
        read = torch.stack([embed(shown, self._classifier).argmax(-1).cpu() for shown in views], 1)
        return (read == self._wanted(results)).all(1)
