"""One front door to all presets: the same graph, denoisers, schedulers and seeds as `ps.sample`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ParameterError, PgmSyncError, UnsupportedError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..inspection.layout import windows
from ..sampling import SampleResult
from .averaging import CASES, average
from .diffcollage import bethe, overlaps
from .doubletake import ramp_weights
from .mixture_of_diffusers import gaussian_weights
from .projection import Projection, projection
from .pulls import pulls_from_graph
from .run import Noise, Run, prepare
from .syncsde import Pull, check_syncsde, draw_along

States = tuple[dict[Name, Tensor], list[Tensor]]


class Preset(NamedTuple):
    """A published method: how it samples, and why it does not on a graph (None: it does)."""

    sample: Callable[..., States]  # (run, what is shared, **options of its own) -> final states, canvases
    why_not: Callable[[FactorGraph, Projection], str | None]
    options: tuple[str, ...]


def methods() -> list[str]:
    """Names of all presets.

    >>> methods()  # doctest: +NORMALIZE_WHITESPACE
    ['independent', 'multidiffusion', 'synctweedies-1', 'synctweedies-2', 'synctweedies-3', 'synctweedies-4',
     'synctweedies-5', 'synctweedies-6', 'mixture-of-diffusers', 'visual-anagrams', 'syncsde', 'syncsde-implicit',
     'diffcollage', 'doubletake']
    """
    return list(PRESETS)


def why_not(method: str, graph: FactorGraph) -> str | None:
    """None if a preset applies to a graph, else the reason why it does not.

    >>> import pgm_sync as ps
    >>> halves = ps.chain_graph(2, (1, 4, 4), ps.Correlation(0.8))
    >>> print(why_not("multidiffusion", halves))
    there is nothing to average: no content is shared, by Equality or by Attraction to a hidden variable
    >>> why_not("independent", halves)

    Raises ParameterError on an unknown method, and what is wrong with the graph itself.
    """
    graph.validate()
    return _preset(method).why_not(graph, projection(graph))


def sample(
    method: str,
    graph: FactorGraph,
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    num_inference_steps: int = 50,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    **options: Any,
) -> SampleResult:
    """Sample a graph by a published method, from the noise that `ps.sample` starts from with the same seed.

    Potentials that a method does not know are left aside: all that a graph has learned. What is used is which content
    trajectories share: through Equality factors, and through Attractions to hidden variables. The result has the
    samples of all trajectories and hidden canvases, times, and denoiser evaluations, as that of `ps.sample`.

    Parameters
    ----------
    method
        one of `methods()`.
    graph, denoisers, scheduler, num_inference_steps, num_samples, seed
    conditions, initial_noise, device, dtype, progress, chunk
        as for `ps.sample`. "independent" starts every trajectory from noise of its own, as a graph without factors
        does, unless ``noise="shared"``.
    options
        the method's own, and anything else for ``scheduler.step``, for instance ``eta=1.0``:

        * ``noise`` (all): "shared", trajectories start from what they show of their canvas's noise, and stochastic
          schedulers add what they show of noise drawn there; "own", each has its own, as the published code of
          MultiDiffusion draws it in stochastic steps. Through maps that would colour it, noise is own in any case.
        * ``canvas`` (independent, syncsde, syncsde-implicit): how trajectories that need not agree are made one canvas:
          "average", "last" or "first" on top, "nearest" (see `Projection.composed`).
        * ``width`` (mixture-of-diffusers): of the Gaussian, in windows; .1.
        * ``strength`` (syncsde, syncsde-implicit): 1/lambda; 5. ``pulls``: what draws what, in the place of
          `pulls_from_graph`; ``order`` and ``predecessors`` are handed to that.
        * ``separators`` (diffcollage): a function from the shape of an overlap to its denoiser; without it, overlaps
          are ``draws`` (1) windows of their own each, whose rest is sampled along (see `diffcollage.bethe`).

    Raises UnsupportedError where `why_not` gives a reason, UnsupportedSchedulerError (SyncSDE is one of DDIM),
    ParameterError on an unknown method or option, NotFiniteError when SyncSDE's explicit update diverges; and what
    `ps.sample` raises.

    Averaging over windows, on a canvas whose pixels are N(0, 1):

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph = ps.wide_canvas((1, 2, 6), window=(2, 4), stride=2)
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1, 2, 4), torch.eye(8))
    >>> scheduler = DDIMScheduler(clip_sample=False)
    >>> result = sample("multidiffusion", graph, denoiser, scheduler, 5, num_samples=3, progress=False)
    >>> result.samples["canvas"].shape
    torch.Size([3, 1, 2, 6])
    """
    preset = _preset(method)
    own = {key: options.pop(key) for key in preset.options if key in options}
    graph.validate()
    shared = projection(graph)
    reason = None if own.get("pulls") is not None else preset.why_not(graph, shared)
    if reason is not None:
        raise UnsupportedError(f"{method} does not apply: {reason}", method=method)
    foreign = [key for key in options if any(key in other.options for other in PRESETS.values())]
    if foreign:
        raise ParameterError(
            f"{foreign[0]!r} is no option of {method}; it takes {', '.join(preset.options)}",
            option=foreign[0],
        )
    run = prepare(graph, denoisers, scheduler, num_inference_steps, num_samples, seed, **options)
    states, canvases = preset.sample(run, shared, **own)
    samples = {name: states[name] for name in graph.trajectories}
    for found, canvas in zip(shared.canvases, canvases, strict=True):
        if found.name is not None:
            samples[found.name] = canvas
    shown = {key: value for key, value in own.items() if isinstance(value, str | int | float)}
    return run.result(samples, method, options=shown)


def _preset(method: str) -> Preset:
    if method not in PRESETS:
        raise ParameterError(f"method={method!r} is not one of {', '.join(PRESETS)}", method=method)
    return PRESETS[method]


# ---- how each samples -----------------------------------------------------------------------------------


def _independent(run: Run, shared: Projection, noise: str = "own", canvas: str = "nearest") -> States:
    states, _ = average(run, shared, None, "views", noise)
    return states, shared.composed(states, canvas)


def _averaging(run: Run, shared: Projection, quantity: str, space: str, noise: str = "shared") -> States:
    return average(run, shared, quantity, space, noise)


def _mixture_of_diffusers(run: Run, shared: Projection, width: float = 0.1, noise: str = "shared") -> States:
    return average(run, projection(gaussian_weights(run.graph, width)), "noise", "canvas", noise)


def _doubletake(run: Run, shared: Projection, noise: str = "shared") -> States:
    return average(run, projection(ramp_weights(run.graph)), "clean", "views", noise)


def _syncsde(
    run: Run,
    shared: Projection,
    form: str,
    strength: float = 5.0,
    noise: str = "shared",
    canvas: str | None = None,
    pulls: Mapping[Name, Pull | Sequence[Pull]] | None = None,
    order: Sequence[Name] | None = None,
    predecessors: str | None = None,
) -> States:
    check_syncsde(run.scheduler, strength, form)
    if pulls is None:
        pulls = pulls_from_graph(run.graph, order, predecessors)
    states = draw_along(run, pulls, Noise(run, shared, noise).first()[0], strength, form)
    # Regions are cut out by their masks, windows pasted over their predecessors
    rule = canvas or ("average" if shared.weighted else "last")
    ordered = {name: states[name] for name in (run.names if order is None else order)}
    return states, shared.composed(ordered, rule)


def _diffcollage(
    run: Run, shared: Projection, separators: Any = None, draws: int = 1, noise: str = "shared"
) -> States:
    run, counted = bethe(run, shared, separators, draws)
    return average(run, counted, "clean", "canvas", noise)


# ---- why each does not apply ----------------------------------------------------------------------------


UNSHARED = "no content is shared, by Equality or by Attraction to a hidden variable"


def _shares(graph: FactorGraph, shared: Projection) -> str | None:
    return None if shared.canvases else f"there is nothing to average: {UNSHARED}"


def _pulls(graph: FactorGraph, shared: Projection) -> str | None:
    if shared.canvases:
        return None
    return (
        f"nothing says what a trajectory is drawn to: {UNSHARED}; give pulls={{name: Pull(source, project)}}"
    )


def _windows(graph: FactorGraph, shared: Projection) -> str | None:
    if windows(graph) is not None:
        return None
    return "its weights are for windows of one canvas, every trajectory one Crop of it"


def _overlaps(graph: FactorGraph, shared: Projection) -> str | None:
    if windows(graph) is None:
        return "it needs windows of one canvas, every trajectory one Crop of it, whose overlaps have scores"
    try:
        overlaps(graph, shared)
    except PgmSyncError as error:
        return str(error)
    return None


def _orthogonal(graph: FactorGraph, shared: Projection) -> str | None:
    if not shared.canvases:
        return _shares(graph, shared)
    for name in graph.trajectories:
        sights = shared.sights[name]
        whole = [
            sight
            for sight in sights
            if sight.white and sight.size == torch.Size(shared.canvases[sight.canvas].shape).numel()
        ]
        if len(sights) != 1 or not whole or shared.partial(name, torch.Size(graph.shape(name)).numel()):
            return f"{name!r} does not show a whole canvas through an orthogonal map"
    return None


def _nothing(graph: FactorGraph, shared: Projection) -> str | None:
    return None


PRESETS: dict[str, Preset] = {
    "independent": Preset(_independent, _nothing, ("noise", "canvas")),
    "multidiffusion": Preset(
        functools.partial(_averaging, quantity="next", space="canvas"), _shares, ("noise",)
    ),
    **{
        f"synctweedies-{case}": Preset(
            functools.partial(_averaging, quantity=quantity, space=space), _shares, ("noise",)
        )
        for case, (quantity, space) in CASES.items()
    },
    "mixture-of-diffusers": Preset(_mixture_of_diffusers, _windows, ("width", "noise")),
    "visual-anagrams": Preset(
        functools.partial(_averaging, quantity="noise", space="canvas"), _orthogonal, ("noise",)
    ),
    **{
        name: Preset(
            functools.partial(_syncsde, form=form),
            _pulls,
            ("strength", "noise", "canvas", "pulls", "order", "predecessors"),
        )
        for name, form in (("syncsde", "explicit"), ("syncsde-implicit", "implicit"))
    },
    "diffcollage": Preset(_diffcollage, _overlaps, ("separators", "draws", "noise")),
    "doubletake": Preset(_doubletake, _windows, ("noise",)),
}
