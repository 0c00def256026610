// Part A: a factor graph to edit, and its messages.
(function () {
  "use strict";
  const { gbp, linear } = PGM;
  const { byId, svg, html, set, number, short, calm, slider, choices, statusList } = PGM.dom;

  const MOST_NODES = 12;
  const MOST_SWEEPS = 400;
  const TOLERANCE = 1e-6;
  const REACH = 3; // half of what a node's axis shows

  // --- where to start from: positions in the unit square, evidence [mean, precision], edges

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

  const PRESETS = {
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

  // What the buttons beside the questions set up.
  const SETUPS = {
    chain: () => load("chain", { schedule: "tree" }),
    loop: () => load("loop", { rho: 0.9 }),
    twisted: () => {
      load("loop", { rho: 0.9 });
      state.edges[3].rho = -0.9;
      select({ kind: "edge", index: 3 });
      changed();
    },
    frustrated: () => load("frustrated"),
    strong: () => load("strong", { damping: 0.3 }),
    tree: () => {
      load("tree");
      finish();
      select({ kind: "node", index: 3 });
    },
  };

  // --- state

  const state = {
    nodes: [], // { name, x, y, mean, precision }, precision 0: not seen
    edges: [], // { first, second, rho }
    selected: null, // { kind: "node" | "edge", index }
    connecting: null, // null, "first", or the index of the first node
  };
  let p, truth, radius; // the posed problem, the dense solve, the spectral radius of |R|
  let messages, sent, sweeps, trace, outcome; // progress; `sent`: messages of the current sweep
  let before, snapshot; // messages when this sweep and this round began
  let running = null;
  let flight = null; // the animation on its way

  const controls = {
    schedule: byId("schedule"),
    damping: slider("damping", (v) => number(v), () => settle()),
    rho: slider("all-rho", (v) => number(v), (v) => {
      for (const edge of state.edges) edge.rho = v;
      recoupled();
      inspect();
    }),
  };
  const markPreset = choices("presets", Object.entries(PRESETS).map(([key, { label }]) => [key, label]), (key) => load(key));

  function load(key, { rho = PRESETS[key].rho, schedule = "flooding", damping = 0 } = {}) {
    const { at, seen, edges } = PRESETS[key];
    stop();
    state.nodes = at.map(([x, y], k) => {
      const [mean, precision] = seen[k] || [0, 0];
      return { name: "abcdefghijklmnop"[k], x, y, mean, precision };
    });
    state.edges = edges.map(([first, second]) => ({ first, second, rho }));
    Object.assign(state, { selected: null, connecting: null });
    controls.schedule.value = schedule;
    controls.damping.value = damping;
    controls.rho.value = rho;
    markPreset(key);
    changed();
  }

  // New numbers: the same nodes and edges, another linear system.
  function pose() {
    land();
    p = gbp.problem(state);
    truth = gbp.exact(p);
    radius = gbp.walkSummability(p);
  }

  function begin(from) {
    messages = from;
    [sent, sweeps, outcome, trace] = [0, 0, null, []];
    record();
  }

  // New nodes or edges.
  function changed() {
    pose();
    const tree = controls.schedule.querySelector("[value=tree]");
    tree.disabled = !p.forest;
    tree.textContent = p.forest ? "tree: to a root and back" : "tree: not with loops";
    if (!p.forest && controls.schedule.value === "tree") controls.schedule.value = "flooding";
    begin(gbp.empty(p));
    build();
    inspect();
    paint();
  }

  // Another rho. Messages start afresh: those under the old one may say less than nothing under the new.
  function recoupled() {
    stop();
    pose();
    begin(gbp.empty(p));
    paint();
  }

  // Other evidence. The messages that there are remain, as a start for the new answer; where they had settled, the
  // new ones settle at once.
  function seen() {
    const settled = outcome === "converged";
    pose();
    begin(messages);
    if (settled) finish();
    else paint();
  }

  // Damping or schedule changed: the sweep begins anew, from the messages there are.
  function settle() {
    land();
    sent = 0;
    trace = trace.filter((row) => row.at <= sweeps);
    if (outcome !== "diverges") outcome = null;
    paint();
  }

  // --- sending

  function record() {
    const now = gbp.beliefs(p, messages);
    const perSweep = Math.max(1, p.directed.length);
    trace.push({ at: sweeps + sent / perSweep, ...errors(now) });
  }

  // Largest errors of any node in exact standard deviations; null without a truth.
  function errors(now) {
    if (!truth.proper) return { mean: null, sd: null };
    const sd = truth.variance.map(Math.sqrt);
    return {
      mean: Math.max(0, ...sd.map((s, i) => Math.abs(now.mean[i] - truth.mean[i]) / s)),
      sd: Math.max(0, ...sd.map((s, i) => Math.abs(Math.sqrt(now.variance[i]) / s - 1))),
    };
  }

  // The messages of a sweep in the order of sending, each with its round.
  function queue() {
    return gbp.rounds(p, controls.schedule.value).flatMap((ks, round) => ks.map((k) => ({ k, round })));
  }

  // Send the next `count` messages of this sweep; which they were.
  function advance(count) {
    const order = queue();
    const done = [];
    while (done.length < count && sent < order.length) {
      const { k, round } = order[sent];
      if (sent === 0) before = messages;
      if (sent === 0 || order[sent - 1].round !== round) snapshot = messages;
      const fresh = gbp.send(p, snapshot, [k], controls.damping.value);
      messages = {
        precision: messages.precision.map((v, e) => (e === k ? fresh.precision[k] : v)),
        eta: messages.eta.map((v, e) => (e === k ? fresh.eta[k] : v)),
      };
      done.push(k);
      sent += 1;
    }
    if (sent === order.length) {
      sweeps += 1;
      sent = 0;
      outcome = order.length ? gbp.verdict(p, before, messages, TOLERANCE) : "converged";
    }
    record();
    return done;
  }

  function finish() {
    while (!outcome && sweeps < MOST_SWEEPS) advance(Infinity);
    paint();
  }

  // Run: the first sweeps slowly, to see them, then ever faster.
  function run() {
    if (running) return stop();
    byId("run").setAttribute("aria-pressed", "true");
    byId("run").textContent = "Pause";
    const tick = (pause, many) => {
      let done = [];
      for (let k = 0; k < many && !outcome && sweeps < MOST_SWEEPS; k++) done = advance(Infinity);
      if (!done.length) return stop();
      fly(done, pause * 0.9);
      running = setTimeout(() => tick(Math.max(40, pause * 0.8), pause > 40 ? 1 : many + 1), calm() ? 40 : pause);
    };
    tick(900, 1);
  }

  function stop() {
    clearTimeout(running);
    running = null;
    byId("run").setAttribute("aria-pressed", "false");
    byId("run").textContent = "Run";
    if (p) land();
    if (p) paint();
  }

  // --- drawing

  const stage = byId("graph-svg");
  const layers = ["edges", "glyphs", "nodes", "flying"].map((name) => svg("g", { "data-layer": name }));
  stage.append(...layers);
  const [edgeLayer, glyphLayer, nodeLayer, flyingLayer] = layers;

  function place(node) {
    const small = stage.clientWidth < 520;
    const card = small ? { w: 68, h: 46 } : { w: 104, h: 66 };
    const [left, top, bottom] = [card.w / 2 + 10, card.h / 2 + 10, card.h / 2 + 46];
    return {
      ...card,
      x: left + node.x * (stage.clientWidth - 2 * left),
      y: top + node.y * (stage.clientHeight - top - bottom),
    };
  }

  const isSelected = (kind, index) => state.selected?.kind === kind && state.selected.index === index;

  // New elements for a new structure; `paint` fills in the numbers.
  function build() {
    const focus = document.activeElement?.dataset?.key;
    edgeLayer.replaceChildren(...state.edges.map((_, e) => edgeElement(e)));
    nodeLayer.replaceChildren(...state.nodes.map((_, i) => nodeElement(i)));
    glyphLayer.replaceChildren(...p.directed.map(() => svg("path", { class: "glyph", d: "M-6,-4 L6,0 L-6,4 Z" })));
    if (focus) stage.querySelector(`[data-key="${focus}"]`)?.focus();
  }

  function nodeElement(i) {
    const group = svg("g", { class: "node", tabindex: 0, role: "button", "data-key": `node-${i}` }, [
      svg("rect", { class: "card", rx: 8 }),
      svg("path", { class: "axis" }),
      svg("path", { class: "belief" }),
      svg("path", { class: "truth" }),
      svg("path", { class: "seen" }),
      svg("text", { class: "name" }, state.nodes[i].name),
      svg("text", { class: "value" }),
    ]);
    group.addEventListener("pointerdown", (event) => drag(event, i));
    // A finger on a node drags it, and beside it scrolls the page; `touch-action` does not reach inside an SVG everywhere
    group.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    group.addEventListener("keydown", (event) => nodeKey(event, i));
    return group;
  }

  function edgeElement(e) {
    const group = svg("g", { class: "edge", tabindex: 0, role: "slider", "data-key": `edge-${e}` }, [
      svg("line", { class: "reach" }),
      svg("line", { class: "line" }),
      svg("rect", { class: "label-box", rx: 9, width: 44, height: 18 }),
      svg("text"),
    ]);
    set(group, { "aria-valuemin": -0.95, "aria-valuemax": 0.95 });
    group.addEventListener("click", () => select({ kind: "edge", index: e }));
    group.addEventListener("keydown", (event) => edgeKey(event, e));
    return group;
  }

  function curve(mean, sd, card, top) {
    const points = Array.from({ length: 61 }, (_, k) => {
      const x = -REACH + (2 * REACH * k) / 60;
      const height = Math.exp(-0.5 * ((x - mean) / sd) ** 2) / sd / top;
      return `${((x / REACH) * (card.w / 2 - 4)).toFixed(1)},${(card.h / 2 - 8 - height * (card.h - 22)).toFixed(1)}`;
    });
    return `M${points.join("L")}`;
  }

  function paint() {
    const now = gbp.beliefs(p, messages);
    set(stage, { viewBox: `0 0 ${stage.clientWidth} ${stage.clientHeight}` });
    state.nodes.forEach((node, i) => paintNode(node, i, now));
    state.edges.forEach(paintEdge);
    p.directed.forEach(paintGlyph);
    paintPlot();
    paintTable(now);
    paintStatus(now);
    paintDirections();
    const total = p.directed.length;
    byId("count").textContent = `sweep ${sweeps + (sent ? 1 : 0)}` + (sent ? `, message ${sent} of ${total}` : "");
    for (const id of ["send-one", "send-sweep", "run"]) byId(id).disabled = outcome === "diverges" || !total;
    byId("add-node").disabled = state.nodes.length >= MOST_NODES;
    byId("delete").disabled = !state.selected;
    byId("connect").setAttribute("aria-pressed", String(state.connecting !== null));
    byId("stage-hint").textContent =
      state.connecting === null
        ? "Drag nodes. Double-click for a new one."
        : state.connecting === "first"
          ? "Choose the first node of the new edge. Escape cancels."
          : `Choose the node to join with ${state.nodes[state.connecting].name}. Escape cancels.`;
  }

  function paintNode(node, i, now) {
    const group = nodeLayer.children[i];
    const [card, axis, belief, exact, seen, name, value] = group.children;
    const at = place(node);
    const sd = Math.sqrt(now.variance[i]);
    const trueSd = truth.proper ? Math.sqrt(truth.variance[i]) : Infinity;
    const top = Math.max(1 / sd, 1 / trueSd);
    const base = at.h / 2 - 8;
    group.classList.toggle("selected", isSelected("node", i) || state.connecting === i);
    set(group, { transform: `translate(${at.x},${at.y})`, "aria-pressed": isSelected("node", i) });
    const exactly = truth.proper ? `, exact ${number(truth.mean[i])} ± ${number(trueSd)}` : ", no exact answer";
    const evidence = node.precision > 0 ? `, seen at ${number(node.mean)}` : "";
    group.setAttribute("aria-label", `Node ${node.name}${evidence}: belief ${short(now.mean[i])} ± ${number(sd)}${exactly}`);
    set(card, { x: -at.w / 2, y: -at.h / 2, width: at.w, height: at.h });
    set(axis, { d: `M${-at.w / 2 + 4},${base} H${at.w / 2 - 4} M0,${base} v4` });
    belief.setAttribute("d", curve(now.mean[i], sd, at, top));
    exact.setAttribute("d", truth.proper ? curve(truth.mean[i], trueSd, at, top) : "");
    const x = (Math.max(-REACH, Math.min(REACH, node.mean)) / REACH) * (at.w / 2 - 4);
    seen.setAttribute("d", node.precision > 0 ? `M${x - 5},${base + 7} L${x + 5},${base + 7} L${x},${base - 1} Z` : "");
    set(name, { x: -at.w / 2 + 6, y: -at.h / 2 + 15 });
    value.setAttribute("y", at.h / 2 + 14);
    value.textContent = `${short(now.mean[i])} ± ${number(sd)}`;
  }

  function paintEdge(edge, e) {
    const [from, to] = [place(state.nodes[edge.first]), place(state.nodes[edge.second])];
    const group = edgeLayer.children[e];
    const [reach, line, box, label] = group.children;
    for (const each of [reach, line]) set(each, { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
    line.setAttribute("stroke-width", 1.2 + 4.5 * Math.abs(edge.rho));
    const [x, y] = [(from.x + to.x) / 2, (from.y + to.y) / 2];
    set(box, { x: x - 22, y: y - 9 });
    set(label, { x, y });
    label.textContent = number(edge.rho);
    group.classList.toggle("negative", edge.rho < 0);
    group.classList.toggle("selected", isSelected("edge", e));
    const names = `${state.nodes[edge.first].name} and ${state.nodes[edge.second].name}`;
    set(group, { "aria-label": `Correlation of ${names}`, "aria-valuenow": edge.rho, "aria-valuetext": number(edge.rho) });
  }

  // A small arrow per message, the darker the more it says.
  function paintGlyph({ source, target }, k) {
    const [from, to] = [place(state.nodes[source]), place(state.nodes[target])];
    const { precision } = gbp.said(p, messages, k);
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = Math.hypot(dx, dy) || 1;
    const x = from.x + 0.68 * dx - (9 * dy) / length;
    const y = from.y + 0.68 * dy + (9 * dx) / length;
    const angle = (Math.atan2(dy, dx) * 180) / Math.PI;
    const strength = precision / (precision + 0.5);
    const shown = precision === 0 ? 0 : 0.2 + 0.8 * strength;
    set(glyphLayer.children[k], { transform: `translate(${x},${y}) rotate(${angle})`, opacity: shown });
  }

  // Dots travel along the edges; what they did is shown when they arrive.
  function fly(ks, duration) {
    land();
    if (calm() || duration < 150) return paint();
    const few = ks.length <= 4;
    const inOrder = controls.schedule.value !== "flooding" && ks.length > 1;
    const dots = ks.map((k, turn) => ({ k, element: dot(k, few), delay: inOrder ? (0.6 * turn) / ks.length : 0 }));
    const span = inOrder ? 0.4 : 1;
    flyingLayer.replaceChildren(...dots.map((each) => each.element));
    const start = performance.now();
    const frame = (time) => {
      const t = (time - start) / duration;
      if (t >= 1) return land();
      for (const { k, element, delay } of dots) {
        const part = Math.max(0, Math.min(1, (t - delay) / span));
        const ease = 0.12 + 0.76 * part * part * (3 - 2 * part);
        const [from, to] = [place(state.nodes[p.directed[k].source]), place(state.nodes[p.directed[k].target])];
        const [x, y] = [from.x + ease * (to.x - from.x), from.y + ease * (to.y - from.y)];
        set(element, { transform: `translate(${x},${y})`, opacity: part > 0 && part < 1 ? 1 : 0 });
      }
      flight = requestAnimationFrame(frame);
    };
    flight = requestAnimationFrame(frame);
  }

  function dot(k, labelled) {
    const { precision } = gbp.said(p, messages, k);
    const size = 3 + (4 * precision) / (precision + 0.5);
    const element = svg("g", { class: "message", opacity: 0 }, svg("circle", { r: size }));
    if (labelled) {
      const text = sentence(k);
      element.append(
        svg("rect", { x: -text.length * 3.4 - 6, y: -33, width: text.length * 6.8 + 12, height: 20, rx: 6 }),
        svg("text", { y: -23 }, text),
      );
    }
    return element;
  }

  // What message k says about its receiver.
  function sentence(k) {
    const { precision, mean } = gbp.said(p, messages, k);
    return mean === null ? "says nothing" : `mean ${short(mean)}, precision ${number(precision)}`;
  }

  function land() {
    if (flight === null) return;
    cancelAnimationFrame(flight);
    flight = null;
    flyingLayer.replaceChildren();
    paint();
  }

  // --- beside the graph

  const plot = byId("error-plot");

  function paintPlot() {
    const [w, h, left, right, top, bottom] = [plot.clientWidth, plot.clientHeight, 44, 112, 12, 34];
    set(plot, { viewBox: `0 0 ${w} ${h}`, class: "plot" });
    if (!truth.proper) {
      plot.replaceChildren(svg("text", { x: left, y: h / 2 }, "No exact answer to compare with."));
      return;
    }
    const worst = Math.max(...trace.map((row) => Math.max(row.mean, row.sd)), 1e-300);
    const [low, high] = [-8, Math.max(2, 2 * Math.ceil(Math.log10(worst) / 2))];
    const span = Math.max(4, Math.ceil(trace[trace.length - 1].at));
    const x = (at) => left + ((w - left - right) * at) / span;
    const y = (error) => {
      const power = Math.max(low, Math.min(high, Math.log10(Math.max(error, 1e-300))));
      return top + ((h - top - bottom) * (high - power)) / (high - low);
    };
    const parts = [];
    for (let power = low; power <= high; power += 2) {
      const at = y(10 ** power);
      parts.push(svg("line", { class: "grid", x1: left, x2: w - right, y1: at, y2: at }));
      const label = power === 0 ? "1" : power === 2 ? "100" : `1e${power < 0 ? "−" : ""}${Math.abs(power)}`;
      parts.push(svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, label));
    }
    const every = Math.max(1, Math.ceil(span / 8));
    for (let at = 0; at <= span; at += every) {
      parts.push(svg("text", { x: x(at), y: h - bottom + 16, "text-anchor": "middle" }, String(at)));
    }
    parts.push(svg("text", { x: (left + w - right) / 2, y: h - 2, "text-anchor": "middle" }, "sweeps"));
    const last = trace[trace.length - 1];
    let labels = [["mean", "means", y(last.mean) + 4], ["sd", "std. deviations", y(last.sd) + 4]];
    const gap = labels[0][2] - labels[1][2];
    if (Math.abs(gap) < 15) labels = labels.map(([a, b, at], k) => [a, b, at + ((k ? -1 : 1) * (gap < 0 ? -1 : 1) * (15 - Math.abs(gap))) / 2]);
    for (const [what, text, at] of labels) {
      parts.push(svg("polyline", { class: what, points: trace.map((row) => `${x(row.at)},${y(row[what])}`).join(" ") }));
      parts.push(svg("circle", { class: `${what}-end`, cx: x(last.at), cy: y(last[what]), r: 3 }));
      parts.push(svg("text", { class: `${what}-label`, x: x(last.at) + 8, y: Math.min(at, h - bottom) }, text));
    }
    plot.replaceChildren(...parts);
  }

  function paintTable(now) {
    byId("beliefs").tBodies[0].replaceChildren(
      ...state.nodes.map((node, i) => {
        const ratio = truth.proper ? now.variance[i] / truth.variance[i] : null;
        const exact = truth.proper ? `${number(truth.mean[i])} ± ${number(Math.sqrt(truth.variance[i]))}` : "–";
        return html("tr", {}, [
          html("th", { scope: "row" }, node.name),
          html("td", {}, `${short(now.mean[i])} ± ${number(Math.sqrt(now.variance[i]))}`),
          html("td", {}, exact),
          html("td", { class: ratio !== null && Math.abs(ratio - 1) > 0.005 ? "off" : "" }, number(ratio)),
        ]);
      }),
    );
  }

  let announced = "";

  function paintStatus(now) {
    const rows = [
      p.forest
        ? ["good", "No loops.", "Messages become exact, variances too."]
        : ["", "Loops.", "Where messages converge, means are exact and variances are not."],
      truth.proper
        ? ["good", "Normalisable:", `the smallest eigenvalue of the joint precision is ${number(truth.smallest, 3)}.`]
        : ["bad", "Not normalisable:",
          `the smallest eigenvalue of the joint precision is ${number(truth.smallest, 3)} ≤ 0. No joint distribution ` +
          "exists and beliefs mean nothing. Weaken the edges, or see more."],
      radius < 1
        ? ["good", "Walk-summable:", `the spectral radius of |R| is ${number(radius, 3)} < 1, so every schedule converges.`]
        : ["bad", "Not walk-summable:",
          `the spectral radius of |R| is ${number(radius, 3)} ≥ 1, so nothing promises convergence.`],
    ];
    if (outcome === "converged") rows.push(["good", "Converged", ending(now)]);
    if (outcome === "diverges") {
      const advice = truth.proper ? "Start over with some damping." : "There is nothing to converge to.";
      rows.push(["bad", "Diverges", `after ${sweeps} sweeps: the means only grow. ${advice}`]);
    }
    if (!outcome && sweeps >= MOST_SWEEPS) rows.push(["bad", "Not yet", `converged after ${sweeps} sweeps.`]);
    const text = JSON.stringify(rows);
    if (text !== announced) statusList("status", rows); // a screen reader says every change, and nothing twice
    announced = text;
  }

  function ending(now) {
    const count = `after ${sweeps} sweep${sweeps === 1 ? "" : "s"}`;
    if (!truth.proper) return `${count}, although there is no distribution to converge to.`;
    const ratios = now.variance.map((v, i) => v / truth.variance[i]);
    const [low, high] = [Math.min(...ratios), Math.max(...ratios)];
    if (Math.max(1 - low, high - 1) < 1e-4) return `${count}: means and variances are exact.`;
    const range = number(low) === number(high) ? number(low) : `${number(low)} to ${number(high)}`;
    return `${count}: means are exact, variances are ${range} of the exact ones.`;
  }

  // --- what is selected

  function select(what) {
    state.selected = what;
    inspect();
    paint();
  }

  function inspect() {
    const box = byId("inspector");
    const { selected } = state;
    if (!selected) {
      byId("selected-title").textContent = "Selected: nothing";
      box.replaceChildren(html("p", {}, "Choose a node or an edge. Drag nodes, or move them with the arrow keys."));
      return;
    }
    if (selected.kind === "node") inspectNode(box, state.nodes[selected.index]);
    else inspectEdge(box, state.edges[selected.index]);
  }

  function field(id, label, range, value) {
    return [
      html("label", { for: id }, [label, html("output", { id: `${id}-value` })]),
      html("input", { type: "range", id, ...range, value }),
    ];
  }

  function inspectNode(box, node) {
    byId("selected-title").textContent = `Selected: node ${node.name}`;
    box.replaceChildren(
      ...field("seen-mean", "Evidence: mean", { min: -2.5, max: 2.5, step: 0.1 }, node.mean),
      ...field("seen-precision", "Evidence: precision", { min: 0, max: 10, step: 0.25 }, node.precision),
    );
    slider("seen-mean", (v) => number(v, 1), (v) => {
      node.mean = v;
      seen();
    });
    slider("seen-precision", (v) => (v === 0 ? "not seen" : number(v)), (v) => {
      node.precision = v;
      seen();
    });
  }

  function inspectEdge(box, edge) {
    const [a, b] = [state.nodes[edge.first].name, state.nodes[edge.second].name];
    byId("selected-title").textContent = `Selected: edge ${a}–${b}`;
    box.replaceChildren(
      ...field("edge-rho", html("span", {}, [html("var", {}, "ρ"), ` of ${a} and ${b}`]),
        { min: -0.95, max: 0.95, step: 0.05 }, edge.rho),
      html("dl", { id: "directions" }),
    );
    slider("edge-rho", (v) => number(v), (v) => {
      edge.rho = v;
      recoupled();
    });
    paintDirections();
  }

  function paintDirections() {
    const list = byId("directions");
    if (!list || state.selected?.kind !== "edge") return;
    const edge = state.edges[state.selected.index];
    const rows = p.directed.flatMap(({ source, target }, k) => {
      const along = [source, target].includes(edge.first) && [source, target].includes(edge.second);
      if (!along) return [];
      return [html("dt", {}, `${state.nodes[source].name} → ${state.nodes[target].name}`), html("dd", {}, sentence(k))];
    });
    list.replaceChildren(...rows);
  }

  // --- editing

  function drag(event, i) {
    if (event.button) return;
    const group = nodeLayer.children[i];
    const start = [event.clientX, event.clientY];
    const node = state.nodes[i];
    const origin = [node.x, node.y];
    let moved = false;
    group.setPointerCapture(event.pointerId);
    const move = (now) => {
      const [dx, dy] = [now.clientX - start[0], now.clientY - start[1]];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      const [left, upper] = [place({ x: 0, y: 0 }), place({ x: 1, y: 1 })];
      moveTo(node, origin[0] + dx / (upper.x - left.x), origin[1] + dy / (upper.y - left.y));
    };
    const up = () => {
      group.removeEventListener("pointermove", move);
      if (!moved) choose(i);
    };
    group.addEventListener("pointermove", move);
    group.addEventListener("pointerup", up, { once: true });
    group.addEventListener("pointercancel", () => group.removeEventListener("pointermove", move), { once: true });
  }

  function moveTo(node, x, y) {
    node.x = Math.max(0, Math.min(1, x));
    node.y = Math.max(0, Math.min(1, y));
    paint();
  }

  // A click or Enter on a node: selects it, or is an end of the edge that is being added.
  function choose(i) {
    if (state.connecting === null) return select({ kind: "node", index: i });
    if (state.connecting === "first") state.connecting = i;
    else if (state.connecting !== i) return join(state.connecting, i);
    paint();
  }

  function join(first, second) {
    state.connecting = null;
    const ends = (edge) => [edge.first, edge.second];
    let index = state.edges.findIndex((edge) => ends(edge).includes(first) && ends(edge).includes(second));
    if (index < 0) {
      stop();
      index = state.edges.push({ first, second, rho: 0.5 }) - 1;
      edited();
    }
    select({ kind: "edge", index });
  }

  function edited() {
    markPreset(null);
    changed();
  }

  function addNode(at) {
    if (state.nodes.length >= MOST_NODES) return;
    stop();
    const name = [..."abcdefghijklmnop"].find((letter) => state.nodes.every((node) => node.name !== letter));
    state.nodes.push({ name, ...(at || emptiest()), mean: 0, precision: 0 });
    state.selected = { kind: "node", index: state.nodes.length - 1 };
    edited();
  }

  // Where there is most room, of a few places.
  function emptiest() {
    const random = linear.generator(state.nodes.length);
    let best = { x: 0.5, y: 0.5, room: -1 };
    for (let k = 0; k < 200; k++) {
      const at = { x: random.uniform(), y: random.uniform() };
      const room = Math.min(2, ...state.nodes.map((node) => Math.hypot(node.x - at.x, node.y - at.y)));
      if (room > best.room) best = { ...at, room };
    }
    return { x: best.x, y: best.y };
  }

  function remove() {
    if (!state.selected) return;
    stop();
    const { kind, index } = state.selected;
    state.selected = null;
    if (kind === "edge") state.edges.splice(index, 1);
    else {
      const shift = (i) => i - (i > index ? 1 : 0);
      state.nodes.splice(index, 1);
      state.edges = state.edges
        .filter((edge) => edge.first !== index && edge.second !== index)
        .map((edge) => ({ ...edge, first: shift(edge.first), second: shift(edge.second) }));
    }
    edited();
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function nodeKey(event, i) {
    const arrow = ARROWS[event.key];
    const node = state.nodes[i];
    if (arrow) moveTo(node, node.x + 0.03 * arrow[0], node.y + 0.03 * arrow[1]);
    else if (event.key === "Enter" || event.key === " ") choose(i);
    else if (event.key === "Delete" || event.key === "Backspace") {
      select({ kind: "node", index: i });
      remove();
    } else return;
    event.preventDefault();
  }

  function edgeKey(event, e) {
    const arrow = ARROWS[event.key];
    const edge = state.edges[e];
    if (arrow) {
      if (!isSelected("edge", e)) select({ kind: "edge", index: e });
      const rho = Math.round(20 * (edge.rho + 0.05 * (arrow[0] - arrow[1]))) / 20;
      edge.rho = Math.max(-0.95, Math.min(0.95, rho));
      recoupled();
      inspect();
    } else if (event.key === "Enter" || event.key === " ") select({ kind: "edge", index: e });
    else if (event.key === "Delete" || event.key === "Backspace") {
      select({ kind: "edge", index: e });
      remove();
    } else return;
    event.preventDefault();
  }

  byId("send-one").addEventListener("click", () => {
    stop();
    fly(advance(1), 700);
  });
  byId("send-sweep").addEventListener("click", () => {
    stop();
    fly(advance(Infinity), controls.schedule.value === "flooding" ? 700 : 1600);
  });
  byId("run").addEventListener("click", run);
  byId("restart").addEventListener("click", () => {
    stop();
    begin(gbp.empty(p));
    paint();
  });
  byId("add-node").addEventListener("click", () => addNode());
  byId("delete").addEventListener("click", remove);
  byId("connect").addEventListener("click", () => {
    const own = state.selected?.kind === "node" ? state.selected.index : "first";
    state.connecting = state.connecting === null ? own : null;
    paint();
  });
  controls.schedule.addEventListener("change", settle);
  stage.addEventListener("dblclick", (event) => {
    if (event.target !== stage) return;
    const box = stage.getBoundingClientRect();
    const [left, upper] = [place({ x: 0, y: 0 }), place({ x: 1, y: 1 })];
    const inside = (value) => Math.max(0, Math.min(1, value));
    addNode({
      x: inside((event.clientX - box.left - left.x) / (upper.x - left.x)),
      y: inside((event.clientY - box.top - left.y) / (upper.y - left.y)),
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || state.connecting === null) return;
    state.connecting = null;
    paint();
  });
  for (const button of document.querySelectorAll("#graph .setup")) {
    button.addEventListener("click", () => {
      SETUPS[button.dataset.setup]();
      byId("presets").scrollIntoView({ block: "start" });
    });
  }

  load("chain");
  new ResizeObserver(() => paint()).observe(stage);

  // For a look from outside: the graph as the reader has made it, and where its messages stand.
  PGM.graph = () => ({
    graph: { nodes: state.nodes, edges: state.edges },
    beliefs: gbp.beliefs(p, messages), truth, radius, sweeps, sent, outcome,
    still: flight === null && running === null,
  });
})();
