"""The correlations made visible: numbers, questions, figures, recordings of runs, and reports."""

from .correlations import CorrelationTable, ModeCorrelation, correlations
from .counterfactual import Change, ChangeTable, changes, drawn_states, rescaled
from .coupling import Coupling, CouplingTable, coupling
from .difference import Difference, DifferenceTable, difference
from .inspect import Inspection, inspect
from .joint_model import JointModel
from .live import LiveView
from .noise_levels import LevelTable, noise_levels
from .partial import PartialCorrelationTable, partial_correlations
from .plots import (
    correlation_colours,
    draw_correlations,
    draw_difference,
    draw_graph,
    draw_images,
    draw_noise_levels,
    draw_steps,
)
from .questions import (
    Culprits,
    InfluenceTable,
    Removal,
    Separation,
    culprits,
    influence,
    removal,
    separation,
    without,
)
from .recorder import Recorder
from .recording import Recording, StepRecord

__all__ = [
    "Change",
    "ChangeTable",
    "CorrelationTable",
    "Coupling",
    "CouplingTable",
    "Culprits",
    "Difference",
    "DifferenceTable",
    "InfluenceTable",
    "Inspection",
    "JointModel",
    "LevelTable",
    "LiveView",
    "ModeCorrelation",
    "PartialCorrelationTable",
    "Recorder",
    "Recording",
    "Removal",
    "Separation",
    "StepRecord",
    "changes",
    "correlation_colours",
    "correlations",
    "coupling",
    "culprits",
    "difference",
    "draw_correlations",
    "draw_difference",
    "draw_graph",
    "draw_images",
    "draw_noise_levels",
    "draw_steps",
    "drawn_states",
    "influence",
    "inspect",
    "noise_levels",
    "partial_correlations",
    "removal",
    "rescaled",
    "separation",
    "without",
]
