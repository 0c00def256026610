"""Measuring methods against each other: metrics with intervals, paired comparisons, cost, and the scoreboard."""

# Documented where they are defined; here so that one import has all metrics.
from ..metrics import Estimate as Estimate
from ..metrics import Measurement as Measurement
from ..metrics import energy_distance as energy_distance
from ..metrics import far_correlation as far_correlation
from ..metrics import proportion as proportion
from .clip import Clip
from .comparison import Difference, Standing, Standings, difference, standings
from .cost import Cost, CostMeter
from .distributions import frechet_distance, kernel_distance, sliced_wasserstein
from .features import elements, embed, pooled_pixels
from .figures import draw_ranks
from .means import mean, ratio, share
from .motion import diversity, residual, transition_jump
from .pictures import intra_distance, off_grid_windows, perceptual_distances, seam_gradient
from .preservation import psnr, ssim
from .prompts import (
    alignment,
    concealment,
    embedding_alignment,
    prompt_accuracy,
    prompt_log_probability,
    view_scores,
)
from .scoreboard import Cell, Scoreboard
from .sheets import method_sheet
from .surfaces import view_disagreement

__all__ = [
    "Cell",
    "Clip",
    "Cost",
    "CostMeter",
    "Difference",
    "Scoreboard",
    "Standing",
    "Standings",
    "alignment",
    "concealment",
    "difference",
    "diversity",
    "draw_ranks",
    "elements",
    "embed",
    "embedding_alignment",
    "frechet_distance",
    "intra_distance",
    "kernel_distance",
    "mean",
    "method_sheet",
    "off_grid_windows",
    "perceptual_distances",
    "pooled_pixels",
    "prompt_accuracy",
    "prompt_log_probability",
    "psnr",
    "ratio",
    "residual",
    "seam_gradient",
    "share",
    "sliced_wasserstein",
    "ssim",
    "standings",
    "transition_jump",
    "view_disagreement",
    "view_scores",
]
