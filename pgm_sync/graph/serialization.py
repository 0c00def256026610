"""Graphs as files: JSON structure, tensors beside it, one file, a format version."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import PgmSyncError, SavedFileError
from ..spec import decode, encode, tensor_from_json, tensor_to_json
from .factor_graph import FactorGraph

FORMAT = "pgm_sync.graph"
VERSION = 1
# How potentials and edges were learned: the name in the file, and in the graph's own attributes.
RECORDS = {"record": "fit", "structure": "structure"}


def to_data(graph: FactorGraph) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as JSON data and named tensors."""
    graph.validate()
    tensors: dict[str, Tensor] = {}
    keys: dict[Any, str] = {}
    nodes = []
    for node, data in graph.nodes(data=True):
        entry = {"kind": data["kind"], "name": encode(node, tensors, keys)}
        if data["kind"] == "factor":
            entry["scope"] = encode(tuple(graph.scope(node)), tensors, keys)
            entry["potential"] = encode(data["potential"], tensors, keys)
            entry["maps"] = encode(data["maps"], tensors, keys)
        else:
            entry["shape"] = encode(data["shape"], tensors, keys)
        nodes.append(entry)
    records = {what: graph.graph.get(key) for what, key in RECORDS.items()}
    return {"format": FORMAT, "version": VERSION, "nodes": nodes, **records}, tensors


def from_data(data: dict[str, Any], tensors: dict[str, Tensor]) -> FactorGraph:
    """The inverse of `to_data`."""
    if data.get("format") != FORMAT:
        raise SavedFileError(f"not a saved graph: format is {data.get('format')!r}, {FORMAT!r} needed")
    if data.get("version") != VERSION:
        raise SavedFileError(
            f"the graph was saved in format version {data.get('version')!r}; "
            f"this package reads version {VERSION}",
            version=data.get("version"),
        )
    graph = FactorGraph()
    for entry in data["nodes"]:
        name = decode(entry["name"], tensors)
        if entry["kind"] == "factor":
            scope, maps = decode(entry["scope"], tensors), decode(entry["maps"], tensors)
            graph.add_factor(name, list(scope), decode(entry["potential"], tensors), maps)
        elif entry["kind"] == "trajectory":
            graph.add_trajectory(name, decode(entry["shape"], tensors))
        else:
            graph.add_variable(name, decode(entry["shape"], tensors))
    graph.graph.update({key: data[what] for what, key in RECORDS.items() if data.get(what)})
    return graph


def save(graph: FactorGraph, path: str | Path) -> None:
    """Write to ``.json`` (all in one readable file) or ``.safetensors`` (structure in its metadata)."""
    path = Path(path)
    data, tensors = to_data(graph)
    if path.suffix == ".json":
        content = json.dumps(
            {**data, "tensors": {k: tensor_to_json(t) for k, t in tensors.items()}}, indent=1
        )
        write_atomically(path, content.encode())
    elif path.suffix == ".safetensors":
        from safetensors.torch import save as to_bytes

        tensors = {k: t.contiguous().cpu() for k, t in tensors.items()}
        write_atomically(path, to_bytes(tensors, metadata={"graph": json.dumps(data)}))
    else:
        raise SavedFileError(f"cannot save to {path.name!r}: the suffix must be .json or .safetensors")


def load(path: str | Path) -> FactorGraph:
    """Read what `save` wrote."""
    path = Path(path)
    try:
        if path.suffix == ".json":
            data = json.loads(path.read_text())
            tensors = {k: tensor_from_json(t) for k, t in data.pop("tensors", {}).items()}
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                data = json.loads((file.metadata() or {}).get("graph", "{}"))
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        return from_data(data, tensors)
    except (FileNotFoundError, PgmSyncError):
        raise
    except Exception as error:
        raise SavedFileError(
            f"{path.name!r} is not a readable saved graph: {error}", path=str(path)
        ) from error


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write so that `path` holds either its old or its whole new content, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp keeps the file to its owner; a result is an ordinary file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
