"""Wide pictures from the windows of one denoiser: panoramas, tall and grid canvases, 360 degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ParameterError
from ..evaluation import Clip
from ..graph import FactorGraph, wide_canvas
from ..graph.factor_graph import Name
from ..inspection.layout import windows
from ..learning.symmetry import Stationary
from ..maps import DCT, Crop
from ..peers.projection import projection
from ..potentials import JointGaussian
from ..zoo import PHOTOGRAPHS
from .base import Measure, Results, Scene, Task, Unfitted, generator
from .canvas_measures import CanvasMeasures
from .models import Model, load_model
from .photos import class_means, contents, crops, fit_photographs
from .reading import clip_score, pixel_classifier

CROPS = 2000  # pictures to learn from
HELD_OUT = 500  # other ones to compare with


@dataclass
class Wide(Task):
    """Windows of photographs, tied by the pixels in which they overlap and by what far windows have in common.

    Parameters
    ----------
    width, height
        of the canvas in pixels, one row of windows, a column, or a grid.
    window
        height and width of a window in pixels, where the model is a network; by default what it was trained on.
    stride
        pixels from one window to the next; 0 stands for three quarters of a window (with `wrap`: the next smaller
        divisor of the width).
    modes
        cosine modes per channel that are coupled.
    neighbours
        "all": every pair of windows is coupled; "adjacent": those side by side.
    wrap
        closes the canvas to 360 degrees, and the graph to a loop.
    prompts
        of all windows, or one per window in the order of the graph: classes of an embedded `model`, texts of a
        checkpoint. With different ones, potentials are of what is left when every class's mean picture is taken away.
    model
        by its name, as `load_model` takes it. Of a checkpoint windows are latents, and sizes stay in pixels.
    data
        a folder of pictures to learn from; the embedded photographs by default. Needed for a checkpoint.
    clip
        a CLIP checkpoint by its name, which reads what windows show.

    A canvas wider, or taller, than any photograph repeats what two neighbours have in common from window to window,
    exactly so on a chain (Eq. 2): hundreds of windows are learned as quickly as two.

    Raises ShapeError, ParameterError where windows do not fit the canvas, UnknownNameError.
    """

    name: ClassVar[str] = "wide"
    width: int = 96
    height: int = 24
    window: tuple[int, int] | None = None
    stride: int = 0
    modes: int = 4
    neighbours: str = "all"
    wrap: bool = False
    prompts: str | tuple[str, ...] | None = None
    model: str | Model = "photo-patches"
    guidance: float = 1.0
    data: str | None = None
    clip: str | Clip | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "height", "modes"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 1", name=name)
        if self.window is not None and not (isinstance(self.window, tuple) and len(self.window) == 2):
            raise ParameterError(f"window={self.window!r} must be height and width, as 64,96", name="window")

    @cached_property
    def _model(self) -> Model:
        own = self.model if isinstance(self.model, Model) else load_model(self.model, self.guidance, self.device)
        return own if self.window is None else own.resized(*self.window)

    @cached_property
    def _canvas(self) -> tuple[int, int, int]:
        """The shape of the canvas, in elements."""
        scale = self._model.scale
        if self.width % scale or self.height % scale:
            raise ParameterError(f"{self.width} x {self.height} pixels: {self._model.name} takes multiples of {scale}")
        return self._model.shape[0], self.height // scale, self.width // scale

    @cached_property
    def _strides(self) -> tuple[int, int]:
        """Down and across, in elements."""
        if self.stride:
            return self.stride // self._model.scale, self.stride // self._model.scale
        down, across = (max(1, 3 * s // 4) for s in self._model.size)
        while self.wrap and self._canvas[-1] % across:
            across -= 1
        return down, across

    def graph(self, coupled: bool = True, length: int | None = None) -> FactorGraph:
        """The windows on their canvas, with unfitted potentials between them or without; `length` shortens the row, or
        the column, to so many elements.
        """
        canvas = list(self._canvas)
        if length is not None:
            canvas[self._along] = length
        down, across = self._strides
        return wide_canvas(
            canvas, self._model.size, across if down == across else (down, across), neighbours=self.neighbours,
            features=self._features if coupled else None, wrap=self.wrap,
        )  # fmt: skip

    @cached_property
    def _shared(self) -> FactorGraph:
        """The windows and what they share."""
        return self.graph(coupled=False)

    def _features(self, shape: tuple[int, ...]) -> DCT:
        return DCT(shape, self.modes)

    @property
    def _along(self) -> int:
        """The axis of a single row, or column."""
        return -1 if self._canvas[-2] == self._model.shape[-2] else -2

    @cached_property
    def scene(self) -> Scene:
        plain = self._shared
        shared = {"": {"posterior_covariance": "denoiser"}, "surrogate C": {}}
        ours = shared if getattr(self._model.denoiser, "has_covariance", False) else {"": {}}
        unfitted = self.unfitted
        learned = self._extended(plain) if unfitted is None else unfitted.fit(seed=self.seed)
        return Scene(plain, self._model.denoiser, self._model.scheduler, learned, ours, self.device)

    @cached_property
    def _long(self) -> bool:
        """Whether the canvas is one row, or column, longer than any photograph."""
        shown = (3, *self._canvas[-2:])
        return self.data is None and not self.wrap and 1 in self._grid and not fit_photographs(shown, self._classes)

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        starts = [view.start for view in self.views().values()]
        return len({top for top, _ in starts}), len({left for _, left in starts})

    def views(self, graph: FactorGraph | None = None) -> dict[Name, Crop]:
        """What every window sees of the canvas, of this graph or of the task's own."""
        found = windows(self._shared if graph is None else graph)
        assert found is not None  # it was made so
        return found[1]

    @cached_property
    def unfitted(self) -> Unfitted | None:
        """None for a canvas longer than any picture, whose potentials are learned from pairs of windows."""
        if self._long:
            return None
        graph = self.graph()  # before pictures are read: refuses what does not fit
        pictures, photos = self._crops(self._canvas, CROPS, "train", 0)
        return Unfitted(graph, {"canvas": pictures if self._plain else self._recentred(pictures, photos)}, photos)

    def _extended(self, plain: FactorGraph) -> FactorGraph:
        """Neighbours' potential, learned from pairs, between all neighbours of a row or column."""
        window, stride = self._model.shape[self._along], self._strides[self._along]
        length = self._canvas[self._along]
        if (length - window) % stride:
            fits = window + (length - window) // stride * stride
            raise ParameterError(
                f"a canvas longer than the photographs needs equal steps: take {fits * self._model.scale} or "
                f"{(fits + stride) * self._model.scale} pixels",
                length=length * self._model.scale,
            )
        pair = self.graph(length=window + stride)
        pictures, photos = self._crops(pair.shape("canvas"), CROPS, "train", 0)
        data = pictures if self._plain else pictures - self._class_means(pictures, photos)[photos]
        places = dict(zip(pair.trajectories, (0, stride), strict=True))
        fitted = Unfitted(pair, {"canvas": data}, photos).fit(ties=Stationary(places), seed=self.seed)
        learned = next(p for p in map(fitted.potential, fitted.factors) if isinstance(p, JointGaussian))
        expected = {}
        if not self._plain:
            views = self.views(pair)
            own = torch.stack([view.apply(self._class_means(pictures, photos)) for view in views.values()]).mean(0)
            seen = self._features(own.shape[1:]).apply(own).double()
            expected = {
                name: seen[self._classes.index(prompt)]
                for name, prompt in zip(plain.trajectories, self._of_windows, strict=True)
            }

        def potential(first: Name, second: Name) -> JointGaussian:
            mean = learned.mean if self._plain else torch.cat([expected[first], expected[second]])
            return JointGaussian(mean, learned.covariance)

        return wide_canvas(
            self._canvas, self._model.size, self._strides, potential=potential, features=self._features
        )

    def _class_means(self, pictures: Tensor, labels: Tensor) -> Tensor:  # (classes, *canvas)
        return class_means(pictures, labels, len(self._classes))

    # ---- pictures to learn from and to compare with

    def _crops(self, canvas: tuple[int, ...], n: int, split: str, k: int) -> tuple[Tensor, Tensor]:
        """Contents of a canvas ``(n, *canvas)``, and the picture that each is of; other ones for every k."""
        height, width = canvas[-2:]
        margin = self._model.shape[-1] if self.wrap else 0
        draws = generator(self.seed, k)
        return contents(self._model, (height, width), n, split, draws, self._classes, self.data, margin)

    @property
    def _classes(self) -> tuple[str, ...]:
        """The embedded photographs that are learned from."""
        known = self._model.classes or PHOTOGRAPHS
        return known if self.prompts is None or self.data is not None else tuple(dict.fromkeys(self._of_windows))

    @cached_property
    def _of_windows(self) -> tuple[str, ...]:
        """The prompt of every window."""
        names = self._shared.trajectories
        assert self.prompts is not None
        given = (self.prompts,) * len(names) if isinstance(self.prompts, str) else tuple(self.prompts)
        given = given * len(names) if len(given) == 1 else given
        if len(given) != len(names):
            raise ParameterError(f"{len(given)} prompts for {len(names)} windows", prompts=given)
        return given

    @property
    def _plain(self) -> bool:
        """Whether all windows have one prompt, or none."""
        return self.prompts is None or len(set(self._of_windows)) == 1 or not self._model.classes

    def _recentred(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Every picture less the mean of its class, plus, window by window, that of the window's prompt."""
        means, graph = self._class_means(pictures, labels), self._shared
        own = {name: view.apply(means) for name, view in self.views(graph).items()}  # (classes, *window)
        wanted = {
            name: own[name][self._classes.index(prompt)][None]
            for name, prompt in zip(graph.trajectories, self._of_windows, strict=True)
        }
        (composed,) = projection(graph).onto(wanted)
        return pictures - means[labels] + composed

    def conditions(self, seeds: Sequence[int]) -> Any:
        if self.prompts is None:
            return self._model.condition([None] * len(seeds))
        names = self._shared.trajectories
        return {n: self._model.condition([p] * len(seeds)) for n, p in zip(names, self._of_windows, strict=True)}

    @cached_property
    def _heldout(self) -> tuple[Tensor, Tensor] | None:
        """Two sets that share no crop, one to measure with, one to stand beside the methods; None where no picture is
        of the canvas's size, or none shows such prompts side by side.
        """
        if self._long or not self._plain:
            return None
        found, _ = self._crops(self._canvas, 2 * HELD_OUT, "test", 1)
        half = len(found) // 2
        return found[:half], found[half:]

    @cached_property
    def _heldout_windows(self) -> dict[str | None, Tensor]:
        """Held-out windows ``(n, *window)`` by prompt."""
        prompts = [None] if self._plain else dict.fromkeys(self._of_windows)
        made = {}
        for prompt in prompts:
            chosen = self._classes if prompt is None else (prompt,)
            draws = generator(self.seed, 1)
            made[prompt], _ = contents(self._model, self._model.size, HELD_OUT, "test", draws, chosen, self.data)
        return made

    def reference(self) -> Tensor | None:
        return None if self._heldout is None else self._heldout[1]

    def pictures(self, content: Tensor) -> Tensor:
        return super().pictures(self._model.decode(content))

    # ---- measures

    def measures(self) -> list[Measure]:
        """Of whole pictures, where there are real ones; else of windows."""
        views = list(self.views().values())
        canvas = CanvasMeasures(self._model, views, self._strides, self._along, self.wrap)
        if self._heldout is not None:
            found = canvas.of_pictures(self._heldout[0])
        else:
            prompts = (None,) * len(views) if self._plain else self._of_windows
            found = canvas.of_windows(prompts, lambda: self._heldout_windows)
        if not self._plain:
            found.append(canvas.prompts(self._probability))
        if self.prompts is not None:
            found += clip_score(self.clip, self.device, lambda results: [self._window(canvas, results)])
        return found

    def _window(self, canvas: CanvasMeasures, results: Results) -> tuple[Tensor, list[str]]:
        """Of every picture one window, in turn, and what it should show."""
        shown, which = canvas.in_turn(results.content)
        return self._model.decode(shown), [self._of_windows[k] for k in which]

    def _probability(self, shown: Tensor, which: list[int]) -> Tensor:  # (n, *window), (n) -> (n)
        found = self._classifier.predict_proba(shown.flatten(1).double().numpy())
        wanted = [self._classes.index(self._of_windows[k]) for k in which]
        return torch.from_numpy(found)[torch.arange(len(shown)), wanted]

    @cached_property
    def _classifier(self) -> Any:
        """Of single windows."""
        size = (3, *self._model.size)
        found, labels = crops(size, 500 * len(self._classes), "train", generator(self.seed, 2), self._classes)
        return pixel_classifier(found.flatten(1), labels)
