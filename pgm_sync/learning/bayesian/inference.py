"""Draws from the posterior: Hamiltonian Monte Carlo and variational inference, by Pyro."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import networkx as nx
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.distributions import constraints
from tqdm.auto import tqdm

from ..selection import select_covariance
from .draws import Draws
from .parts import Part
from .prior import Prior, log_joint

SPREAD = 2.0  # of starting points, in posterior standard deviations
FLATTEST = 0.1  # curvature taken at least: priors alone have about 1
PARTICLES = 16  # draws of the guide per step
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
        whitened = _Whitened(parts, prior, freedom)

        def potential(white: Mapping[str, Tensor]) -> Tensor:
            # That of `model`, without its tracing, which would take half the time.
            return -whitened.log_density(white).sum()

        # Overdispersed: R-hat sees chains that have not come together
        start = {
            name: SPREAD * torch.randn(chains, *shape, dtype=torch.float64)
            for name, shape in whitened.shapes.items()
        }
        kernel = NUTS(potential_fn=potential, target_accept_prob=target_accept)
        run = MCMC(
            kernel,
            num_samples=draws,
            warmup_steps=warmup,
            initial_params=start,
            disable_progbar=not progress,
        )
        run.run()
        with torch.no_grad():
            values = whitened.unpack({name: x.transpose(0, 1) for name, x in run.get_samples().items()})
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
        whitened = _Whitened(parts, prior, freedom)

        def density() -> None:  # that of `model`
            sites = {
                name: pyro.sample(
                    name,
                    dist.ImproperUniform(constraints.independent(constraints.real, len(shape)), (), shape),
                )
                for name, shape in whitened.shapes.items()
            }
            pyro.factor("density", whitened.log_density(sites))

        start = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in whitened.shapes.items()}
        guide = AutoMultivariateNormal(density, init_loc_fn=init_to_value(values=start), init_scale=1.0)
        optimiser = ClippedAdam({"lr": learning_rate, "lrd": FINAL ** (1 / steps), "clip_norm": 1e3})
        elbo = Trace_ELBO(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)
        run = SVI(density, guide, optimiser, elbo)
        losses = [run.step() for _ in tqdm(range(steps), desc="svi", disable=not progress)]
        with torch.no_grad():
            approximation = guide.get_posterior()
            latent = approximation.sample((draws,))
            white, place = {}, 0
            for name, shape in whitened.shapes.items():  # in the order of the model
                white[name] = latent[:, place : place + math.prod(shape)].reshape(draws, *shape)
                place += math.prod(shape)
            log_guide = approximation.log_prob(latent)
            values, log_density = whitened.unpack(white), whitened.log_density(white)
    values = {name: x[None] for name, x in values.items()}
    return Draws(values, log_density[None], losses=losses, log_guide=log_guide[None])


class _Whitened:
    """Coordinates in which the posterior is about standard normal: ``part{k}`` ``(..., M, d)``."""

    def __init__(self, parts: Sequence[Part], prior: Prior, freedom: float):
        self._parts, self._prior, self._freedom = parts, prior, freedom
        self._each = [_WhitenedPart(part, prior, freedom) for part in parts]
        every = {f"part{k}": tuple(own.center.shape) for k, own in enumerate(self._each)}
        self.shapes = {name: shape for name, shape in every.items() if math.prod(shape)}

    def unpack(self, white: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sites of `model`."""
        values: dict[str, Tensor] = {}
        for k, own in enumerate(self._each):
            if f"part{k}" in self.shapes:
                free, scale = own.unpack(white[f"part{k}"])
                values |= {f"free{k}": free} if free.shape[-1] else {}
                values |= {} if scale is None else {f"scale{k}": scale}
        return values

    def log_density(self, white: Mapping[str, Tensor]) -> Tensor:
        """``(...)``, of unconstrained coordinates."""
        return log_joint(self._parts, self._prior, self._freedom, self.unpack(white))


class _WhitenedPart:
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
