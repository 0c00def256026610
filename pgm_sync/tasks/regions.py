"""The region of a picture that an edit is about, from the prompts alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ParameterError
from ..levels import NoiseLevel
from .models import Model, Prompt

MAPS = 10  # noises to average over
STRENGTH = 0.5  # of the noise schedule, from clean contents on
RATIO = 3.0  # of the mean difference, above which differences count alike


def derived_region(
    model: Model,
    content: Tensor,  # (*shape)
    old: Prompt,
    new: Prompt,
    generator: torch.Generator,
    maps: int = MAPS,
    strength: float = STRENGTH,
    ratio: float = RATIO,
) -> Tensor:  # (H, W), 0 or 1, float64
    """Where a denoiser predicts other noise under the new prompt than under the old one [Couairon2023]_.

    Differences are averaged over `maps` noises and the channels, where `strength` of the noise schedule has passed, cut
    at `ratio` times their mean, and the region is where they exceed half of that: the mask that diffusers'
    ``StableDiffusionDiffEditPipeline.generate_mask`` makes. It is for denoisers that know things by their prompts;
    those embedded here know whole crops, so that prompts change what they predict everywhere.

    Raises ParameterError on `maps`, `strength` or `ratio` out of range.
    """
    if maps < 1 or not 0 < strength < 1 or not ratio > 0:
        raise ParameterError(
            f"maps={maps} must be at least 1, strength={strength} between 0 and 1, and ratio={ratio} positive"
        )
    timestep = int(strength * len(model.scheduler.alphas_cumprod))
    kept = float(model.scheduler.alphas_cumprod[timestep])
    level = NoiseLevel(kept**0.5, (1 - kept) ** 0.5, timestep)
    noise = torch.randn(maps, *content.shape, generator=generator).to(content)
    noisy = level.alpha * content + level.sigma * noise
    with torch.no_grad():
        means = [model.denoiser.denoise(noisy, level, model.condition([prompt] * maps)) for prompt in (old, new)]
    # Noises differ as denoised contents do, by the factor alpha / sigma, which the ratio below takes out
    difference = (means[1] - means[0]).abs().mean((0, 1)).double()
    most = ratio * difference.mean()
    return (difference.clamp_max(most) / most > 0.5).double()
