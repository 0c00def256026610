"""
One picture, two readings
=========================

A picture that is one letter as it stands, and another when it is turned upside down: two trajectories, one canvas, and
a rotation between them.
"""

# %%
# The graph. Both views show the whole canvas, so they share its noise, and the network of characters sees each of them
# the right way up.

import matplotlib.pyplot as plt

from pgm_sync import tasks
from pgm_sync.tasks.run import sample_method

pairs = [("M", "W"), ("N", "Z"), ("6", "9"), ("U", "C")]
print(tasks.load("ambiguous", prompts=pairs[0]).scene.graph)

# %%
# Four pictures of each pair, above, and the same turned, below. N and Z, U and C need a quarter turn, which
# ``views=("quarter turn",)`` gives. A classifier says which are read as intended.

figure, axes = plt.subplots(2, 16, figsize=(11, 1.6), layout="constrained")
read = {}
for k, pair in enumerate(pairs):
    view = "quarter turn" if pair in (("N", "Z"), ("U", "C")) else "turned"
    task = tasks.load("ambiguous", prompts=pair, views=(view,))
    results = sample_method(task, "learned", 4, 15, progress=False)
    read[pair] = next(m for m in task.measures() if m.name == "all views read").of(results).value
    for j, picture in enumerate(results.content):
        turns = 1 if view == "quarter turn" else 2
        for ax, shown in zip(axes[:, 4 * k + j], (picture, picture.rot90(turns, (-2, -1))), strict=True):
            ax.imshow(shown[0], cmap="gray", vmin=-1, vmax=1)
            ax.set_axis_off()
    axes[0, 4 * k].set_title(" / ".join(pair), loc="left", fontsize=9)

print(read)
assert max(read.values()) >= 0.5
