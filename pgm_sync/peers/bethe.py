"""DiffCollage: the Bethe sum of scores on noisy marginals (Zhang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..denoisers.checks import check_noisy
from ..errors import ParameterError, ShapeError, WeightError
from ..levels import NoiseLevel
from ..maps import Crop, LinearMap
from ..maps.index import IndexMap

Part = tuple[
    LinearMap, Denoiser, float
]  # what it sees of the whole, what it knows of that, how often it counts


class BetheDenoiser(Denoiser):
    """A whole from the scores of its parts: ``score(x) = sum_k c_k A_k' score_k(A_k x)`` (section 5, DiffCollage).

    On a tree of overlapping windows, windows count +1 and the overlaps of neighbours -1. Because counts sum to one at
    every element, denoised contents combine like scores: ``m(x) = sum_k c_k A_k' m_k(A_k x)``. Noisy marginals of a
    Markov model are not Markov, so this is not the whole's denoiser, even with exact parts.

    `parts` are ``(map, denoiser, count)``. It is a denoiser like any other, of one trajectory, and goes with every
    scheduler.

    Two halves without an overlap denoise by themselves:

    >>> import torch, pgm_sync as ps
    >>> half = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> parts = [(ps.Crop((4,), start=(left,), size=(2,)), half, 1.0) for left in (0, 2)]
    >>> BetheDenoiser(parts).denoise(torch.tensor([1.0, 2.0, 3.0, 4.0]), ps.NoiseLevel(alpha=1.0, sigma=1.0))
    tensor([0.5000, 1.0000, 1.5000, 2.0000])

    Raises ShapeError on maps that do not fit, WeightError on counts that do not sum to one, ParameterError without
    parts or on maps that do not pick elements.
    """

    def __init__(self, parts: Sequence[Part]):
        if not parts:
            raise ParameterError("a Bethe sum needs at least one part")
        self.shape = parts[0][0].in_shape
        self.parts = tuple(parts)
        total = torch.zeros(self.shape, dtype=torch.float64)
        for view, denoiser, count in parts:
            if not isinstance(view, IndexMap):
                raise ParameterError(f"{view!r} is not a map that picks elements, such as a Crop")
            if view.in_shape != self.shape or view.out_shape != tuple(denoiser.shape):
                raise ShapeError(
                    f"{view!r} takes {view.in_shape} to {view.out_shape}; the whole has shape {self.shape}, the "
                    f"part's denoiser {tuple(denoiser.shape)}",
                    expected=(self.shape, tuple(denoiser.shape)),
                    got=(view.in_shape, view.out_shape),
                )
            total += count * view.adjoint(torch.ones(view.out_shape, dtype=torch.float64))
        if not torch.allclose(total, torch.ones_like(total), atol=1e-6):
            raise WeightError(
                f"the counts of the parts sum to {total.min():.4g} .. {total.max():.4g} over the elements, not to one"
            )

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """``sum_k c_k A_k' m_k(A_k x)`` of `noisy` x at a `level`, every part under the same `condition`.

        Raises ShapeError, DtypeError.
        """
        check_noisy(self, noisy)
        out = torch.zeros_like(noisy)
        for view, denoiser, count in self.parts:
            out = out + count * view.adjoint(denoiser.denoise(view.apply(noisy), level, condition))
        return out


def bethe_windows(
    canvas: Sequence[int],  # (..., W)
    window: int,
    stride: int,
    denoiser: Callable[[tuple[int, ...]], Denoiser],  # shape of a part -> what is known of such parts
) -> BetheDenoiser:
    """Windows of full height in a row of a `canvas` ``(..., W)``, +1 each, and the overlaps of neighbours, -1 each.
    `window` and `stride` are columns; ``denoiser(shape)`` gives what is known of parts of such a shape.

    >>> import torch, pgm_sync as ps
    >>> def standard(shape):
    ...     size = torch.Size(shape).numel()
    ...     return ps.GaussianDenoiser(torch.zeros(shape), torch.eye(size))
    >>> whole = bethe_windows((1, 2, 5), window=3, stride=1, denoiser=standard)
    >>> len(whole.parts), whole.denoise(torch.ones(1, 2, 5), ps.NoiseLevel(alpha=1.0, sigma=1.0)).unique()
    (5, tensor([0.5000]))

    Raises ParameterError unless ``0 < stride <= window`` and the windows end at the border.
    """
    *rest, width = canvas
    if not 0 < stride <= window <= width or (width - window) % stride:
        raise ParameterError(
            f"windows of {window} at stride {stride} do not cover {width} columns to the border, each once"
        )
    known: dict[int, Denoiser] = {}

    def part(left: int, columns: int, count: float) -> Part:
        view = Crop(tuple(canvas), start=(left,), size=(columns,))
        if columns not in known:
            known[columns] = denoiser((*rest, columns))
        return view, known[columns], count

    lefts = range(0, width - window + 1, stride)
    parts = [part(left, window, 1.0) for left in lefts]
    if stride < window:
        parts += [part(left, window - stride, -1.0) for left in lefts[1:]]
    return BetheDenoiser(parts)
