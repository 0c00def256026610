"""Joints of two to four trajectories with exactly known truth: a table of mode probabilities, and a spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

import pgm_sync as ps
from pgm_sync.metrics import Z95, Estimate

SPREAD = 0.15
TURN = 100  # degrees from a trajectory to the next


@dataclass(frozen=True)
class ModeJoint:
    """``sum_k table[k] prod_i N(centres[i][k_i], SPREAD^2 I)`` over contents of two numbers per trajectory."""

    title: str
    relation: str  # what the table says, for the reader
    centres: tuple[Tensor, ...]  # (K_i, 2) per trajectory
    table: Tensor  # (K_1, ..., K_N)
    edges: tuple[tuple[int, int], ...]
    compatible: Callable[..., bool]  # of the modes of all trajectories
    maps: tuple[Tensor, ...]  # (2, 2): what SyncSDE is told of trajectory j from j - 1

    @property
    def size(self) -> int:
        return len(self.centres)

    @property
    def share(self) -> float:
        """True probability of a compatible combination."""
        return float((self.table * self._mask()).sum())

    def draw(self, n: int, seed: int) -> Tensor:  # (n, 2 N)
        generator = torch.Generator().manual_seed(seed)
        cells = torch.multinomial(self.table.flatten(), n, replacement=True, generator=generator)
        modes = torch.unravel_index(cells, self.table.shape)
        means = torch.cat([c[k] for c, k in zip(self.centres, modes, strict=True)], 1)
        return means + SPREAD * torch.randn(means.shape, generator=generator, dtype=torch.float64)

    def denoisers(self) -> dict[int, ps.MixtureDenoiser]:
        """Exact, each of its own marginal."""
        out = {}
        for i, centres in enumerate(self.centres):
            weights = self._marginal(i)
            spread = (SPREAD**2 * torch.eye(2, dtype=torch.float64)).expand(len(centres), 2, 2)
            out[i] = ps.MixtureDenoiser(weights, centres, spread)
        return out

    def graph(self) -> ps.FactorGraph:
        graph = ps.FactorGraph()
        for i in range(self.size):
            graph.add_trajectory(i, (2,))
        for edge in self.edges:
            graph.add_factor(edge, list(edge), ps.JointGaussian())
        return graph

    def modes(self, x: Tensor) -> Tensor:  # (n, 2 N) -> (n, N)
        return torch.stack(
            [torch.cdist(part, c).argmin(1) for part, c in zip(x.split(2, 1), self.centres, strict=True)], 1
        )

    def compatibility(self, x: Tensor) -> tuple[int, int]:
        good = self._mask()[tuple(self.modes(x).T)]
        return int(good.sum()), len(x)

    def mode_error(self, x: Tensor, seed: int = 0, draws: int = 400) -> Estimate:
        """Total variation between the mode tables of samples and of the truth, mean over edges.

        The interval is a bootstrap's; with n samples the value of perfect ones is about ``.4 sqrt(cells / n)``, not 0.
        """
        modes = self.modes(x)
        generator = torch.Generator().manual_seed(seed)
        weights = torch.full((len(x),), len(x), dtype=torch.float64)
        counts = torch.multinomial(weights, draws * len(x), replacement=True, generator=generator)
        counts = counts.reshape(draws, len(x))
        values, resampled = 0.0, torch.zeros(draws, dtype=torch.float64)
        for i, j in self.edges:
            truth = self._marginal(i, j).flatten()
            cell = modes[:, i] * self.table.shape[j] + modes[:, j]
            found = torch.bincount(cell, minlength=len(truth)).double() / len(x)
            values += 0.5 * float((found - truth).abs().sum()) / len(self.edges)
            for d in range(draws):
                again = torch.bincount(cell[counts[d]], minlength=len(truth)).double() / len(x)
                resampled[d] += 0.5 * (again - truth).abs().sum() / len(self.edges)
        half = Z95 * resampled.std().item()
        return Estimate(values, max(values - half, 0.0), values + half, len(x))

    def _marginal(self, *kept: int) -> Tensor:
        others = [k for k in range(self.size) if k not in kept]
        return self.table.sum(others) if others else self.table

    def _mask(self) -> Tensor:
        mask = torch.zeros(self.table.shape, dtype=torch.bool)
        for modes in product(*(range(k) for k in self.table.shape)):
            mask[modes] = self.compatible(*modes)
        return mask


def circle(count: int, turn: float, first: float = 0.0) -> Tensor:
    """`count` centres on the unit circle, the first at `first` + `turn` degrees."""
    angles = torch.arange(count).double() * 2 * math.pi / count + math.radians(turn + first)
    return torch.stack([angles.cos(), angles.sin()], 1)


def rotation(degrees: float) -> Tensor:
    """What turns row vectors."""
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]], dtype=torch.float64)


def joints() -> list[ModeJoint]:
    """The near copy, three partial relations, and three and four trajectories."""
    six = torch.arange(6)
    gap = (six[:, None] - six) % 6
    step = torch.minimum(gap, 6 - gap)  # steps around the circle between two modes
    same = step == 0
    turned = [circle(6, TURN * k) for k in range(4)]
    copy = torch.where(same, 1.0, 0.0).double()
    most = torch.where(same, 0.7, 0.06).double()
    many = torch.zeros(6, 3, dtype=torch.float64)
    many[six, six // 2] = 1.0
    opposite = torch.where(step == 3, 0.5, torch.where(step == 2, 0.2, torch.where(step == 1, 0.05, 0.0))).double()
    near = torch.where(step <= 1, 1.0, 0.0).double()
    pair = ((0, 1),)
    true_map = rotation(TURN)
    chain = most / most.sum(1, keepdim=True)
    three = torch.einsum("ab,bc->abc", chain, chain)
    four = torch.einsum("ab,bc,cd,da->abcd", near, near, near, near)
    return [
        ModeJoint(
            "near copy", "the same mode in both, always", (turned[0], turned[1]), _table(copy), pair,
            lambda a, b: a == b, (true_map,),
        ),
        ModeJoint(
            "many to one", "three modes in the second, each fitting two neighbours of six",
            (turned[0], circle(3, TURN, 30)), _table(many), pair, lambda a, b: a // 2 == b, (true_map,),
        ),
        ModeJoint(
            "fractional", "the same mode with probability .7, else any other", (turned[0], turned[1]), _table(most),
            pair, lambda a, b: a == b, (true_map,),
        ),
        ModeJoint(
            "negative", "the opposite mode (.5), its neighbours (.2 each) or theirs (.05 each)",
            (turned[0], turned[0]), _table(opposite), pair, lambda a, b: (a - b) % 6 in (2, 3, 4), (-rotation(0),),
        ),
        ModeJoint(
            "chain of three", "each like its neighbour with probability .7, else any other", tuple(turned[:3]),
            _table(three), ((0, 1), (1, 2)), lambda a, b, c: a == b == c, (true_map, true_map),
        ),
        ModeJoint(
            "loop of four", "around the loop each the same mode as the last or one beside it", tuple(turned),
            _table(four), ((0, 1), (1, 2), (2, 3), (3, 0)), _close, (true_map,) * 3,
        ),
    ]  # fmt: skip


def _close(*modes: int) -> bool:
    return all((a - b) % 6 in (0, 1, 5) for a, b in pairwise([*modes, modes[0]]))


def _table(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def best_linear_map(x: Tensor, source: int, target: int) -> Tensor:  # (n, 2 N) -> (2, 2)
    """Least squares ``x_target ~ x_source @ map``, from joint contents."""
    a, b = x[:, 2 * source : 2 * source + 2], x[:, 2 * target : 2 * target + 2]
    return torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution


def stacked(samples: dict[int, Tensor] | Sequence[Tensor]) -> Tensor:
    parts = samples.values() if isinstance(samples, dict) else samples
    return torch.cat(list(parts), 1)
