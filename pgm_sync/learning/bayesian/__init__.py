"""Bayesian learning of potentials (Eq. 17)."""
