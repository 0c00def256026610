"""Orders of elimination on a grid, and what they fill in."""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

from pgm_sync.inference.ordering import Elimination, eliminate_in

side = 8
grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, side))
n, edges = side * side, list(grid.edges)


def row_by_row():
    """Eliminating in the order of the numbers, for comparison."""
    adjacent, later = {v: set(grid[v]) for v in grid}, []
    for v in range(n):
        neighbours = adjacent.pop(v)
        for u in neighbours:
            adjacent[u] = (adjacent[u] | neighbours) - {u, v}
        later.append(tuple(sorted(neighbours)))
    return Elimination(tuple(range(n)), tuple(later))


orders = {"row by row": row_by_row()}
orders |= {order: eliminate_in(n, edges, order) for order in ("minimum degree", "odd-even")}
figure, axes = plt.subplots(1, 3, figsize=(9.0, 3.2), sharey=True)
for axis, (name, found) in zip(axes, orders.items(), strict=True):
    place = {v: k for k, v in enumerate(found.order)}
    pattern = np.zeros((n, n))
    for k, later in enumerate(found.later):
        for u in later:
            pattern[place[u], k] = 1 if grid.has_edge(u, found.order[k]) else 2
        pattern[k, k] = 1
    for value, colour, label in [(1, "C0", "edge of the graph"), (2, "C1", "fill-in")]:
        rows, columns = np.nonzero(pattern == value)
        axis.plot(columns, rows, "s", ms=1.9, color=colour, label=label)
    fill = int((pattern == 2).sum())
    axis.set_title(
        f"{name}: {fill} filled,\nlargest clique {found.width + 1}, {found.levels().max() + 1} rounds"
    )
    axis.set(aspect="equal", xlim=(-1, n), ylim=(n, -1), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
axes[0].legend(loc="upper right", markerscale=2.5)
