"""Plain-data specifications: frozen dataclasses that can be written to a file and read back by class name.

Maps and potentials are specifications. A subclass written by a user is saved and loaded like the built-in
ones, provided that its module is imported before loading.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import DuplicateNameError, SavedFileError


class Spec:
    """A frozen dataclass whose fields are numbers, strings, tuples, tensors or other specifications.

    Maps and potentials are such, so that `encode` can save them by the names of their classes.

    >>> @dataclasses.dataclass(frozen=True, repr=False)
    ... class Fade(Spec):
    ...     strength: float = 0.5
    >>> Fade(), decode(encode(Fade(0.25), {}), {}).strength
    (Fade(strength=0.5), 0.25)

    Raises DuplicateNameError for a class with the name of one of this package's.
    """

    registry: ClassVar[dict[str, type[Spec]]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        known = Spec.registry.get(cls.__name__)
        ours = __name__.partition(".")[0]
        if known is not None and _package(known) == ours != _package(cls):
            raise DuplicateNameError(
                f"{cls.__name__} is already the name of {known.__module__}.{cls.__name__}, and saved files "
                "know a map or potential by its name; choose another one",
                name=cls.__name__,
            )
        Spec.registry[cls.__name__] = cls

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{f.name}={_brief(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) is not None
        )
        return f"{type(self).__name__}({fields})"


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}" if value.numel() > 4 else str(value.tolist())
    return repr(value)


def encode(value: Any, tensors: dict[str, Tensor], keys: dict[Any, str] | None = None) -> Any:
    """`value` as JSON data; tensors go to `tensors` under fresh keys.

    With `keys`, handed to every call of one file, a tensor that several values hold is written once: safetensors
    refuses memory that is listed twice.

    >>> tensors = {}
    >>> encode((1, torch.zeros(2)), tensors), list(tensors)
    ({'tuple': [1, {'tensor': 't0'}]}, ['t0'])

    Raises SavedFileError for what cannot be saved.
    """
    keys = {} if keys is None else keys
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"tuple": [encode(v, tensors, keys) for v in value]}
    if isinstance(value, Tensor):
        memory = (value.data_ptr(), value.dtype, value.shape, value.stride())
        key = keys.setdefault(memory, f"t{len(tensors)}")
        tensors.setdefault(key, value.detach())
        return {"tensor": key}
    if isinstance(value, Spec):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        return {
            "spec": type(value).__name__,
            **{f.name: encode(getattr(value, f.name), tensors, keys) for f in fields},
        }
    raise SavedFileError(
        f"cannot save {value!r} of type {type(value).__name__}: names and parameters that are saved must be "
        "numbers, strings, None, tuples, tensors, maps or potentials",
        value=value,
    )


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `encode`: `value` is JSON data, `tensors` what it refers to.

    >>> decode({"tuple": [1, {"tensor": "t0"}]}, {"t0": torch.zeros(2)})
    (1, tensor([0., 0.]))

    Raises SavedFileError on an unknown class or a missing tensor.
    """
    if not isinstance(value, dict):
        return value
    if "spec" in value:  # first: a specification may have a field called tuple or tensor
        return _decode_spec(value, tensors)
    if "tuple" in value:
        return tuple(decode(v, tensors) for v in value["tuple"])
    if "tensor" in value:
        if value["tensor"] not in tensors:
            raise SavedFileError(f"the saved file lacks tensor {value['tensor']!r}", tensor=value["tensor"])
        return tensors[value["tensor"]]
    raise SavedFileError(f"the saved file has an entry of no known kind, with {', '.join(map(repr, value))}")


def _decode_spec(value: dict[str, Any], tensors: dict[str, Tensor]) -> Spec:
    name = value["spec"]
    if name not in Spec.registry:
        raise SavedFileError(
            f"the saved file uses class {name!r}, which is not known here; "
            "import the module that defines it first",
            name=name,
        )
    return Spec.registry[name](**{k: decode(v, tensors) for k, v in value.items() if k != "spec"})


def same(a: Any, b: Any) -> bool:
    """Whether two specifications `a` and `b` (or fields of them) are equal by value, tensors bit for bit.

    >>> same((1, torch.zeros(2)), (1, torch.zeros(2))), same(torch.zeros(2), torch.zeros(2).double())
    (True, False)
    """
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Spec) and type(a) is type(b):
        fields = dataclasses.fields(a)  # type: ignore[arg-type]
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields)
    return not isinstance(a, Tensor | Spec) and not isinstance(b, Tensor | Spec) and bool(a == b)


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """A `tensor` as JSON data; floating values survive bit for bit (Python prints the shortest exact form).

    >>> tensor_to_json(torch.tensor([[1, 2]]))
    {'dtype': 'int64', 'shape': [1, 2], 'data': [[1, 2]]}
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(tensor.shape), "data": tensor.tolist()}


def tensor_from_json(data: dict[str, Any]) -> Tensor:
    """The inverse of `tensor_to_json`, from its `data`.

    >>> tensor_from_json({"dtype": "float32", "shape": [2], "data": [0.5, 1.0]})
    tensor([0.5000, 1.0000])
    """
    # The shape, because nested lists do not tell (0, 3) from (0,).
    return torch.tensor(data["data"], dtype=getattr(torch, data["dtype"])).reshape(data["shape"])
