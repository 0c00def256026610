"""Trajectories shared out over processes: each asks its own denoisers, one gather per step joins the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoisers.conditions import mapped
from ..errors import ParameterError, ProcessError
from ..graph.factor_graph import Name


class Processes:
    """The processes of a `torch.distributed` group, and which trajectories each of them looks after.

    The trajectories are cut into stretches as even as can be, in their order, as
    ``accelerate.PartialState().split_between_processes`` does. Raises ParameterError where no group is initialised.
    """

    def __init__(self, names: Sequence[Name], group: Any = None):
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise ParameterError(
                "no process group is initialised: start the script with `accelerate launch` or `torchrun`, and make an "
                "accelerate.PartialState() or call torch.distributed.init_process_group() first"
            )
        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        self.names = list(names)
        self.owner = {
            self.names[k]: rank for rank, part in enumerate(np.array_split(range(len(names)), self.size)) for k in part
        }

    @property
    def own(self) -> list[Name]:
        """The trajectories of this process."""
        return [name for name in self.names if self.owner[name] == self.rank]

    def gather(self, own: Mapping[Name, Any], step: int) -> dict[Name, Any]:
        """The answers of all processes, tensors or nested tuples of tensors, in the order of the trajectories.

        Tensors travel through the CPU and arrive on this process's device. Raises ProcessError where another process
        has ended or does not answer, naming its trajectories as far as that can be told.
        """
        import torch.distributed as dist

        devices = [t.device for t in _tensors(list(own.values()))]
        device = devices[0] if devices else torch.device("cpu")
        parts: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(parts, {name: _moved(value, "cpu") for name, value in own.items()}, self.group)
        except (RuntimeError, ValueError) as error:  # whatever the backend calls a closed connection or a timeout
            others = [name for name in self.names if self.owner[name] != self.rank]
            raise ProcessError(
                f"process {self.rank} of {self.size} could not gather the answers of step {step}: another process has "
                f"ended or hangs (they look after {', '.join(map(repr, others[:8]))}); its own output says why. "
                f"{type(error).__name__}: {error}",
                step=step,
                rank=self.rank,
            ) from error
        found = {name: value for part in parts for name, value in part.items()}
        return {name: own[name] if name in own else _moved(found[name], device) for name in self.names if name in found}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


def _moved(value: Any, device: torch.device | str) -> Any:
    return mapped(value, lambda tensor, _: tensor.detach().to(device))
