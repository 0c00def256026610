"""Do the 95 % intervals of distances between distributions hold what they should, and does pairing narrow them?"""

from __future__ import annotations

from functools import partial

from _table import main, table  # first: it pins the threads

import torch
from torch import Tensor

from pgm_sync.evaluation import (
    Difference,
    Estimate,
    Measurement,
    difference,
    elements,
    energy_distance,
    frechet_distance,
    kernel_distance,
    sliced_wasserstein,
)

SAMPLES, REFERENCE, DRAWS = 60, 80, 200
METRICS = {
    "energy distance": energy_distance,
    "sliced Wasserstein": sliced_wasserstein,
    "Fréchet": partial(frechet_distance, features=elements),
    "Fréchet, extrapolated": partial(frechet_distance, features=elements, extrapolate=True),
    "kernel": partial(kernel_distance, features=elements),
}
SHIFTS = {"both real": (0.0, 0.0), "equally wrong": (0.5, 0.5), "one better": (0.5, 0.3)}


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def methods(a: float, b: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two methods on the same seeds (correlation .8), and the reference."""
    z, own = (normal(SAMPLES, 2, generator=generator) for _ in range(2))
    return a + z, b + 0.8 * z + 0.6 * own, normal(REFERENCE, 2, generator=generator)


def known(name: str, shifts: tuple[float, float]) -> list[float] | None:
    """Distances of the distributions, of metrics without bias."""
    if name == "Fréchet, extrapolated":
        return [2 * shift**2 for shift in shifts]
    return [0.0, 0.0] if name in ("energy distance", "kernel") and shifts == (0, 0) else None


def holds(interval: Estimate, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def build(quick: bool) -> str:
    trials = 20 if quick else 200
    rows = [
        (
            "metric",
            "methods",
            "holds the distance",
            "holds the difference",
            "paired / unpaired width",
            "found",
        )
    ]
    for name, metric in METRICS.items():
        for case, shifts in SHIFTS.items():
            generator = torch.Generator().manual_seed(0)
            others = (methods(*shifts, generator) for _ in range(2 * trials))
            truth = (
                known(name, shifts)
                or torch.tensor([[metric(x, y, draws=0).value for x in (a, b)] for a, b, y in others])
                .mean(0)
                .tolist()
            )
            single = paired = found = 0
            widths = [0.0, 0.0]
            for seed in range(trials):
                a, b, y = methods(*shifts, generator)
                one, other = (metric(x, y, draws=DRAWS, seed=seed) for x in (a, b))
                assert isinstance(one, Measurement)
                gap: Difference = difference(one, other)
                assert gap.pairing == "draws"
                alone = difference(Estimate(*one), Estimate(*other))
                single += holds(one, truth[0])
                paired += holds(gap, truth[0] - truth[1] if shifts[0] != shifts[1] else 0.0)
                found += gap.significant
                widths = [widths[0] + gap.high - gap.low, widths[1] + alone.high - alone.low]
            shares = [f"{count / trials:.2f}" for count in (single, paired)]
            rows.append((name, case, *shares, f"{widths[0] / widths[1]:.2f}", f"{found / trials:.2f}"))
    off = ", ".join(f"{one} and {other} ({case})" for case, (one, other) in SHIFTS.items())
    return (
        f"Normal samples in 2 dimensions, {SAMPLES} of each method on the same seeds, {REFERENCE} real ones;\n"
        f"methods off by {off}.\n"
        f"Shares of {trials} intervals that hold the truth: "
        "that of the distributions where it is known, else the mean\n"
        f"over {2 * trials} other sets. found: paired intervals that leave out 0.\n\n{table(rows)}"
    )


if __name__ == "__main__":
    main("intervals", build)
