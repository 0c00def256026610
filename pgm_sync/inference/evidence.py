"""Evidence, checked and put on the sites of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DeviceError, DtypeError, ParameterError, ShapeError, UnknownNameError, listed
from ..gaussian import Gaussian, require_finite, require_symmetric
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Identity, LinearMap
from ..potentials import Likelihood
from ..potentials.evidence import log_scale
from .sites import Sites
from .terms import JointTerm, joint_term


class Elements(NamedTuple):
    """Evidence about every element of every node at once, nodes flattened and side by side in insertion order.

    What ``{name: (mean, precision)}`` says, without a Python loop over nodes: for graphs of many small nodes.

    >>> import torch, pgm_sync as ps
    >>> graph = ps.chain_graph(3, shape=(1,), potential=ps.Correlation(0.5))
    >>> seen = ps.Elements(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1e6, 1.0, 1.0]))
    >>> ps.infer(graph, seen).element_mean  # 2, then half of what the one before has
    tensor([2.0000, 1.0000, 0.5000])
    """

    mean: Tensor  # (*batch, elements)
    precision: Tensor  # broadcastable to (*batch, elements), 0 where nothing is known


class Unary(NamedTuple):
    """What the evidence says about each site by itself."""

    precision: Tensor  # (*precision_batch, sites)
    eta: Tensor  # (*batch, sites)
    log_scale: Callable[[], Tensor]  # -> (*batch); a pass over all elements that only the log evidence needs


def read_evidence(
    graph: FactorGraph,
    sites: Sites,
    evidence: Mapping[Name, Any] | Elements | None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> tuple[Unary, list[JointTerm], tuple[Name, ...]]:
    """Check the evidence and put it on the sites: per-element parts, matrix parts, and whose those are.

    With `dtype` or `device` the evidence is brought there; otherwise it must agree on them.

    Raises UnknownNameError, ShapeError, DtypeError, DeviceError, ParameterError (negative precision),
    NotFiniteError.
    """
    if isinstance(evidence, Elements):
        every = "all elements"
        dtype, device = _common({every: tuple(evidence)}, dtype, device)
        pair = _shaped_pair(tuple(evidence), every, (len(sites.elements),), dtype, device)
        return _unary(sites, *pair, {every: evidence}), [], ()
    if evidence is not None and not isinstance(evidence, Mapping):
        raise ParameterError(
            f"evidence is a {type(evidence).__name__}; give a dictionary {{name: (mean, precision)}} or Elements",
            value=evidence,
        )
    evidence = dict(evidence or {})
    dtype, device = _common(evidence, dtype, device)
    pairs: dict[Name, tuple[Tensor, Tensor]] = {}
    joints, names = [], []
    for name, value in evidence.items():
        if name not in graph:
            raise UnknownNameError(f"evidence for {name!r}, which is not in the graph", name=name)
        if graph.nodes[name].get("kind") == "factor":
            ends = _likelihood_ends(graph, name, value)
        else:
            ends = [(name, Identity(graph.shape(name)))]
        if isinstance(value, Gaussian):
            size = sum(m.out_size for _, m in ends)
            joints.append(joint_term(_checked_gaussian(value, name, size, dtype, device), ends, sites))
            names.append(name)
        else:
            pairs[name] = _shaped_pair(value, name, graph.shape(name), dtype, device)
    if joints:  # among pairs alone, means and precisions are compared when they are put together
        batches = {}
        for name, value in evidence.items():
            parts = [value[0].shape[:-2], value[1].shape[:-1], value[2].shape] if name in names else [
                part.shape[:-1] for part in pairs[name]
            ]
            batches[name] = torch.broadcast_shapes(*parts)
        _common_batch(batches, f"for {listed(evidence)}")
    mean, precision = _side_by_side(sites, pairs, dtype, device)
    return _unary(sites, mean, precision, {name: evidence[name] for name in pairs}), joints, tuple(names)


def _side_by_side(
    sites: Sites, pairs: dict[Name, tuple[Tensor, Tensor]], dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """Means and precisions of all elements of all nodes, zero where there is no evidence."""
    zero = torch.zeros(1, dtype=dtype, device=device)
    missing = (zero, zero)
    columns = []
    for k, what in enumerate(("mean", "precision")):
        batch = _common_batch({name: pair[k].shape[:-1] for name, pair in pairs.items()}, what)
        parts = []
        for name, size in sites.sizes.items():
            part, full = pairs.get(name, missing)[k], (*batch, size)
            parts.append(part if part.shape == full else part.expand(full))
        columns.append(torch.cat(parts, -1))
    return columns


def _unary(sites: Sites, mean: Tensor, precision: Tensor, given: Mapping[Name, Any]) -> Unary:
    """Evidence of all elements, checked in one pass, then merged where sites are shared."""
    _common_batch(
        {"the means": mean.shape[:-1], "the precisions": precision.shape[:-1]}, "mean and precision"
    )
    eta = mean * precision
    if not _fine(eta, precision):
        for name, value in given.items():
            own = [torch.as_tensor(part) for part in value]
            require_finite(own[0], f"evidence mean for {name!r}")
            require_finite(own[1], f"evidence precision for {name!r}")
            if bool((own[1] < 0).any()):
                raise ParameterError(
                    f"evidence precision for {name!r} is negative ({own[1].min().item():.4g})", name=name
                )

    def on_sites(values: Tensor) -> Tensor:
        if not sites.merged:
            return values
        total = values.new_zeros(*values.shape[:-1], sites.size)
        return total.index_add(-1, sites.elements.to(values.device), values)

    return Unary(on_sites(precision), on_sites(eta), lambda: log_scale(mean, precision).sum(-1))


def _fine(eta: Tensor, precision: Tensor) -> bool:
    """Whether all is finite and no precision negative, in two fast passes.

    The sum of ``mean * precision`` carries NaN and infinity of both along; one that overflows by itself only costs
    the caller a closer look.
    """
    with torch.no_grad():
        return bool((eta.sum().isfinite() & (precision.amin() >= 0)).item())


def _common_batch(batches: Mapping[Name, torch.Size], what: str) -> torch.Size:
    """The batch that all broadcast to, or ShapeError naming two that do not."""
    total, longest = torch.Size(), None
    for name, batch in batches.items():
        if batch == total:
            continue
        try:
            together = torch.broadcast_shapes(total, batch)
        except RuntimeError:
            raise ShapeError(
                f"evidence {what}: the batch {tuple(batch)} of {name!r} does not fit {tuple(total)} of {longest!r}; "
                "give all nodes one batch, or 1 where it is the same for all",
                name=name,
                expected=tuple(total),
                got=tuple(batch),
            ) from None
        if together != total:
            total, longest = together, name
    return total


def _common(
    evidence: Mapping[Name, Any], dtype: torch.dtype | None, device: torch.device | None
) -> tuple[torch.dtype, torch.device]:
    """The dtype and device all evidence agrees on; plain numbers agree with anything."""
    tensors = [
        (name, part)
        for name, value in evidence.items()
        for part in (value if isinstance(value, tuple) else (value,))
        if isinstance(part, Tensor)
    ]
    if not tensors:
        return dtype or torch.float64, device or torch.device("cpu")
    name, first = tensors[0]
    for other, tensor in tensors:
        if not tensor.is_floating_point():
            raise DtypeError(
                f"evidence for {other!r} has dtype {tensor.dtype}; use float32 or float64", name=other
            )
        if tensor.layout != torch.strided:
            raise DtypeError(f"evidence for {other!r} has layout {tensor.layout}; give a dense tensor", name=other)
        if tensor.is_meta:
            raise DeviceError(f"evidence for {other!r} is on meta, which holds no numbers", name=other)
        if dtype is None and tensor.dtype not in (torch.float32, torch.float64):
            raise DtypeError(
                f"evidence for {other!r} has dtype {tensor.dtype}, too coarse to solve in; use float32, or "
                "ps.compile(graph, dtype=torch.float32), which brings evidence to float32",
                name=other,
            )
        if dtype is None and tensor.dtype != first.dtype:
            raise DtypeError(
                f"evidence for {other!r} is {tensor.dtype}, for {name!r} {first.dtype}; bring them together",
                name=other,
            )
        if device is None and tensor.device != first.device:
            raise DeviceError(
                f"evidence for {other!r} is on {tensor.device}, for {name!r} on {first.device}; "
                "bring them together",
                name=other,
            )
    return dtype or first.dtype, device or first.device


def _shaped_pair(
    value: Any, name: Name, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and precision as ``(*batch, D)``, views where they can be."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise ParameterError(
            f"evidence for {name!r} is a {type(value).__name__}; give a pair (mean, precision) or a Gaussian",
            name=name,
        )
    parts = []
    for what, part in zip(("mean", "precision"), value, strict=True):
        tensor = as_numbers(part, f"evidence {what} for", name, dtype, device)
        lead = tensor.shape[: max(tensor.ndim - len(shape), 0)]
        if tensor.shape[len(lead) :] != shape:
            try:
                tensor = tensor.expand(*lead, *shape)
            except RuntimeError:
                raise ShapeError(
                    f"evidence {what} for {name!r} has shape {tuple(tensor.shape)}, which does not broadcast to "
                    f"(*batch, {', '.join(map(str, shape))})",
                    name=name,
                    expected=shape,
                    got=tuple(tensor.shape),
                ) from None
        parts.append(tensor if len(shape) == 1 else tensor.flatten(len(lead)) if shape else tensor[..., None])
    return parts[0], parts[1]


def as_numbers(value: Any, what: str, name: Name, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`value` as a real tensor. Raises DtypeError (complex numbers), ParameterError (no numbers)."""
    if isinstance(value, Tensor) and value.dtype == dtype and value.device == device:
        return value
    if _complex(value):  # torch drops the imaginary part of what numpy holds
        raise DtypeError(f"{what} {name!r} has complex numbers; real ones needed", name=name)
    try:
        return torch.as_tensor(value, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ParameterError(f"{what} {name!r} is {value!r}, neither a number nor a tensor", name=name) from error


def _complex(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_complex, value))
    if isinstance(value, Tensor):
        return value.is_complex()
    return isinstance(value, np.ndarray | np.generic) and bool(np.iscomplexobj(value))


def _checked_gaussian(
    value: Gaussian, name: Name, size: int, dtype: torch.dtype, device: torch.device
) -> Gaussian:
    if not all(isinstance(part, Tensor) for part in value):
        raise ParameterError(
            f"evidence for {name!r} is a Gaussian of {', '.join(type(part).__name__ for part in value)}; give tensors",
            name=name,
        )
    if tuple(value.precision.shape[-2:]) != (size, size) or value.eta.shape[-1:] != (size,):
        raise ShapeError(
            f"evidence for {name!r} is over {tuple(value.precision.shape[-2:])} elements, it has {size}",
            name=name,
            expected=size,
        )
    batches = value.precision.shape[:-2], value.eta.shape[:-1], value.log_scale.shape
    try:
        torch.broadcast_shapes(*batches)
    except RuntimeError:
        raise ShapeError(
            f"evidence for {name!r}: the batches of precision, eta and log_scale, "
            f"{', '.join(str(tuple(batch)) for batch in batches)}, do not broadcast",
            name=name,
            got=tuple(map(tuple, batches)),
        ) from None
    require_symmetric(value.precision, f"evidence precision for {name!r}")
    require_finite(value.eta, f"evidence eta for {name!r}")
    require_finite(value.log_scale, f"evidence log_scale for {name!r}")
    return Gaussian(*(torch.as_tensor(part, dtype=dtype, device=device) for part in value))


def likelihood_sites(graph: FactorGraph, sites: Sites, name: Name) -> Tensor:
    """The sites that a matrix given as evidence for `name` (a node or a Likelihood factor) is about."""
    if graph.nodes[name]["kind"] != "factor":
        return sites.index[name]
    zero = torch.zeros(())
    size = sum(m.out_size for m in graph.maps(name))
    ends = list(zip(graph.scope(name), graph.maps(name), strict=True))
    return joint_term(Gaussian(zero.expand(size, size), zero.expand(size), zero), ends, sites).sites


def _likelihood_ends(graph: FactorGraph, name: Name, value: Any) -> list[tuple[Name, LinearMap]]:
    if not isinstance(graph.potential(name), Likelihood) or not isinstance(value, Gaussian):
        raise UnknownNameError(
            f"evidence for {name!r}, a factor with a {type(graph.potential(name)).__name__}; only trajectories, "
            "variables, and Likelihood factors (with a Gaussian) take evidence",
            name=name,
        )
    return list(zip(graph.scope(name), graph.maps(name), strict=True))
