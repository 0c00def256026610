"""Textures for meshes from the denoiser of their views."""
