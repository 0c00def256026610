"""Packages that the extra `inspection` brings, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingPackageError


def optional(package: str, what: str, install: str = "pgm_sync[inspection]") -> Any:
    """The module `package`, which `what` needs. Raises MissingPackageError."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed: pip install '{install}'", package=package
        ) from error
