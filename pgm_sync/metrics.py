"""Measures of samples, each with a 95 % interval and its sample count."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import NotFiniteError, ParameterError, ShapeError

Z95 = 1.959963984540054
NORMAL = 20  # standard errors from 0 beyond which the energy distance's error is linear, hence normal


class Estimate(NamedTuple):
    """A measured number, its 95 % interval, and the number of samples behind it.

    >>> print(Estimate(0.0046, 0.0021, 0.0071, 600))
    .0046 [.0021, .0071] (n=600)
    """

    value: float  # what was measured
    low: float  # of the interval; nan where there is none
    high: float  # of the interval
    samples: int  # n

    def __str__(self) -> str:
        value, low, high = map(_short, self[:3])
        return f"{value} [{low}, {high}] (n={self.samples})"


class Measurement(Estimate):
    """An `Estimate` that keeps what a paired comparison of two methods needs (`pgm_sync.evaluation.difference`).

    `values` holds one number per independent unit (sample, or group of samples), whose mean is `value`: of a mean
    the samples' own numbers, of another statistic its linear part. `draws` holds replicates of the statistic under
    the bootstrap, centred at `value`; `resampling` names their weights, so that draws of equal name were made with
    the same weights. Two methods of equal `values` lengths, or equal `resampling`, are compared unit by unit: row k
    of both must come from one seed, or be independent.

    >>> kept = Measurement(0.5, 0.2, 0.8, 3, values=torch.tensor([0.0, 0.5, 1.0]))
    >>> kept, kept.values.tolist()
    (Measurement(value=0.5, low=0.2, high=0.8, samples=3), [0.0, 0.5, 1.0])
    """

    values: Tensor | None = None  # (units)
    draws: Tensor | None = None  # (draws)
    resampling: str = ""

    def __new__(
        cls,
        value: float,
        low: float,
        high: float,
        samples: int,
        values: Tensor | None = None,
        draws: Tensor | None = None,
        resampling: str = "",
    ) -> Measurement:
        made = super().__new__(cls, value, low, high, samples)
        made.values, made.draws, made.resampling = values, draws, resampling
        return made


def proportion(successes: int, n: int) -> Estimate:
    """A share of n independent trials, with Wilson's interval.

    >>> print(proportion(8, 10))
    .8000 [.4902, .9433] (n=10)

    Raises ParameterError unless ``0 <= successes <= n`` and ``n > 0``.
    """
    if not 0 <= successes <= n or n == 0:
        raise ParameterError(f"{successes} successes in {n} trials: need 0 <= successes <= n, n > 0", n=n)
    share, z2 = successes / n, Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding leaves 1e-17
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return Estimate(share, low, high, n)


def far_correlation(
    pictures: Tensor,  # (n, ..., W)
    window: int,
    far: int | None = None,
    groups: Sequence[Hashable] | Tensor | None = None,  # (n,)
) -> Measurement:
    """Correlation, over pictures, of the mean brightness of `window` columns from 0 and from `far` on.

    `pictures` are ``(n, ..., W)``. `far` is by default ``W - window``: the first and the last columns. The interval is
    a jackknife on Fisher's scale, which Gaussian pictures do not need and others do. `groups` labels pictures that are
    not independent (crops of one photograph): whole groups are then left out, and the interval is Student's with one
    degree of freedom less than there are groups.

    >>> pictures = torch.tensor([[1.0, 0.0, 1.0], [2.0, 5.0, 2.0], [3.0, 1.0, 3.0], [4.0, 1.0, 5.0]])
    >>> round(far_correlation(pictures, window=1).value, 3)
    0.983

    Raises ShapeError, ParameterError.
    """
    n, columns = len(pictures), pictures.shape[-1]
    far = columns - window if far is None else far
    if not (0 < window <= columns and 0 <= far <= columns - window):
        raise ShapeError(f"pictures of {columns} columns have no {window} columns from 0 and from {far} on")
    ends = (pictures[..., :window], pictures[..., far : far + window])
    left, right = (end.double().flatten(1).mean(1) for end in ends)

    def statistic(weights: Tensor) -> Tensor:  # (..., n) -> (...), on Fisher's scale
        w = weights / weights.sum(-1, keepdim=True)
        a, b = (x - (w * x).sum(-1, keepdim=True) for x in (left, right))
        covariance = (w * a * b).sum(-1)
        scale = ((w * a * a).sum(-1) * (w * b * b).sum(-1)).sqrt()
        return torch.atanh((covariance / scale).clamp(-1 + 1e-12, 1 - 1e-12))

    z = jackknife(statistic, n, groups)
    value = math.tanh(z.value)
    values = None if z.values is None else value + (1 - value**2) * (z.values - z.value)
    return Measurement(value, math.tanh(z.low), math.tanh(z.high), n, values)


def energy_distance(
    x: Tensor,  # (n, *shape)
    y: Tensor,  # (m, *shape)
    scale: float | None = None,
    draws: int = 0,
    seed: int = 0,
) -> Measurement:
    """Unbiased energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|``; 0 for equal distributions.

    ``|.|`` is the Euclidean norm divided by `scale`; by default by the square root of the dimension, which makes it
    the root mean square over all elements, so that numbers of different dimensions compare. Being unbiased, the
    value can come out below 0.

    The interval takes both samples as random, their rows as independent, and holds whether the distributions
    differ or not. With equal distributions the statistic degenerates: its linear (Hoeffding) part vanishes, and a
    jackknife misses what is left (coverage down to .77). T = value + bias is the squared length of a difference of
    mean embeddings, so it is taken as ``scale * chi^2(df, noncentrality)``: the noncentral part is the distance,
    ``scale * df`` the bias, and the scale is the larger of those that give the jackknife's variance and, from
    centred distance matrices, the variance under equal distributions. The ends are the distances at which T is a
    97.5 % and a 2.5 % quantile, widened to hold the value, which alone can lie below 0. Measured coverage is .93
    to .99 between no difference and a large one, in 1 and in 10 dimensions.

    Costs ``(n + m)^2`` numbers of memory. `samples` is n. With `draws`, that many bootstrap replicates are kept, from
    `seed`, for paired comparisons of two methods with the same reference y.

    Raises ShapeError, NotFiniteError, ParameterError on a scale that is not positive.

    >>> x, y = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> energy_distance(x, y).low < 0 < energy_distance(x + 1, y).low  # equal and different distributions
    True
    """
    if x.shape[1:] != y.shape[1:] or x.ndim == 0 or y.ndim == 0:
        raise ShapeError(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)} do not compare")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ShapeError(f"an unbiased energy distance needs 2 samples of each kind, got {n} and {m}")
    unit = math.sqrt(max(1, x[0].numel())) if scale is None else scale
    if not unit > 0:
        raise ParameterError(f"scale={scale} must be positive", scale=scale)
    a, b = (p.detach().double().reshape(len(p), -1) / unit for p in (x, y))
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise NotFiniteError("energy distance of samples with NaN or infinite numbers")
    # Pooled mean off: cdist multiplies matrices, and loses digits to a large common offset.
    center = torch.cat([a, b]).mean(0)
    a, b = a - center, b - center
    within = [torch.cdist(p, p).fill_diagonal_(0) for p in (a, b)]
    return squared_discrepancy(within[0], within[1], torch.cdist(a, b), draws=draws, seed=seed)


def squared_discrepancy(
    within_x: Tensor,  # (n, n)
    within_y: Tensor,  # (m, m)
    between: Tensor,  # (n, m)
    groups: Sequence[Hashable] | Tensor | None = None,  # (n)
    reference_groups: Sequence[Hashable] | Tensor | None = None,  # (m)
    draws: int = 0,
    seed: int = 0,
) -> Measurement:
    """Unbiased ``2 E d(x, y) - E d(x, x') - E d(y, y')`` from matrices of d, diagonals included.

    The matrices are `within_x` ``(n, n)``, `within_y` ``(m, m)`` and `between` ``(n, m)``. d is conditionally negative:
    a distance (energy distance), or the negative of a kernel (squared maximum mean discrepancy). The interval is that
    of `energy_distance`. Samples of one group are not independent: `groups` and `reference_groups` are averaged first,
    so that each counts once and no pair is taken within one. With `draws`, keeps that many bootstrap replicates from
    `seed`; a unit drawn twice is no pair of its own, so that every replicate is as unbiased as the whole. `samples` is
    n, in units.

    >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [12.0]])
    >>> squared_discrepancy(torch.cdist(x, x), torch.cdist(y, y), torch.cdist(x, y)).value  # 2 * 10 - 2 - 2
    16.0

    Raises ShapeError on fewer than 2 units of either kind.
    """
    samples = len(within_x)
    p, q = _averaging(samples, groups), _averaging(len(within_y), reference_groups)
    if p is not None:
        p = p.to(between)
        within_x, between = p @ within_x @ p.T, p @ between
    if q is not None:
        q = q.to(between)
        within_y, between = q @ within_y @ q.T, between @ q.T
    n, m = between.shape
    if min(n, m) < 2:
        raise ShapeError(f"an unbiased discrepancy needs 2 independent samples of each kind, got {n} and {m}")
    own = [float(d.diagonal().mean()) for d in (within_x, within_y)]
    within = [d.clone().fill_diagonal_(0) for d in (within_x, within_y)]
    means = [d.sum(1) / (len(d) - 1) for d in within]  # (n,), (m,): mean distance to the others
    value = float(2 * between.mean() - means[0].mean() - means[1].mean())
    replicates, name = None, ""
    if draws:
        name = f"{n} against {m}, {draws} draws, seed {seed}"
        generator = torch.Generator().manual_seed(seed)
        w, v = (bootstrap_weights(k, None, draws, generator).to(between) for k in (n, m))
        pairs = [(len(d) ** 2 - u.square().sum(1)).clamp_min(1) for u, d in ((w, within_x), (v, within_y))]
        replicates = 2 * (w @ between * v).sum(1) / (n * m)
        for u, d, count in zip((w, v), within, pairs, strict=True):
            replicates = replicates - (u @ d * u).sum(1) / count
        replicates = (replicates - replicates.mean() + value).cpu()
    if min(n, m) < 4:
        return Measurement(value, math.nan, math.nan, n, None, replicates, name)
    bias = float(means[0].mean() - own[0]) / n + float(means[1].mean() - own[1]) / m
    along = 4 * float((between.mean(1) - means[0]).var() / n + (between.mean(0) - means[1]).var() / m)
    degenerate = 2 * _own_variance(within[0]) / (n * (n - 1)) + 2 * _own_variance(within[1]) / (m * (m - 1))
    degenerate += 4 * _cross_variance(between) / (n * m)
    low, high = _squared_length(value + bias, bias, along, degenerate)
    return Measurement(value, min(low, value), max(high, value), n, None, replicates, name)


def as_labels(groups: Sequence[Hashable] | Tensor) -> Tensor:  # (n)
    """Labels in `groups` of any kind, such as names of photographs, as numbers; tensors and numbers as they are.

    >>> as_labels(["china", "flower", "china"])
    tensor([0, 1, 0])
    """
    if isinstance(groups, Tensor):
        return groups.cpu()
    given = list(groups)
    if all(isinstance(label, numbers.Integral) for label in given):
        return torch.as_tensor(given)
    known = {label: k for k, label in enumerate(dict.fromkeys(given))}
    return torch.tensor([known[label] for label in given])


def _averaging(n: int, groups: Sequence[Hashable] | Tensor | None) -> Tensor | None:  # (groups, n)
    if groups is None:
        return None
    labels = as_labels(groups)
    if labels.shape != (n,):
        raise ShapeError(f"{tuple(labels.shape)} group labels for {n} samples")
    member = (labels == labels.unique()[:, None]).double()
    return member / member.sum(1, keepdim=True)


def gap_closed(
    baseline: Tensor,  # (n) losses
    method: Tensor,  # (n)
    oracle: Tensor,  # (n)
    groups: Sequence[Hashable] | Tensor | None = None,  # (n)
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """How much of the way from a baseline's mean loss to an oracle's a method goes: 0 at one, 1 at the other.

    ``(mean(baseline) - mean(method)) / (mean(baseline) - mean(oracle))``, above 1 where the method beats the oracle.
    The three losses belong to the same n samples; the interval is a percentile bootstrap that resamples them together,
    or whole `groups` of them where samples are not independent (crops of one photograph); `draws` of them, from `seed`.
    Draws in which the oracle is no better than the baseline count as infinite, so that an end of the interval may be.

    Raises ShapeError, NotFiniteError, ParameterError where the oracle is no better than the baseline.

    >>> loss = torch.arange(1.0, 9.0)
    >>> print(gap_closed(loss, 0.8 * loss, 0.5 * loss))
    .4000 [.4000, .4000] (n=8)
    """
    losses = torch.stack([torch.as_tensor(x).detach().cpu().double() for x in (baseline, method, oracle)])
    if losses.ndim != 2 or losses.shape[1] < 2:
        raise ShapeError(f"losses must be vectors of at least 2 samples, got {tuple(losses.shape[1:])}")
    if not torch.isfinite(losses).all():
        raise NotFiniteError("losses with NaN or infinite numbers")
    n = losses.shape[1]
    weights = bootstrap_weights(n, groups, draws, torch.Generator().manual_seed(seed))
    whole = torch.ones(1, n, dtype=torch.float64)
    sums = torch.cat([whole, weights]) @ losses.T  # (1 + draws, 3); the number of samples cancels in the ratio
    return _share(sums[:, 0] - sums[:, 1], sums[:, 0] - sums[:, 2], n)


def energy_gap_closed(
    baseline: Tensor,  # (n, *shape) samples
    method: Tensor,  # (n, *shape)
    oracle: Tensor,  # (n, *shape)
    heldout: Tensor,  # (m, *shape)
    groups: Sequence[Hashable] | Tensor | None = None,  # (m), of heldout
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """As `gap_closed`, for energy distances of samples to held-out ones.

    `baseline`, `method` and `oracle` are samples ``(n, *shape)``, `heldout` ``(m, *shape)``. The interval is a
    percentile bootstrap over both kinds of samples, `draws` times from `seed`; row k of the three samplers is drawn
    together (they may share their seed), the held-out ones in `groups`. A sample drawn twice is no pair of its own, so
    every draw's distances are as unbiased as the whole's. Distances within the held-out samples cancel.

    >>> x, real = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> 0 < energy_gap_closed(x + 2, x + 1, x, real, draws=50).value < 1  # half way in the mean
    True

    Raises ShapeError, NotFiniteError, ParameterError where the oracle is no better than the baseline.
    """
    n, m = len(baseline), len(heldout)
    if not len(method) == len(oracle) == n >= 2 or m < 2:
        raise ShapeError(f"{n}, {len(method)} and {len(oracle)} samples and {m} held-out ones do not compare")
    y = heldout.detach().cpu().double().flatten(1)
    generator = torch.Generator().manual_seed(seed)
    wx = torch.cat([torch.ones(1, n).double(), bootstrap_weights(n, None, draws, generator)])
    wy = torch.cat([torch.ones(1, m).double(), bootstrap_weights(m, groups, draws, generator)])
    pairs = (n**2 - wx.square().sum(1), n * wy.sum(1))
    distances = []  # up to what is within the held-out samples
    for samples in (baseline, method, oracle):
        x = samples.detach().cpu().double().flatten(1)
        if x.shape[1:] != y.shape[1:]:
            raise ShapeError(f"samples of shapes {tuple(samples.shape)} and {tuple(heldout.shape)} do not compare")
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise NotFiniteError("energy distance of samples with NaN or infinite numbers")
        within = torch.cdist(x - y.mean(0), x - y.mean(0)).fill_diagonal_(0)
        between = torch.cdist(x - y.mean(0), y - y.mean(0))
        distances.append(2 * (wx @ between * wy).sum(1) / pairs[1] - (wx @ within * wx).sum(1) / pairs[0])
    return _share(distances[0] - distances[1], distances[0] - distances[2], n)


def _share(gained: Tensor, gap: Tensor, n: int) -> Estimate:  # (1 + draws): of all samples, then of each draw
    if gap[0] <= 0:
        raise ParameterError("the oracle is no better than the baseline, so there is no gap to close")
    value = float(gained[0] / gap[0])
    ratios = torch.where(gap > 0, gained / gap, gained.sign() * torch.inf)[1:].sort().values
    low, high = (float(ratios[round(q * (len(ratios) - 1))]) for q in (0.025, 0.975))
    return Estimate(value, min(low, value), max(high, value), n)


def bootstrap_weights(
    n: int, groups: Sequence[Hashable] | Tensor | None, draws: int, generator: torch.Generator
) -> Tensor:  # (draws, n)
    """How often every one of `n` samples is drawn, whole `groups` at a time, in each of `draws`; ``(draws, n)``.

    >>> weights = bootstrap_weights(4, [0, 0, 1, 1], draws=3, generator=torch.Generator().manual_seed(0))
    >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all())
    (torch.Size([3, 4]), True)

    Raises ShapeError.
    """
    labels = torch.arange(n) if groups is None else as_labels(groups)
    if labels.shape != (n,):
        raise ShapeError(f"{tuple(labels.shape)} group labels for {n} samples")
    kinds, member = labels.unique(return_inverse=True)
    picked = torch.randint(len(kinds), (draws, len(kinds)), generator=generator)
    counts = torch.zeros(draws, len(kinds), dtype=torch.float64)
    return counts.scatter_add_(1, picked, torch.ones_like(counts))[:, member]


def _own_variance(distances: Tensor) -> float:  # (n, n)
    """E k(x, x')^2 of the doubly centred distance k, unbiased, by U-centring (Szekely and Rizzo, 2014)."""
    n = len(distances)
    rows = distances.sum(1) / (n - 2)
    centered = distances - rows[:, None] - rows + distances.sum() / ((n - 1) * (n - 2))
    return float(centered.fill_diagonal_(0).square().sum()) / (n * (n - 3))


def _cross_variance(distances: Tensor) -> float:  # (n, m)
    """E k(x, y)^2 of the distance centred over x and over y, unbiased."""
    n, m = distances.shape
    centered = distances - distances.mean(1, keepdim=True) - distances.mean(0) + distances.mean()
    return float(centered.square().sum()) / ((n - 1) * (m - 1))


def _squared_length(total: float, bias: float, along: float, degenerate: float) -> tuple[float, float]:
    """95 % interval of a squared length, from that of the noisy vector, `total`; ``length^2 + bias`` is expected.

    `along` is the variance of `total` by the noise along the vector found, `degenerate` that of a zero vector.
    """
    if total <= 0 or bias <= 0:
        return total - bias, total - bias
    if total > NORMAL * math.sqrt(along) > 0:
        half = Z95 * math.sqrt(along)
        return total - bias - half, total - bias + half
    scale = max(along / (4 * total), degenerate / (2 * bias))
    if scale <= 0:
        return total - bias, total - bias
    from scipy.optimize import brentq
    from scipy.stats import ncx2

    def solve(level: float) -> float:
        def excess(noncentrality: float) -> float:
            return float(ncx2.cdf(total / scale, bias / scale, noncentrality)) - level

        largest = 4 * total / scale + 40
        return scale * brentq(excess, 0, largest) if excess(0) > 0 else 0.0

    return solve(0.975), solve(0.025)


def jackknife(
    statistic: Callable[[Tensor], Tensor],  # weights (..., n) -> (...)
    n: int,
    groups: Sequence[Hashable] | Tensor | None = None,  # (n)
) -> Measurement:
    """A smooth `statistic` of weighted samples, and its 95 % interval from leaving out each, or each group, in turn.

    ``statistic(weights)`` takes weights ``(..., n)`` of the `n` samples to values ``(...)``. The interval is normal,
    with `groups` Student's with one degree of freedom less than there are groups; nan with fewer than 3 units. `values`
    are ``value + (units - 1) (mean of those left out - each)``.

    >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    >>> jackknife(lambda w: (w * x).sum(-1) / w.sum(-1), n=4).value
    2.5

    Raises ShapeError on labels that do not match.
    """
    value = float(statistic(torch.ones(n, dtype=torch.float64)))
    if groups is None:
        left_out, quantile = torch.eye(n, dtype=torch.float64), Z95
    else:
        labels = as_labels(groups)
        if labels.shape != (n,):
            raise ShapeError(f"{tuple(labels.shape)} group labels for {n} pictures")
        left_out = (labels == labels.unique()[:, None]).double()
        quantile = student(len(left_out))
    count = len(left_out)
    if count < 3:
        return Measurement(value, math.nan, math.nan, n)
    without = statistic(1 - left_out)
    error = quantile * math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    values = value + (count - 1) * (without.mean() - without)
    return Measurement(value, value - error, value + error, n, values)


def student(units: int) -> float:
    """The 97.5 % quantile of Student's distribution for a mean of so many `units`; nan for one.

    >>> round(student(11), 3), round(student(10**6), 3)
    (2.228, 1.96)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, units - 1)) if units > 1 else math.nan


def _short(value: float) -> str:
    text = f"{value:.4f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
