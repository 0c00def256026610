"""Draws from the posterior: Hamiltonian Monte Carlo and variational inference, by Pyro."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import networkx as nx
import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor
from tqdm.auto import tqdm

from ..selection import select_covariance
from .draws import Draws
from .model import model
from .parts import Part
from .prior import Prior, log_joint

SPREAD = 2.0  # of starting points, in posterior standard deviations
FLATTEST = 0.1  # curvature taken at least: priors alone have about 1
FINAL = 0.01  # learning rate of the last step of variational inference, to that of the first


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers, Pyro's parameters and its validation inside; all as before on leaving."""
    with (
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        torch.manual_seed(seed)
        yield


def nuts(
    parts: Sequence[Part],
    prior: Prior,
    freedom: float,
    *,
    chains: int,
    warmup: int,
    draws: int,
    target_accept: float,
    seed: int,
    progress: bool,
) -> Draws:
    """The no-U-turn sampler. Its chains are copies in one model: they share step size and trajectory length."""

    with seeded(seed):
        whitened = [_Whitened(part, prior, freedom) for part in parts]

        def unpack(white: Mapping[str, Tensor]) -> dict[str, Tensor]:
            values: dict[str, Tensor] = {}
            for k, coordinates in enumerate(whitened):
                free, scale = coordinates.unpack(white[f"part{k}"])
                values |= {f"free{k}": free} | ({} if scale is None else {f"scale{k}": scale})
            return values

        def potential(white: Mapping[str, Tensor]) -> Tensor:
            # That of `model`, without its tracing, which would take half the time.
            return -log_joint(parts, prior, freedom, unpack(white)).sum()

        # Overdispersed: R-hat sees chains that have not come together
        start = {
            f"part{k}": SPREAD * torch.randn(chains, *coordinates.center.shape, dtype=torch.float64)
            for k, coordinates in enumerate(whitened)
        }
        kernel = NUTS(
            potential_fn=potential,
            target_accept_prob=target_accept,
        )
        run = MCMC(
            kernel,
            num_samples=draws,
            warmup_steps=warmup,
            initial_params=start,
            disable_progbar=not progress,
        )
        run.run()
        with torch.no_grad():
            values = unpack({name: x.transpose(0, 1) for name, x in run.get_samples().items()})
            density = log_joint(parts, prior, freedom, values)
        diagnostics = run.diagnostics()
    diverging = torch.zeros(draws, dtype=torch.bool)
    diverging[diagnostics["divergences"]["chain 0"]] = True
    acceptance = float(diagnostics["acceptance rate"]["chain 0"])
    return Draws(values, density, diverging, acceptance, float(kernel.step_size))


def svi(
    parts: Sequence[Part],
    prior: Prior,
    freedom: float,
    *,
    steps: int,
    draws: int,
    learning_rate: float,
    seed: int,
    progress: bool,
) -> Draws:
    """A multivariate normal in unconstrained coordinates, by stochastic variational inference; independent draws."""
    with seeded(seed):
        start = _start(parts, prior, freedom)
        width = 1 / math.sqrt(freedom + 1)
        guide = AutoMultivariateNormal(model, init_loc_fn=init_to_value(values=start), init_scale=width)
        optimiser = ClippedAdam({"lr": learning_rate, "lrd": FINAL ** (1 / steps), "clip_norm": 1e3})
        run = SVI(model, guide, optimiser, Trace_ELBO(max_plate_nesting=0))
        given = (parts, prior, freedom, 1)
        losses = [run.step(*given) for _ in tqdm(range(steps), desc="svi", disable=not progress)]
        with torch.no_grad():
            approximation = guide.get_posterior()
            latent = approximation.sample((draws,))
            log_guide = approximation.log_prob(latent)
            values = _unpack(latent, start)
            density = log_joint(parts, prior, freedom, values)
    values = {name: x[None] for name, x in values.items()}
    return Draws(values, density[None], losses=losses, log_guide=log_guide[None])


class _Whitened:
    """Coordinates ``(..., M, d)`` in which the posterior of a part is about standard normal, mode by mode.

    Centred at the maximum likelihood of slightly shrunk moments, with the curvature that the log density has there.
    """

    def __init__(self, part: Part, prior: Prior, freedom: float):
        self._fixed = prior.scales == "fixed"
        modes, size = part.rows.shape
        self._edges = len(part.structure.edges)
        scales = part.scatter.new_zeros(modes, 0 if self._fixed else size)
        self.center = torch.cat([estimate(part, freedom), scales], 1)  # (M, d)

        def gradient(at: Tensor) -> Tensor:
            at = at.detach().requires_grad_()
            free, scale = self._split(at)
            values = {"free0": free} if scale is None else {"free0": free, "scale0": scale}
            return torch.autograd.grad(log_joint([part], prior, freedom, values).sum(), at)[0]

        step = 0.1 / math.sqrt(freedom + 1)
        steps = step * torch.eye(self.center.shape[1], dtype=torch.float64)
        columns = [(gradient(self.center - e) - gradient(self.center + e)) / (2 * step) for e in steps]
        curvature = torch.stack(columns, -1) if columns else self.center.new_zeros(modes, 0, 0)
        values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
        self.root = vectors * values.clamp_min(FLATTEST).rsqrt()[..., None, :]  # (M, d, d)

    def unpack(self, white: Tensor) -> tuple[Tensor, Tensor | None]:
        """Free coordinates of the correlations ``(..., M, E)``, and scales ``(..., M, K)``."""
        return self._split(self.center + (self.root @ white[..., None])[..., 0])

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        free, scale = values[..., : self._edges], values[..., self._edges :]
        return free, None if self._fixed else scale.exp()


def _unpack(latent: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sites ``(draws, M, *)`` of unconstrained vectors ``(draws, d)``, in the order of the model."""
    out, place = {}, 0
    for name, value in like.items():
        size = value.numel()
        flat = latent[:, place : place + size].reshape(len(latent), *value.shape[1:])
        out[name] = flat.exp() if name.startswith("scale") else flat
        place += size
    return out


def estimate(part: Part, freedom: float) -> Tensor:
    """Free coordinates ``(M, E)`` of maximum likelihood from slightly shrunk moments; zero without data."""
    modes, size = part.rows.shape
    if not part.structure.edges or freedom == 0:
        return part.scatter.new_zeros(modes, len(part.structure.edges))
    graph = nx.Graph(part.structure.edges)
    graph.add_nodes_from(range(size))
    alone: dict[object, Tensor] = {node: torch.tensor([node]) for node in range(size)}
    less = 10 / (freedom + 11)  # also makes it positive definite
    shrunk = (1 - less) * part.scatter / (freedom + 1) + less * torch.eye(size, dtype=torch.float64)
    found = [select_covariance(c, graph, alone, 1e-3).precision for c in shrunk]
    return part.structure.coordinates(torch.stack(found))


def _start(parts: Sequence[Part], prior: Prior, freedom: float) -> dict[str, Tensor]:
    """Sites of the model at the estimate, one chain."""
    out: dict[str, Tensor] = {}
    for k, part in enumerate(parts):
        if part.structure.edges:
            out[f"free{k}"] = estimate(part, freedom)[None]
        if prior.scales != "fixed":
            out[f"scale{k}"] = torch.ones(1, *part.rows.shape, dtype=torch.float64)
    return out
