"""How the batch of a pipeline holds trajectories: as rows, as the frames of a video, or as packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BatchError, ParameterError, ShapeError, UnknownNameError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap, Shape


class Rows(NamedTuple):
    """Where the trajectories of a graph lie in the tensors that a pipeline hands to its scheduler.

    With axis 0 they are the rows of the batch, k joint samples after one another for each trajectory, as pipelines lay
    out ``num_images_per_prompt``. With another axis, that of the frames of a video, every row is one joint sample.
    """

    names: list[Name]
    shape: Shape  # of every trajectory
    axis: int = 0
    layout: LinearMap | None = None  # from a trajectory to its part of the pipeline's tensors; a permutation

    @classmethod
    def of(
        cls, graph: FactorGraph, trajectories: Sequence[Name] | None, axis: int, layout: LinearMap | None
    ) -> Rows:
        """Raises UnknownNameError, ShapeError."""
        names = list(graph.trajectories if trajectories is None else trajectories)
        unknown = [name for name in names if name not in graph.trajectories]
        missing = [name for name in graph.trajectories if name not in names]
        if unknown or missing or len(set(names)) != len(names) or not names:
            what = (
                f"{unknown[0]!r} is no trajectory of the graph" if unknown
                else f"{missing[0]!r} is missing" if missing
                else "the graph has none" if not names
                else "a name occurs twice"
            )  # fmt: skip
            raise UnknownNameError(
                f"trajectories={names[:8]}: {what}; list every trajectory of the graph once, in the order of the rows",
                name=(unknown or missing or [None])[0],
            )
        shape = graph.shape(names[0])
        for name in names:
            if graph.shape(name) != shape:
                raise ShapeError(
                    f"trajectory {name!r} has shape {graph.shape(name)} and {names[0]!r} has {shape}: rows of one "
                    "batch have one shape. Trajectories of different shapes need pipelines of their own",
                    name=name,
                )
        if layout is not None and tuple(layout.in_shape) != tuple(shape):
            raise ShapeError(
                f"layout takes contents of shape {tuple(layout.in_shape)}, the trajectories have {tuple(shape)}"
            )
        return cls(names, shape, axis, layout)

    def part(self, names: list[Name]) -> Rows:
        """The same layout with some of the trajectories only. Raises ParameterError if there is none."""
        if not names:
            raise ParameterError(
                f"no trajectory is left for this process: there are {len(self.names)}, so start no more processes"
            )
        return self._replace(names=names)

    def matches(self, tensor_shape: Sequence[int], packed: bool = True) -> bool:
        """Whether a tensor of this shape holds all trajectories."""
        own = list(self.shape if self.layout is None or not packed else self.layout.out_shape)
        got = list(tensor_shape)
        if self.axis >= len(got):
            return False
        count = got.pop(self.axis) if self.axis else got[0]
        return got[1:] == own and (count == len(self.names) if self.axis else count % len(self.names) == 0 < count)

    def split(self, tensor: Tensor, packed: bool = True) -> dict[Name, Tensor]:
        """Contents ``(k, *shape)`` of every trajectory.

        Raises BatchError, ShapeError.
        """
        if not self.matches(tensor.shape, packed):
            self._refuse(tuple(tensor.shape))
        stacked = tensor.movedim(self.axis, 0) if self.axis else tensor.unflatten(0, (len(self.names), -1))
        if self.layout is not None and packed:
            stacked = torch.stack([self.layout.adjoint(part) for part in stacked])
        return dict(zip(self.names, stacked, strict=True))

    def join(self, contents: dict[Name, Tensor], packed: bool = True) -> Tensor:
        """The tensor that `split` takes apart."""
        parts = [contents[name] for name in self.names]
        if self.layout is not None and packed:
            parts = [self.layout.apply(part) for part in parts]
        return torch.stack(parts, self.axis) if self.axis else torch.cat(parts)

    def mapped(self, tensor: Tensor, function: Callable[[dict[Name, Tensor]], dict[Name, Tensor]]) -> Tensor:
        """`function` of the contents in a tensor, packed or not; one that does not hold the trajectories: as it is."""
        for packed in (True, False):
            if self.matches(tensor.shape, packed):
                return self.join(function(self.split(tensor, packed)), packed)
        return tensor

    def _refuse(self, got: tuple[int, ...]) -> None:
        own = tuple(self.shape if self.layout is None else self.layout.out_shape)
        n = len(self.names)
        if self.axis == 0 and got[1:] == own:
            raise BatchError(
                f"the pipeline steps {got[0]} rows, which do not divide among {n} trajectories "
                f"({', '.join(map(repr, self.names[:8]))}); give it one prompt per trajectory, in this order",
                rows=got[0],
                trajectories=n,
            )
        where = "rows" if self.axis == 0 else f"frames on axis {self.axis}"
        raise ShapeError(
            f"the pipeline steps a tensor of shape {got}, but {n} trajectories of shape {own} as its {where} were "
            "expected; give the trajectories the shape of the pipeline's latents (channels, height / 8, width / 8 for "
            "most), axis= for the frames of a video, or layout= for packed tokens",
            expected=own,
            got=got,
        )
