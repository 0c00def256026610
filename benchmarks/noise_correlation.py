"""How strongly to correlate noises: the likelihood bound beside what samples say, deterministic and stochastic."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import math
from typing import Any

import torch
from _mixtures import ModeJoint, joints, stacked
from diffusers import DDIMScheduler
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.learning import NoiseCorrelation
from pgm_sync.metrics import energy_distance, proportion
from pgm_sync.score import NoisyMixture, joint_mixture, noise_covariance

CORRELATIONS = (0.0, 0.3, 0.6, 0.9, 0.98)
KINDS = {"surrogate": "surrogate C", "denoiser": "denoisers' C"}
BANDWIDTH = 0.1  # of the digits' kernel denoisers


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def bound_text(found: NoiseCorrelation, k: int) -> str:
    mark = " *" if found.correlations[k] == found.best else ""
    return f"{found.excess[k]:.3f} +- {found.excess_errors[k]:.3f}{mark}"


class Pair:
    """The near copy, with Eq. 1 as the truth, so that nothing but the sampler is judged."""

    def __init__(self, n: int):
        self.joint: ModeJoint = joints()[0]
        self.n, self.denoisers = n, self.joint.denoisers()
        self.fitted = self.fit(5000)
        self.mixture = joint_mixture(self.fitted, self.denoisers)
        self.truth = self.draw(n, 2)

    def fit(self, count: int) -> ps.FactorGraph:
        parts = self.joint.draw(count, seed=1).split(2, 1)
        return ps.fit(self.joint.graph(), dict(enumerate(parts)))

    def draw(self, n: int, seed: int) -> Tensor:
        return self.mixture.sample(n, generator=torch.Generator().manual_seed(seed))

    def sample(self, steps: int, eta: float, c: float, kind: str, graph: ps.FactorGraph | None = None) -> Tensor:
        options: dict[str, Any] = {"dtype": torch.float64, "progress": False, "eta": eta}
        if kind == "exact":  # R^{-1/2} x_t carries white noise: one trajectory with the closed-form denoiser
            exact = NoisyMixture(self.mixture, noise_covariance(self.fitted, c))
            whole = ps.FactorGraph()
            whole.add_trajectory("both", (4,))
            result = ps.sample(whole, exact.white, scheduler(), steps, self.n, 0, **options)
            return result.samples["both"] @ exact.root.T
        result = ps.sample(
            graph or self.fitted, self.denoisers, scheduler(), steps, self.n, 0,
            posterior_covariance=kind, noise_correlation=c, **options,
        )  # fmt: skip
        return stacked([result.samples[k] for k in (0, 1)])

    def match(self, x: Tensor) -> str:
        share = proportion(*self.joint.compatibility(x))
        return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def choice_on_mixtures(pair: Pair, heldout: int) -> str:
    rows: list[list[object]] = [
        ["C", "c", "bound, excess", "bound - entropy", "modes match, eta 0", "eta 1", "distance, eta 0", "eta 1"]
    ]
    x = pair.draw(heldout, 5)
    exact = NoisyMixture(pair.mixture, torch.eye(4, dtype=torch.float64))
    entropy = -exact.log_density(x, ps.NoiseLevel(1.0, 1e-6)).mean().item()
    for kind, title in KINDS.items():
        found = ps.choose_noise_correlation(
            pair.fitted, pair.denoisers, dict(enumerate(x.split(2, 1))), correlations=CORRELATIONS,
            posterior_covariance=kind,
        )  # fmt: skip
        for k, c in enumerate(tqdm(CORRELATIONS, desc=f"mixtures, {kind}")):
            drawn = [pair.sample(100, eta, c, kind) for eta in (0.0, 1.0)]
            distances = [str(energy_distance(y, pair.truth)).partition(" (")[0] for y in drawn]
            gap = f"{found.bounds[k] - entropy:.3f}"
            rows.append(
                [title, f"{c:g}", bound_text(found, k), gap, *(pair.match(y) for y in drawn), *distances]
            )
    return table(rows)


def causes(pair: Pair) -> str:
    rows: list[list[object]] = [["joint denoiser", "c", "eta", "25 steps", "100 steps", "250 steps"]]
    coarse = pair.fit(200)
    cases = [
        ("exact (closed form)", "exact", None),
        ("surrogate C", "surrogate", None),
        ("denoisers' C", "denoiser", None),
        ("denoisers' C, fitted on 200", "denoiser", coarse),
    ]
    for title, kind, graph in tqdm(cases, desc="causes"):
        for c in (0.0, 0.98) if graph is not None else (0.0, 0.9, 0.98):
            for eta in (0.0, 1.0):
                matches = [pair.match(pair.sample(steps, eta, c, kind, graph)) for steps in (25, 100, 250)]
                rows.append([title, f"{c:g}", f"{eta:g}", *matches])
    return table(rows)


def choice_on_digits(n: int, heldout: int) -> str:
    generator = torch.Generator().manual_seed(0)
    digits = torch.tensor(load_digits().images / 8 - 1).double()[:, None]
    digits = digits[torch.randperm(len(digits), generator=generator)]
    train, held = digits[:1000], digits[1000:]
    graph = ps.FactorGraph()
    for name in ("left", "right"):
        graph.add_trajectory(name, (1, 8, 4))
    graph.add_factor("seam", ["left", "right"], ps.JointGaussian())

    def halves(x: Tensor) -> dict[str, Tensor]:
        return {"left": x[..., :4], "right": x[..., 4:]}

    fitted = ps.fit(graph, halves(train))
    denoisers = {name: ps.EmpiricalDenoiser(x, bandwidth=BANDWIDTH) for name, x in halves(train).items()}
    rows: list[list[object]] = [["C", "c", "bound, excess", "distance, eta 0", "eta 1"]]
    for kind, title in KINDS.items():
        found = ps.choose_noise_correlation(
            fitted, denoisers, halves(held[:heldout]), correlations=CORRELATIONS[::2], posterior_covariance=kind
        )
        for k, c in enumerate(tqdm(CORRELATIONS[::2], desc=f"digits, {kind}")):
            distances = []
            for eta in (0.0, 1.0):
                result = ps.sample(
                    fitted, denoisers, scheduler(), 50, n, 0, posterior_covariance=kind, noise_correlation=c,
                    eta=eta, progress=False,
                )  # fmt: skip
                x = torch.cat([result.samples["left"], result.samples["right"]], -1)
                distances.append(str(energy_distance(x, held[heldout:], scale=1)).partition(" (")[0])
            rows.append([title, f"{c:g}", bound_text(found, k), *distances])
    return table(rows)


def pairs(n: int, heldout: int) -> str:
    """Both tables of the near copy."""
    pair = Pair(n)
    half = math.ceil(100 * 1.96 * 0.5 / math.sqrt(n)) / 100
    truth = pair.match(pair.draw(20 * n, 3))
    return f"""\
NEAR COPY of benchmarks/mixtures.py, with Eq. 1 in closed form as the truth. Bound: on {heldout} contents, in nats,
above the best (*) with paired standard errors; less the entropy, it bounds the divergence from Eq. 1 to the
stochastic sampler. {n} samples, 100 DDIM steps, seed 0; 95 % intervals (+-{half} at most).

{choice_on_mixtures(pair, heldout)}


WHAT STOCHASTIC STEPS COST: share of matching modes (Eq. 1: {truth}).

{causes(pair)}"""


def digits(n: int, heldout: int) -> str:
    """The table of digit halves."""
    return f"""\
DIGIT HALVES of benchmarks/digit_halves.py: bound on {heldout} held-out digits; energy distance of {n} samples to
the other held-out digits, 50 DDIM steps.

{choice_on_digits(n, heldout)}"""


def build(quick: bool) -> str:
    return "\n\n\n".join([pairs(200, 50), digits(40, 20)] if quick else [pairs(1500, 500), digits(200, 100)])


if __name__ == "__main__":
    main("noise_correlation", build)
