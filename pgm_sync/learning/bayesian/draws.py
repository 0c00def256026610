"""What inference hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Sites ``(chains, draws, M, *)`` of the model, and how they were found."""

    values: dict[str, Tensor]
    log_density: Tensor  # (chains, draws), of unconstrained coordinates
    diverging: Tensor | None = None  # (draws,) of NUTS: its chains step together
    acceptance: float | None = None  # of NUTS
    step_size: float | None = None  # of NUTS
    losses: list[float] = field(default_factory=list)  # of SVI: negative ELBO per step
    log_guide: Tensor | None = None  # (chains, draws), of SVI: log density of the guide
