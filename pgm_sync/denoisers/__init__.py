"""Denoisers behind one protocol."""

from .base import DenoisedPosterior, Denoiser

__all__ = ["DenoisedPosterior", "Denoiser"]
