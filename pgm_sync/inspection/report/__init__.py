"""A report as one self-contained HTML file: no external resource, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from ...graph import FactorGraph
from ..difference import DifferenceTable
from ..edges import by_edge
from ..joint_model import JointModel
from ..layout import MOST_NODES
from ..noise_levels import LevelTable
from ..partial import PartialCorrelationTable
from ..recording import Recording
from ..svg import graph_svg
from .comparison import comparison, two_drawings
from .data import graph_data
from .drawing import curves, drawing
from .experiment import IN_PAGE, beforehand, experiment, model_data, recorded_states
from .heat import heat_map
from .numbers import Metric, numbers
from .page import page
from .parts import section
from .pictures import Sheet, pictures
from .run import parameters as settings
from .run import seconds
from .steps import recording_data, steps

__all__ = ["Metric", "Other", "Sheet", "report"]

CURVES = "Which factors act at which noise level."
WHAT_IF = (
    "Cut a factor, or make it weaker or stronger, and see where the joint denoised contents go (Eq. 6, surrogate "
    "covariances). The correlation between its ends is multiplied by the strength; the ends' own marginals stay."
)
STEPS = (
    "The run as it was recorded: what every trajectory's own denoiser said, what joint denoising made of it, and what "
    "acted. The step slider also sets the noise level of the graph above."
)


class Other(NamedTuple):
    """What a graph is compared with, for `report`; `inspect` makes one of a second thing.

    >>> import pgm_sync as ps
    >>> from pgm_sync.inspection.difference import difference
    >>> graphs = [ps.chain_graph(2, 1, ps.Correlation(rho)) for rho in (0.8, 0.5)]
    >>> tables = [ps.correlations(graph) for graph in graphs]
    >>> other = Other(("this", "weaker"), graphs[1], tables[1], difference(*tables))
    >>> "weaker" in report("Two graphs", graph=graphs[0], table=tables[0], other=other)
    True
    """

    names: tuple[str, str]  # of this one and of the other
    graph: FactorGraph  # the other one
    table: Sequence[Any]  # its correlations
    difference: DifferenceTable  # of the two tables


def report(
    title: str,
    lead: str = "",
    sheets: Sequence[Sheet] = (),
    metrics: Sequence[Metric] = (),
    graph: FactorGraph | None = None,
    table: Sequence[Any] | None = None,
    timing: Mapping[str, Mapping[str, float]] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    command: str = "",
    model: JointModel | None = None,
    levels: LevelTable | None = None,
    partial: PartialCorrelationTable | None = None,
    recording: Recording | None = None,
    other: Other | None = None,
) -> str:
    """The page, as one self-contained HTML text. Parts that are not given are left out.

    `title` and `lead` head it; `sheets` and `metrics` show and measure methods; `graph` is drawn.
    `table` is what ``ps.correlations(fitted)`` returns; `timing` gives seconds by row and part; `parameters` groups of
    names and values; `command` how to make the same page again. `model` and `levels` of the same graph add curves by
    noise level and counterfactuals, `partial` the correlations given all other nodes, `recording` the steps of a run;
    `other` is compared with.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(3, (1,), ps.Correlation(0.8))
    >>> page = report("Three windows", graph=graph, table=ps.correlations(graph))
    >>> page.lower().startswith("<!doctype html>"), "<svg" in page
    (True, True)

    Raises NotFiniteError, ShapeError on pictures that are none.
    """
    edges = by_edge(table) if table is not None else {}
    data: dict[str, Any] | None = None
    if graph is not None:
        data = graph_data(graph, edges, model, levels, partial)
        if model is not None and model.terms:
            if model.size <= IN_PAGE:
                data["model"] = model_data(
                    graph, model, [] if recording is None else recorded_states(model, recording)
                )
            elif levels is not None:
                data["beforehand"] = beforehand(graph, model, levels)
        if recording is not None and recording.records:
            places = {factor: k for k, factor in enumerate(graph.factors)}
            data["recording"] = recording_data(recording, places, model)
    what_if = data is not None and ("model" in data or "beforehand" in data)
    count = len(levels.log_snr) if levels else 0
    sections = [
        section("Pictures", pictures(sheets)) if sheets else "",
        section("Numbers", numbers(metrics)) if metrics else "",
        section("Graph", drawing(graph, table, count)) if graph is not None else "",
        section("Correlations", heat_map(edges, graph)) if edges else "",
        section("Noise levels", curves(), CURVES, hidden=True) if levels else "",
        section("What if", experiment("model" in (data or {})), WHAT_IF, hidden=True) if what_if else "",
        section("Step by step", steps(recording), STEPS, hidden=True)
        if recording and recording.records
        else "",
        section("Comparison", _comparison(graph, table, other)) if other is not None else "",
        section("Time", seconds(timing)) if timing else "",
        section("Parameters", settings(parameters)) if parameters else "",
        section("Make it again", f"<pre><code>{escape(command)}</code></pre>") if command else "",
    ]
    return page(title, lead, sections, data)


def _comparison(graph: FactorGraph | None, table: Sequence[Any] | None, other: Other) -> str:
    drawings = ""
    if graph is not None and max(len(graph), len(other.graph)) <= MOST_NODES:
        drawings = two_drawings(graph_svg(graph, table), graph_svg(other.graph, other.table), other.names)
    return comparison(other.difference, other.names, drawings)
