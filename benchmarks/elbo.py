"""Two prompts on one canvas without any joint data: scalars tuned by denoiser likelihood, against untuned ones."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.learning import scaled_couplings
from pgm_sync.learning.tuning import fit_elbo
from pgm_sync.metrics import Z95, energy_distance
from pgm_sync.peers import Pull, sample_syncsde

WINDOW, SHARED, MODES, STEPS, TOLERANCE = 12, 3, 4, 30, 0.25
SPREADS = {"w0": 0.3, "w1": 0.9}  # of a mode, in units of the spread between modes
BOUNDS = (0.01, 100.0)
SCHEDULER = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
OVERLAP = {"w0": slice(WINDOW - SHARED, WINDOW), "w1": slice(0, SHARED)}


def prompt(spread: float, seed: int) -> tuple[ps.MixtureDenoiser, torch.distributions.Distribution]:
    """Smooth curves around one of some smooth modes: the exact denoiser, and the distribution itself."""
    place = torch.arange(WINDOW, dtype=torch.float64)
    smooth = torch.exp(-((place[:, None] - place) ** 2) / (2 * 3.0**2)) + 0.01 * torch.eye(WINDOW).double()
    generator = torch.Generator().manual_seed(seed)
    modes = (
        torch.randn(MODES, WINDOW, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(smooth).T
    )
    weights = torch.full((MODES,), 1 / MODES, dtype=torch.float64)
    covariances = (spread**2 * smooth).expand(MODES, WINDOW, WINDOW)
    own = torch.distributions.MultivariateNormal(modes, covariances)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), own)
    return ps.MixtureDenoiser(weights, modes, covariances, shape=(1, WINDOW)), mixture


def apart(precision: float | None) -> ps.FactorGraph:
    """Two trajectories of their own, drawn together where they overlap."""
    graph = ps.FactorGraph()
    for name in SPREADS:
        graph.add_trajectory(name, (1, WINDOW))
    if precision is not None:
        crops = [ps.Crop((1, WINDOW), (0, place.start), (1, SHARED)) for place in OVERLAP.values()]
        graph.add_factor("overlap", list(SPREADS), ps.Attraction(precision), crops)
    return graph


def pull(left: Tensor) -> Tensor:
    """The left view's overlap where the right view has it."""
    out = torch.zeros_like(left)
    out[..., OVERLAP["w1"]] = left[..., OVERLAP["w0"]]
    return out


def build(quick: bool) -> str:
    n, tuning = (300, 128) if quick else (2000, 512)
    prompts = {name: prompt(spread, seed) for seed, (name, spread) in enumerate(SPREADS.items())}
    denoisers = {name: denoiser for name, (denoiser, _) in prompts.items()}
    options: dict[str, Any] = {"dtype": torch.float64}
    exact = {**options, "posterior_covariance": "denoiser"}
    torch.manual_seed(0)
    truth = {name: p.sample((n,)).reshape(n, 1, WINDOW) for name, (_, p) in prompts.items()}
    new = 100_000  # seeds that no tuning has seen

    def log_density(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: p.log_prob(samples[name].reshape(-1, WINDOW)) for name, (_, p) in prompts.items()}

    def draw(graph: ps.FactorGraph, how: dict[str, Any]) -> dict[str, Tensor]:
        return ps.sample(graph, denoisers, SCHEDULER, STEPS, n, new, progress=False, **how).samples

    def tuned(graph: ps.FactorGraph, how: dict[str, Any], **rest: Any) -> ps.FactorGraph:
        return fit_elbo(
            graph, denoisers=denoisers, scheduler=SCHEDULER, num_samples=tuning, num_inference_steps=STEPS,
            sampling=how, num_noises=4, tolerance=TOLERANCE, bounds=BOUNDS, **rest,
        )  # fmt: skip

    alone = draw(apart(None), options)
    own = log_density(alone)
    rows: list[list[object]] = [
        [
            "method",
            "scalar",
            "left: gap, nats",
            "right: gap, nats",
            "left: distance",
            "right: distance",
            "mismatch",
        ]
    ]

    def add(title: str, scalar: float | None, samples: Mapping[str, Tensor]) -> None:
        gaps = []
        for name, value in log_density(samples).items():
            gap = value - own[name]
            half = Z95 * gap.std().item() / n**0.5
            gaps.append(f"{gap.mean():.2f} [{gap.mean() - half:.2f}, {gap.mean() + half:.2f}]")
        far = [str(energy_distance(samples[name], truth[name])).partition(" (")[0] for name in SPREADS]
        left, right = (samples[name][..., place] for name, place in OVERLAP.items())
        mismatch = (left - right).square().mean().sqrt().item()
        rows.append([title, "" if scalar is None else f"{scalar:.3g}", *gaps, *far, f"{mismatch:.3f}"])

    def scalar(graph: ps.FactorGraph) -> float:
        details = ps.Fit.of(graph).details
        return next(v for k, v in details.items() if k == "strength" or k.startswith("weight"))

    canvas = ps.wide_canvas((1, 2 * WINDOW - SHARED), (1, WINDOW), (1, WINDOW - SHARED))
    spring = apart(1.0)
    add("each view alone", None, alone)
    steps = tqdm(total=6)
    add("canvas, equal weights", 1.0, draw(canvas, options))
    for rule, title in (("match", "match"), ("elbo", "largest ELBO")):
        found = tuned(canvas, options, parameters="weights", rule=rule)
        add(f"canvas, weights by {title}", scalar(found), draw(found, options))
        steps.update()
    for form in ("explicit", "implicit"):
        pulled = sample_syncsde(
            denoisers, {"w1": Pull("w0", pull, overlap_mask())}, SCHEDULER, STEPS, n, new, form=form, **options
        )  # fmt: skip
        add(f"SyncSDE pull, {form}, 1/lambda = 5", 5.0, pulled)
        steps.update()
    add("attraction, precision 5", 5.0, draw(scaled_couplings(spring, 5.0), exact))
    for rule, title in (("strongest", f"strongest within {TOLERANCE}"), ("elbo", "largest ELBO")):
        found = tuned(spring, exact, rule=rule)
        add(f"attraction, {title}", scalar(found), draw(found, exact))
        steps.update()
    return (
        f"Curves of {WINDOW} numbers, two prompts of {MODES} modes each with spreads {SPREADS['w0']} (left) and "
        f"{SPREADS['w1']} (right), {SHARED} numbers shared;\nexact denoisers, {STEPS} DDIM steps. Tuned on {tuning} "
        f"samples per trial, shown on {n} others. Gap: log density\nbeyond that of a view's own samples, mean and 95 % "
        "interval. Distance: energy distance of the view to its\nprompt. Mismatch: root mean square difference where "
        "views overlap. Scalar: weight of the right view as a\nmultiple of the left one's, or strength.\n\n"
        + table(rows)
    )


def overlap_mask() -> Tensor:
    """1 where the right view is shared."""
    mask = torch.zeros(1, WINDOW, dtype=torch.float64)
    mask[:, OVERLAP["w1"]] = 1
    return mask


if __name__ == "__main__":
    main("elbo", build)
