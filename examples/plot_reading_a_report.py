"""
Reading an inspection report
============================

A fitted graph is a statement about the world: what one trajectory tells about another, how surely that is known, and
when in a run it matters. One call, :py:obj:`inspect <pgm_sync.inspection.inspect>`, puts it on one page. Here
are the same numbers as tables and figures.
"""

# %%
# Three windows of wide photographs, coupled in the four lowest cosine modes of every colour channel.

import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync import zoo

generator = torch.Generator().manual_seed(0)
crops, photographs = zoo.wide_crops((3, 24, 60), 500, generator=generator, return_photos=True)
canvas = ps.wide_canvas((3, 24, 60), (24, 24), 18, features=lambda shape: ps.DCT(shape, modes=4), neighbours="all")
fitted = ps.fit(canvas, {"canvas": crops}, groups=photographs)
seen = ps.inspect(fitted, title="Three windows of photographs")
figures = seen.figures()

# %%
# Which factors are there, and which of them were learned? Squares between windows are potentials fitted to data, those
# towards the canvas only say which pixels are shared.

figures["graph"]
for row in seen.tables["factors"]:
    print(f"{row.kind:>10}  {row.factor}  {row.mode}")

# %%
# Mode by mode: brightness (``dct0,0``) of neighbours goes together, its slope less so. An interval that contains 0 is
# no evidence of a correlation: there are few photographs, however many crops.

figures["correlations"]

# %%
# A large correlation need not come from the edge itself. The partial correlation is what is left once all other
# windows are known: between the outer two it is a fraction of the correlation, most of which runs through the middle.

partial = {(row.factor, row.mode): row for row in seen.tables["partial_correlations"]}
far = partial[("w0", "w2"), "c0 dct0,0"]
print(f"outer windows, brightness: correlation {far.rho:.2f}, given the middle window {far.partial:.2f}")

# %%
# When does a factor act? With pure noise, at the left, nobody knows anything to pass on; with little noise, at the
# right, everybody knows. In between the joint denoised means would move most if the factor were cut.

figures["noise_levels"]
levels = seen.tables["noise_levels"]
movement = {factor: [row.movement for row in levels.of(factor)] for factor in levels.modes}
peak = {factor: levels.log_snr[values.index(max(values))] for factor, values in movement.items()}
for factor, log_snr in peak.items():
    print(f"{factor}: at most {max(movement[factor]):.3f}, at log snr {log_snr:+.1f}")

# %%
# A run says what happened. The recorder keeps numbers of every step and pictures of some; inspecting it adds the steps.

recorder = ps.Recorder(fitted)
ps.sample(
    fitted, zoo.load("photo-patches"), DDIMScheduler(clip_sample=False), 12, seed=1, progress=False, on_step=recorder
)
run = ps.inspect(recorder, title="Three windows, step by step")
run.figures()["steps"]

# %%
# The page has all of this to click on: choose an edge for its modes, move the noise level, cut a factor and see where
# the means go. It is one file that needs no network.

path = run.save(Path(tempfile.mkdtemp()) / "report.html")
print(f"{path.stat().st_size / 1e3:.0f} kB")

# %%
# What this page claims:

kinds = [row.kind for row in seen.tables["factors"]]
assert kinds.count("learned") == 3
assert kinds.count("structural") == 3
near = partial[("w0", "w1"), "c0 dct0,0"]
assert near.rho > 0.5
assert abs(far.partial) < 0.7 * far.rho
assert all(-8 < log_snr < 0 for log_snr in peak.values())  # neither at pure noise nor once pictures are clear
assert all(max(values) > 10 * values[-1] for values in movement.values())
steps = run.tables["steps"]
assert len(steps) == 12
assert max(steps, key=lambda row: row.correction).step < 10
