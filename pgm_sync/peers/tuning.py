"""The best options of a preset by a user's own objective, so that a comparison meets it at its best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import NotFiniteError, ParameterError
from ..graph import FactorGraph
from ..sampling import SampleResult
from ..tables import Table
from .presets import methods, sample

STRENGTHS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)


class Tried(NamedTuple):
    """One setting and what the objective says of it.

    >>> Tried("syncsde", {"strength": 5.0}, objective=0.17).options["strength"]
    5.0
    """

    method: str  # as `peers.sample` takes it
    options: dict[str, Any]  # the setting
    objective: float  # inf: the update diverged
    note: str = ""  # why it is inf


class Tuning(Table[Tried]):
    """All settings that `tune` has tried, `rows` in their order; `best` is the first with the least objective.

    >>> Tuning([Tried("syncsde", {"strength": k}, objective=(k - 3) ** 2) for k in (1.0, 2.0, 4.0)]).best.options
    {'strength': 2.0}
    """

    head = ("method", "options", "objective", "note")

    @property
    def best(self) -> Tried:
        """The chosen setting: ``peers.sample(best.method, ..., **best.options)``."""
        return min(self.rows, key=lambda row: row.objective)

    def cells(self, row: Tried) -> Sequence[str]:
        options = ", ".join(f"{key}={value}" for key, value in row.options.items())
        best = "best" if row is self.best else ""
        return row.method, options, f"{row.objective:.4g}", ", ".join(filter(None, (row.note, best)))


def tune(
    method: str | Sequence[str],
    graph: FactorGraph,
    denoisers: Any,
    scheduler: Any,
    num_inference_steps: int,
    seeds: Sequence[int],
    objective: Callable[[SampleResult], float],
    grid: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> Tuning:
    """Try every setting of `grid` on validation seeds, and say which is best.

    Parameters
    ----------
    method
        one name, or several: ``("syncsde", "syncsde-implicit")`` compares both forms.
    graph, denoisers, scheduler, num_inference_steps
        as for `peers.sample`.
    seeds
        of the joint samples that a setting is judged by: others than those of the comparison itself.
    objective
        of the samples of all seeds; the less, the better. A run that ends in NotFiniteError counts as infinity.
    grid
        ``{option: values}``; every combination is tried. Default: strengths .5 to 40 of SyncSDE.
    options
        for every run, as for `peers.sample`.

    Raises ParameterError where nothing is to be tried or no setting has a finite objective, and what `peers.sample`
    raises.

    The strength of the implicit pull that brings a correlation nearest to 0.8:

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> from pgm_sync.peers import Pull
    >>> def miss(result):
    ...     return abs(torch.corrcoef(torch.cat([result.samples[0], result.samples[1]], 1).T)[0, 1].item() - 0.8)
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Attraction(1.0)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> grid, options = {"strength": [0.01, 1.0]}, {"pulls": {1: Pull(0)}, "progress": False}
    >>> scheduler = DDIMScheduler(clip_sample=False)
    >>> found = tune("syncsde-implicit", graph, denoiser, scheduler, 10, range(200), miss, grid, **options)
    >>> found.best.options
    {'strength': 1.0}
    """
    names = [method] if isinstance(method, str) else list(method)
    grid = {"strength": STRENGTHS} if grid is None else grid
    seeds = list(seeds)
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if not names or not settings or not seeds:
        raise ParameterError(f"tune needs a method of {', '.join(methods())}, values in the grid, and seeds")
    rows = []
    for name, setting in itertools.product(names, settings):
        try:
            result = sample(
                name,
                graph,
                denoisers,
                scheduler,
                num_inference_steps,
                len(seeds),
                seeds,
                **options,
                **setting,
            )
        except NotFiniteError as error:
            rows.append(Tried(name, setting, math.inf, f"diverged at step {error.data.get('step')}"))
            continue
        value = float(objective(result))
        rows.append(Tried(name, setting, math.inf if math.isnan(value) else value))
    if all(math.isinf(row.objective) for row in rows):
        raise ParameterError(f"no setting of {', '.join(grid)} gives a finite objective: {Tuning(rows)}")
    return Tuning(rows)
