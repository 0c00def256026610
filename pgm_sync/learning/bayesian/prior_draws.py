"""Draws from the prior: exact on forests, by differential evolution elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draws import Draws
from .parts import Part
from .prior import Prior, log_joint
from .structures import Forest, Structure

WALKERS = 500
BURN, KEPT, APART = 600, 4, 60  # steps left out; sweeps kept, and how far apart


def draw_prior(parts: Sequence[Part], prior: Prior, seed: int) -> Draws:
    """2000 draws (4 chains of 500) of every site. The modes of a loopy part are one pool, shuffled for each."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for k, part in enumerate(parts):
            modes, size = part.rows.shape
            edges = len(part.structure.edges)
            if isinstance(part.structure, Forest) and edges:
                shape = torch.tensor(prior.concentration, dtype=torch.float64)
                own = torch.distributions.Beta(shape, shape)
                values[f"free{k}"] = torch.logit(own.sample((KEPT, WALKERS, modes, edges)), eps=1e-15) / 2
            elif edges:
                pool = evolve(part.structure, prior.concentration, generator).flatten(0, 1)
                shuffled = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(modes)]
                values[f"free{k}"] = torch.stack(shuffled, 1).reshape(KEPT, WALKERS, modes, edges)
            if prior.scales != "fixed":
                values[f"scale{k}"] = prior.of_scales().sample((KEPT, WALKERS, modes, size))
    if not values:
        return Draws(values, torch.zeros(KEPT, WALKERS, dtype=torch.float64))
    with torch.no_grad():
        return Draws(values, log_joint(parts, prior, 0.0, values))


def evolve(structure: Structure, concentration: float, generator: torch.Generator) -> Tensor:
    """Free coordinates ``(KEPT, WALKERS, E)`` of one mode, by differential evolution [ter Braak 2006].

    Hundreds of walkers whose steps are differences of others': they take on the shape of the density by themselves,
    and its tails, the walls of the correlations that can be completed, do not slow them as they do gradients.
    """
    edges = len(structure.edges)
    size = 1 + max(max(e) for e in structure.edges)
    nothing = torch.zeros(size, size, dtype=torch.float64)

    def density(at: Tensor) -> Tensor:
        with torch.no_grad():
            value = structure.evaluate(at, nothing, concentration).log_prior
        return value.nan_to_num(nan=-math.inf, posinf=-math.inf)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    half = WALKERS // 2
    x = 0.5 * torch.randn(WALKERS, edges, generator=generator, dtype=torch.float64)
    now, kept = density(x), []
    for step in range(BURN + KEPT * APART):
        for moving in (
            slice(0, half),
            slice(half, None),
        ):  # by the differences of the other half, which rests
            others = x[half:] if moving.start == 0 else x[:half]
            a, b = (torch.randint(half, (half,), generator=generator) for _ in range(2))
            length = 1.0 if step % 10 == 0 else 2.38 / math.sqrt(2 * edges) * 2.0 ** (step % 3 - 1)
            noise = 1e-4 * torch.randn(half, edges, generator=generator, dtype=torch.float64)
            proposal = x[moving] + length * (others[a] - others[b]) + noise
            value = density(proposal)
            accepted = random(half).log() < value - now[moving]
            x[moving] = torch.where(accepted[:, None], proposal, x[moving])
            now[moving] = torch.where(accepted, value, now[moving])
        if step >= BURN and (step - BURN) % APART == APART - 1:
            kept.append(x.clone())
    return torch.stack(kept)
