"""Plain-data specifications: frozen dataclasses that can be written to a file and read back by class name.

Maps and potentials are specifications. A subclass written by a user is saved and loaded like the built-in
ones, provided that its module is imported before loading.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import SavedFileError


class Spec:
    """A frozen dataclass whose fields are numbers, strings, tuples, tensors or other specifications."""

    registry: ClassVar[dict[str, type[Spec]]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        Spec.registry[cls.__name__] = cls

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{f.name}={_brief(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) is not None
        )
        return f"{type(self).__name__}({fields})"


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}" if value.numel() > 4 else str(value.tolist())
    return repr(value)


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON data; tensors go to `tensors` under fresh keys."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"tuple": [encode(v, tensors) for v in value]}
    if isinstance(value, Tensor):
        key = f"t{len(tensors)}"
        tensors[key] = value.detach()
        return {"tensor": key}
    if isinstance(value, Spec):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        return {
            "spec": type(value).__name__,
            **{f.name: encode(getattr(value, f.name), tensors) for f in fields},
        }
    raise SavedFileError(
        f"cannot save {value!r} of type {type(value).__name__}: names and parameters that are saved must be "
        "numbers, strings, None, tuples, tensors, maps or potentials",
        value=value,
    )


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `encode`. Raises SavedFileError on an unknown class or a missing tensor."""
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(decode(v, tensors) for v in value["tuple"])
    if "tensor" in value:
        if value["tensor"] not in tensors:
            raise SavedFileError(f"the saved file lacks tensor {value['tensor']!r}", tensor=value["tensor"])
        return tensors[value["tensor"]]
    name = value.get("spec")
    if name not in Spec.registry:
        raise SavedFileError(
            f"the saved file uses class {name!r}, which is not known here; import the module that defines it first",
            name=name,
        )
    return Spec.registry[name](**{k: decode(v, tensors) for k, v in value.items() if k != "spec"})


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """A tensor as JSON data; floating values survive bit for bit (Python prints the shortest exact form)."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "data": tensor.tolist()}


def tensor_from_json(data: dict[str, Any]) -> Tensor:
    """The inverse of `tensor_to_json`."""
    return torch.tensor(data["data"], dtype=getattr(torch, data["dtype"]))
