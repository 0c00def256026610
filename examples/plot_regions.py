"""
Regions in one light
====================

A background and two regions in it, photographs of three kinds, in the same light. Each has a denoiser of its own that
knows its kind in any light; that all three stand in one light is a potential, learned from composed pictures.
"""

# %%
# Features are the mean colours of what each trajectory contributes, three numbers; the potential couples them.

import matplotlib.pyplot as plt

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.tasks.run import sample_method

regions = tasks.load("mask", prompts=("china", "flower", "coffee"))
print(ps.correlations(regions.scene.learned))

# %%
# The same seeds with the potential, without it, and by averaging on one canvas under the masks (MultiDiffusion), where
# every denoiser sees contents that it does not know.

made = {
    method: sample_method(regions, method, 40, 15, progress=False)
    for method in ("learned", "independent", "multidiffusion")
}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for row, (method, results) in zip(axes, made.items(), strict=True):
    for ax, picture in zip(row, regions.pictures(results.content[:8]), strict=True):
        ax.imshow(picture.permute(1, 2, 0))
        ax.set_axis_off()
    row[0].set_title(method, loc="left", fontsize=9)

# %%
# Energy distance to real pictures composed in one light (0: the same distribution), and by how much the brightness of
# regions differs from the background's (as close to that of real ones as possible).

measures = {measure.name: measure for measure in regions.measures()}
distance, mismatch = measures["energy distance"], measures["light mismatch"]
for method, results in made.items():
    print(f"{method:15} {distance.of(results)}   {mismatch.of(results)}, real {mismatch.better:.3f}")
gap = {method: abs(mismatch.of(results).value - mismatch.better) for method, results in made.items()}
assert gap["learned"] < min(gap["independent"], gap["multidiffusion"])
