"""The front door of inspection: a fitted graph, a sampled result or a recorded run as tables, figures and one page."""

from __future__ import annotations

import html
from collections import namedtuple
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ParameterError, PgmSyncError, UnfittedError
from ..graph import FactorGraph
from ..graph.serialization import write_atomically
from ..learning import Fit
from ..score import PosteriorCovariance
from ..tables import Table
from .correlations import CorrelationTable, correlations
from .difference import DifferenceTable, difference
from .factors import FactorTable, factor_table
from .joint_model import JointModel, joint_model
from .layout import MOST_NODES
from .noise_levels import LevelTable, noise_levels
from .partial import PartialCorrelationTable, partial_correlations
from .recording import TABLES, Recording
from .report import Other, report
from .storage import HEADER

GRAPH, RECORDING = "graph.safetensors", "recording"  # in the folder of a run
SHOWN_IN_NOTEBOOK = 760  # pixels of height


def inspect(
    thing: Any,
    other: Any = None,
    *,
    title: str | None = None,
    names: tuple[str, str] = ("this", "other"),
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    noise_correlation: float | None = None,
    command: str = "",
) -> Inspection:
    """The inferred correlations of `thing` in numbers, figures and one HTML page.

    Parameters
    ----------
    thing
        a graph with fitted potentials; what `sample`, `synchronize` or `fit_bayesian` returned, of which the graph is
        inspected; a `Recording` or the `Recorder` that made it; or the path of a saved graph, a recording, or a run.
    other
        something of the same kinds to compare with.
    title
        of the page.
    names
        what to call the two in a comparison.
    posterior_covariance
        C_i of Eq. 4 for everything that depends on the noise level: "surrogate", or the variance of the contents where
        no potential states one (Attraction).
    noise_correlation
        c of Eq. 5', in [0, 1); by default that of the recording, or 0. Trajectories on a canvas
        share its noise in any case.
    command
        how to make the page again, written at its end.

    Raises ParameterError for things of other kinds, and as `FactorGraph.load` and `correlations`. What cannot be
    computed for a graph, such as curves by noise level where Eq. 5 has no surrogate, is left out; ``notes`` says why.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, (2,), ps.Correlation(0.5))
    >>> seen = ps.inspect(graph)
    >>> sorted(seen.tables)
    ['correlations', 'factors', 'noise_levels', 'partial_correlations']
    >>> print(seen.tables["correlations"])
    factor  ends   mode           rho     95 % interval  nats
    (0, 1)  0 - 1  every element  +0.500                 0.1438
    (1, 2)  1 - 2  every element  +0.500                 0.1438
    """
    second = None
    if other is not None:
        second = inspect(
            other, posterior_covariance=posterior_covariance, noise_correlation=noise_correlation
        )
    graph, recording = _opened(thing)
    if recording is not None:
        noise_correlation = recording.noise_correlation if noise_correlation is None else noise_correlation
        if posterior_covariance == "surrogate" and recording.variance is not None:
            posterior_covariance = recording.variance
    settings = {"posterior_covariance": posterior_covariance, "noise_correlation": noise_correlation or 0.0}
    return Inspection(graph, title or _title(thing), settings, recording, second, names, command)


@dataclass(frozen=True, repr=False)
class Inspection:
    """What `inspect` found; computed when first asked for.

    >>> import pgm_sync as ps
    >>> seen = ps.inspect(ps.chain_graph(3, 1, ps.Correlation(0.8)))
    >>> seen.correlations[0].rho, round(seen.partial[0].partial, 3), seen.notes
    (0.8, 0.625, [])
    """

    graph: FactorGraph  # what was inspected
    title: str  # of the page
    settings: dict[str, Any]  # how it was asked
    recording: Recording | None = None  # of a run, where there is one
    other: Inspection | None = None  # what it is compared with
    names: tuple[str, str] = ("this", "other")  # of the two
    command: str = ""  # how to make the page again

    # ---- numbers -----------------------------------------------------------------------------------------

    @cached_property
    def correlations(self) -> CorrelationTable:
        """Mode by mode, with intervals."""
        return correlations(self.graph)

    @cached_property
    def factors(self) -> FactorTable:
        """Every factor: learned, given, structural or observed."""
        return factor_table(self.graph, self.correlations)

    @cached_property
    def _modelled(self) -> tuple[JointModel | None, LevelTable | None, str]:
        try:
            model = joint_model(self.graph, **self.settings)
            return model, noise_levels(model), ""
        except UnfittedError:
            return None, None, "Not fitted yet: ps.fit(graph, data) learns the potentials."
        except PgmSyncError as error:
            return None, None, f"No curves by noise level and no counterfactuals: {error}."

    @property
    def model(self) -> JointModel | None:
        """Eq. 5 in dense matrices; None where the graph has none, see `notes`."""
        return self._modelled[0]

    @property
    def levels(self) -> LevelTable | None:
        """What is inferred between the ends of every factor by noise level."""
        return self._modelled[1]

    @cached_property
    def partial(self) -> PartialCorrelationTable | None:
        """What is left of the correlations given all other nodes; None where the graph has no joint prior."""
        try:
            return partial_correlations(self.graph)
        except PgmSyncError:
            return None

    @cached_property
    def difference(self) -> DifferenceTable | None:
        """Against `other`."""
        return None if self.other is None else difference(self.correlations, self.other.correlations)

    @property
    def notes(self) -> list[str]:
        """What was left out, and why."""
        return [self._modelled[2]] if self._modelled[2] else []

    @property
    def tables(self) -> dict[str, Table[Any]]:
        """All tables by name, those that there are; each has ``to_frame()``."""
        found: dict[str, Table[Any] | None] = {
            "correlations": self.correlations, "factors": self.factors,
            "partial_correlations": self.partial or None, "noise_levels": self.levels,
            "difference": self.difference, **self._recorded,
        }  # fmt: skip
        return {name: table for name, table in found.items() if table is not None}

    @cached_property
    def _recorded(self) -> dict[str, Table[Any]]:
        """The tables of the recording, as `Recording.rows` has them."""
        if self.recording is None:
            return {}
        found: dict[str, Table[Any]] = {}
        for what in TABLES:
            if what == "coupling" and not self.recording.flow:
                continue  # no potential couples anything
            try:
                rows = self.recording.rows(what)
            except PgmSyncError:  # coupling, of graphs that have no surrogate
                continue
            if rows:
                found[what if what == "steps" else f"step_{what}"] = RecordedTable(what, rows)
        return found

    # ---- figures -----------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """matplotlib figures of the same, by name. Raises MissingPackageError without matplotlib."""
        from . import plots

        found = {}
        if len(self.graph) <= MOST_NODES:
            found["graph"] = plots.draw_graph(self.graph, self.correlations).figure
        if len(self.correlations):
            found["correlations"] = plots.draw_correlations(self.correlations).figure
        if self.levels is not None and len(self.levels):
            found["noise_levels"] = plots.draw_noise_levels(self.levels)
        if self.recording is not None and len(self.recording):
            found["steps"] = plots.draw_steps(self.recording)
        if self.difference is not None and any(row.difference == row.difference for row in self.difference):
            found["difference"] = plots.draw_difference(self.difference, self.names).figure
        return found

    # ---- the page ----------------------------------------------------------------------------------------

    def to_html(self) -> str:
        """The page: one file that needs no network."""
        model, levels, _ = self._modelled
        other = None
        if self.other is not None and self.difference is not None:
            other = Other(self.names, self.other.graph, self.other.correlations, self.difference)
        parameters = {"Fit": Fit.of(self.graph).settings()} if self.graph.graph.get("fit") else None
        return report(
            self.title, " ".join([repr(self.graph) + ".", *self.notes]), graph=self.graph, table=self.correlations,
            parameters=parameters, command=self.command, model=model, levels=levels,
            partial=self.partial, recording=self.recording, other=other,
        )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; returns the path."""
        write_atomically(path, self.to_html().encode())
        return Path(path)

    def show(self) -> None:
        """Open the page: below the cell in a notebook, else in a browser, from a temporary file."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            get_ipython = None
        if get_ipython is not None and get_ipython() is not None:
            display(self)
            return
        import tempfile
        import webbrowser

        webbrowser.open(self.save(Path(tempfile.mkdtemp()) / "inspection.html").as_uri())

    def _repr_html_(self) -> str:
        page = html.escape(self.to_html(), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="{html.escape(self.title, quote=True)}" width="100%" '
            f'height="{SHOWN_IN_NOTEBOOK}" style="border:1px solid #8884;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Inspection({self.graph!r}, {', '.join(self.tables)})"

    def __str__(self) -> str:
        return "\n\n".join([str(self.correlations), *self.notes])


def _opened(thing: Any) -> tuple[FactorGraph, Recording | None]:
    """The graph of a thing, and the recording if it is one or has one."""
    if isinstance(thing, str | Path):
        thing = _read(Path(thing))
    if isinstance(thing, FactorGraph):
        return thing, None
    found = thing if isinstance(thing, Recording) else getattr(thing, "recording", None)
    if isinstance(found, Recording):
        return found.graph, found
    graph = getattr(thing, "graph", None)
    if isinstance(graph, FactorGraph):  # what sample, synchronize and fit_bayesian return
        return graph, None
    raise ParameterError(
        f"cannot inspect {type(thing).__name__}; give a graph with fitted potentials, what ps.sample returned, a "
        "recording, or the path of a saved graph"
        + ("; a Fit is the record that the fitted graph carries" if isinstance(thing, Fit) else "")
    )


def _read(path: Path) -> FactorGraph | Recording:
    """A saved graph, or of a folder its recording, else its graph."""
    if not path.is_dir():
        return FactorGraph.load(path)
    for folder in (path, path / RECORDING):
        if (folder / HEADER).exists():
            return Recording.load(folder)
    return FactorGraph.load(path / GRAPH)


class RecordedTable(Table[Any]):
    """Rows of one of the tables of a `Recording`, a NamedTuple each; `head` is the table's own."""

    def __init__(self, what: str, rows: list[dict[str, Any]]):
        row = namedtuple(what.capitalize(), list(rows[0]))  # type: ignore[misc]  # fields differ between tables
        super().__init__([row(**values) for values in rows])
        self.head = tuple(rows[0])  # type: ignore[misc]  # of each table, not of the class

    def cells(self, row: Any) -> list[str]:
        """What a row shows."""
        return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]


def _title(thing: Any) -> str:
    return f"Correlations of {Path(thing).name}" if isinstance(thing, str | Path) else "Inferred correlations"
