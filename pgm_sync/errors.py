"""Named failures: one root, each carrying the data a program needs to react to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def listed(names: Iterable[Any], most: int = 8) -> str:
    """Names as messages show them: the first `most` of `names`, and how many more there are.

    >>> listed(["left", 1, 2, 3], most=2)
    "'left', 1 and 2 more"
    """
    given = list(names)
    rest = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(map(repr, given[:most])) + rest or "none"


class PgmSyncError(ValueError):
    """Root of every error raised on purpose by this package; a ValueError.

    Keyword arguments given at construction (`data`) become attributes, so that a caller can read the offending
    node, factor, shape or step without parsing the `message`.

    >>> import pgm_sync as ps
    >>> try:
    ...     ps.Mask((4,), mask=[0, 1, 2, 1])
    ... except ps.PgmSyncError as error:
    ...     print(type(error).__name__, error.value)
    ParameterError [0, 1, 2, 1]
    """

    def __init__(self, message: str, **data: Any):
        super().__init__(message)
        self.data = data
        for key, value in data.items():
            setattr(self, key, value)


class UnknownNameError(PgmSyncError):
    """A trajectory, variable or factor that the graph does not have."""


class DuplicateNameError(PgmSyncError):
    """A name that the graph already has."""


class EmptyGraphError(PgmSyncError):
    """A graph without any trajectory or variable."""


class GraphStructureError(PgmSyncError):
    """Edges or nodes that no call of `FactorGraph` made, or a scope that makes no sense."""


class ShapeError(PgmSyncError):
    """Shapes that do not fit each other."""


class DtypeError(PgmSyncError):
    """A dtype that is not floating point, or two that differ where they must agree."""


class DeviceError(PgmSyncError):
    """Tensors on different devices."""


class ParameterError(PgmSyncError):
    """A number or option outside its range."""


class CovarianceError(PgmSyncError):
    """A covariance or precision matrix that is not symmetric, or not positive definite."""


class NotFiniteError(PgmSyncError):
    """NaN or infinity in evidence, data, or a denoiser's output."""


class UnfittedError(PgmSyncError):
    """A potential without parameters was asked for numbers."""


class ImproperGraphError(PgmSyncError):
    """The joint density cannot be normalised: some direction has no positive precision."""


class UnseenSiteError(PgmSyncError):
    """Shared sites that no trajectory sees."""


class MeshError(PgmSyncError):
    """A mesh that cannot be textured: no faces, no area, or texture coordinates of no use."""


class CameraError(PgmSyncError):
    """A camera that sees nothing of a mesh, or stands inside it; ``name`` is its view."""


class WeightError(PgmSyncError):
    """Canvas weights that are not a partition of unity."""


class StalePlanError(PgmSyncError):
    """A compiled plan whose graph has changed since."""


class UnsupportedError(PgmSyncError):
    """A combination this package does not (yet) compute; the message names the nearest that works."""


class UnsupportedSchedulerError(UnsupportedError):
    """A scheduler or prediction type without known noise coordinates."""


class BatchError(PgmSyncError):
    """A batch that does not match the trajectories or the seeds."""


class PipelineError(PgmSyncError):
    """A pipeline of several in lockstep failed; ``name`` is its trajectory, ``step`` when, the cause is the failure."""


class StepCountError(PgmSyncError):
    """Pipelines in lockstep that take different numbers of steps; ``steps`` has them by trajectory."""


class SavedFileError(PgmSyncError):
    """A saved graph that is corrupted or of another format version."""


class RecordingError(PgmSyncError):
    """Contents that do not fit a recording's budget of bytes, a folder that holds another one, or a second run."""


class MissingPackageError(PgmSyncError, ImportError):
    """An optional package that is not installed; the message says which extra brings it."""


class ProcessError(PgmSyncError):
    """Another process of a run over several of them ended, or does not answer."""


class ConvergenceError(PgmSyncError):
    """An iteration that did not reach its tolerance; `trace` holds the residuals."""


class CavityError(PgmSyncError):
    """A message of belief propagation whose sender has no positive precision without the receiver.

    ``source`` and ``target`` name the message (no target: the belief of `source`), ``iteration`` when,
    ``precision`` the number that should have been positive.
    """


class LoopError(UnsupportedError):
    """Something that is only right on forests was asked of a graph with a loop; ``cycle`` names its nodes."""


class DiagnosticsError(PgmSyncError):
    """Draws from a posterior that cannot be trusted.

    ``diagnostics`` has the numbers and which of them fail, ``fit`` the draws: nothing computed is lost.
    """
