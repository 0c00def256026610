"""Recordings as folders: the graph, a header, and one file per step, each whole or not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from ..errors import PgmSyncError, RecordingError, SavedFileError
from ..graph.factor_graph import FactorGraph, Name
from ..graph.serialization import load as load_graph
from ..graph.serialization import write_atomically
from ..spec import decode, encode
from .recording import Recording, StepRecord

FORMAT, VERSION = "pgm_sync.recording", 1
HEADER, GRAPH = "recording.json", "graph.safetensors"
STEP = re.compile(r"step-(\d+)\.safetensors")
ARRAYS = ("images", "heat")


def begin(folder: Path, graph: FactorGraph) -> None:
    """Write the graph to an empty folder. Raises RecordingError where it holds a recording, SavedFileError."""
    if (folder / HEADER).exists() or (folder / GRAPH).exists():
        raise RecordingError(f"{str(folder)!r} holds a recording already; give another folder", folder=str(folder))
    graph.save(folder / GRAPH)


def write_header(folder: Path, recording: Recording) -> None:
    """Write what does not change from step to step."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "num_steps": recording.num_steps,
        "num_samples": recording.num_samples,
        "noise_correlation": recording.noise_correlation,
        "variance": recording.variance,
        "samples": list(recording.samples),
        "note": recording.note,
    }
    write_atomically(folder / HEADER, json.dumps(header, indent=1).encode())


def write_step(folder: Path, recording: Recording, record: StepRecord) -> None:
    """Write one step: numbers as JSON in the metadata, contents as tensors."""
    tensors: dict[str, np.ndarray] = {}
    data: dict[str, Any] = {}
    for field, value in record._asdict().items():
        if field in ARRAYS:
            data[field] = {kind: _listed(kept, tensors) for kind, kept in value.items()}
        else:
            data[field] = _listed(value, tensors) if isinstance(value, dict) else value
    content = to_bytes(tensors, metadata={"record": json.dumps(data)})
    write_atomically(folder / f"step-{record.step:06d}.safetensors", content)


def save(recording: Recording, folder: str | Path) -> None:
    """All of a recording at once. Raises RecordingError, SavedFileError."""
    folder = Path(folder)
    begin(folder, recording.graph)
    for record in recording.records:
        write_step(folder, recording, record)
    write_header(folder, recording)


def load(folder: str | Path) -> Recording:
    """Read a folder as far as it was written. Raises SavedFileError."""
    folder = Path(folder)
    try:
        graph = load_graph(folder / GRAPH)
        recording = Recording(graph)
        if not (folder / HEADER).exists():  # ended before its first step
            return recording
        header = json.loads((folder / HEADER).read_text())
        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise SavedFileError(
                f"{str(folder)!r} has a recording of format {header.get('format')!r}, version "
                f"{header.get('version')!r}; this package reads {FORMAT!r}, version {VERSION}",
                folder=str(folder),
            )
        for key in ("num_steps", "num_samples", "noise_correlation", "variance", "note"):
            setattr(recording, key, header[key])
        recording.samples = tuple(header["samples"])
        files = sorted(path for path in folder.iterdir() if STEP.fullmatch(path.name))
        recording.records = [_read_step(path) for path in files]
        return recording
    except FileNotFoundError as error:
        raise SavedFileError(f"{str(folder)!r} holds no recording: {error}", folder=str(folder)) from error
    except PgmSyncError:
        raise
    except Exception as error:
        raise SavedFileError(f"{str(folder)!r} holds a damaged recording: {error}", folder=str(folder)) from error


def _read_step(path: Path) -> StepRecord:
    with safe_open(path, framework="np") as file:
        data = json.loads(file.metadata()["record"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    for field, value in data.items():
        if field in ARRAYS:
            data[field] = {kind: _named(kept, tensors) for kind, kept in value.items()}
        elif isinstance(value, list):
            data[field] = _named(value, tensors)
    data["levels"] = {name: tuple(level) for name, level in data["levels"].items()}
    return StepRecord(**data)


def _listed(values: dict[Any, Any], tensors: dict[str, np.ndarray]) -> list[Any]:
    """A dictionary by names, which need not be texts, as a list of pairs; arrays go to `tensors`."""
    pairs = []
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            key = f"t{len(tensors)}"
            tensors[key] = value
            value = {"array": key}
        elif isinstance(value, dict):
            value = _listed(value, tensors)
        pairs.append([encode(name, {}), value])
    return pairs


def _named(pairs: list[Any], tensors: dict[str, np.ndarray]) -> dict[Name, Any]:
    """The inverse of `_listed`."""
    out: dict[Any, Any] = {}
    for name, value in pairs:
        if isinstance(value, dict):
            value = tensors[value["array"]]
        elif isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value):
            value = _named(value, tensors)
        out[decode(name, {})] = value
    return out
