"""The joint denoiser: own denoised contents in, joint posterior means out (Eq. 5, 5', 6, 11 and 13)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ParameterError, ShapeError, UnknownNameError, UnsupportedError
from ..gaussian import Gaussian
from ..graph.factor_graph import FactorGraph, Name
from ..graph.marginals import NodeMarginal, full_covariance, node_marginal
from ..inference import compile, dense_joint, infer
from ..levels import NoiseLevel, expand, normalised, same_level
from ..maps import Identity
from ..potentials import Likelihood
from ..potentials.base import StructuralPotential
from . import noise as noise_models
from .carriers import Carriers, find_carriers
from .covariance import completed, floored_solve, guarded_precision
from .posterior import Annealed, PosteriorCovariance, as_posterior_covariance
from .reduction import OwnPrior, own_prior, reduce
from .schedule import fitted
from .weights import CanvasWeights, as_canvas_weights

NOISE_FACTOR = ("correlated noise",)
LARGEST_JOINT = 512  # coupled features up to which Eq. 8 is kept by a floor on the joint precision
FLOOR = (
    1.0  # of the joint prior's precision: a joint posterior is no wider than the joint prior in any direction
)


class Guard(NamedTuple):
    """What kept Eq. 8, and how often it had to act.

    >>> import torch, pgm_sync as ps
    >>> joint = ps.JointDenoiser(ps.chain_graph(2, (1,), ps.Correlation(0.8)))
    >>> state = {0: torch.zeros(1, 1), 1: torch.zeros(1, 1)}
    >>> print(joint(state, state, ps.NoiseLevel(0.6, 0.8)).guard.rule)  # surrogates are never wider than the prior
    None
    """

    rule: str | None = None  # "joint" floor on Lambda, "nodes" capped one by one; None: nothing could be wider
    by_node: dict[Name, float] = {}  # noqa: RUF012 (a NamedTuple's); fraction of capped directions under "nodes"


class JointDenoised(NamedTuple):
    """One joint denoising; what a `JointDenoiser` returns.

    >>> import torch, pgm_sync as ps
    >>> joint = ps.JointDenoiser(ps.chain_graph(2, (1,), ps.Correlation(0.8)))
    >>> state = {0: torch.ones(5, 1), 1: torch.ones(5, 1)}
    >>> found = joint(state, state, ps.NoiseLevel(0.6, 0.8))
    >>> found.mean[0].shape, found.capped
    (torch.Size([5, 1]), 0.0)
    """

    mean: dict[Name, Tensor]  # (batch, *shape) per trajectory: E[x_0 | all noisy states]
    carried: list[Tensor]  # (batch, *shape) per carrier: the content to hand to the scheduler
    capped: float  # fraction of directions where Eq. 8 had to act
    guard: Guard = Guard()  # which rule kept Eq. 8, and where it acted
    # h = eta_c - K m per coupled trajectory, (batch, *features): what the others multiply its posterior with, to first
    # order about the joint mean, is exp(h' u)
    tilt: dict[Name, Tensor] = {}  # noqa: RUF012 (a NamedTuple's)


class JointDenoiser:
    """Joint posterior means of all trajectories of a graph, given each one's own (Eq. 5-8, 5', 10-13).

    Parameters
    ----------
    graph
        a graph with fitted potentials.
    posterior_covariance
        C_i of Eq. 4, an object or its shorthand: "surrogate", ``(Sigma_ii^{-1} + snr)^{-1}``, the same for every
        sample; "denoiser", what the denoiser itself says, sample by sample; "jacobian", its derivatives; a number, the
        prior variance to build the surrogate from where no potential states a marginal (Attraction); "fitted", as the
        graph was fitted; "annealed", another field altogether. See `score.posterior`.
    noise_correlation
        c of Eq. 5', in [0, 1): trajectories' noises correlate with strength c like their contents. Trajectories on a
        canvas share its noise in any case. "fitted": as the graph was fitted.
    couple
        False keeps the noise model and drops the potentials: correlated noise alone, a baseline.
    canvas_weights
        w_i of Eq. 10 by noise level, in the place of the graph's own; "fitted": as the graph was fitted.

    Raises ParameterError, UnsupportedError, ShapeError on a node of shape (), and what compiling the graph raises.

    Where every trajectory is N(0, 1) by itself, the result is the exact joint posterior mean at every level (Eq. 9):

    >>> import torch, pgm_sync as ps
    >>> joint = ps.JointDenoiser(ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8)))
    >>> level = ps.NoiseLevel(alpha=0.6, sigma=0.8)
    >>> noisy = {0: torch.tensor([[1.0]]), 1: torch.tensor([[0.0]])}
    >>> own = {name: level.alpha * x for name, x in noisy.items()}  # E[x_0 | x_t] of each by itself
    >>> mean = joint(noisy, own, level).mean
    >>> torch.cat([mean[0], mean[1]], 1)
    tensor([[0.5035, 0.3350]])
    >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    >>> torch.tensor([[1.0, 0.0]]) @ torch.linalg.inv(0.36 * covariance + 0.64 * torch.eye(2)) @ (0.6 * covariance)
    tensor([[0.5035, 0.3350]])
    """

    def __init__(
        self,
        graph: FactorGraph,
        posterior_covariance: str | float | PosteriorCovariance = "surrogate",
        noise_correlation: float | str = 0.0,
        couple: bool = True,
        canvas_weights: CanvasWeights | str | None = None,
    ):
        graph.validate()
        flat = [name for name in graph.variables if not graph.shape(name)]
        if flat:
            raise ShapeError(
                f"{flat[0]!r} has shape (), and a state is (batch, *shape) with at least one axis; make it (1,)",
                name=flat[0],
                got=(),
            )
        if isinstance(noise_correlation, str):
            noise_correlation = float(fitted(graph, "noise_correlation"))
        self.graph = graph
        self.posterior_covariance = as_posterior_covariance(posterior_covariance, graph)
        self.carriers = find_carriers(graph)
        self.canvas_weights = as_canvas_weights(canvas_weights, graph)
        if self.canvas_weights is not None:
            self.canvas_weights.check(self.carriers)
        self.couple = couple
        self._canvases = canvas_priors(graph, self.carriers)
        self.reduction = reduce(graph)
        if self._canvases:
            self._prepare_canvas()
        self.noise, self.noise_correlation = None, noise_correlation
        if not self._canvases:
            structural = noise_models.canvas_noise(self.reduction, self.carriers)
            if structural is not None and noise_correlation:
                raise UnsupportedError(
                    "trajectories on a canvas share its noise; noise_correlation is for trajectories without one"
                )
            if structural is not None and isinstance(self.posterior_covariance, Annealed):
                raise UnsupportedError(
                    "posterior_covariance='annealed' is for trajectories without a canvas; a prior on the canvas "
                    "itself (Eq. 11) is an annealed product already"
                )
            chosen = noise_models.correlated_noise(self.reduction, noise_correlation)
            self.noise = structural if structural is not None else chosen
        self.correlates = noise_correlation > 0 and self.noise is not None
        self._prepare()

    def _prepare_canvas(self) -> None:
        canvas = next(iter(self._canvases))
        shown = [n for n in self.reduction.features if self.carriers.views[n].index is not None]
        if shown:
            raise UnsupportedError(
                f"canvas {canvas!r} has a prior and its view {shown[0]!r} has potentials of its own: state the "
                "correlations either on the canvas (Eq. 11) or between its views (Eq. 13)",
                name=canvas,
            )
        self._canvas_plan = compile(self.graph)
        self._views = {}
        for name in self.graph.trajectories:
            view = self.carriers.views[name]
            carrier = self.carriers.carriers[view.carrier].name
            if carrier in self._canvases and view.index is not None:
                self._views[name] = view_prior(self._canvases[carrier], view.index)

    def _prepare(self) -> None:
        graph = self.reduction.graph
        self._own: dict[Name, OwnPrior] = {}
        self._priors: dict[Name, Tensor] = {}  # what Eq. 8 compares C_i with
        if self._canvases or not self.reduction.features:
            self._plan = None
            return
        for name in self.reduction.features:
            own = own_prior(graph, name)
            if not own.known:
                if (variance := self.posterior_covariance.prior_variance) is not None:
                    own = own._replace(precision=torch.full_like(own.precision, 1 / variance), known=True)
                elif not self.posterior_covariance.asks:
                    raise ParameterError(
                        f"no potential around {name!r} states a marginal, so the posterior covariance of Eq. 4 by "
                        f"{self.posterior_covariance!r} is not determined; pass posterior_covariance='denoiser', or a "
                        "number: the variance of its contents",
                        name=name,
                    )
            self._own[name] = own
            if self.posterior_covariance.guarded and own.known:
                self._priors[name] = completed(own.precision)
        if self.noise is not None:
            graph.add_factor(NOISE_FACTOR, list(self.reduction.features), Likelihood())
            self._largest_noise = torch.linalg.eigvalsh(self.noise.covariance)[-1].item()
        self._plan = compile(graph)
        sizes = {name: feature.out_size for name, feature in self.reduction.features.items()}
        self.posterior_covariance.check(sizes)
        joint = self.posterior_covariance.guarded and sum(sizes.values()) <= LARGEST_JOINT and not graph.hidden
        joint = joint and all(own.known for own in self._own.values())
        # Under correlated noise the residual of Eq. 6 grows with snr; over a floored precision, which does not, it
        # would overshoot at low noise. There every node pays for the negative part of its term (see _evidence).
        joint = joint and self.noise is None
        self._floored = joint
        if joint:
            zero = torch.zeros((), dtype=torch.float64)
            prior = {
                name: Gaussian(own, zero.expand(len(own)), zero) for name, own in self._priors.items()
            }
            self._prior = dense_joint(graph, prior, self._plan.sites).precision
        # Noise that correlates couples everything with everything, and elimination node by node has nothing to gain
        self._dense = joint or (self.noise is not None and not graph.hidden)
        if self._dense:
            self._coupling = dense_joint(graph, None, self._plan.sites)

    @property
    def on_canvas(self) -> bool:
        """Whether a canvas has a prior of its own (Eq. 11), which needs no posterior covariance."""
        return bool(self._canvases)

    @property
    def shares_noise(self) -> bool:
        """Whether trajectories have noise in common, on a canvas or correlated (Eq. 5')."""
        return self.on_canvas or self.carriers.shared or self.noise is not None

    def correlated(self, white: Sequence[Tensor]) -> list[Tensor]:
        """`white` noise ``(batch, *shape)`` per carrier, correlated as `noise_correlation` says (Eq. 5')."""
        if not self.correlates or self.noise is None:
            return list(white)
        return noise_models.correlate(self.noise, self.reduction, white, self.carriers)

    def with_settings(
        self, posterior_covariance: PosteriorCovariance, canvas_weights: CanvasWeights | None
    ) -> JointDenoiser:
        """The same graph, compiled once, with other scales of the posterior covariance and other canvas weights."""
        guarded = posterior_covariance.guarded
        if guarded != self.posterior_covariance.guarded or posterior_covariance.asks != self.posterior_covariance.asks:
            return JointDenoiser(
                self.graph, posterior_covariance, self.noise_correlation, self.couple, canvas_weights
            )
        other = copy.copy(self)
        other.posterior_covariance, other.canvas_weights = posterior_covariance, canvas_weights
        return other

    @property
    def needs_covariance(self) -> dict[Name, Any]:
        """The features whose posterior covariance the denoiser of each trajectory is asked for."""
        if not self.posterior_covariance.asks or not self.couple:
            return {}
        return dict(self.reduction.features) if not self._canvases else {}

    def ask(
        self, denoisers: Mapping[Name, Denoiser], noisy: Mapping[Name, Tensor], level: NoiseLevel
    ) -> tuple[dict[Name, Tensor], dict[Name, Tensor]]:
        """What a call needs of every trajectory's denoiser: means ``(batch, *shape)``, and covariances where wanted.

        `denoisers` and `noisy` are by trajectory, all at one `level`.
        """
        wanted = self.needs_covariance
        means, covariances = {}, {}
        for name, x in noisy.items():
            if name in wanted:
                asked = self.posterior_covariance.denoiser(denoisers[name])
                means[name], covariances[name] = asked.posterior(x, level, None, wanted[name])
            else:
                means[name] = denoisers[name].denoise(x, level)
        return means, covariances

    def __call__(
        self,
        noisy: Mapping[Name, Tensor],
        denoised: Mapping[Name, Tensor],
        level: NoiseLevel | Mapping[Name, NoiseLevel],
        covariances: Mapping[Name, Tensor] | None = None,
        tilt: Mapping[Name, Tensor] | None = None,
    ) -> JointDenoised:
        """Correct `denoised` ``(batch, *shape)`` per trajectory, all at one noise level or each at its own.

        With a `level` per trajectory, states of one signal-to-noise ratio may be in coordinates of their own (variance
        preserving, variance exploding, flow). Other ratios enter Eq. 5 as they are, each in its own C_i, which is exact
        while noises are independent; shared and correlated noise is only known between states of one ratio.

        `covariances` gives Cov[F x_0 | x_t], ``(batch, r, r)``, for every trajectory in `needs_covariance`. What no
        potential couples comes back as the same tensor. With `tilt`, ``(batch, *features)`` per coupled trajectory,
        `denoised` and `covariances` are of posteriors times ``exp(h' u)`` already (`score.tilt`). Raises
        NotFiniteError, ImproperGraphError; UnknownNameError, UnsupportedError about levels.
        """
        mean = dict(denoised)
        noisy, levels = self._levels(noisy, level)
        capped, guard, tilted = 0.0, Guard(), dict[Name, Tensor]()
        if self.couple and self._canvases:
            mean.update(self._on_canvas(noisy, denoised, next(iter(levels.values()))))
        elif self.couple and self._plan is not None:
            corrections, capped, guard, tilted = self._correct(noisy, denoised, levels, covariances or {}, tilt or {})
            mean.update({name: denoised[name] + delta for name, delta in corrections.items()})
        if self.carriers.shared:
            level = next(iter(levels.values()))
            weights = None if self.canvas_weights is None else self.canvas_weights.at(level, self.carriers)
            carried = self.carriers.gather(mean, weights)
            mean = {name: self.carriers.view(carried, name) for name in mean}
        else:
            carried = [mean[carrier.name] for carrier in self.carriers.carriers]
        return JointDenoised(mean, carried, capped, guard, tilted)

    def _levels(
        self, noisy: Mapping[Name, Tensor], level: NoiseLevel | Mapping[Name, NoiseLevel]
    ) -> tuple[Mapping[Name, Tensor], dict[Name, NoiseLevel]]:
        """States and their levels in one kind of coordinates, and one level where the noise model wants that."""
        if not isinstance(level, Mapping):
            return noisy, dict.fromkeys(noisy, level)
        missing = [name for name in noisy if name not in level]
        if missing:
            raise UnknownNameError(f"level: {missing[0]!r} has none", name=missing[0])
        levels, states = {}, {}
        for name, state in noisy.items():
            levels[name], scale = normalised(level[name])
            states[name] = state / expand(scale, state, state.ndim - 1)
        if self.shares_noise:
            first, *others = levels
            for name in others:
                if not same_level(levels[first], levels[name]):
                    raise UnsupportedError(
                        f"trajectories with shared or correlated noise need one noise level, but {first!r} has a "
                        f"signal-to-noise ratio of {float(levels[first].snr):.4g} and {name!r} one of "
                        f"{float(levels[name].snr):.4g}; give them schedules with the same levels, or tie them by "
                        "potentials without a canvas, and noise_correlation=0",
                        name=name,
                    )
        return states, levels

    def _correct(
        self,
        noisy: Mapping[Name, Tensor],
        denoised: Mapping[Name, Tensor],
        levels: dict[Name, NoiseLevel],
        covariances: Mapping[Name, Tensor],
        tilt: Mapping[Name, Tensor],
    ) -> tuple[dict[Name, Tensor], float, Guard, dict[Name, Tensor]]:
        """Eq. 5, 5' and 6 in features; the lifted corrections ``F' (u_joint - F m)``, and the tilt that they imply."""
        features = self.reduction.features
        own = {name: f.apply(denoised[name]) for name, f in features.items()}
        seen = {name: f.apply(noisy[name]) for name, f in features.items()}
        annealed = isinstance(self.posterior_covariance, Annealed)
        means = {name: self._gaussian_mean(name, x, levels[name]) for name, x in seen.items()} if annealed else own
        capped: dict[Name, Tensor] = {}
        evidence: dict[Name, Any] = {
            name: self._evidence(name, means[name], levels[name], covariances.get(name), capped) for name in features
        }
        if self.noise is not None:
            states = torch.cat([x.flatten(1) for x in seen.values()], 1)
            evidence[NOISE_FACTOR] = noise_models.likelihood(self.noise, next(iter(levels.values())), states)
        guard = Guard()
        solved = self._solve_dense(means, evidence, tilt) if self._dense else None
        if solved is not None:
            joint, raised, implied = solved
        else:
            assert self._plan is not None
            posterior = infer(self._plan, {**evidence, **{n: _tilted(evidence[n], h) for n, h in tilt.items()}})
            joint = {name: posterior.mean[name] for name in features}
            # Eq. 6: eta_c - K m_joint = C^{-1} (m_joint - m) + h
            implied = {name: _times(evidence[name], joint[name] - own[name]) for name in features}
            implied = {name: h + tilt[name] if name in tilt else h for name, h in implied.items()}
        if self._floored:
            share, guard = raised.item(), Guard("joint")
        else:
            by_node = {name: fraction.item() for name, fraction in capped.items()}
            share = sum(by_node.values()) / len(by_node) if by_node else 0.0
            guard = Guard("nodes", by_node) if by_node else guard
        if annealed:
            joint = self._annealed(joint, own, means)
        corrections = {name: f.adjoint(joint[name] - own[name]) for name, f in features.items()}
        return corrections, share, guard, {} if annealed else implied

    def _gaussian_mean(self, name: Name, seen: Tensor, level: NoiseLevel) -> Tensor:
        """``E[u | F x_t]`` under g_i alone, ``(batch, *features)``."""
        prior = self._own[name]
        precision, eta = prior.precision.to(seen), prior.eta.to(seen)
        right = eta + level.alpha / level.sigma**2 * seen.flatten(1)
        if precision.ndim == 1:
            solved = right / (precision + level.snr)
        else:
            eye = torch.eye(len(precision), dtype=seen.dtype, device=seen.device)
            solved = torch.linalg.solve(precision + level.snr * eye, right.mT).mT
        return solved.reshape(seen.shape)

    def _annealed(
        self, joint: dict[Name, Tensor], own: dict[Name, Tensor], gaussian: dict[Name, Tensor]
    ) -> dict[Name, Tensor]:
        """``m^g + R (m - (m_i^g)_i)``: Tweedie's formula with noise covariance R for the annealed product.

        R multiplies the nodes' own scores beyond g's, ``alpha (m_i - m_i^g) / sigma^2``; m^g is the joint mean under g.
        """
        sizes = [value[0].numel() for value in own.values()]
        excess = torch.cat([(own[name] - gaussian[name]).flatten(1) for name in own], 1)
        if self.noise is not None:
            excess = excess @ self.noise.covariance.to(excess)
        parts = excess.split(sizes, 1)
        return {
            name: joint[name] + part.reshape(own[name].shape) for name, part in zip(own, parts, strict=True)
        }

    def _evidence(
        self, name: Name, mean: Tensor, level: NoiseLevel, covariance: Tensor | None, capped: dict[Name, Tensor]
    ) -> Any:
        prior = self._own[name].precision.to(mean)
        scale = self.posterior_covariance.scale(name, level)
        scale = None if scale is None else scale.to(mean)
        if covariance is None and prior.ndim == 1 and not self._floored:
            precision = prior + level.snr
            if scale is not None:
                precision = precision / scale
                capped[name] = (precision < prior).to(mean.dtype).mean()
                precision = torch.maximum(precision, prior)
            return mean, precision.reshape(mean.shape[1:])
        if covariance is None:
            precision = _matrix(prior) + level.snr * torch.eye(len(prior), dtype=prior.dtype, device=prior.device)
            covariance = None if scale is None else torch.linalg.inv(precision)
        if covariance is not None:
            if scale is not None:
                root = scale.sqrt()
                covariance = root[..., :, None] * covariance * root if scale.ndim else scale * covariance
            widest = torch.inf if self._floored else 1.0
            known = self._priors.get(name)
            if known is not None and self.noise is not None:
                # snr (R^{-1} - I) of Eq. 5' is negative along the largest eigenvalue of R, which Eq. 8 must pay for:
                # with C_i^{-1} >= Sigma_ii^{-1} + snr (1 - 1 / max) again Lambda >= Sigma^{-1}
                share = level.snr * (1 - 1 / self._largest_noise)
                known = known + share * torch.eye(len(known), dtype=known.dtype, device=known.device)
            precision, capped[name] = guarded_precision(covariance, known, widest)
        flat = mean.flatten(1)
        eta = flat @ precision if precision.ndim == 2 else (precision @ flat.unsqueeze(-1)).squeeze(-1)
        return Gaussian(precision, eta, flat.new_zeros(()))

    def _solve_dense(
        self, own: dict[Name, Tensor], evidence: dict[Name, Any], tilt: Mapping[Name, Tensor]
    ) -> tuple[dict[Name, Tensor], Tensor, dict[Name, Tensor]] | None:
        """Eq. 6 in residual form, ``m + Lambda^{-1} (eta - Lambda m)``, with a floor on Lambda where Eq. 8 wants it.

        The residual form leaves m alone where nothing couples, whatever the floor does to Lambda. Also returns the
        fraction of directions that were raised, and the tilt. None where Lambda is not positive definite, for an
        engine that says why.
        """
        flat = torch.cat([value.flatten(1) for value in own.values()], 1)
        sizes = [value[0].numel() for value in own.values()]
        coupling, eta = self._coupling.precision.to(flat), self._coupling.eta.to(flat)
        if NOISE_FACTOR in evidence:
            extra = evidence[NOISE_FACTOR]
            coupling, eta = coupling + extra.precision, eta + extra.eta
        residual = eta - flat @ coupling
        if tilt:
            residual = residual - torch.cat([tilt[name].flatten(1) for name in own], 1)
        blocks = [_precision(evidence[name]) for name in own]
        batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks), (1,))
        precision = coupling.expand(*batch, -1, -1).clone()
        start = 0
        for block, size in zip(blocks, sizes, strict=True):
            precision[:, start : start + size, start : start + size] += block
            start += size
        if self._floored:
            delta, raised = floored_solve(precision, residual, self._prior, FLOOR)
        else:
            factor, failed = torch.linalg.cholesky_ex(precision)
            if bool(failed.any()):
                return None
            delta = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
            raised = delta.new_zeros(())
        joint = flat + delta

        def by_name(values: Tensor) -> dict[Name, Tensor]:
            parts = values.split(sizes, 1)
            return {name: part.reshape(own[name].shape) for name, part in zip(own, parts, strict=True)}

        return by_name(joint), raised, by_name(eta - joint @ coupling)

    def _on_canvas(
        self, noisy: Mapping[Name, Tensor], denoised: Mapping[Name, Tensor], level: NoiseLevel
    ) -> dict[Name, Tensor]:
        """Eq. 11: every view moves by what the Gaussian canvas knows beyond the Gaussian view."""
        states = self.carriers.gather(noisy)
        evidence = {
            name: (states[self.carriers.views[name].carrier] / level.alpha, level.snr)
            for name in self._canvases
        }
        posterior = infer(self._canvas_plan, evidence)
        return {
            name: denoised[name] + (posterior.mean[name] - prior.denoised(noisy[name], level))
            for name, prior in self._views.items()
        }


def score_from_denoised(denoised: Tensor, noisy: Tensor, level: NoiseLevel) -> Tensor:
    """Gradient of the log density of x_t, ``(alpha m - x_t) / sigma^2``, from the (joint) denoised content (Eq. 7).

    `denoised` and `noisy` are ``(*batch, *shape)`` at one `level`. With contents N(0, 1) at a variance preserving
    level, x_t is N(0, 1) too, whose score is ``-x_t``:

    >>> import torch, pgm_sync as ps
    >>> noisy, level = torch.tensor([2.0]), ps.NoiseLevel(alpha=0.8, sigma=0.6)
    >>> ps.score_from_denoised(level.alpha * noisy, noisy, level)
    tensor([-2.0000])
    """
    return (level.alpha * denoised - noisy) / level.sigma**2


def epsilon_from_denoised(denoised: Tensor, noisy: Tensor, level: NoiseLevel) -> Tensor:
    """The noise prediction ``(x_t - alpha m) / sigma`` that belongs to a denoised content (Eq. 7).

    `denoised` and `noisy` are ``(*batch, *shape)`` at one `level`.

    >>> import torch, pgm_sync as ps
    >>> content, noise, level = torch.tensor([2.0]), torch.tensor([-1.0]), ps.NoiseLevel(alpha=0.8, sigma=0.6)
    >>> ps.epsilon_from_denoised(content, level.alpha * content + level.sigma * noise, level)
    tensor([-1.])
    """
    return (noisy - level.alpha * denoised) / level.sigma


class ViewPrior(NamedTuple):
    """A view's marginal under the canvas prior, as an eigendecomposition of its covariance."""

    mean: Tensor  # (D,)
    variances: Tensor  # (D,)
    basis: Tensor  # (D, D)

    def denoised(self, noisy: Tensor, level: NoiseLevel) -> Tensor:
        """``E[x_0 | x_t]`` under this Gaussian alone, ``(batch, *shape)``."""
        mean, variances, basis = (part.to(noisy) for part in self)
        offset = (noisy.flatten(1) - level.alpha * mean) @ basis
        gain = level.alpha * variances / (level.alpha**2 * variances + level.sigma**2)
        return (mean + (gain * offset) @ basis.mT).reshape(noisy.shape)


def view_prior(stated: NodeMarginal, index: Tensor) -> ViewPrior:
    """The marginal of ``A_i z``, the elements `index` of a canvas with the given marginal."""
    covariance = full_covariance(stated.marginal)[index[:, None], index]
    values, basis = torch.linalg.eigh(covariance)
    return ViewPrior(stated.marginal.mean[index], values.clamp_min(0), basis)


def canvas_priors(graph: FactorGraph, carriers: Carriers) -> dict[Name, NodeMarginal]:
    """The hidden canvases that have a Gaussian of their own (Eq. 11).

    Raises UnsupportedError for a canvas with potentials that state no marginal, or that see only a part of it.
    """
    priors = {}
    for name in graph.hidden:
        if name not in carriers.views:
            continue
        factors = [f for f in graph.adj[name] if not isinstance(graph.potential(f), StructuralPotential)]
        if not factors:
            continue
        stated = node_marginal(graph, name)
        if stated is None or not isinstance(stated.map, Identity):
            raise UnsupportedError(
                f"canvas {name!r} has the factor {factors[0]!r} but no Gaussian over all of its elements; give it one: "
                f"graph.add_factor('prior', [{name!r}], JointGaussian(mean, covariance))",
                name=name,
                factor=factors[0],
            )
        priors[name] = stated
    return priors


def _tilted(evidence: Any, h: Tensor) -> Any:
    """Evidence of a posterior that was multiplied with ``exp(h' u)``, without that factor."""
    if isinstance(evidence, Gaussian):
        return evidence._replace(eta=evidence.eta - h.flatten(1))
    mean, precision = evidence
    return mean - h / precision, precision


def _precision(evidence: Any) -> Tensor:
    """``C^{-1}`` of some evidence as a matrix, ``(*batch, r, r)``."""
    return evidence.precision if isinstance(evidence, Gaussian) else torch.diag(evidence[1].flatten())


def _times(evidence: Any, change: Tensor) -> Tensor:
    """``C^{-1}`` of some evidence times a change of its mean, ``(batch, *features)``."""
    if not isinstance(evidence, Gaussian):
        return evidence[1] * change
    flat = change.flatten(1)
    return (evidence.precision @ flat.unsqueeze(-1)).squeeze(-1).reshape(change.shape)


def _matrix(precision: Tensor) -> Tensor:
    return torch.diag(precision) if precision.ndim == 1 else precision
