"""
A long motion from short windows
================================

A small network knows windows of 3.2 seconds of a double pendulum's motion. Windows that overlap make a longer one; but
the energy of a pendulum never changes, and averaging overlaps knows nothing of that beyond the next window.
"""

# %%
# The task holds the graph (windows on a canvas of frames), the network, and potentials between all pairs of windows,
# learned from simulated long motions.

import matplotlib.pyplot as plt

from pgm_sync import tasks
from pgm_sync.tasks.motion import drift
from pgm_sync.tasks.run import sample_method
from pgm_sync.zoo.data.motion import energy

motion = tasks.load("motion", frames=80)
print(motion.scene.learned)

# %%
# Eight motions from the same seeds: with the learned potentials, and by averaging what windows say of the frames that
# they share (MultiDiffusion).

made = {
    method: sample_method(motion, method, 8, 15, progress=False).content
    for method in ("learned", "multidiffusion")
}

# %%
# Their energy over time. Simulated motions would give straight lines.

figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for ax, (method, content) in zip(axes, made.items(), strict=True):
    ax.plot(energy(content).T, linewidth=1)
    ax.set(title=method, xlabel="frame", yscale="log")
axes[0].set_ylabel("energy, J")

# %%
# How far the energy wanders between the quarters of a motion, on average.

found = {method: float(drift(content).mean()) for method, content in made.items()}
print(found)
assert found["learned"] < found["multidiffusion"]
