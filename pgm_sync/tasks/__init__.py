"""Whole jobs: a graph, its potentials, a denoiser and the measures of the result."""
