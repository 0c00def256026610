"""Synchronised diffusion on factor graphs."""

from __future__ import annotations

from .denoisers import (
    DenoisedPosterior,
    Denoiser,
    EmpiricalDenoiser,
    FunctionDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
)
from .errors import PgmSyncError
from .gaussian import Gaussian
from .graph import (
    FactorGraph,
    chain_graph,
    complete_graph,
    from_trajectory_graph,
    grid_graph,
    ring_graph,
    star_graph,
    wide_canvas,
)
from .inference import Plan, Posterior, compile, infer
from .inspection.correlations import CorrelationTable, correlations
from .learning import fit
from .levels import NoiseLevel
from .maps import (
    DCT,
    ChannelMeans,
    Composition,
    Crop,
    Features,
    Flip,
    Identity,
    LinearMap,
    Mask,
    Permutation,
    Rotate,
    SparseMap,
)
from .potentials import Attraction, Correlation, Equality, Evidence, JointGaussian, Likelihood, Potential
from .sampling import SampleResult, SamplingState, sample, sampling_steps
from .score import JointDenoiser, epsilon_from_denoised, score_from_denoised

__version__ = "0.1.0"

__all__ = [
    "DCT",
    "Attraction",
    "ChannelMeans",
    "Composition",
    "Correlation",
    "CorrelationTable",
    "Crop",
    "DenoisedPosterior",
    "Denoiser",
    "EmpiricalDenoiser",
    "Equality",
    "Evidence",
    "FactorGraph",
    "Features",
    "Flip",
    "FunctionDenoiser",
    "Gaussian",
    "GaussianDenoiser",
    "Identity",
    "JointDenoiser",
    "JointGaussian",
    "Likelihood",
    "LinearMap",
    "Mask",
    "MixtureDenoiser",
    "NoiseLevel",
    "Permutation",
    "PgmSyncError",
    "Plan",
    "Posterior",
    "Potential",
    "Rotate",
    "SampleResult",
    "SamplingState",
    "SparseMap",
    "chain_graph",
    "compile",
    "complete_graph",
    "correlations",
    "epsilon_from_denoised",
    "fit",
    "from_trajectory_graph",
    "grid_graph",
    "infer",
    "ring_graph",
    "sample",
    "sampling_steps",
    "score_from_denoised",
    "star_graph",
    "wide_canvas",
]
