// Gaussian belief propagation on scalar nodes. No DOM: node loads this file as well.
//
// A graph is { nodes: [{ mean, precision }], edges: [{ first, second, rho }] }: evidence N(mean, 1 / precision) of every
// node, precision 0 where nothing was seen. Every node also has a prior N(0, 1), and every edge the factor of Eq. 2,
//   1 / (1 - rho^2) [[rho^2, -rho], [-rho, rho^2]].
// A problem is that as one linear system Lambda x = eta, and messages are those of
// pgm_sync.inference.belief_propagation: with the cavity c = Lambda_jj + sum_{k != i} P_kj of the sender j,
//   P_ji = -Lambda_ij^2 / c,   h_ji = -Lambda_ij (eta_j + sum_{k != i} h_kj) / c.
// Directed edges are numbered as there: forward by their ends, then the same backwards.
(function (root) {
  "use strict";
  const linear = typeof module !== "undefined" ? require("./linear.js") : root.PGM.linear;

  const DIVERGED = 1e8; // a residual that shows that means only grow

  function problem(graph) {
    const n = graph.nodes.length;
    const pairs = graph.edges
      .map((e) => ({ i: Math.min(e.first, e.second), j: Math.max(e.first, e.second), rho: e.rho }))
      .sort((a, b) => a.i - b.i || a.j - b.j);
    const m = pairs.length;
    const diagonal = graph.nodes.map((node) => 1 + node.precision);
    const eta = graph.nodes.map((node) => node.precision * node.mean);
    const directed = [];
    for (const { i, j, rho } of pairs) {
      const own = (rho * rho) / (1 - rho * rho); // what the factor adds to each of its ends
      diagonal[i] += own;
      diagonal[j] += own;
      directed.push({ source: i, target: j, coupling: -rho / (1 - rho * rho), own });
    }
    for (let k = m - 1; k >= 0; k--) {
      const { source, target, coupling, own } = directed[k];
      directed.push({ source: target, target: source, coupling, own });
    }
    directed.forEach((edge, k) => (edge.reverse = 2 * m - 1 - k));
    const incoming = graph.nodes.map(() => []);
    directed.forEach((edge, k) => incoming[edge.target].push(k));
    const parts = components(n, directed);
    return { n, m, diagonal, eta, directed, incoming, forest: m === n - Math.max(-1, ...parts) - 1 };
  }

  // Which connected component each node is in, numbered from 0.
  function components(n, directed) {
    const label = Array(n).fill(-1);
    let count = 0;
    for (let start = 0; start < n; start++) {
      if (label[start] >= 0) continue;
      const open = [start];
      label[start] = count;
      while (open.length) {
        const at = open.pop();
        for (const { source, target } of directed) {
          if (source === at && label[target] < 0) {
            label[target] = count;
            open.push(target);
          }
        }
      }
      count++;
    }
    return label;
  }

  function matrix(p) {
    const full = p.diagonal.map((d, i) => p.diagonal.map((_, j) => (i === j ? d : 0)));
    for (const { source, target, coupling } of p.directed) full[target][source] = coupling;
    return full;
  }

  // The dense solve that beliefs are compared with. Means and variances are null where the joint is no density.
  function exact(p) {
    const full = matrix(p);
    const smallest = p.n ? linear.eigenvalues(full)[0] : Infinity;
    const lower = smallest > 0 ? linear.cholesky(full) : null;
    return {
      smallest,
      proper: lower !== null,
      mean: lower && linear.solveCholesky(lower, p.eta),
      variance: lower && linear.inverseDiagonal(lower),
    };
  }

  // rho(|R|), R = I - D^{-1/2} Lambda D^{-1/2}: below 1, messages converge from zero under any schedule.
  function walkSummability(p) {
    const scaled = matrix(p).map((row, i) =>
      row.map((v, j) => (i === j ? 0 : Math.abs(v) / Math.sqrt(p.diagonal[i] * p.diagonal[j]))),
    );
    return p.n ? linear.eigenvalues(scaled)[p.n - 1] : 0;
  }

  // Messages that say nothing, so that a node believes its prior and its own evidence. (Zeros, where the package starts by
  // default, leave the factors' own diagonals with the nodes: another start, the same end.)
  function empty(p) {
    return { precision: p.directed.map(({ own }) => -own), eta: p.directed.map(() => 0) };
  }

  // The new message along directed edge k, before damping. Its cavity is always positive: by induction what an edge says
  // (see `said`) has a precision of at least 0, so that c >= 1 / (1 - rho^2). Only means can diverge.
  function message(p, messages, k) {
    const { source, target, coupling, reverse } = p.directed[k];
    let cavity = p.diagonal[source];
    let eta = p.eta[source];
    for (const other of p.incoming[source]) {
      if (other === reverse) continue;
      cavity += messages.precision[other];
      eta += messages.eta[other];
    }
    return { precision: (-coupling * coupling) / cavity, eta: (-coupling * eta) / cavity };
  }

  // Messages after those along directed edges `ks` were sent at once, from `messages`; damping weighs the old ones.
  function send(p, messages, ks, damping = 0) {
    const next = { precision: messages.precision.slice(), eta: messages.eta.slice() };
    for (const k of ks) {
      const fresh = message(p, messages, k);
      next.precision[k] = fresh.precision + damping * (messages.precision[k] - fresh.precision);
      next.eta[k] = fresh.eta + damping * (messages.eta[k] - fresh.eta);
    }
    return next;
  }

  // The rounds of one iteration: each is a list of directed edges that are sent at once.
  function rounds(p, schedule) {
    const all = p.directed.map((_, k) => k);
    if (schedule === "flooding") return all.length ? [all] : [];
    if (schedule === "sequential") return all.map((k) => [k]);
    return treeOrder(p).map((k) => [k]);
  }

  // Towards a root and back, in every tree. A message waits for all that it is made of, so any root gives the same.
  function treeOrder(p) {
    if (!p.forest) throw new Error("LoopError: two sweeps are exact on forests only");
    const parent = Array(p.n).fill(null);
    const order = [];
    const seen = Array(p.n).fill(false);
    for (let root = 0; root < p.n; root++) {
      if (seen[root]) continue;
      seen[root] = true;
      const queue = [root];
      for (let head = 0; head < queue.length; head++) {
        order.push(queue[head]);
        for (const k of p.incoming[queue[head]]) {
          const child = p.directed[k].source;
          if (seen[child]) continue;
          seen[child] = true;
          parent[child] = k; // the directed edge from the child to its parent
          queue.push(child);
        }
      }
    }
    const up = order.map((v) => parent[v]).filter((k) => k !== null);
    return [...up.slice().reverse(), ...up.map((k) => p.directed[k].reverse)];
  }

  function iterate(p, messages, schedule, damping = 0) {
    return rounds(p, schedule).reduce((now, round) => send(p, now, round, damping), messages);
  }

  // Mean and variance of every node as the messages have them.
  function beliefs(p, messages) {
    const precision = p.diagonal.map((d, i) => p.incoming[i].reduce((sum, k) => sum + messages.precision[k], d));
    const eta = p.eta.map((h, i) => p.incoming[i].reduce((sum, k) => sum + messages.eta[k], h));
    return { precision, mean: precision.map((j, i) => eta[i] / j), variance: precision.map((j) => 1 / j) };
  }

  // |Lambda mu - eta| / |eta|
  function residual(p, mean) {
    const left = p.diagonal.map((d, i) => d * mean[i] - p.eta[i]);
    for (const { source, target, coupling } of p.directed) left[target] += coupling * mean[source];
    const top = Math.hypot(...left);
    return top > 0 ? top / Math.hypot(...p.eta) : 0;
  }

  // What the sender of directed edge k says about its receiver, the factor included: the message of a factor graph.
  // (The engine keeps the factor's own diagonal at the node, so its precision is P alone.)
  function said(p, messages, k) {
    const precision = p.directed[k].own + messages.precision[k];
    const something = precision > 1e-12 * p.directed[k].own; // more than rounding leaves of 0
    return { precision: something ? precision : 0, mean: something ? messages.eta[k] / precision : null };
  }

  // Why a run ends after an iteration, or null: "converged" or "diverges".
  function verdict(p, before, after, tolerance) {
    const now = beliefs(p, after);
    const left = residual(p, now.mean);
    if (left > DIVERGED) return "diverges";
    const old = beliefs(p, before).precision;
    const moved = Math.max(0, ...now.precision.map((j, i) => Math.abs((j - old[i]) / j)));
    return left <= tolerance && moved <= tolerance ? "converged" : null;
  }

  function run(p, schedule = "flooding", damping = 0, tolerance = 1e-6, most = 1000) {
    let messages = empty(p);
    for (let iteration = 1; iteration <= most; iteration++) {
      const next = iterate(p, messages, schedule, damping);
      const reason = verdict(p, messages, next, tolerance);
      messages = next;
      if (reason) return { messages, iteration, reason };
    }
    return { messages, iteration: most, reason: "not yet" };
  }

  const api = {
    problem, exact, walkSummability, empty, message, send, rounds, iterate, beliefs, residual, said, verdict, run,
  };
  if (typeof module !== "undefined") module.exports = api;
  else root.PGM.gbp = api;
})(typeof window === "undefined" ? globalThis : window);
