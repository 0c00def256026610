"""Images and the latents that diffusion sees, through an autoencoder of diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, chunk: int = 8) -> Tensor:
    """Latents ``(n, c, h, w)`` of images ``(n, 3, H, W)`` in [-1, 1], in the units of the pipeline's states; float32.

    `vae` is a diffusers autoencoder. The mode of the encoder's distribution, so contents for `fit` are the same every
    time; `chunk` images at once.

    An autoencoder that only averages 2 x 2 pixels:

    >>> import torch, types, pgm_sync as ps
    >>> vae = types.SimpleNamespace(
    ...     config=types.SimpleNamespace(scaling_factor=2.0), device="cpu", dtype=torch.float32,
    ...     encode=lambda images: types.SimpleNamespace(latent=torch.nn.functional.avg_pool2d(images, 2)))
    >>> latents = ps.encode_images(vae, torch.full((1, 3, 8, 8), 0.25))
    >>> latents.shape, latents.mean().item()
    (torch.Size([1, 3, 4, 4]), 0.5)

    Raises ShapeError.
    """
    if images.ndim != 4:
        raise ShapeError(f"images of shape {tuple(images.shape)} are not (n, channels, height, width)")
    out = []
    for part in images.split(chunk):
        encoded = vae.encode(part.to(device=vae.device, dtype=vae.dtype))
        latent = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        out.append(latent.float().to(images.device))
    shift, scale = _units(vae, images.device)
    return (torch.cat(out) - shift) * scale


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor, wrap: int = 0, chunk: int = 8) -> Tensor:
    """Images ``(n, 3, H, W)`` in [-1, 1] of latents ``(n, c, h, w)``, in float32 on their device.

    `vae` is a diffusers autoencoder. `wrap` columns are repeated on either side and cut off again, so that a panorama
    of 360 degrees closes without a seam. For canvases that do not fit in memory, call ``vae.enable_tiling()`` first;
    `chunk` canvases at once.

    An autoencoder that only doubles pixels; its latents are twice as large in the pipeline's units:

    >>> import torch, types, pgm_sync as ps
    >>> vae = types.SimpleNamespace(
    ...     config=types.SimpleNamespace(scaling_factor=2.0), device="cpu", dtype=torch.float32,
    ...     decode=lambda latents, return_dict: (latents.repeat_interleave(2, -1).repeat_interleave(2, -2),))
    >>> images = ps.decode_latents(vae, torch.ones(1, 3, 4, 8))
    >>> images.shape, images.mean().item()
    (torch.Size([1, 3, 8, 16]), 0.5)

    Raises ShapeError, ParameterError.
    """
    if latents.ndim != 4:
        raise ShapeError(f"latents of shape {tuple(latents.shape)} are not (n, channels, height, width)")
    width = latents.shape[-1]
    if not 0 <= wrap <= width:
        raise ParameterError(f"wrap={wrap} columns, but the latents have {width}", wrap=wrap)
    shift, scale = _units(vae, latents.device)
    values = latents.float() / scale + shift
    if wrap:
        values = torch.cat([values[..., -wrap:], values, values[..., :wrap]], -1)
    out = []
    for part in values.split(chunk):
        image = vae.decode(part.to(device=vae.device, dtype=vae.dtype), return_dict=False)[0]
        out.append(image.float().to(latents.device))
    images = torch.cat(out)
    side = wrap * images.shape[-1] // values.shape[-1]
    return images[..., side : images.shape[-1] - side].clamp(-1, 1)


def _units(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """(shift, scale): states are ``(latent - shift) * scale``."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    scale = torch.tensor(float(getattr(config, "scaling_factor", None) or 1.0), device=device)
    if mean is None or std is None:
        return torch.tensor(float(getattr(config, "shift_factor", None) or 0.0), device=device), scale
    shape = (1, -1, 1, 1)
    return torch.tensor(mean, device=device).reshape(shape), scale / torch.tensor(std, device=device).reshape(shape)
