"""ArviZ, which the extra `bayesian` brings."""

from __future__ import annotations

import warnings
from typing import Any

from ...errors import MissingPackageError


def arviz() -> Any:
    """The module. Raises MissingPackageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # announces, on import, a later major version
            import arviz
    except ImportError as error:
        raise MissingPackageError(
            "method='bayesian' needs arviz, which is not installed: pip install 'pgm_sync[bayesian]'",
            package="arviz",
        ) from error
    return arviz
