// Two trajectories of one number each, sampled together. No DOM: node loads this file as well.
//
// The true joint of the clean contents is a Gaussian mixture in the plane, with means 0 and variances 1. Denoiser i
// knows its marginal p_i only, exactly. Eq. n are the equations of the documentation.
(function (root) {
  "use strict";
  const linear = typeof module !== "undefined" ? require("./linear.js") : root.PGM.linear;

  const NARROWEST = 1e-6; // of the prior variance, as in the library

  // --- one trajectory: a mixture [{ weight, mean, variance }] on the line

  // Posterior mean and variance of the clean content given alpha x_0 + sigma eps = x (Eq. 4, exact).
  function posterior(mixture, x, { alpha, sigma }) {
    let total = 0;
    let mean = 0;
    let square = 0;
    let top = -Infinity;
    const parts = mixture.map((k) => {
      const width = alpha * alpha * k.variance + sigma * sigma;
      const off = x - alpha * k.mean;
      const log = Math.log(k.weight) - 0.5 * Math.log(width) - (0.5 * off * off) / width;
      top = Math.max(top, log);
      return { log, m: k.mean + ((alpha * k.variance) / width) * off, v: (k.variance * sigma * sigma) / width };
    });
    for (const part of parts) {
      const w = Math.exp(part.log - top);
      total += w;
      mean += w * part.m;
    }
    mean /= total;
    for (const part of parts) square += Math.exp(part.log - top) * (part.v + (part.m - mean) ** 2);
    return { mean, variance: square / total };
  }

  // --- two trajectories

  // A level is { alpha, sigma, time, r }: r is the correlation of the two noises (Eq. 5'), 0 where it is left out.

  // Eq. 5' and 6 for one correlation rho, both contents of mean 0 and variance 1. `variances` are the posterior variances
  // C_i of Eq. 4; null takes the surrogate 1 / (1 + snr). `x` are the noisy states.
  function jointMean(own, variances, rho, { alpha, sigma, r = 0 }, x) {
    const snr = (alpha * alpha) / (sigma * sigma);
    const [content, noise] = [pairFactor(rho), pairFactor(r)]; // K, and R^{-1} - I, which has the same form
    const residual = add(
      times2(content, own),
      times2(noise, own.map((m, i) => m - x[i] / alpha)).map((value) => snr * value),
    );
    const k = [content[0] + snr * noise[0], content[1] + snr * noise[1]];
    if (variances !== null && r === 0) {
      const c = variances.map((v) => 1 / Math.max(v, NARROWEST));
      return add(own, floored(c[0] + k[0], k[1], c[1] + k[0], residual, rho));
    }
    // Under correlated noise every node pays for the negative part of its term, so that Eq. 8 holds
    const least = 1 + snr * (1 - 1 / (1 + Math.abs(r)));
    const c = [0, 1].map((i) =>
      variances === null ? 1 + snr : least / Math.min(1, Math.max(least * variances[i], NARROWEST)),
    );
    return add(own, solve2(c[0] + k[0], k[1], c[1] + k[0], residual));
  }

  // The factor of Eq. 2: its diagonal and the rest.
  function pairFactor(rho) {
    return [(rho * rho) / (1 - rho * rho), -rho / (1 - rho * rho)];
  }

  // What is added to m: minus Lambda^{-1} r, with Lambda = [[a, b], [b, d]] and the residual r.
  function solve2(a, b, d, r) {
    const det = a * d - b * b;
    return [-(d * r[0] - b * r[1]) / det, -(a * r[1] - b * r[0]) / det];
  }

  // The same with the eigenvalues of Lambda relative to Sigma^{-1} raised to 1 (Eq. 8): no joint posterior is wider than
  // the joint prior. With Sigma^{-1} = L L', L^{-1} = [[s, 0], [rho, 1]], s = sqrt(1 - rho^2).
  function floored(a, b, d, r, rho) {
    const s = Math.sqrt(1 - rho * rho);
    const [p, q, u] = [s * s * a, s * (rho * a + b), rho * rho * a + 2 * rho * b + d];
    const half = (p - u) / 2;
    const radius = Math.hypot(half, q);
    const middle = (p + u) / 2;
    const low = Math.max(1, middle - radius);
    const high = Math.max(1, middle + radius);
    // M^{-1} = (1/high) v v' + (1/low) (I - v v'), v the eigenvector of the larger eigenvalue
    const angle = 0.5 * Math.atan2(q, half);
    const v = [Math.cos(angle), Math.sin(angle)];
    const right = [s * r[0], rho * r[0] + r[1]];
    const along = v[0] * right[0] + v[1] * right[1];
    const y = right.map((value, i) => value / low + (1 / high - 1 / low) * along * v[i]);
    return [-(s * y[0] + rho * y[1]), -y[1]];
  }

  function times2([own, other], x) {
    return [own * x[0] + other * x[1], other * x[0] + own * x[1]];
  }

  function add(x, y) {
    return [x[0] + y[0], x[1] + y[1]];
  }

  // --- the true joint: a mixture [{ weight, mean: [2], covariance: [[2], [2]] }] in the plane

  function noisyComponent(k, { alpha, sigma, r = 0 }) {
    const a = alpha * alpha * k.covariance[0][0] + sigma * sigma;
    const b = alpha * alpha * k.covariance[0][1] + sigma * sigma * r;
    const d = alpha * alpha * k.covariance[1][1] + sigma * sigma;
    return { a, b, d, det: a * d - b * b, mean: [alpha * k.mean[0], alpha * k.mean[1]], weight: k.weight };
  }

  // Logarithms of weight times density of every component at x, and the offsets solved with its covariance.
  function weigh(joint, x, level) {
    return joint.map((k) => {
      const { a, b, d, det, mean, weight } = noisyComponent(k, level);
      const off = [x[0] - mean[0], x[1] - mean[1]];
      const solved = [(d * off[0] - b * off[1]) / det, (a * off[1] - b * off[0]) / det];
      const square = off[0] * solved[0] + off[1] * solved[1];
      return { log: Math.log(weight) - 0.5 * Math.log(det) - 0.5 * square - Math.log(2 * Math.PI), solved };
    });
  }

  // Density of the noisy states of both.
  function density(joint, x, level) {
    return weigh(joint, x, level).reduce((sum, part) => sum + Math.exp(part.log), 0);
  }

  // E[x_0 | x_t] under the true joint: what no pair of single denoisers knows.
  function exactMean(joint, x, level) {
    const parts = weigh(joint, x, level);
    const top = Math.max(...parts.map((part) => part.log));
    const mean = [0, 0];
    let total = 0;
    joint.forEach((k, c) => {
      const w = Math.exp(parts[c].log - top);
      total += w;
      for (const i of [0, 1]) {
        const pull = k.covariance[i][0] * parts[c].solved[0] + k.covariance[i][1] * parts[c].solved[1];
        mean[i] += w * (k.mean[i] + level.alpha * pull);
      }
    });
    return mean.map((value) => value / total);
  }

  function marginals(joint) {
    return [0, 1].map((i) => joint.map((k) => ({ weight: k.weight, mean: k.mean[i], variance: k.covariance[i][i] })));
  }

  // Correlation of the true joint, whose means are 0 and variances 1.
  function trueCorrelation(joint) {
    return joint.reduce((sum, k) => sum + k.weight * (k.covariance[0][1] + k.mean[0] * k.mean[1]), 0);
  }

  function drawTrue(joint, count, seed) {
    const random = linear.generator(seed);
    return Array.from({ length: count }, () => {
      let u = random.uniform();
      const k = joint.find((part) => (u -= part.weight) < 0) || joint[joint.length - 1];
      const [z0, z1] = [random.normal(), random.normal()];
      const root = Math.sqrt(k.covariance[0][0]);
      const cross = k.covariance[0][1] / root;
      return [k.mean[0] + root * z0, k.mean[1] + cross * z0 + Math.sqrt(k.covariance[1][1] - cross * cross) * z1];
    });
  }

  // --- sampling

  // Denoised contents that a method hands to the DDIM step of both trajectories.
  // settings: { method, rho, strength, c }; parts: the two marginals and the true joint.
  function denoised(parts, x, level, { method, rho }) {
    if (method === "exact") return exactMean(parts.joint, x, level);
    const seen = [0, 1].map((i) => posterior(parts.marginals[i], x[i], level));
    const own = seen.map((part) => part.mean);
    if (method === "averaging") return [(own[0] + own[1]) / 2, (own[0] + own[1]) / 2]; // Eq. 12
    if (method === "surrogate") return jointMean(own, null, rho, level, x);
    if (method === "denoiser") return jointMean(own, seen.map((part) => part.variance), rho, level, x);
    return own; // independent, and attraction, which acts on the noisy states
  }

  // gamma: how far a DDIM step moves a state per unit of sigma^2 score.
  function stepGain(level, next) {
    return next.alpha / level.alpha - next.sigma / level.sigma;
  }

  // Deterministic DDIM, one level to the next; "attraction" pulls 2 towards 1 as SyncSDE does, in the stable form.
  function step(parts, x, level, next, settings) {
    const m = denoised(parts, x, level, settings);
    const y = x.map((value, i) => next.alpha * m[i] + (next.sigma / level.sigma) * (value - level.alpha * m[i]));
    if (settings.method === "attraction") {
      const gain = stepGain(level, next) * settings.strength * level.time;
      y[1] -= (gain / (1 + gain)) * (x[1] - x[0]);
    }
    return y;
  }

  // sigma^2 R times the score that a method follows (Eq. 7): from a state towards its denoised content, whatever the
  // correlation of the noises. That of "attraction" includes its pull.
  function drift(parts, x, level, settings) {
    const m = denoised(parts, x, level, settings);
    const field = x.map((value, i) => level.alpha * m[i] - value);
    if (settings.method === "attraction") field[1] -= settings.strength * level.time * (x[1] - x[0]);
    return field;
  }

  // Correlation of the noises: c times that of the contents, as learned; 0 for methods that learn none.
  function noiseCorrelation({ method, rho, c = 0 }) {
    return ["surrogate", "denoiser"].includes(method) ? c * rho : 0;
  }

  // Noise levels from nearly pure noise to none, on the quarter circle alpha^2 + sigma^2 = 1.
  function levels(steps) {
    return Array.from({ length: steps + 1 }, (_, k) => {
      const time = 0.985 * (1 - k / steps);
      return { alpha: Math.cos((Math.PI / 2) * time), sigma: k === steps ? 0 : Math.sin((Math.PI / 2) * time), time };
    });
  }

  // States of every sample at every level: [level][sample] = [x1, x2], from white noise.
  function sample(parts, white, path, settings) {
    const r = noiseCorrelation(settings);
    const levels = path.map((level) => ({ ...level, r }));
    const states = [correlated(white, r)];
    for (let k = 0; k + 1 < path.length; k++) {
      states.push(states[k].map((x) => step(parts, x, levels[k], levels[k + 1], settings)));
    }
    return states;
  }

  function correlated(white, r) {
    return white.map(([a, b]) => [a, r * a + Math.sqrt(1 - r * r) * b]);
  }

  function noise(count, seed) {
    const random = linear.generator(seed);
    return Array.from({ length: count }, () => [random.normal(), random.normal()]);
  }

  // --- measures

  function correlation(points) {
    const n = points.length;
    const mean = [0, 1].map((i) => points.reduce((sum, p) => sum + p[i], 0) / n);
    const moment = (i, j) => points.reduce((sum, p) => sum + (p[i] - mean[i]) * (p[j] - mean[j]), 0);
    return moment(0, 1) / Math.sqrt(moment(0, 0) * moment(1, 1));
  }

  // Unbiased 2 E|x - y| - E|x - x'| - E|y - y'|, in units of the root mean square over both numbers.
  function energyDistance(x, y) {
    const total = (a, b) => {
      let sum = 0;
      for (const p of a) for (const q of b) sum += Math.sqrt((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2);
      return sum;
    };
    const [n, m] = [x.length, y.length];
    const value = (2 * total(x, y)) / (n * m) - total(x, x) / (n * (n - 1)) - total(y, y) / (m * (m - 1));
    return value / Math.SQRT2;
  }

  // Share of samples whose modes go together: the mode of either content that is nearest, and whether the true joint has
  // more than a little weight on that pair. Null where it has one mode only.
  function matching(joint, points) {
    if (joint.length < 2) return null;
    const likely = joint.filter((k) => k.weight > 0.1).map((k) => String(k.mean));
    const modes = [0, 1].map((i) => [...new Set(joint.map((k) => k.mean[i]))]);
    const nearest = (x, i) => modes[i].reduce((best, m) => (Math.abs(x - m) < Math.abs(x - best) ? m : best));
    return points.filter((x) => likely.includes(String(x.map(nearest)))).length / points.length;
  }

  // --- true joints, all of mean 0 and variance 1 in both contents

  function round(weight, mean, variance) {
    return { weight, mean, covariance: [[variance, 0], [0, variance]] };
  }

  // Two modes each, the same one with probability `same`.
  function twoModes(same) {
    const [m, v] = [0.9, 0.19];
    return [
      round(same / 2, [m, m], v), round(same / 2, [-m, -m], v),
      round((1 - same) / 2, [m, -m], v), round((1 - same) / 2, [-m, m], v),
    ];
  }

  // Three modes each, the same one with probability `same`.
  function threeModes(same) {
    const v = 0.06;
    const a = Math.sqrt(1.5 * (1 - v));
    const at = [-a, 0, a];
    return at.flatMap((x, i) => at.map((y, j) => round((i === j ? same : (1 - same) / 2) / 3, [x, y], v)));
  }

  // One content is low where the other is extreme: dependence without correlation.
  function bend() {
    const v = 0.06;
    const [a, b] = [Math.sqrt(1.5 * (1 - v)), Math.sqrt((1 - v) / 2)];
    return [round(1 / 3, [-a, -b], v), round(1 / 3, [0, 2 * b], v), round(1 / 3, [a, -b], v)];
  }

  const worlds = {
    gaussian: [{ weight: 1, mean: [0, 0], covariance: [[1, 0.8], [0.8, 1]] }],
    agree: twoModes(0.95),
    differ: twoModes(0.05),
    three: threeModes(0.94),
    bend: bend(),
  };

  const api = {
    posterior, jointMean, density, exactMean, marginals, trueCorrelation, drawTrue, denoised, stepGain, step, drift,
    levels, sample, noise, noiseCorrelation, correlated, correlation, energyDistance, matching,
    worlds,
  };
  if (typeof module !== "undefined") module.exports = api;
  else root.PGM.diffusion = api;
})(typeof window === "undefined" ? globalThis : window);
