"""One canvas, one denoiser, the same noise: what each method believes about correlation."""

from functools import partial

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync import peers
from pgm_sync.tasks.models import even_scheduler

width, window, stride = 32, 16, 8
place = torch.arange(width, dtype=torch.float64)
truth = 0.97 ** (place[:, None] - place).abs()
graph = ps.wide_canvas((1, 1, width), (1, window), stride)
unit = torch.eye(width, dtype=torch.float64).reshape(width, 1, 1, width)


def exact(shape):
    size = shape[-1]
    return ps.GaussianDenoiser(torch.zeros(shape).double(), truth[:size, :size])


def covariance(draw, **options):
    """Exact covariance of a linear sampler, from its response to unit noises."""
    result = draw(denoisers=exact((1, 1, window)), scheduler=even_scheduler(), num_inference_steps=40,
                  num_samples=width, initial_noise={"canvas": unit}, dtype=torch.float64, progress=False,
                  **options)  # fmt: skip
    response = result.samples["canvas"].reshape(width, width)
    return response.T @ response


found = {}
for method in ("multidiffusion", "syncsde-implicit", "diffcollage"):
    options = {"separators": exact} if method == "diffcollage" else {}
    found[method] = covariance(partial(peers.sample, method, graph), **options)
learned = ps.wide_canvas((1, 1, width), (1, window), stride)
learned.add_factor("prior", ["canvas"], ps.JointGaussian(None, truth))
found["Eq. 11"] = covariance(partial(ps.sample, learned))

figure, axes = plt.subplots(1, 2, figsize=(8.4, 2.9))
colours = {"multidiffusion": "C1", "syncsde-implicit": "#a8862a", "diffcollage": "C2", "Eq. 11": "C0"}
axes[0].plot(place, truth[0], color="C3", ls=":", label="truth")
for method, c in found.items():
    correlation = c[0] / (c[0, 0] * c.diagonal()).sqrt()
    axes[0].plot(place, correlation, color=colours[method], label=method)
    axes[1].plot(place, c.diagonal(), color=colours[method], label=method)
axes[1].axhline(1, color="C3", ls=":")
axes[0].set(xlabel="pixel", ylabel="correlation with pixel 0", ylim=(0, 1.05), title="dependence")
axes[1].set(xlabel="pixel", ylabel="variance of samples", ylim=(0, 1.15), title="marginals")
axes[1].legend(loc="lower center", ncol=2)
