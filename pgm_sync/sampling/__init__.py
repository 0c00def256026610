"""Sampling trajectories together through diffusers schedulers."""
