"""Methods against each other: paired differences with intervals, and who is best, tied with it, or worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import NotFiniteError, ParameterError, ShapeError
from ..metrics import Estimate, Measurement, bootstrap_weights, student
from ..tables import Table

Better = Literal["lower", "higher"] | float  # or the value to come close to
BEST, TIED, WORSE = "best", "tied with best", "worse"
ROUNDING = 1e-5  # share of a value below which a difference is that of float32, not of methods
DRAWS = 2000  # of means, when a value is to be met


class Difference(Estimate):
    """A difference of two methods with its interval; `pairing` says what it rests on: "samples", "draws" or "none".

    `value`, `low`, `high` and `samples` as of an `Estimate`.

    >>> found = Difference(0.3, 0.1, 0.5, samples=20, pairing="samples")
    >>> print(found, found.significant)
    .3000 [.1000, .5000] (n=20) True
    """

    pairing: str

    def __new__(
        cls, value: float, low: float, high: float, samples: int, pairing: str = "none"
    ) -> Difference:
        made = super().__new__(cls, value, low, high, samples)
        made.pairing = pairing
        return made

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def difference(a: Estimate, b: Estimate) -> Difference:
    """The value of a minus that of b, with a 95 % interval.

    Paired where both are Measurements that allow it: from values per unit, with Student's interval of their
    differences; else from bootstrap draws of equal resampling. Row k of both must come from one seed. Any other two
    count as independent, and the interval is put together from theirs [Zou2008]_.

    >>> from pgm_sync.evaluation import mean
    >>> hard, noise = torch.tensor([0.0, 3.0, 6.0, 9.0]), torch.tensor([0.1, -0.1, 0.1, -0.1])
    >>> print(difference(mean(hard + 1 + noise), mean(hard)))
    1.0000 [.8163, 1.1837] (n=4)

    Raises NotFiniteError where one has no value.
    """
    for estimate in (a, b):
        if not math.isfinite(estimate.value):
            raise NotFiniteError(f"an estimate of value {estimate.value} has no difference to another")
    return _difference(a, b, None)


def _difference(a: Estimate, b: Estimate, target: float | None) -> Difference:
    """With a target, the difference of distances to it."""
    n = min(a.samples, b.samples)
    value = _loss(a.value, target) - _loss(b.value, target)
    if isinstance(a, Measurement) and isinstance(b, Measurement):
        if a.values is not None and b.values is not None and len(a.values) == len(b.values) > 1:
            if target is None:
                gaps = a.values - b.values
                half = student(len(gaps)) * float(gaps.std()) / math.sqrt(len(gaps))
                return Difference(value, value - half, value + half, n, "samples")
            weights = bootstrap_weights(len(a.values), None, DRAWS, torch.Generator().manual_seed(0))
            means = [weights @ m.values / len(m.values) for m in (a, b) if m.values is not None]
            return _from_draws(value, means[0], means[1], target, n, "samples")
        if a.draws is not None and b.draws is not None and a.resampling == b.resampling:
            return _from_draws(value, a.draws, b.draws, target, n, "draws")
    (al, ah), (bl, bh) = (_folded(e, target) for e in (a, b))
    va, vb = _loss(a.value, target), _loss(b.value, target)
    return Difference(value, value - math.hypot(va - al, bh - vb), value + math.hypot(ah - va, vb - bl), n)


def _loss(value: float, target: float | None) -> float:
    return value if target is None else abs(value - target)


def _folded(estimate: Estimate, target: float | None) -> tuple[float, float]:
    """The interval of a value, or of its distance to the target."""
    low, high = estimate.low, estimate.high
    if target is None:
        return low, high
    ends = sorted((abs(low - target), abs(high - target)))
    return (0.0 if low <= target <= high else ends[0]), ends[1]


def _from_draws(value: float, a: Tensor, b: Tensor, target: float | None, n: int, pairing: str) -> Difference:
    gaps = a - b if target is None else (a - target).abs() - (b - target).abs()
    low, high = (
        float(q) for q in torch.quantile(gaps.double(), torch.tensor([0.025, 0.975], dtype=torch.float64))
    )
    return Difference(value, min(low, value), max(high, value), n, pairing)


def rounded(estimate: Estimate) -> str:
    """Value and interval to two digits of the interval's half width, whatever the unit.

    >>> rounded(Estimate(0.000314159, 0.000214159, 0.000414159, 9)), rounded(Estimate(1234.5678, 1111.1, 1358.0, 9))
    ('.00031 [.00021, .00041]', '1235 [1111, 1358]')
    """
    half = (estimate.high - estimate.low) / 2
    if not (half > 0 and math.isfinite(half)):
        texts = [f"{x:.4g}" for x in estimate[:3]]
    else:
        decimals = max(0, 1 - math.floor(math.log10(half)))
        texts = [f"{x:.{decimals}f}" for x in estimate[:3]]
    zero = [text.lstrip("-") if float(text) == 0 else text for text in texts]
    value, low, high = (
        text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text for text in zero
    )
    return f"{value} [{low}, {high}]"


class Standing(NamedTuple):
    """One method of a comparison.

    >>> import torch
    >>> from pgm_sync.evaluation import mean
    >>> x = torch.arange(8.0)
    >>> [(row.method, row.rank, row.status) for row in standings({"a": mean(x), "b": mean(x + 1)}, better="higher")]
    [('b', 1, 'best'), ('a', 2, 'worse')]
    """

    method: str  # its name
    estimate: Estimate  # what was measured
    status: str  # "best", "tied with best" or "worse"
    rank: int  # 1 + how many methods are better by an interval that leaves out 0
    difference: Difference  # how much worse than the best; positive is worse, whichever direction is better


class Standings(Table[Standing]):
    """Methods from best to worst, `rows`; prints as a table.

    >>> import torch
    >>> from pgm_sync.evaluation import mean
    >>> x = torch.arange(8.0)
    >>> standings({"a": mean(x), "b": mean(x + 1)}, better="higher")["a"].difference.value
    1.0
    """

    head: ClassVar[tuple[str, ...]] = ("method", "estimate", "rank", "status", "behind the best")

    def cells(self, row: Standing) -> tuple[str, ...]:
        behind = "" if row.status == BEST else rounded(row.difference)
        return (
            row.method,
            f"{rounded(row.estimate)} (n={row.estimate.samples})",
            str(row.rank),
            row.status,
            behind,
        )

    def __getitem__(self, index: int | str) -> Standing:  # type: ignore[override]
        """By place, or by the method's name."""
        if isinstance(index, str):
            return next(row for row in self.rows if row.method == index)
        return self.rows[index]


def standings(estimates: Mapping[str, Estimate], better: Better) -> Standings:
    """Who is best, and who cannot be told from it: the `difference` to it has an interval that holds 0.

    Methods whose values agree to 1e-5 of them count as equal: in float32, two forms of one update differ by as much.
    `better` is "lower", "higher", or a number: the value of real samples, say, to which estimates should come close.
    Each comparison has a 95 % interval of its own; with many methods, some ties and wins are chance.

    >>> from pgm_sync.evaluation import mean
    >>> hard = torch.linspace(0, 9, 30)
    >>> found = standings({m: mean(hard + gap) for m, gap in [("a", 0.2), ("b", 0.1), ("c", 0.2)]}, "lower")
    >>> [(row.method, row.rank, row.status) for row in found]
    [('b', 1, 'best'), ('a', 2, 'worse'), ('c', 2, 'worse')]

    Raises ShapeError without methods, NotFiniteError on an estimate without value, ParameterError.
    """
    if not estimates:
        raise ShapeError("standings of no method")
    if better not in ("lower", "higher") and not (isinstance(better, int | float) and math.isfinite(better)):
        raise ParameterError(f"better={better!r} must be 'lower', 'higher' or a finite number", better=better)
    for method, estimate in estimates.items():
        if not math.isfinite(estimate.value):
            raise NotFiniteError(f"method {method!r} has the value {estimate.value}")

    def behind(a: Estimate, b: Estimate) -> Difference:
        """How much worse a is than b."""
        found = _difference(a, b, None if isinstance(better, str) else float(better))
        if better != "higher":
            return found
        return Difference(-found.value, -found.high, -found.low, found.samples, found.pairing)

    def worse(method: str, other: str) -> bool:
        a, b = estimates[method], estimates[other]
        gap = behind(a, b)
        return gap.low > 0 and gap.value > ROUNDING * max(abs(a.value), abs(b.value))

    target = None if isinstance(better, str) else float(better)
    sign = -1 if better == "higher" else 1
    order = sorted(estimates, key=lambda m: sign * _loss(estimates[m].value, target))
    best = order[0]
    rows = []
    for method in order:
        rank = 1 + sum(worse(method, other) for other in order if other != method)
        gap = behind(estimates[method], estimates[best])
        status = BEST if method == best else WORSE if worse(method, best) else TIED
        rows.append(Standing(method, estimates[method], status, rank, gap))
    return Standings(rows)
