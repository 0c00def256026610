"""Model cards of trained denoisers: what is measured, and how it is told."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser, GaussianDenoiser, GuidedDenoiser
from ..errors import UnknownNameError
from ..evaluation import mean
from ..graph import FactorGraph
from ..levels import NoiseLevel
from ..metrics import Estimate, energy_distance, proportion
from ..sampling import sample
from .data.motion import energy, physics_residual
from .recipes import Recipe
from .trained import DESCRIPTION, TrainedDenoiser, describe, load_classifier, load_denoiser, load_scheduler

LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0)  # sigma / alpha
MEASURED = 384  # held-out contents
SAMPLES = 180
SAMPLING_STEPS = 25
AT_ONCE = 60  # samples
GUIDANCE = (1.0, 2.0)
BASELINE = 6000  # contents for the covariance of the linear denoiser
SEED = 10**9 + 1


def generate(
    denoiser: Denoiser, scheduler: Any, labels: Tensor, steps: int = SAMPLING_STEPS, seed: int = 0
) -> Tensor:  # (n) -> (n, *shape)
    """Samples of one denoiser by itself, one for each label."""
    alone = FactorGraph()
    alone.add_trajectory("x", denoiser.shape)
    noise = torch.randn(len(labels), *denoiser.shape, generator=torch.Generator().manual_seed(seed))
    return sample(
        alone, denoiser, scheduler, steps, len(labels), conditions=labels, initial_noise={"x": noise}, chunk=AT_ONCE,
        progress=False,
    ).samples["x"]  # fmt: skip


def denoising_loss(
    denoiser: Denoiser, clean: Tensor, noise_to_signal: float, labels: Tensor | None = None, seed: int = 0
) -> Estimate:
    """``E |x_0 - m|^2`` per number at sigma / alpha = noise_to_signal, variance preserving."""
    alpha = 1 / math.sqrt(1 + noise_to_signal**2)
    level = NoiseLevel(alpha, noise_to_signal * alpha)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    losses = []
    for part in torch.arange(len(clean)).split(64):
        x, condition = clean[part], None if labels is None else labels[part]
        denoised = denoiser.denoise(alpha * (x + noise_to_signal * noise[part]), level, condition)
        losses.append((x - denoised).square().flatten(1).mean(1))
    return mean(torch.cat(losses))


def linear_denoiser(recipe: Recipe) -> GaussianDenoiser:
    """The baseline: the best linear denoiser, from mean and covariance of the train split."""
    clean, _ = recipe.draw(BASELINE, "train", torch.Generator().manual_seed(SEED))
    flat = clean.flatten(1)
    covariance = torch.cov(flat.T) + 1e-5 * torch.eye(flat.shape[1])
    return GaussianDenoiser(clean.mean(0).double(), covariance.double())


def held_out(recipe: Recipe, n: int = MEASURED, split: str = "test", seed: int = SEED) -> tuple[Tensor, Tensor]:
    """The contents and labels that the card's numbers come from."""
    return recipe.draw(n, split, torch.Generator().manual_seed(seed))


def card(recipe: Recipe, folder: Path) -> str:
    """The card of an exported denoiser, with its numbers measured now."""
    denoiser, about = load_denoiser(folder), describe(folder)
    (clean, labels), (seen, seen_labels) = held_out(recipe), held_out(recipe, split="train", seed=SEED + 1)
    baseline = linear_denoiser(recipe)
    rows = {
        recipe.name: [denoising_loss(denoiser, clean, level, labels) for level in LEVELS],
        "the same, without class": [denoising_loss(denoiser, clean, level) for level in LEVELS],
        "best linear denoiser": [denoising_loss(baseline, clean, level) for level in LEVELS],
        f"{recipe.name}, train split": [denoising_loss(denoiser, seen, level, seen_labels) for level in LEVELS],
    }
    losses = [f"| {name} | {' | '.join(f'{e.value:.5f}' for e in row)} |" for name, row in rows.items()]
    weights = folder / "diffusion_pytorch_model.safetensors"
    quality = _motion_quality if len(recipe.shape) == 2 else _picture_quality
    text = CARD.format(
        name=recipe.name,
        what=recipe.what,
        shape=f"({', '.join(map(str, recipe.shape))})",
        data=recipe.data,
        licence=recipe.licence,
        classes=", ".join(f"{k} {c}" for k, c in enumerate(recipe.classes)),
        network=recipe.network,
        parameters=sum(p.numel() for p in denoiser.model.parameters()) / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        squeeze=f" It sees {recipe.squeeze} x {recipe.squeeze} pixels as channels." if recipe.squeeze > 1 else "",
        n=MEASURED,
        levels=" | ".join(f"{level:g}" for level in LEVELS),
        rule="---|" * (len(LEVELS) + 1),
        losses="\n".join(losses),
        quality=quality(recipe, folder, denoiser, clean, seen),
        limits=recipe.limits,
        description=DESCRIPTION,
        restarts=f" (begun anew at {', '.join(map(str, about['restarts']))})" if "restarts" in about else "",
        **{key: about[key] for key in ("steps", "batch", "minutes")},
    )
    return wrap(text)


def wrap(text: str, width: int = 120) -> str:
    """Markdown with its paragraphs and items, each one line, broken at `width`; tables stay."""
    lines = []
    for line in text.splitlines():
        indent = "  " if line.startswith("- ") else ""
        short = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += [line] if line.startswith("|") else short or [""]
    return "\n".join(lines) + "\n"


def _samples(recipe: Recipe, folder: Path, denoiser: TrainedDenoiser, scale: float) -> tuple[Tensor, Tensor]:
    labels = torch.arange(SAMPLES) % len(recipe.classes)
    guided = denoiser if scale == 1 else GuidedDenoiser(denoiser, scale)
    return generate(guided, load_scheduler(folder), labels), labels


def _picture_quality(recipe: Recipe, folder: Path, denoiser: TrainedDenoiser, clean: Tensor, seen: Tensor) -> str:
    try:
        classifier = load_classifier(folder)
    except UnknownNameError:
        return "There is no classifier to measure samples with."
    tested, labels = held_out(recipe, 2000, seed=SEED + 2)
    right = int((classifier(tested).argmax(1) == labels).sum())
    rows = ["| | class agrees | energy distance of features |", "|---|---|---|"]
    with torch.no_grad():
        features = classifier.features(clean)
        rows.append(f"| train split | | {_brief(energy_distance(classifier.features(seen), features))} |")
        for scale in GUIDANCE:
            samples, wanted = _samples(recipe, folder, denoiser, scale)
            agrees = proportion(int((classifier(samples).argmax(1) == wanted).sum()), len(wanted))
            distance = energy_distance(classifier.features(samples), features)
            rows.append(f"| samples, guidance {scale:g} | {_brief(agrees)} | {_brief(distance)} |")
    return (
        f"The classifier (`zoo.classifier({recipe.name!r})`, trained on the same split) is right on "
        f"{_brief(proportion(right, len(labels)))} of the held-out contents. {SAMPLES} samples, "
        f"{SAMPLING_STEPS} DDIM steps, classes in equal parts, against {MEASURED} held-out contents:\n\n"
        + "\n".join(rows)
    )


def _motion_quality(recipe: Recipe, folder: Path, denoiser: TrainedDenoiser, clean: Tensor, seen: Tensor) -> str:
    rows = [
        "| | physics residual | energy within a window, standard deviation in J | energy distance |",
        "|---|---|---|---|",
    ]

    def row(name: str, windows: Tensor) -> str:
        residual, spread = physics_residual(windows), energy(windows).std(-1)
        values = f"{residual.median():.4f} | {spread.median():.3f}"
        return f"| {name} | {values} | {_brief(energy_distance(windows, clean))} |"

    rows.append(row("train split", seen))
    rows += [row(f"samples, guidance {g:g}", _samples(recipe, folder, denoiser, g)[0]) for g in GUIDANCE]
    noise = clean.std() * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    rows.append(row("white noise as strong", noise))
    return (
        f"Medians over {SAMPLES} samples, {SAMPLING_STEPS} DDIM steps, styles in equal parts; energy distance to "
        f"{MEASURED} held-out windows:\n\n" + "\n".join(rows)
    )


def _brief(e: Estimate) -> str:
    return f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]"


CARD = """\
# {name}

{what} `pgm_sync.zoo.load("{name}")`, contents of shape {shape}. Written, numbers included, by \
`python -m pgm_sync.zoo.train {name} --minutes M --out DIR --export FOLDER`.

- **Data**: {data}
- **Licence**: {licence}
- **Classes**: {classes}; {description} lists them. The next number is the null class.
- **Network**: diffusers' `{network}`, {parameters:.2f} million parameters, {megabytes:.1f} MB in float16.{squeeze}
- **Training**: {steps} steps of {batch} contents, about {minutes} minutes of one processor core; v-prediction, cosine \
schedule of 1,000 steps, AdamW{restarts}, labels dropped one time in ten, averaged weights.

## Quality

Denoising loss `E |x_0 - m|^2` per number on {n} held-out contents, by sigma / alpha:

| | {levels} |
|{rule}
{losses}

{quality}

## Limits

{limits}
"""
