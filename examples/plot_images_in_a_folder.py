"""
Images in a folder
==================

From a folder of your own pictures to a fitted, inspected and sampled graph. Set ``folder`` to yours; without one, this
page writes crops of seven small photographs.
"""

# %%
# A folder of pictures, all of one size here.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from pgm_sync import zoo

folder = Path(tempfile.mkdtemp())
crops, labels = zoo.wide_crops((3, 16, 32), 420, generator=torch.Generator().manual_seed(0), return_photos=True)
for k, (crop, label) in enumerate(zip(crops, labels, strict=True)):
    plt.imsave(folder / f"{zoo.PHOTOGRAPHS[label]}-{k:03}.png", (crop.permute(1, 2, 0).numpy() / 2 + 0.5).clip(0, 1))

# %%
# The case itself: read the pictures, cut them into a left and a right window, learn how four cosine modes per colour go
# together, look, give every window a denoiser, and sample. Several files are crops of one photograph and so not
# independent; ``groups`` says which, here by the beginnings of their names. Without it, intervals would be much too
# narrow. Where every file is a picture of its own, leave it out.

from diffusers import DDIMScheduler

import pgm_sync as ps

files = sorted(folder.glob("*.png"))
photographs = [file.name.split("-")[0] for file in files]
pictures = torch.stack([torch.from_numpy(plt.imread(file)[..., :3].copy()) for file in files])
pictures = pictures.permute(0, 3, 1, 2) * 2 - 1  # (n, 3, 16, 32) in [-1, 1]
windows = {"left": pictures[..., :16], "right": pictures[..., 16:]}

graph = ps.FactorGraph()
for name in windows:
    graph.add_trajectory(name, shape=(3, 16, 16))
modes = ps.DCT((3, 16, 16), 4)
graph.add_factor("seam", ["left", "right"], ps.JointGaussian(), maps=[modes, modes])

fitted = ps.fit(graph, windows, groups=photographs)
table = ps.correlations(fitted)
strongest = max(table, key=lambda row: abs(row.rho))
print(f"strongest: {strongest.mode}, rho {strongest.rho:+.2f} [{strongest.low:+.2f}, {strongest.high:+.2f}]")

denoisers = {name: ps.EmpiricalDenoiser(x, bandwidth=0.1) for name, x in windows.items()}
result = {
    name: ps.sample(
        fitted, denoisers, DDIMScheduler(clip_sample=False), 20, num_samples=200, couple=couple,
        posterior_covariance="denoiser", progress=False,
    )  # fmt: skip
    for name, couple in (("independent", False), ("learned", True))
}

# %%
# Six samples of each: without the factor the halves are of different photographs. How alike the two halves are in
# brightness, which the pictures of the folder tell as well, shows it in a number.

sheets = {name: torch.cat([r.samples["left"], r.samples["right"]], -1) for name, r in result.items()}
sheets["folder"] = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))]
figure, axes = plt.subplots(3, 6, figsize=(9, 2.6))
for line, (name, sheet) in zip(axes, sheets.items(), strict=True):
    for axis, picture in zip(line, sheet, strict=False):
        axis.imshow((picture.permute(1, 2, 0).numpy() / 2 + 0.5).clip(0, 1))
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")

alike = {}
for name, sheet in sheets.items():
    left, right = (half.mean((1, 2, 3)).numpy() for half in (sheet[..., :16], sheet[..., 16:]))
    alike[name] = float(np.corrcoef(left, right)[0, 1])
    print(f"{name}: brightness of the halves correlates with {alike[name]:+.2f} ({len(sheet)} pictures)")
assert abs(alike["independent"]) < 0.25
assert alike["learned"] > 0.7  # 0.84 here, with a standard error of 0.02
assert alike["folder"] > 0.5
