"""
A texture that goes all the way round
=====================================

Six cameras around a ball. Neighbouring views share texels; opposite ones share none, and only a learned potential can
tell them to show the same kind of surface.
"""

# %%
# The atlas is a hidden canvas. Potentials are learned from photographs that were wrapped around the ball.

import matplotlib.pyplot as plt

from pgm_sync import tasks
from pgm_sync.tasks.run import sample_method

ball = tasks.load("texture")
print(ball.atlas.shares())  # of the texels that each view shows, how many others show too

# %%
# Four textures by each method, seen from four sides.

made = {
    method: sample_method(ball, method, 24, 12, progress=False) for method in ("learned", "multidiffusion")
}
figure, axes = plt.subplots(4, 2, figsize=(7, 4), layout="constrained")
for column, (method, results) in zip(axes.T, made.items(), strict=True):
    column[0].set_title(method, fontsize=9)
    for ax, picture in zip(column, ball.pictures(results.content[:4]), strict=True):
        ax.imshow(picture.permute(1, 2, 0))
        ax.set_axis_off()

# %%
# The correlation between the mean brightness of the front and that of the back. That of real ones is known.

measure = next(m for m in ball.measures() if m.name == "back and front")
found = {method: measure.of(results).value for method, results in made.items()}
print(found, "real:", measure.better)
assert abs(found["learned"] - measure.better) < abs(found["multidiffusion"] - measure.better)
