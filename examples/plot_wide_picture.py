"""
A wide picture
==============

A denoiser that knows squares of 24 by 24 pixels makes a picture that is wider than that, in three ways, and they are
measured against photographs: ``pgm-sync compare wide``, in Python.
"""

# %%
# A task is a graph, a denoiser, what is to be learned and how it is measured. This one has overlapping windows on a
# canvas, and learns how four cosine modes per colour correlate between all of them, from crops of photographs.

import matplotlib.pyplot as plt

import pgm_sync as ps
from pgm_sync import tasks
from pgm_sync.inspection.plots import draw_graph
from pgm_sync.tasks.run import compare, methods

wide = tasks.load("wide", width=60)
table = ps.correlations(wide.scene.learned)
draw_graph(wide.scene.learned, table)
plt.show()

# %%
# What the windows have in common, mode by mode: their mean colour first of all, the more the closer they are.

for factor, nats in table.mutual_information.items():
    strongest = max((row for row in table if row.factor == factor), key=lambda row: abs(row.rho))
    print(f"{factor}: {nats:.2f} nats; strongest {strongest.mode}, rho {strongest.rho:+.2f}")

# %%
# Which methods apply, and if not, why.

for name, reason in methods(wide).items():
    print(f"{name:>22}: {'applies' if reason is None else reason}")

# %%
# Three of them from the same 24 seeds, 10 steps each; and the photographs, to know what to aim for. (For numbers to
# rely on, take hundreds of seeds: ``pgm-sync compare wide``.)

found = compare(
    wide, ["learned", "multidiffusion", "independent", "real"], 24, 10, progress=False
)
sheet = found.sheet()
figure, axis = plt.subplots(figsize=(9, 9 * sheet.height / sheet.width))
axis.imshow(sheet)
axis.set_axis_off()
plt.show()

# %%
# The board has an interval for every number. Methods are paired seed by seed, so that a difference is told from chance
# although single numbers are uncertain.

board = found.board
for metric in board.metrics("wide"):
    print(f"\n{metric}")
    for row in board.standings("wide", metric):
        print(f"  {row.method:>15}: {board['wide', row.method, metric].estimate}   {row.status}")

# %%
# Neighbouring windows agree where they overlap by either method on a canvas. That the two ends belong to one picture,
# only the learned potentials know.

value = {(c.method, c.metric): c.estimate.value for c in board}
real = value["real", "far correlation"]
assert value["independent", "seams"] > 3 > value["learned", "seams"]
for other in ("multidiffusion", "independent"):
    assert abs(value["learned", "far correlation"] - real) < abs(
        value[other, "far correlation"] - real
    )
