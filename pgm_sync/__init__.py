"""Synchronised diffusion on factor graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .denoisers import (
        DenoisedPosterior,
        Denoiser,
        DiffusersDenoiser,
        EmpiricalDenoiser,
        FunctionDenoiser,
        GaussianDenoiser,
        GuidedDenoiser,
        JacobianDenoiser,
        MixtureDenoiser,
        MotionDenoiser,
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
    from .inference import Elements, Plan, Posterior, compile, infer, margin, walk_summability
    from .inspection.correlations import CorrelationTable, correlations
    from .inspection.coupling import CouplingTable, coupling
    from .inspection.inspect import Inspection, inspect
    from .inspection.live import LiveView
    from .inspection.partial import PartialCorrelationTable, partial_correlations
    from .inspection.questions import (
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
    from .inspection.recorder import Recorder
    from .inspection.recording import Recording
    from .learning import (
        FeatureMoments,
        Fit,
        Stationary,
        Symmetry,
        canonical_features,
        choose_features,
        choose_noise_correlation,
        compare_graphs,
        fit,
        learn_structure,
        mirror,
        pca_features,
    )
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
        Lookup,
        Mask,
        Permutation,
        Rotate,
        SparseMap,
        Tokens,
    )
    from .potentials import (
        Attraction,
        Correlation,
        Equality,
        Evidence,
        JointGaussian,
        Likelihood,
        Potential,
        Quadratic,
    )
    from .sampling import (
        Call,
        Langevin,
        LockstepResult,
        LockstepState,
        Resample,
        SampleResult,
        SamplingState,
        attach,
        decode_latents,
        encode_images,
        invert,
        sample,
        sampling_steps,
        synchronize,
    )
    from .score import (
        Annealed,
        CanvasWeights,
        FromDenoiser,
        Jacobian,
        JointDenoiser,
        Scaled,
        Surrogate,
        Tilt,
        epsilon_from_denoised,
        score_from_denoised,
    )

__version__ = "0.1.0"

__all__ = [
    "DCT",
    "Annealed",
    "Attraction",
    "Call",
    "CanvasWeights",
    "ChannelMeans",
    "Composition",
    "Correlation",
    "CorrelationTable",
    "CouplingTable",
    "Crop",
    "Culprits",
    "DenoisedPosterior",
    "Denoiser",
    "DiffusersDenoiser",
    "Elements",
    "EmpiricalDenoiser",
    "Equality",
    "Evidence",
    "FactorGraph",
    "FeatureMoments",
    "Features",
    "Fit",
    "Flip",
    "FromDenoiser",
    "FunctionDenoiser",
    "Gaussian",
    "GaussianDenoiser",
    "GuidedDenoiser",
    "Identity",
    "InfluenceTable",
    "Inspection",
    "Jacobian",
    "JacobianDenoiser",
    "JointDenoiser",
    "JointGaussian",
    "Langevin",
    "Likelihood",
    "LinearMap",
    "LiveView",
    "LockstepResult",
    "LockstepState",
    "Lookup",
    "Mask",
    "MixtureDenoiser",
    "MotionDenoiser",
    "NoiseLevel",
    "PartialCorrelationTable",
    "Permutation",
    "PgmSyncError",
    "Plan",
    "Posterior",
    "Potential",
    "Quadratic",
    "Recorder",
    "Recording",
    "Removal",
    "Resample",
    "Rotate",
    "SampleResult",
    "SamplingState",
    "Scaled",
    "Separation",
    "SparseMap",
    "Stationary",
    "Surrogate",
    "Symmetry",
    "Tilt",
    "Tokens",
    "attach",
    "canonical_features",
    "chain_graph",
    "choose_features",
    "choose_noise_correlation",
    "compare_graphs",
    "compile",
    "complete_graph",
    "correlations",
    "coupling",
    "culprits",
    "decode_latents",
    "encode_images",
    "epsilon_from_denoised",
    "fit",
    "from_trajectory_graph",
    "grid_graph",
    "infer",
    "influence",
    "inspect",
    "invert",
    "learn_structure",
    "margin",
    "mirror",
    "partial_correlations",
    "pca_features",
    "removal",
    "ring_graph",
    "sample",
    "sampling_steps",
    "score_from_denoised",
    "separation",
    "star_graph",
    "synchronize",
    "walk_summability",
    "wide_canvas",
    "without",
]

# Names are imported when first used (PEP 562): `pgm-sync --help` need not wait for torch.
_MODULES = {
    "denoisers": (
        "DenoisedPosterior Denoiser DiffusersDenoiser EmpiricalDenoiser FunctionDenoiser "
        "GaussianDenoiser GuidedDenoiser JacobianDenoiser MixtureDenoiser MotionDenoiser"
    ),
    "errors": "PgmSyncError",
    "gaussian": "Gaussian",
    "graph": (
        "FactorGraph chain_graph complete_graph from_trajectory_graph grid_graph ring_graph star_graph "
        "wide_canvas"
    ),
    "inference": "Elements Plan Posterior compile infer margin walk_summability",
    "inspection.correlations": "CorrelationTable correlations",
    "inspection.coupling": "CouplingTable coupling",
    "inspection.inspect": "Inspection inspect",
    "inspection.live": "LiveView",
    "inspection.partial": "PartialCorrelationTable partial_correlations",
    "inspection.questions": (
        "Culprits InfluenceTable Removal Separation culprits influence removal separation without"
    ),
    "inspection.recorder": "Recorder",
    "inspection.recording": "Recording",
    "learning": (
        "FeatureMoments Fit Stationary Symmetry canonical_features choose_features "
        "choose_noise_correlation compare_graphs fit learn_structure mirror pca_features"
    ),
    "levels": "NoiseLevel",
    "maps": (
        "DCT ChannelMeans Composition Crop Features Flip Identity LinearMap Lookup Mask Permutation Rotate "
        "SparseMap Tokens"
    ),
    "potentials": "Attraction Correlation Equality Evidence JointGaussian Likelihood Potential Quadratic",
    "sampling": (
        "Call Langevin LockstepResult LockstepState Resample SampleResult SamplingState attach decode_latents "
        "encode_images invert sample sampling_steps synchronize"
    ),
    "score": (
        "Annealed CanvasWeights FromDenoiser Jacobian JointDenoiser Scaled Surrogate Tilt "
        "epsilon_from_denoised score_from_denoised"
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
