"""
MultiDiffusion, DiffCollage and SyncSDE as special cases
========================================================

Three ways of making a wide picture from overlapping windows, on a canvas whose true distribution is known. Each is a
model of how windows correlate; here every one of those models is written out, exactly.
"""

# %%
# The canvas: 40 numbers in a row, Gaussian, with correlation :math:`.98^{|i-j|}`. Seven windows of 16 see it. The
# denoiser of a window is exact for a window, and knows nothing of the rest.

import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync import peers

width, window, stride = 40, 16, 4
index = torch.arange(width, dtype=torch.float64)
truth = 0.98 ** (index[:, None] - index).abs()


def exact(shape: tuple[int, ...]) -> ps.GaussianDenoiser:
    """What is true of as many neighbours."""
    return ps.GaussianDenoiser(torch.zeros(shape).double(), truth[: shape[-1], : shape[-1]])


canvas = ps.wide_canvas((1, 1, width), (1, window), stride)
denoiser = exact((1, 1, window))
scheduler = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
    set_alpha_to_one=False, steps_offset=1,
)  # fmt: skip

# %%
# Every sampler below is deterministic and linear in its noise. So the covariance of its samples needs no samples: put
# in the unit vectors as noise, and the outputs are the columns of the map.


def covariance(sample, graph: ps.FactorGraph, own=denoiser, **options) -> torch.Tensor:
    """Exact covariance of the canvas as a sampler makes it."""
    unit = {"canvas": torch.eye(width, dtype=torch.float64).reshape(width, 1, 1, width)}
    common = {"initial_noise": unit, "dtype": torch.float64, "progress": False}
    result = sample(graph, own, scheduler, 50, width, **common, **options)
    response = result.samples["canvas"].reshape(width, width)
    return response.T @ response


def preset(method: str):
    return lambda *arguments, **options: peers.sample(method, *arguments, **options)


# %%
# *Averaging.* A graph that says which elements windows share, and nothing else, is sampled by Eq. 12,
# :math:`\hat z = \sum_i A_i^\top w_i m_i`. MultiDiffusion averages the next states instead, SyncTweedies proposes six
# placements of the average. Where windows share their noise, they all are Eq. 12.

plain = covariance(ps.sample, canvas)
for method in ("multidiffusion", "synctweedies-2", "synctweedies-4", "synctweedies-5"):
    gap = (covariance(preset(method), canvas) - plain).abs().max().item()
    print(f"{method:>15}: differs from Eq. 12 by {gap:.0e}")
    assert gap < 1e-12

# %%
# *DiffCollage* adds the scores of windows and subtracts those of overlaps, which is the Bethe form of a chain, taken
# at noisy states. That needs denoisers of the overlaps as well; here they are exact.

bethe = covariance(preset("diffcollage"), canvas, separators=exact)

# %%
# *SyncSDE* pulls every window towards the window before it, with one strength that is set by hand. It is a directed
# attraction between noisy states; without strength, windows are independent.

pulled = covariance(preset("syncsde"), canvas, strength=5.0)

# %%
# *The joint score.* Tell the graph what is true of the whole canvas, a Gaussian ``g``, and Eq. 11 is exact.

informed = canvas.copy()
informed.add_factor("prior", ["canvas"], ps.JointGaussian(None, truth))
joint = covariance(ps.sample, informed)

# %%
# The covariances of the samples, and the correlations of the left end with all others. What separates the methods is
# how far they can see: windows that share no number are independent in the models of averaging and of SyncSDE, up to
# what is passed on from step to step. DiffCollage's model is a Markov chain, as it should be, but that is true of the
# clean canvas only: noise destroys it (:doc:`/theory/noisy_marginals`).

import matplotlib.pyplot as plt

made = {
    "truth": truth,
    "joint, Eq. 11": joint,
    "averaging, Eq. 12": plain,
    "DiffCollage": bethe,
    "SyncSDE": pulled,
}
colours = dict(zip(made, ["#1c1c1a", "#2166ac", "#c8501a", "#3b7d4f", "#9970ab"], strict=True))
figure, axes = plt.subplot_mosaic(
    [[*made], ["line"] * len(made)],
    figsize=(9.5, 5.2),
    height_ratios=[1, 1.25],
    layout="constrained",
)
for name, matrix in made.items():
    shown = axes[name].imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    axes[name].set(title=name, xticks=[], yticks=[])
    spread = matrix.diagonal().sqrt()
    axes["line"].plot(
        matrix[0] / spread[0] / spread,
        color=colours[name],
        label=name,
        ls="--" if name == "truth" else "-",
    )
figure.colorbar(shown, ax=[axes[name] for name in made], label="covariance", shrink=0.9)
axes["line"].set(
    xlabel="position",
    title="correlation with the left end",
    ylim=(-0.05, 1.05),
    xlim=(0, width - 1),
)
axes["line"].axvline(window - 0.5, color="#77777a", lw=1, ls=":")
axes["line"].annotate("end of the first window", (window, 0.97), color="#77777a", fontsize=8)
axes["line"].legend(loc="lower left", ncols=2)
plt.show()

# %%
# In numbers. That even the joint score misses some of the variance is not the model's doing: 50 steps are few, and
# this schedule, Stable Diffusion's, starts at a level where what windows have in common still shows through the
# noise.

end, variance = {}, {}
for name, matrix in made.items():
    spread = matrix.diagonal().sqrt()
    end[name], variance[name] = (
        (matrix[0, -1] / spread[0] / spread[-1]).item(),
        matrix.diagonal().mean().item(),
    )
    error = ((matrix - truth).norm() / truth.norm()).item()
    print(
        f"{name:>17}: ends {end[name]:.3f}, mean variance {variance[name]:.3f}, covariance error {error:.3f}"
    )
assert 0.38 < end["joint, Eq. 11"] < end["truth"]
assert max(end["averaging, Eq. 12"], end["SyncSDE"]) < 0.04 < end["DiffCollage"] < 0.1
assert variance["joint, Eq. 11"] > max(variance["averaging, Eq. 12"], variance["SyncSDE"]) + 0.1
