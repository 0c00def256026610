"""What a task is: a scene to sample, what joins the samples into one result, and how that is measured."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..evaluation.comparison import Better
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..learning import fit
from ..metrics import Estimate, energy_distance

DRAWS = 400  # bootstrap replicates that a measure keeps, so that methods are compared pair by pair


class Measure(NamedTuple):
    """One number about results, and which way is better: "lower", "higher", or close to a number.

    >>> from pgm_sync.evaluation import mean
    >>> level = Measure("level", "mean of the contents", better=0.0, of=lambda results: mean(results.content[:, 0]))
    >>> level.of(Results(torch.tensor([[0.25], [0.75]]), {}, seeds=[0, 1])).value
    0.5
    """

    name: str  # heads a column
    what: str  # one sentence, with units and the range
    better: Better  # "lower", "higher", or the number to be close to
    of: Callable[[Results], Estimate]  # measures what one method made


class Results(NamedTuple):
    """What a method made, from seeds that all methods share.

    >>> Results(torch.zeros(2, 3, 8, 24), {}, seeds=[0, 1]).content.shape
    torch.Size([2, 3, 8, 24])
    """

    content: Tensor  # (n, *shape): the joint results
    samples: Mapping[Name, Tensor]  # (n, *shape) per trajectory, and per hidden canvas
    seeds: Sequence[int]  # of the rows


def distance_to(real: Tensor, what: str, seen: Callable[[Tensor], Tensor] = lambda content: content) -> Measure:
    """The energy distance of results to real ones ``(m, *shape)``, said in `what`: the main measure of most tasks.

    `seen` is what of a result's content is compared, all of it by default.

    >>> near = distance_to(torch.zeros(9, 1), "of the contents to zeros")
    >>> near.name, near.better
    ('energy distance', 'lower')
    """
    return Measure("energy distance", what, "lower", lambda r: energy_distance(seen(r.content), real, draws=DRAWS))


class Unfitted(NamedTuple):
    """A graph before its potentials are learned, and what they are learned from."""

    graph: FactorGraph
    data: Mapping[Name, Tensor]  # joint clean samples, as `ps.fit` takes them
    groups: Tensor | None = None  # which of them are not independent

    def fit(self, method: str = "moments", **options: Any) -> FactorGraph:
        """The graph with potentials learned from joint samples, by "moments" or "score"; raises as `ps.fit`."""
        return fit(self.graph, self.data, method, groups=self.groups, **options)


@dataclass
class Scene:
    """What every method is given.

    >>> import pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Correlation(0.8)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> scene = Scene(graph, denoiser, DDIMScheduler(clip_sample=False), options={"noise": {"noise_correlation": 0.5}})
    >>> scene.learned is None, list(scene.options)
    (True, ['noise'])
    """

    graph: FactorGraph  # what trajectories share: what published methods know
    denoisers: Denoiser | Mapping[Name, Denoiser]  # one for all trajectories, or by name
    scheduler: Any  # of diffusers
    learned: FactorGraph | None = None  # the same with fitted potentials; None: `graph` is all there is
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # of ours, by variant, for `ps.sample`
    device: str = "cpu"  # where states are kept


def generator(seed: int, k: int) -> torch.Generator:
    """The k-th generator of a task with this seed: for its k-th set of data."""
    return torch.Generator().manual_seed(1000 * seed + k)


class Task(abc.ABC):
    """A task of synchronised sampling.

    A new one says what its scene is, how samples become one result, and what is measured; methods, costs, tables and
    pictures come from `tasks.run`. `docs/howto/own_task.rst` writes one.

    >>> from pgm_sync import tasks
    >>> task = tasks.load("motion")
    >>> task.name, [measure.name for measure in task.measures()]
    ('motion', ['energy distance', 'physics residual', 'energy drift', 'transitions'])
    """

    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def scene(self) -> Scene:
        """Graph, fitted graph, denoisers and scheduler; a `functools.cached_property`, so that it is made once."""

    @property
    def unfitted(self) -> Unfitted | None:
        """What `Scene.learned` is fitted from, for other fits of it; None where nothing is learned."""
        return None

    @abc.abstractmethod
    def measures(self) -> list[Measure]:
        """The first is the main one."""

    def conditions(self, seeds: Sequence[int]) -> Any:
        """What denoisers are conditioned on, one row per seed in `seeds`: for `ps.sample`. By default nothing."""
        return None

    def initial_noise(self, seeds: Sequence[int], steps: int, graph: FactorGraph) -> Mapping[Name, Tensor] | None:
        """What `steps` of sampling on `graph`, fitted or not, start from, as `ps.sample` takes it; by default noise of
        the seeds.
        """
        return None

    def content(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The joint result, ``(n, *shape)``; by default the one hidden canvas."""
        graph = self.scene.graph
        (canvas,) = graph.hidden
        return samples[canvas]

    def reference(self) -> Tensor | None:
        """Real results ``(n, *shape)``, where there are any: what to aim for, measured as one more method."""
        return None

    def files(self, content: Tensor, folder: Path) -> list[Path]:
        """Write `content` in formats of its own into `folder`, beside the sheet of pictures; returns the paths.

        By default none.
        """
        return []

    def pictures(self, content: Tensor) -> Tensor:
        """`content` as pictures, ``(n, 1 or 3, H, W)`` in [0, 1]."""
        return (content.float().cpu() * 0.5 + 0.5).clamp(0, 1)
