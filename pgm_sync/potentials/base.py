"""What a factor says about its trajectories, in information form."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError, UnsupportedError
from ..gaussian import as_real, require_finite, require_symmetric
from ..maps import Shape
from ..spec import Spec


class Information(NamedTuple):
    """``log psi(y) = -y' precision y / 2 + eta' y + log_scale``, y what the factor sees, in scope order.

    Elementwise potentials give one small matrix for matching elements of all n ends, the same for every
    element or one each; `log_scale` is then per element. Others give one matrix over the P elements of all
    ends, flattened and concatenated.

    Eq. 2 of two unit-variance scalars with correlation 0.6:

    >>> import pgm_sync as ps
    >>> ps.Correlation(0.6).information([(1,), (1,)]).precision.squeeze()
    tensor([[ 0.5625, -0.9375],
            [-0.9375,  0.5625]], dtype=torch.float64)
    """

    precision: Tensor  # elementwise: (n, n) or (n, n, *event); otherwise (P, P)
    eta: Tensor  # elementwise: (n,) or (n, *event); otherwise (P,)
    log_scale: Tensor  # elementwise: () or (*event); otherwise ()


class Marginal(NamedTuple):
    """Mean and covariance a potential assumes of one of its ends under g (Eq. 1).

    >>> import pgm_sync as ps
    >>> left, right = ps.Correlation(0.6, variance=(1.0, 4.0)).marginals([(1,), (1,)])
    >>> right.covariance.item()
    4.0
    """

    mean: Tensor  # (p,)
    covariance: Tensor  # (p,) variances of independent elements, or (p, p)


class Potential(Spec, abc.ABC):
    """Base class of all potentials. A new one is a frozen dataclass with `information`.

    `pgm_sync.testing.PotentialTests` holds the laws that it must keep. Class attributes: `elementwise`,
    whether element k of one end meets only element k of the others; `ends`, the number of trajectories it
    joins (None: any number).

    A potential of one's own, which is `Evidence` that the content is near 1:

    >>> import dataclasses, torch, pgm_sync as ps
    >>> from pgm_sync.potentials import Information
    >>> @dataclasses.dataclass(frozen=True, eq=False)
    ... class NearOne(ps.Potential):
    ...     precision: float = 4.0
    ...     elementwise, ends = True, 1
    ...     def information(self, shapes):
    ...         strength = torch.tensor([float(self.precision)])
    ...         return Information(strength[None], strength, torch.zeros(()))
    >>> graph = ps.FactorGraph()
    >>> graph.add_trajectory("x", shape=(1,))
    >>> graph.add_factor("near", ["x"], NearOne())
    >>> ps.infer(graph, evidence={"x": (0.0, 1.0)}).mean["x"].item()
    0.8
    """

    elementwise: ClassVar[bool] = False
    ends: ClassVar[int | None] = None

    @abc.abstractmethod
    def information(self, shapes: Sequence[Shape]) -> Information:
        """The contribution to the joint precision and eta, for ends of these shapes, float64."""

    def marginals(self, shapes: Sequence[Shape]) -> Sequence[Marginal | None]:
        """The marginal under g of each end, of these `shapes`, where the potential states one (as copulas do)."""
        return [None] * len(shapes)

    def check(self, factor: Any, shapes: Sequence[Shape]) -> None:
        """Pass where ends of such `shapes` can be joined. Raises ShapeError or ParameterError naming `factor`."""
        if self.ends is not None and len(shapes) != self.ends:
            raise ParameterError(
                f"factor {factor!r}: {type(self).__name__} joins {self.ends} trajectories, not {len(shapes)}",
                factor=factor,
            )
        if self.elementwise and len(set(shapes)) > 1:
            raise ShapeError(
                f"factor {factor!r}: {type(self).__name__} joins matching elements, but its ends see shapes "
                f"{', '.join(map(str, shapes))}; give maps=[...] that bring them to one shape",
                factor=factor,
                shapes=tuple(shapes),
            )

    @property
    def fitted(self) -> bool:
        """Whether the potential has its parameters."""
        return True


class StructuralPotential(Potential):
    """A potential without a density of its own: the engine treats it by what it is."""

    def information(self, shapes: Sequence[Shape]) -> Information:
        raise UnsupportedError(f"{type(self).__name__} has no density of its own")


def checked_information(potential: Potential, factor: Any, shapes: Sequence[Shape]) -> Information:
    """``potential.information(shapes)``, float64, held to what `Information` promises.

    A potential of a user's own is as likely to be wrong as an input. Raises ParameterError (no Information),
    ShapeError, NotFiniteError, CovarianceError (a precision that is not symmetric), all naming `factor`.
    """
    who = f"factor {factor!r}: {type(potential).__name__}.information"
    given = potential.information(shapes)
    if not isinstance(given, tuple) or len(given) != 3 or not all(isinstance(part, Tensor) for part in given):
        raise ParameterError(f"{who} is {given!r}; give Information(precision, eta, log_scale)", factor=factor)
    found = Information(*(part.double() for part in given))
    n, event = (len(shapes), tuple(shapes[0])) if potential.elementwise else (sum(sizes(shapes)), ())
    for what, part, lead in zip(Information._fields, found, ((n, n), (n,), ()), strict=True):
        own = tuple(part.shape)
        if own not in (lead, (*lead, *event)):
            raise ShapeError(
                f"{who}: {what} has shape {own}; {lead}"
                + (f" or {(*lead, *event)}" if potential.elementwise else "")
                + " needed",
                factor=factor,
                expected=lead,
                got=own,
            )
        require_finite(part, f"{who}: {what}")
    require_symmetric(found.precision.movedim((0, 1), (-2, -1)), f"{who}: precision")
    return found


def sizes(shapes: Sequence[Shape]) -> list[int]:
    """Number of elements of every end."""
    return [math.prod(s) for s in shapes]


def block_diagonal_inverse(covariance: Tensor, blocks: Sequence[int]) -> Tensor:
    """blockdiag(Sigma_ii^{-1}) of a covariance with blocks of the given sizes."""
    return torch.block_diag(*(torch.linalg.inv(block) for block in diagonal_blocks(covariance, blocks)))


def diagonal_blocks(matrix: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """The diagonal blocks of a matrix."""
    edges = torch.tensor([0, *blocks]).cumsum(0).tolist()
    return [matrix[a:b, a:b] for a, b in zip(edges, edges[1:], strict=False)]


def finite_number(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> None:
    """ParameterError unless every entry of `value` is finite and strictly between `low` and `high`.

    DtypeError for complex numbers.
    """
    tensor = as_real(value, what)
    if not tensor.numel():
        raise ParameterError(f"{what} of shape {tuple(tensor.shape)} is empty", value=value)
    if not torch.isfinite(tensor).all() or bool((tensor <= low).any()) or bool((tensor >= high).any()):
        shown = (
            tensor.item()
            if tensor.numel() == 1
            else f"with entries in [{tensor.min():.4g}, {tensor.max():.4g}]"
        )
        bounds = f"strictly between {low:g} and {high:g}" if low > -math.inf or high < math.inf else "finite"
        raise ParameterError(f"{what} {shown} must be {bounds}", value=value)
