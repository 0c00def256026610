// Small dense linear algebra and a seeded generator. No DOM: node loads this file as well.
(function (root) {
  "use strict";

  // Lower Cholesky factor, or null where the symmetric matrix is not positive definite.
  function cholesky(matrix) {
    const n = matrix.length;
    const lower = matrix.map((row) => row.map(() => 0));
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = matrix[i][j];
        for (let k = 0; k < j; k++) sum -= lower[i][k] * lower[j][k];
        if (i !== j) lower[i][j] = sum / lower[j][j];
        else if (sum > 0) lower[i][i] = Math.sqrt(sum);
        else return null;
      }
    }
    return lower;
  }

  // Solve L L' x = b.
  function solveCholesky(lower, b) {
    const n = b.length;
    const x = b.slice();
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < i; k++) x[i] -= lower[i][k] * x[k];
      x[i] /= lower[i][i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) x[i] -= lower[k][i] * x[k];
      x[i] /= lower[i][i];
    }
    return x;
  }

  // Diagonal of (L L')^{-1}.
  function inverseDiagonal(lower) {
    return lower.map((row, i) => solveCholesky(lower, row.map((_, k) => (k === i ? 1 : 0)))[i]);
  }

  // Eigenvalues of a symmetric matrix in ascending order, by cyclic Jacobi rotations.
  function eigenvalues(matrix) {
    const a = matrix.map((row) => row.slice());
    const n = a.length;
    const size = Math.max(1e-300, ...a.map((row) => Math.max(...row.map(Math.abs))));
    for (let sweep = 0; sweep < 60; sweep++) {
      let off = 0;
      for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) off = Math.max(off, Math.abs(a[i][j]));
      if (off <= 1e-16 * size) break;
      for (let p = 0; p < n; p++) {
        for (let q = p + 1; q < n; q++) {
          if (a[p][q] === 0) continue;
          const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
          const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
          const c = 1 / Math.sqrt(t * t + 1);
          const s = t * c;
          for (let k = 0; k < n; k++) {
            const kp = a[k][p];
            const kq = a[k][q];
            a[k][p] = c * kp - s * kq;
            a[k][q] = s * kp + c * kq;
          }
          for (let k = 0; k < n; k++) {
            const pk = a[p][k];
            const qk = a[q][k];
            a[p][k] = c * pk - s * qk;
            a[q][k] = s * pk + c * qk;
          }
        }
      }
    }
    return a.map((row, i) => row[i]).sort((x, y) => x - y);
  }

  // Uniform numbers in [0, 1) from a 32-bit seed (mulberry32), and normal ones (Box and Muller).
  function generator(seed) {
    let state = seed >>> 0;
    function uniform() {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    }
    function normal() {
      return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    }
    return { uniform, normal };
  }

  const api = { cholesky, solveCholesky, inverseDiagonal, eigenvalues, generator };
  if (typeof module !== "undefined") module.exports = api;
  else (root.PGM = root.PGM || {}).linear = api;
})(typeof window === "undefined" ? globalThis : window);
