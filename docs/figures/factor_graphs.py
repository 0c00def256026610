"""Three graphs of the documentation, drawn."""

import matplotlib.pyplot as plt

import pgm_sync as ps
from pgm_sync.inspection.plots import draw_graph

graphs = {
    "chain: windows in a row": ps.chain_graph(4, 1, ps.Correlation(0.8)),
    "ring: a panorama": ps.ring_graph(4, 1, ps.Correlation(0.6)),
    "canvas: a hidden variable": ps.wide_canvas((1, 8, 20), (8, 8), 6),
}
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), width_ratios=[1.3, 1, 1.2])
for axis, (title, graph) in zip(axes, graphs.items(), strict=True):
    draw_graph(graph, ax=axis)
    (x0, x1), (y1, y0) = axis.get_xlim(), axis.get_ylim()
    axis.set(xlim=(x0 - 0.25, x1 + 0.25), ylim=(max(y1, y0 + 1.5) + 0.3, y0 - 0.3))
    axis.set_title(title, loc="center")
