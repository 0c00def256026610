// Part A: a factor graph to edit, and its messages.
(function () {
  "use strict";
  const { gbp, linear } = PGM;
  const { byId, html, number, short, calm, slider, choices, statusList } = PGM.dom;

  const MOST_NODES = 12;
  const MOST_SWEEPS = 400;
  const TOLERANCE = 1e-6;

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

  const controls = {
    schedule: byId("schedule"),
    damping: slider("damping", (v) => number(v), () => settle()),
    rho: slider("all-rho", (v) => number(v), (v) => {
      for (const edge of state.edges) edge.rho = v;
      recoupled();
      inspect();
    }),
  };
  const labels = Object.entries(PGM.presets).map(([key, { label }]) => [key, label]);
  const markPreset = choices("presets", labels, (key) => load(key));

  function load(key, { rho = PGM.presets[key].rho, schedule = "flooding", damping = 0 } = {}) {
    const { at, seen, edges } = PGM.presets[key];
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
    stage.build(state, p);
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

  const stage = PGM.stage(byId("graph-svg"), {
    nodeDown: drag,
    nodeKey,
    edgeClick: (index) => select({ kind: "edge", index }),
    edgeKey,
  });

  // Dots travel along the edges; what they did is shown when they arrive.
  function fly(ks, duration) {
    land();
    if (calm() || duration < 150) return paint();
    const inOrder = controls.schedule.value !== "flooding" && ks.length > 1;
    stage.fly(ks, messages, inOrder, duration, land);
  }

  function land() {
    if (stage.land()) paint();
  }

  function paint() {
    const now = gbp.beliefs(p, messages);
    stage.paint({ state, p, truth, messages, now });
    PGM.errorPlot(byId("error-plot"), truth.proper ? trace : null);
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

  // --- beside the graph

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
      return [html("dt", {}, `${state.nodes[source].name} → ${state.nodes[target].name}`), html("dd", {}, PGM.sentence(p, messages, k))];
    });
    list.replaceChildren(...rows);
  }

  // --- editing

  function drag(event, i) {
    if (event.button) return;
    const group = stage.node(i);
    const start = [event.clientX, event.clientY];
    const node = state.nodes[i];
    const origin = [node.x, node.y];
    let moved = false;
    group.setPointerCapture(event.pointerId);
    const move = (now) => {
      const [dx, dy] = [now.clientX - start[0], now.clientY - start[1]];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      const step = stage.scaled(dx, dy);
      moveTo(node, origin[0] + step.x, origin[1] + step.y);
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
      select({ kind: "edge", index: e });
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
  byId("graph-svg").addEventListener("dblclick", (event) => {
    if (event.target !== byId("graph-svg")) return;
    const { x, y } = stage.located(event);
    const inside = (value) => Math.max(0, Math.min(1, value));
    addNode({ x: inside(x), y: inside(y) });
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
  new ResizeObserver(() => paint()).observe(byId("graph-svg"));

  // For a look from outside: the graph as the reader has made it, and where its messages stand.
  PGM.graph = () => ({
    graph: { nodes: state.nodes, edges: state.edges },
    beliefs: gbp.beliefs(p, messages), truth, radius, sweeps, sent, outcome,
    still: !stage.flying() && running === null,
  });
})();
