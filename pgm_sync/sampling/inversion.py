"""The noise from which the sampler makes given contents: its exact reverse, step by step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import NoConvergence, newton_krylov
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ConvergenceError, ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..score import JointDenoiser, PosteriorCovariance
from .clock import PARTS, Clock
from .coordinates import clipping, initial_scale
from .families import require_plain_step
from .noise import NoiseSource
from .resampling import check_memoryless
from .sampler import Look, conditions_of, denoisers_of
from .step_noise import step_noise

TOLERANCE = 1e-9  # of every element of a state; later steps enlarge what is left
MOST_STEPS = 60  # of Newton's method, at one noise level


@torch.no_grad()
def invert(
    graph: FactorGraph,
    denoisers: Denoiser | Mapping[Name, Denoiser],
    scheduler: Any,
    contents: Mapping[Name, Tensor],
    num_inference_steps: int = 50,
    *,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    conditions: Any = None,
    tolerance: float = TOLERANCE,
    progress: bool = True,
) -> dict[Name, Tensor]:
    """Noise that `sample` turns into `contents`, as its ``initial_noise``.

    Parameters
    ----------
    contents
        ``{carrier: (n, *shape)}``: of every trajectory without a canvas, and of canvases.
    graph, denoisers, scheduler, num_inference_steps, progress
        as for `sample`; the scheduler must be deterministic, and is not changed.
    posterior_covariance, conditions
        those that `sample` will be given; the reverse is that of its own joint denoiser.
    tolerance
        largest error of an element of a state, at every step, in float64.

    Every step of a deterministic sampler is a function of the state; its inverse is solved for by Newton's method
    with Krylov subspaces, from the state that DDIM inversion (Song, Meng & Ermon 2021, section 4.3) would take, whose
    error therefore does not add up.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph = ps.FactorGraph()
    >>> graph.add_trajectory("x", (1,))
    >>> own = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> scheduler, wanted = DDIMScheduler(clip_sample=False), torch.tensor([[0.7], [-1.2]])
    >>> noise = ps.invert(graph, own, scheduler, {"x": wanted}, 10, progress=False)
    >>> again = ps.sample(graph, own, scheduler, 10, 2, initial_noise=noise, dtype=torch.float64, progress=False)
    >>> torch.allclose(again.samples["x"], wanted.double(), atol=1e-5)
    True

    Raises UnsupportedSchedulerError for multistep schedulers, UnsupportedError for steps that draw noise or clip,
    ParameterError for a tolerance that is not positive, ConvergenceError, naming the step, where a step has no inverse
    or none is found, and as `sample`.
    """
    from tqdm.auto import tqdm

    joint = JointDenoiser(graph, posterior_covariance)
    chosen = denoisers_of(graph, denoisers, joint, graph.trajectories)
    given = conditions_of(graph, conditions)
    require_plain_step(scheduler)
    check_memoryless(scheduler, "invert")
    if clipping(scheduler) is not None:
        name = type(scheduler).__name__
        raise UnsupportedError(f"{name} clips contents, which has no inverse; set clip_sample=False")
    if not tolerance > 0:
        raise ParameterError(f"tolerance={tolerance} must be positive", tolerance=tolerance)
    count = len(next(iter(contents.values()), ()))
    device = next((x.device for x in contents.values()), torch.device("cpu"))
    states = NoiseSource(joint, range(count), device, torch.float64).given(contents)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(num_inference_steps, device=device)
    steps = list(enumerate(own.timesteps))
    for index, timestep in tqdm(steps[::-1], disable=not progress, desc="inverting", leave=False):
        step = _Step(joint, chosen, given, own, index, timestep)
        states = _solve(step, states, tolerance)
    return {
        carrier.name: state / initial_scale(own)
        for carrier, state in zip(joint.carriers.carriers, states, strict=True)
    }


class _Step:
    """One step of the sampler as a function of all states."""

    def __init__(
        self, joint: JointDenoiser, denoisers: dict[Name, Denoiser], conditions: dict[Name, Any], scheduler: Any,
        index: int, timestep: Any,
    ):  # fmt: skip
        own = copy.deepcopy(scheduler)
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(index)
        self.index, self.timestep = index, timestep
        clock = Clock(dict.fromkeys(PARTS, 0.0))
        schedulers = [own] * len(joint.carriers.carriers)
        self.look = Look(joint, denoisers, conditions, schedulers, timestep, index, None, None, None, clock)
        self.of_state, self.of_output = (self._probe(own, *given) for given in ((1.0, 0.0), (0.0, 1.0)))

    def _probe(self, scheduler: Any, state: float, output: float) -> float:
        """A deterministic step is linear in the state and the output of the model; some take it in float32, in which
        differences for Newton's method would drown.
        """
        own = copy.deepcopy(scheduler)  # steps count themselves
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=own.timesteps.device)
        with step_noise(own, self._refuse):
            return own.step(output * one, self.timestep, state * one, return_dict=False)[0].item()

    def __call__(self, states: list[Tensor]) -> list[Tensor]:
        contents = self.look(states).result.carried
        outputs = [self.look.where.output_from_denoised(m, x) for m, x in zip(contents, states, strict=True)]
        return [self.of_state * x + self.of_output * y for x, y in zip(states, outputs, strict=True)]

    def _refuse(self, shape: tuple[int, ...]) -> Tensor:
        raise UnsupportedError(
            f"the scheduler draws noise at step {self.index}, so that its steps have no inverse; take a deterministic "
            "one, DDIM with eta=0 for example"
        )


def _solve(step: _Step, after: list[Tensor], tolerance: float) -> list[Tensor]:
    """The states from which a step leads to `after`."""
    sizes = [x.numel() for x in after]

    def split(flat: np.ndarray) -> list[Tensor]:
        parts = torch.from_numpy(np.array(flat)).split(sizes)
        return [part.reshape(x.shape).to(x) for part, x in zip(parts, after, strict=True)]

    def joined(states: list[Tensor]) -> np.ndarray:
        return torch.cat([x.flatten() for x in states]).cpu().numpy()

    target, level = joined(after), step.look.level
    here = [level.alpha * x for x in after] if step.index else after
    # Where DDIM inversion goes: as far from `after` as the step leads from it
    first = joined(here) + target - joined(step(here))

    def miss(flat: np.ndarray) -> np.ndarray:
        return joined(step(split(flat))) - target

    if np.abs(miss(first)).max() < tolerance:  # Newton's method would divide by it
        return split(first)
    try:
        with np.errstate(invalid="ignore", divide="ignore"):  # of a direction that is exact already
            found = newton_krylov(miss, first, f_tol=tolerance, maxiter=MOST_STEPS, method="lgmres")
    except (NoConvergence, ValueError, ZeroDivisionError) as error:
        raise ConvergenceError(
            f"no state was found that step {step.index} (timestep {float(step.timestep):g}) leads to these contents; "
            "contents far from what the denoiser knows may have none; take more steps or a larger tolerance",
            step=step.index,
        ) from error
    return split(found)
