"""Packages that an extra of the installation brings, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingPackageError


def optional(module: str, need: str, extra: str, package: str | None = None) -> Any:
    """The `module`, which the extra brings; `need` and `package`, by default the module, are for the message.

    >>> optional("math", "circles need", "geometry").pi
    3.141592653589793

    Raises MissingPackageError, which names the package and the extra.
    """
    package = package or module
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{need} {package}, which is not installed: pip install 'pgm_sync[{extra}]'", package=package
        ) from error
