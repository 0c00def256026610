// Graphs to start from: positions in the unit square, evidence { node: [mean, precision] }, edges, and their rho.
(function () {
  "use strict";

  // A regular polygon that fills the square, the first corner on top.
  function circle(n) {
    const angles = Array.from({ length: n }, (_, k) => 2 * Math.PI * (k / n - 0.25));
    const filled = (values) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return values.map((v) => (v - low) / (high - low));
    };
    const [x, y] = [filled(angles.map(Math.cos)), filled(angles.map(Math.sin))];
    return angles.map((_, k) => [x[k], y[k]]);
  }
  const every = (n) => Array.from({ length: n }, (_, k) => Array.from({ length: k }, (_, j) => [j, k])).flat();
  const around = (n) => Array.from({ length: n }, (_, k) => [k, (k + 1) % n]);
  const five = { at: circle(5), seen: { 0: [1.5, 1] }, edges: every(5) };
  const ring = { at: circle(6), seen: { 0: [1.5, 4], 2: [-1, 1] }, edges: around(6) };

  PGM.presets = {
    chain: {
      label: "Chain", rho: 0.8, seen: { 0: [1.5, 4], 4: [-1, 2] }, edges: [[0, 1], [1, 2], [2, 3], [3, 4]],
      at: [[0, 0.7], [0.25, 0.3], [0.5, 0.7], [0.75, 0.3], [1, 0.7]],
    },
    tree: {
      label: "Tree", rho: 0.8, seen: { 3: [1.5, 4], 6: [-1, 4] },
      edges: [[0, 1], [0, 2], [1, 3], [1, 4], [2, 5], [2, 6]],
      at: [[0.5, 0], [0.22, 0.45], [0.78, 0.45], [0, 1], [0.36, 1], [0.64, 1], [1, 1]],
    },
    loop: { label: "Loop", rho: 0.6, ...ring },
    grid: {
      label: "Grid 3×3", rho: 0.5, seen: { 0: [1.5, 4], 8: [-1.5, 4] },
      at: Array.from({ length: 9 }, (_, k) => [(k % 3) / 2, Math.floor(k / 3) / 2]),
      edges: Array.from({ length: 9 }, (_, k) => [
        ...(k % 3 < 2 ? [[k, k + 1]] : []),
        ...(k < 6 ? [[k, k + 3]] : []),
      ]).flat(),
    },
    frustrated: { label: "Frustrated", rho: -0.5, ...five },
    strong: { label: "Too strong", rho: 0.5, ...five },
  };
})();
