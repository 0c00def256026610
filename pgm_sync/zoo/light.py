"""Pictures under a light of their own: what everything in one scene has in common."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoisers import MixtureDenoiser
from ..errors import ParameterError

BRIGHTNESS, TINT = 0.6, 0.15  # standard deviations, in units of pictures in [-1, 1]


def lights(
    n: int, *, generator: torch.Generator | None = None, brightness: float = BRIGHTNESS, tint: float = TINT
) -> Tensor:  # (n, 3, 1, 1)
    """Random lights, to be added to pictures: a brightness that all channels share, and a tint of each."""
    common, own = torch.randn(n, 1, generator=generator), torch.randn(n, 3, generator=generator)
    return (brightness * common + tint * own)[..., None, None]


def lit(denoiser: MixtureDenoiser, brightness: float = BRIGHTNESS, tint: float = TINT) -> MixtureDenoiser:
    """The exact denoiser of the same pictures, each under one of `lights`, whatever else it shows.

    >>> from pgm_sync import zoo
    >>> lit(zoo.load("photo-patches")).shape
    (3, 24, 24)

    Raises ParameterError on standard deviations that are not positive, or a picture without three channels.
    """
    if not (brightness > 0 and tint > 0) or denoiser.shape[0] != 3:
        raise ParameterError(
            f"lights of deviations {brightness} and {tint}, positive ones, fall on pictures of three channels, "
            f"not on {denoiser.shape}"
        )
    c = denoiser.components.to(torch.float64, torch.device("cpu"))
    size = len(c.center)
    frame = torch.eye(size, dtype=torch.float64) if c.frame is None else c.frame
    flat = torch.eye(3, dtype=torch.float64).repeat_interleave(size // 3, 0)  # (D, 3): a constant per channel
    basis, _ = torch.linalg.qr(torch.cat([frame, flat], 1))  # (D, p + 3)
    inner, seen = basis.T @ frame, basis.T @ flat
    covariance = brightness**2 * torch.ones(3, 3, dtype=torch.float64) + tint**2 * torch.eye(3, dtype=torch.float64)
    shared = seen @ covariance @ seen.T
    shared = shared + c.outside * (torch.eye(len(seen), dtype=torch.float64) - inner @ inner.T)
    own = torch.diag_embed(c.variances - c.residual[:, None])
    latent = c.basis @ own @ c.basis.mT + c.residual[:, None, None] * torch.eye(c.means.shape[1], dtype=torch.float64)
    variances, directions = torch.linalg.eigh(inner @ latent @ inner.T + shared)
    components = c._replace(
        means=c.means @ inner.T, basis=directions, variances=variances.clamp_min(0),
        residual=torch.zeros_like(c.residual), frame=basis,
    )  # fmt: skip
    return MixtureDenoiser.from_components(denoiser.shape, components, denoiser.labels)
