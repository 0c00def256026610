"""ArviZ, which the extra `bayesian` brings."""

from __future__ import annotations

import warnings
from typing import Any

from ...extras import optional


def arviz() -> Any:
    """The module. Raises MissingPackageError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # announces, on import, a later major version
        return optional("arviz", "method='bayesian' needs", "bayesian")
