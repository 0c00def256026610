"""Going through conditions, which may be tensors, or dictionaries and sequences of them, nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def mapped(value: Any, function: Callable[[Tensor, str], Any], name: str = "condition") -> Any:
    """`value` with ``function(tensor, name)`` in the place of every tensor in it; all else as it is.

    The name says where a tensor was, for messages: "condition 'encoder_hidden_states'".

    >>> import torch
    >>> mapped({"text": (torch.ones(2), 3)}, lambda tensor, name: (len(tensor), name))
    {'text': ((2, "condition 'text'"), 3)}
    """
    if isinstance(value, Tensor):
        return function(value, name)
    if isinstance(value, Mapping):
        return {key: mapped(part, function, f"condition {key!r}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [mapped(part, function, name) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
