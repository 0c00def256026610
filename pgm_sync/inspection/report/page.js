// Brings a report to life: details of what is chosen, noise levels, counterfactuals, recorded steps, sorting.
// No library and no request; everything it needs is in the JSON element of the page.
(() => {
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const state = { edge: null, node: null, level: null };

// ---- small helpers --------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const drawn = /^(svg|path|circle|g|text|line|rect|title)$/.test(tag);
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== "") element.append(child);
  }
  return element;
}

const fill = (element, ...children) => 
  element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== ""));
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function fmt(value, digits = 2) {
  if (!known(value)) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function brief(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  return fmt(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 4);
}

function shade(rho) {
  const share = Math.round(100 * Math.min(Math.abs(rho), 1));
  return `color-mix(in oklab,var(--${rho > 0 ? "positive" : "negative"}) ${share}%,var(--neutral))`;
}

const signPath = (rho) => "M-3.5 0H3.5" + (rho > 0 ? "M0 -3.5V3.5" : "");
const snrText = (logSnr) => `log snr ${logSnr >= 0 ? "+" : ""}${fmt(logSnr, 1)}`;

function decode(packed) {  // {f64 or f32: base64} -> typed array
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed.f64 ?? packed.f32), (c) => c.charCodeAt(0));
  return packed.f64 !== undefined ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
}

// ---- linear algebra: row-major arrays, in place where that is natural ------------------------------------

function cholesky(matrix, n) {  // lower factor over the lower triangle; false where not positive definite
  for (let j = 0; j < n; j++) {
    let pivot = matrix[j * n + j];
    for (let k = 0; k < j; k++) pivot -= matrix[j * n + k] ** 2;
    if (!(pivot > 0)) return false;
    const root = Math.sqrt(pivot);
    matrix[j * n + j] = root;
    for (let i = j + 1; i < n; i++) {
      let sum = matrix[i * n + j];
      for (let k = 0; k < j; k++) sum -= matrix[i * n + k] * matrix[j * n + k];
      matrix[i * n + j] = sum / root;
    }
  }
  return true;
}

function substitute(factor, n, right) {  // (L L') x = right
  const x = Float64Array.from(right);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i] -= factor[i * n + k] * x[k];
    x[i] /= factor[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] -= factor[k * n + i] * x[k];
    x[i] /= factor[i * n + i];
  }
  return x;
}

function inverse(matrix, n) {  // of a positive definite one, or null
  const factor = Float64Array.from(matrix);
  if (!cholesky(factor, n)) return null;
  const result = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    const unit = new Float64Array(n);
    unit[j] = 1;
    const column = substitute(factor, n, unit);
    for (let i = 0; i < n; i++) result[i * n + j] = column[i];
  }
  return result;
}

function times(matrix, vector, rows, columns) {
  const result = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += matrix[i * columns + j] * vector[j];
    result[i] = sum;
  }
  return result;
}

// ---- Eq. 5 and 6: the same computation as the engine's, over features --------------------------------------

class Engine {
  constructor(model) {
    this.size = model.size;
    this.own = decode(model.own);
    this.ownEta = decode(model.own_eta);
    this.constant = decode(model.constant);
    this.constantEta = decode(model.constant_eta);
    this.visible = decode(model.visible);
    this.excess = decode(model.excess);
    this.terms = model.terms.map((term) => ({
      ...term, change: decode(term.change), shift: decode(term.shift), matrix: decode(term.matrix), vector: decode(term.vector), rows: decode(term.rows),
      seen: term.blocks.reduce((a, b) => a + b, 0),
    }));
    this.states = model.states.map((s) => ({
      ...s, content: decode(s.content), noise: decode(s.noise), own: decode(s.own), noisy: decode(s.noisy),
    }));
    this.whole = new Map();  // contributions at strength 1
  }

  // What a factor says, over the features of its ends, at a strength: 1 as it is, 0 cut. Null where it is improper.
  contribution(term, strength) {
    if (strength === 1 && this.whole.has(term)) return this.whole.get(term);
    const b = term.seen, end = term.blocks.flatMap((size, k) => Array(size).fill(k));
    let precision = Float64Array.from(term.matrix), eta;
    if (term.rule === "precision") {
      precision = precision.map((v) => strength * v);
      eta = term.vector.map((v) => strength * v);
    } else {
      if (term.rule === "covariance") {
        for (let i = 0; i < b; i++) for (let j = 0; j < b; j++) if (end[i] !== end[j]) precision[i * b + j] *= strength;
        const covariance = precision;
        precision = inverse(covariance, b);
        if (precision === null) return null;
        let start = 0;
        for (const size of term.blocks) {
          const block = new Float64Array(size * size);
          for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
            block[i * size + j] = covariance[(start + i) * b + start + j];
          }
          const own = inverse(block, size);
          for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
            precision[(start + i) * b + start + j] -= own[i * size + j];
          }
          start += size;
        }
      }
      eta = times(precision, term.vector, b, b);
    }
    if (term.rows) {  // B' P B, B' eta
      const q = term.index.length, rows = term.rows, half = new Float64Array(b * q);
      for (let i = 0; i < b; i++) for (let k = 0; k < b; k++) {
        const p = precision[i * b + k];
        if (p !== 0) for (let j = 0; j < q; j++) half[i * q + j] += p * rows[k * q + j];
      }
      const full = new Float64Array(q * q), right = new Float64Array(q);
      for (let k = 0; k < b; k++) for (let i = 0; i < q; i++) {
        const r = rows[k * q + i];
        if (r === 0) continue;
        right[i] += r * eta[k];
        for (let j = 0; j < q; j++) full[i * q + j] += r * half[k * q + j];
      }
      precision = full;
      eta = right;
    }
    const found = { precision, eta };
    if (strength === 1) this.whole.set(term, found);
    return found;
  }

  // All factors and priors of hidden variables; strengths is a Map from factors' places to numbers.
  coupling(strengths) {
    const n = this.size;
    const precision = this.constant ? Float64Array.from(this.constant) : new Float64Array(n * n);
    const eta = Float64Array.from(this.constantEta);
    for (const term of this.terms) {
      const own = this.contribution(term, strengths.get(term.edge) ?? 1);
      if (own === null) return null;
      const q = term.index.length;
      for (let i = 0; i < q; i++) {
        eta[term.index[i]] += own.eta[i];
        for (let j = 0; j < q; j++) precision[term.index[i] * n + term.index[j]] += own.precision[i * q + j];
      }
    }
    for (const term of this.terms) {  // factors of a model with loops: the others make up for what is taken away
      const left = 1 - (strengths.get(term.edge) ?? 1);
      if (left === 0 || !term.change) continue;
      for (let k = 0; k < n * n; k++) precision[k] += left * term.change[k];
      for (let i = 0; i < n; i++) eta[i] += left * term.shift[i];
    }
    return { precision, eta };
  }

  // Joint means from own means and x_t / alpha (Eq. 6). Null where the potentials are improper.
  solve(logSnr, own, noisy, strengths = new Map()) {
    const n = this.size, snr = Math.exp(logSnr), coupling = this.coupling(strengths);
    if (coupling === null) return null;
    const precision = coupling.precision.map((v, k) => v + this.own[k]);
    const mean = own.map((v, k) => v * this.visible[k]), seen = noisy.map((v, k) => v * this.visible[k]);
    const right = times(this.own, mean, n, n);
    for (let i = 0; i < n; i++) right[i] += snr * mean[i] + coupling.eta[i];
    if (this.excess) {
      const extra = times(this.excess, seen, n, n);
      for (let i = 0; i < n; i++) right[i] += snr * extra[i];
      for (let k = 0; k < n * n; k++) precision[k] += snr * this.excess[k];
    }
    for (let i = 0; i < n; i++) precision[i * n + i] += snr * this.visible[i];
    return cholesky(precision, n) ? substitute(precision, n, right) : null;
  }

  // Noisy states and own means: as recorded, or those of a draw of the model at any noise level (Eq. 4, surrogate).
  stateAt(place, logSnr) {
    const given = this.states[place];
    if (given.own) return { logSnr: given.log_snr, own: given.own, noisy: given.noisy };
    const n = this.size, snr = Math.exp(logSnr);
    const noisy = given.content.map((v, k) => (v + given.noise[k] / Math.sqrt(snr)) * this.visible[k]);
    const unary = Float64Array.from(this.own), right = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      unary[i * n + i] += this.visible[i] ? snr : 1;
      right[i] = this.ownEta[i] + snr * noisy[i];
    }
    cholesky(unary, n);
    return { logSnr, own: substitute(unary, n, right), noisy };
  }
}

const engine = data.model ? new Engine(data.model) : null;

// ---- the scheme --------------------------------------------------------------------------------------------

function theme() {
  const button = $("theme"), root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("pgm_sync theme", value);
      return localStorage.getItem("pgm_sync theme");
    } catch { return null; }  // pages from files may be denied any memory
  };
  const show = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    button.textContent = dark ? "light" : "dark";
    button.setAttribute("aria-label", `switch to ${dark ? "light" : "dark"} colours`);
  };
  if (stored()) root.dataset.theme = stored();
  button.addEventListener("click", () => {
    root.dataset.theme = button.textContent;
    stored(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

// ---- graph and details ---------------------------------------------------------------------------------------

const drawing = document.querySelector("svg.graph[role=group]");

function choose(edge, node = null) {
  state.edge = edge;
  state.node = node;
  for (const element of document.querySelectorAll("[data-edge]")) {
    element.classList.toggle("chosen", edge !== null && Number(element.dataset.edge) === edge);
  }
  for (const element of document.querySelectorAll("[data-node]")) {
    element.classList.toggle("chosen", node !== null && Number(element.dataset.node) === node);
  }
  details();
  redraw();
}

function selectable() {
  const pick = (event) => {
    if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
    const element = event.target.closest("[data-edge], [data-node]");
    if (!element) return;
    if (event.type === "keydown") event.preventDefault();
    if (element.dataset.edge !== undefined) choose(Number(element.dataset.edge));
    else choose(null, Number(element.dataset.node));
  };
  for (const root of document.querySelectorAll("svg.graph[role=group], table.heat tbody")) {
    root.addEventListener("click", pick);
    root.addEventListener("keydown", pick);
  }
  drawing?.addEventListener("focusin", pick);
}

function details() {
  const panel = $("details");
  if (!panel) return;
  if (state.node !== null) return fill(panel, nodeDetails(data.nodes[state.node]));
  if (state.edge === null) {
    return fill(panel, make("p", { class: "note" }, "Choose an edge, a factor or a trajectory: point, tap, or use the tab key."));
  }
  fill(panel, edgeDetails(data.edges[state.edge]));
}

function nodeDetails(node) {
  const rows = [["kind", node.kind], ["shape", node.shape.join(" × ")], ["coupled in", node.features]];
  const links = node.factors.map((k) =>
    make("button", { type: "button", class: "chip", onclick: () => choose(k) }, data.edges[k].name));
  return [make("h3", {}, node.name), listOf(rows), links.length ? make("p", { class: "chips" }, links) : null];
}

const listOf = (rows) => make("dl", {}, rows.filter(([, v]) => v).map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, v))));

function edgeDetails(edge) {
  const head = make("h3", {}, edge.name, " ", make("span", { class: `tag ${edge.kind.replace(" ", "-")}`, title: data.kinds[edge.kind] }, edge.kind));
  const rows = [
    ["joins", edge.ends.map((end, k) => `${end} (${edge.sees[k]})`).join(", ")],
    ["mutual information", known(edge.information) ? `${brief(edge.information)} nats` : ""],
    ["potential", edge.potential],
  ];
  const parts = [head, listOf(rows)];
  if (edge.modes.length) parts.push(modeTable(edge));
  else parts.push(make("p", { class: "note" }, data.kinds[edge.kind] + "; no correlation to show."));
  const place = data.edges.indexOf(edge);
  if ($("what-edge") && whatIf.offers(place)) {
    parts.push(make("button", { type: "button", class: "action", onclick: () => whatIf.open(place) }, "What if it were cut?"));
  }
  return parts;
}

function modeTable(edge) {
  const pairs = new Set(edge.modes.map((m) => m.between.join())).size > 1;
  const strongest = Math.max(...edge.modes.map((m) => m.nats));
  const some = edge.modes.some((m) => known(m.low)), partial = edge.modes.some((m) => known(m.partial));
  const x = (v) => 60 + 58 * v;
  const body = edge.modes.map((mode) => {
    const plot = make("svg", { viewBox: "0 0 120 16", "aria-hidden": true },
      make("path", { class: "zero", d: "M60 0V16" }),
      known(mode.low) ? make("path", { class: "range", d: `M${x(mode.low)} 8H${x(mode.high)}` }) : null,
      known(mode.partial) ? make("path", { class: "partial", d: `M${x(mode.partial)} 3V13` }) : null,
      make("circle", { class: "dot", cx: x(mode.rho), cy: 8, r: 4, style: `fill:${shade(mode.rho)}` }));
    const label = [mode.label, pairs ? make("small", {}, mode.between.join(" – ")) : null];
    return make("tr", { class: mode.nats === strongest ? "leading" : null },
      make("th", { scope: "row" }, known(mode.glyph) ? make("img", { src: data.glyphs[mode.glyph], alt: "", width: 22, height: 22 }) : null, make("span", {}, label)),
      make("td", { class: "number" }, fmt(mode.rho)),
      some ? make("td", { class: "interval" }, known(mode.low) ? `${fmt(mode.low)} to ${fmt(mode.high)}` : "") : null,
      make("td", { class: "plot" }, plot),
      partial ? make("td", { class: "number soft" }, fmt(mode.partial)) : null,
      make("td", { class: "number soft" }, fmt(mode.nats, 3)));
  });
  const heads = ["mode", "ρ", some ? "95 %" : null, "drawn", partial ? "partial" : null, "nats"].filter(Boolean);
  return [
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "modes of the edge" },
      make("table", { class: "modes" },
        make("thead", {}, make("tr", {}, heads.map((h) => make("th", { scope: "col" }, h)))), make("tbody", {}, body))),
    make("p", { class: "note" }, "Dot: correlation, with its 95 % interval. " +
      (partial ? "Stroke: partial correlation, given all other nodes. " : "") +
      (edge.modes.some((m) => known(m.glyph)) ? "Pictures: what the mode measures, grey is zero." : "")),
  ];
}

// ---- noise levels ---------------------------------------------------------------------------------------------

function levelSlider() {
  const input = $("level");
  if (!input) return;
  const most = Math.max(...data.levels.curves.flatMap((c) => (c ? c.information.filter(known) : [])), 1e-12);
  input.addEventListener("input", () => {
    state.level = Number(input.value);
    recolour(most);
    redraw();
  });
  tellLevel(input, "noise at the left");
}

function tellLevel(input, fallback) {
  const text = state.level === null && fallback ? fallback : snrText(data.levels.log_snr[Number(input.value)]);
  $(`${input.id}-value`).textContent = text;
  input.setAttribute("aria-valuetext", text);
}

function recolour(most) {
  data.levels.curves.forEach((curve, k) => {
    if (!curve) return;
    const rho = curve.rho[state.level], share = Math.max(curve.information[state.level], 0) / most;
    for (const line of drawing.querySelectorAll(`path.edge[data-edge="${k}"]`)) {
      line.style.stroke = shade(rho);
      line.style.strokeWidth = 1 + 6 * Math.sqrt(share);
    }
    const square = drawing.querySelector(`g.square[data-edge="${k}"]`);
    square.querySelector("rect").style.fill = shade(rho);
    square.querySelector(".sign")?.setAttribute("d", signPath(rho));
    square.setAttribute("aria-label", `${data.edges[k].name}, correlation ${fmt(rho)}`);
  });
  tellLevel($("level"));
}

// A line chart that fits its place: lines are {name, values, edge, colour}, those with a colour stand out.
function plot(place, { x, lines, label, now, integer }) {
  const width = Math.max(place.clientWidth, 260), height = width < 500 ? 220 : 300;
  const left = 48, right = 10, top = 10, bottom = 38, first = x[0], last = x[x.length - 1];
  const values = lines.flatMap((line) => line.values.filter(known));
  const low = Math.min(0, ...values), most = Math.max(0, ...values), high = most - low < 1e-12 ? low + 1 : most;
  const across = (v) => left + (last > first ? (v - first) / (last - first) : 0.5) * (width - left - right);
  const up = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
  const drawn = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `curves over ${label}` });
  for (const v of ticks(low, high, 5)) {
    drawn.append(make("path", { class: v === 0 ? "axis" : "grid", d: `M${left} ${up(v)}H${width - right}` }),
      make("text", { x: left - 6, y: up(v), dy: ".32em", "text-anchor": "end" }, tickText(v)));
  }
  for (const v of ticks(first, last, width < 500 ? 4 : 8)) {
    if (integer && !Number.isInteger(v)) continue;
    drawn.append(make("text", { x: across(v), y: height - bottom + 16, "text-anchor": "middle" }, tickText(v)));
  }
  drawn.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, label));
  const chosen = (line) => line.edge !== null && line.edge !== undefined && line.edge === state.edge;
  const rank = (line) => (chosen(line) ? 2 : line.colour ? 1 : 0);
  for (const line of [...lines].sort((a, b) => rank(a) - rank(b))) {
    const points = line.values.map((v, j) => (known(v) ? `${across(x[j]).toFixed(1)} ${up(v).toFixed(1)}` : null));
    const d = points.map((p, j) => (p ? (j > 0 && points[j - 1] ? "L" : "M") + p : "")).join("");
    drawn.append(make("path", {
      class: `curve${line.colour ? " leading" : ""}${chosen(line) ? " chosen" : ""}`, d,
      style: line.colour ? `stroke:${line.colour}` : null, "data-edge": line.edge ?? null,
    }, make("title", {}, line.name)));
  }
  if (known(now)) drawn.append(make("path", { class: "now", d: `M${across(now)} ${top}V${height - bottom}` }));
  drawn.addEventListener("click", (event) => {
    const path = event.target.closest("[data-edge]");
    if (path) choose(Number(path.dataset.edge));
  });
  fill(place, drawn);
}

const tickText = (v) => String(Number(v.toPrecision(6))).replace("-", "−");
const peak = (values) => Math.max(0, ...values.filter(known).map(Math.abs));

// The largest lines get the colours, in order; the rest stay thin.
function coloured(lines, size = (line) => peak(line.values), most = 5) {
  const leading = [...lines].sort((a, b) => size(b) - size(a)).slice(0, most);
  return lines.map((line) => ({ ...line, colour: leading.includes(line) ? `var(--p${leading.indexOf(line)})` : null }));
}

function legendOf(place, lines, what) {
  const shown = lines.filter((line) => line.colour || (known(line.edge) && line.edge === state.edge));
  const entries = shown.map((line) => {
    const key = [make("i", { style: `background:${line.colour ?? "var(--ink)"}` }), line.name];
    return make("li", {}, known(line.edge)
      ? make("button", { type: "button", class: line.edge === state.edge ? "chosen" : null, onclick: () => choose(line.edge) }, key)
      : key);
  });
  if (shown.length < lines.length) entries.push(make("li", {}, `${lines.length} ${what} in all`));
  fill(place, entries);
}

function follow(place, draw) {  // draws again when the width of its place changes
  let width = 0;
  new ResizeObserver(() => { if (place.clientWidth !== width) { width = place.clientWidth; draw(); } }).observe(place);
  draw();
}

const charts = [];
const redraw = () => charts.forEach((draw) => draw());

function curves() {
  const place = $("curves");
  if (!place) return;
  const reach = (curve) => (curve.movement.some(known) ? peak(curve.movement) : peak(curve.information));
  const shown = data.levels.curves.map((curve, edge) => ({ curve, edge })).filter((c) => c.curve);
  const order = coloured(shown.map((c) => ({ ...c, values: [] })), (c) => reach(c.curve));
  const draw = () => {
    const quantity = document.querySelector("input[name=curve]:checked").value;
    const lines = order.map(({ curve, edge, colour }) => ({ name: data.edges[edge].name, values: curve[quantity], edge, colour }));
    const levels = data.levels.log_snr;
    plot(place, { x: levels, lines, label: "log signal-to-noise ratio", now: state.level === null ? null : levels[state.level] });
    legendOf($("curves-key"), lines, "factors");
  };
  for (const input of document.querySelectorAll("input[name=curve]")) input.addEventListener("change", draw);
  charts.push(draw);
  follow(place, draw);
}

// ---- recorded steps --------------------------------------------------------------------------------------------

function recording() {
  const run = data.recording, input = $("step");
  if (!input) return;
  const keys = Object.keys(run.series), place = $("step-curves");
  fill($("step-switch"), keys.map((key, k) => make("label", {},
    make("input", { type: "radio", name: "series", value: key, checked: k === 0 }), make("span", {}, run.series[key].title))));
  const x = run.steps.map((s) => s.step + 1);
  const lines = Object.fromEntries(keys.map((key) => [key, coloured(run.series[key].lines)]));
  const draw = () => {
    const key = document.querySelector("input[name=series]:checked")?.value;
    if (!key) return;
    plot(place, { x, lines: lines[key], label: "step", now: x[Number(input.value)], integer: true });
    legendOf($("step-key"), lines[key], key === "correction" || key === "variance" ? "trajectories" : "lines");
    $("step-about").textContent = run.series[key].about;
  };
  for (const radio of document.querySelectorAll("input[name=series]")) radio.addEventListener("change", draw);
  const show = () => {
    const at = Number(input.value), { step, log_snr: logSnr } = run.steps[at];
    const text = `${step + 1} of ${run.num_steps}` + (known(logSnr) ? `, ${snrText(logSnr)}` : "");
    $("step-value").textContent = text;
    input.setAttribute("aria-valuetext", text);
    stepPictures(run.pictures, at);
    draw();
  };
  input.addEventListener("input", () => {
    show();
    const logSnr = run.steps[Number(input.value)].log_snr;
    if (data.levels && $("level") && known(logSnr)) {
      const gaps = data.levels.log_snr.map((v) => Math.abs(v - logSnr));
      $("level").value = gaps.indexOf(Math.min(...gaps));
      $("level").dispatchEvent(new Event("input"));
    }
  });
  charts.push(draw);
  show();
  follow(place, draw);
}

function stepPictures(pictures, at) {
  if (!pictures) return;
  const gaps = pictures.frames.map((f) => Math.abs(f.at - at)), frame = pictures.frames[gaps.indexOf(Math.min(...gaps))];
  const kinds = [["own", "own mean"], ["joint", "joint mean"], ["correction", "correction"], ["left", "variance left"], ["disagreement", "disagreement of views"]];
  const used = kinds.filter(([key]) => pictures.names.some((name) => frame.nodes[name]?.[key]));
  const range = (key, node) => (known(node[`${key}_most`]) ? make("small", {}, `0 to ${brief(node[`${key}_most`])}`) : null);
  const rows = pictures.names.map((name) => make("tr", {}, make("th", { scope: "row" }, name), used.map(([key, title]) => {
    const node = frame.nodes[name] ?? {};
    return make("td", {}, node[key]
      ? [make("img", { src: node[key], alt: `${title} of ${name}`, class: key === "own" || key === "joint" ? "content" : "heated" }), range(key, node)]
      : null);
  })));
  const notes = [`Pictures of step ${data.recording.steps[frame.at].step + 1}; contents from ${brief(-pictures.scale)} to ${brief(pictures.scale)}.`];
  if (pictures.more) notes.push(`${pictures.more} more trajectories are not shown.`);
  fill($("step-pictures"), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "pictures of the step" },
    make("table", { class: "frames" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), used.map(([, title]) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, rows))), make("p", { class: "note" }, notes.join(" ")));
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step || 0);
  return found;
}

// ---- what if -----------------------------------------------------------------------------------------------------

const whatIf = {
  node: 0,

  offers(edge) {
    return engine ? engine.terms.some((t) => t.edge === edge && t.range) : Boolean(data.beforehand?.rows.some((r) => r.edge === edge));
  },

  open(edge) {
    $("what-edge").value = edge;
    this.choose(true);
    $("what-if").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    $("what-edge").focus({ preventScroll: true });
  },

  start() {
    if (!$("what-edge")) return;
    const places = engine ? engine.terms.filter((t) => t.range).map((t) => t.edge) : [...new Set(data.beforehand.rows.map((r) => r.edge))];
    fill($("what-edge"), places.map((k) => make("option", { value: k }, data.edges[k].name)));
    const reach = (k) => Math.max(0, ...(data.levels?.curves[k]?.movement ?? []).filter(known));
    const strongest = [...places].sort((a, b) => reach(b) - reach(a))[0];
    $("what-edge").value = strongest;
    const level = $("what-level");
    if (engine) {
      fill($("what-state"), engine.states.map((s, k) => make("option", { value: k }, s.label)));
      $("what-state").addEventListener("change", () => this.show());
      this.levels = data.levels ? data.levels.log_snr : Array.from({ length: 33 }, (_, k) => -8 + k / 2);
    } else this.levels = [...new Set(data.beforehand.rows.map((r) => r.log_snr))];
    level.max = this.levels.length - 1;
    const moved = data.levels?.curves[strongest]?.movement ?? [];
    const best = engine && data.levels ? moved.indexOf(Math.max(...moved.filter(known))) : Math.floor(this.levels.length / 2);
    level.value = Math.max(best, 0);
    level.addEventListener("input", () => this.show());
    $("what-strength").addEventListener("input", () => this.show());
    $("what-edge").addEventListener("change", () => this.choose());
    this.choose(true);
  },

  choose(weakest = false) {
    const edge = Number($("what-edge").value), strength = $("what-strength");
    const term = engine?.terms.find((t) => t.edge === edge);
    const ends = data.edges[edge].ends;
    const nodes = engine ? data.model.nodes.map((n) => n.node) : data.beforehand.nodes;
    this.node = Math.max(0, nodes.findIndex((n) => data.nodes[n].name === ends[ends.length - 1]));
    if (engine) {
      [strength.min, strength.max] = term.range;
      strength.step = 0.001;
      if (weakest) strength.value = term.range[0];
    }
    else {
      this.strengths = [...new Set(data.beforehand.rows.filter((r) => r.edge === edge).map((r) => r.strength))];
      strength.max = this.strengths.length - 1;
      strength.step = 1;
      if (weakest) strength.value = 0;
    }
    this.show();
  },

  show() {
    const edge = Number($("what-edge").value), slider = $("what-strength");
    const strength = engine ? Number(slider.value) : this.strengths[Number(slider.value)];
    let logSnr = this.levels[Number($("what-level").value)];
    let change, correction, found = null;
    if (engine) {
      const place = Number($("what-state").value);
      const given = engine.stateAt(place, logSnr);
      logSnr = given.logSnr;
      $("what-level").disabled = engine.states[place].own !== null;
      const joint = engine.solve(logSnr, given.own, given.noisy);
      const moved = engine.solve(logSnr, given.own, given.noisy, new Map([[edge, strength]]));
      if (joint && moved) {
        found = { own: given.own, joint, moved };
        const length = (a, b, n) => {
          let sum = 0;
          for (let i = n.from; i < n.to; i++) sum += (a[i] - b[i]) ** 2;
          return Math.sqrt(sum);
        };
        change = data.model.nodes.map((n) => length(moved, joint, n));
        correction = data.model.nodes.map((n) => (n.hidden ? 0 : length(joint, given.own, n)));
      }
    } else {
      const row = data.beforehand.rows.find((r) => r.edge === edge && r.strength === strength && r.log_snr === logSnr);
      change = row?.change;
      correction = row?.correction;
    }
    const [least, most] = engine ? engine.terms.find((t) => t.edge === edge).range : [0, 1.2];
    const word = strength === 0 ? "cut" : strength === 1 ? "as it is" : `× ${fmt(strength)}`;
    $("what-strength-value").textContent = word;
    slider.setAttribute("aria-valuetext", word);
    $("what-level-value").textContent = snrText(logSnr);
    $("what-level").setAttribute("aria-valuetext", snrText(logSnr));
    const note = [];
    if (!change) note.push("Improper at this strength: the potentials have no joint density.");
    else if (strength === 0) note.push(`Without ${data.edges[edge].name}.`);
    if (least > 0) note.push(`Below × ${fmt(least)} the other factors have no joint density: it cannot be cut by itself.`);
    if (most < 1.2) note.push(`Beyond × ${fmt(most)} the potentials have no joint density.`);
    if (engine?.terms.find((t) => t.edge === edge).rule === "interaction") {
      note.push("The other factors are fitted again to what they say.");
    }
    if (engine && data.model.one_for_all) note.push("One element stands for all: every potential treats them alike.");
    if (engine && data.model.excess) note.push("Shown before overlapping pixels are averaged on their canvas.");
    $("what-note").textContent = note.join(" ");
    if (!change) { fill($("what-bars")); fill($("what-modes")); return; }
    this.bars(change, correction);
    fill($("what-modes"), found ? this.modes(found) : null);
  },

  bars(change, correction) {
    const nodes = engine ? data.model.nodes.map((n) => n.node) : data.beforehand.nodes;
    const most = Math.max(...change, ...correction, 1e-12);
    const order = change.map((_, k) => k).sort((a, b) => change[b] - change[a]).slice(0, 24);
    order.sort((a, b) => a - b);
    const rows = order.map((k) => make("tr", { class: k === this.node ? "chosen" : null },
      make("th", { scope: "row" }, engine
        ? make("button", { type: "button", "aria-pressed": k === this.node, onclick: () => { this.node = k; this.show(); } }, data.nodes[nodes[k]].name)
        : data.nodes[nodes[k]].name),
      make("td", { class: "bars" },
        make("i", { class: "change", style: `width:${(100 * change[k]) / most}%` }),
        make("i", { class: "correction", style: `width:${(100 * correction[k]) / most}%` })),
      make("td", { class: "number" }, brief(change[k])), make("td", { class: "number soft" }, brief(correction[k]))));
    fill($("what-bars"), make("table", { class: "moves" },
      make("thead", {}, make("tr", {}, ["trajectory", "", "moves by", "correction"].map((h) => make("th", { scope: "col" }, h)))),
      make("tbody", {}, rows)),
      order.length < change.length ? make("p", { class: "note" }, `The ${order.length} that move most of ${change.length}.`) : null,
      make("p", { class: "note" }, "Lengths in feature space, in content units. Correction: what joint denoising with all factors as they are adds to the own mean."));
  },

  modes({ own, joint, moved }) {
    const node = data.model.nodes[this.node];
    let places = Array.from({ length: node.to - node.from }, (_, k) => k);
    const size = (k) => Math.abs(moved[node.from + k] - joint[node.from + k]);
    if (places.length > 16) places = places.sort((a, b) => size(b) - size(a)).slice(0, 16).sort((a, b) => a - b);
    const values = places.flatMap((k) => [own, joint, moved].map((v) => v[node.from + k]));
    let low = Math.min(...values), high = Math.max(...values);
    if (high - low < 1e-9) { low -= 1; high += 1; }
    const x = (v) => 2 + 96 * ((v - low) / (high - low));
    const line = (kind, u, v) => make("i", { class: kind, style: `left:${Math.min(u, v)}%;width:${Math.abs(u - v)}%` });
    const dot = (kind, u) => make("i", { class: `point ${kind}`, style: `left:${u}%` });
    const rows = places.map((k) => {
      const [a, b, c] = [own, joint, moved].map((v) => x(v[node.from + k]));
      const track = make("div", { class: "track", "aria-hidden": true },
        low < 0 && high > 0 ? make("i", { class: "zero", style: `left:${x(0)}%` }) : null,
        node.hidden ? null : line("line", a, b), line("line moved", b, c),
        node.hidden ? null : dot("own", a), dot("dot", b), dot("moved", c));
      return make("tr", {}, make("th", { scope: "row" }, node.labels[k]), make("td", { class: "plot" }, track),
        make("td", { class: "number" }, brief(moved[node.from + k] - joint[node.from + k])));
    });
    const shown = known(node.view) ? this.pictures(node, own, joint, moved) : null;
    return [make("h3", {}, `${data.nodes[node.node].name}, mode by mode`),
      make("ul", { class: "key" }, ["own mean", "joint mean", "with the change"].map((t, k) =>
        make("li", {}, make("i", { class: ["own", "dot", "moved"][k] }), t))),
      shown,
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "modes of the trajectory" },
        make("table", { class: "modes wide" }, make("tbody", {}, rows)))];
  },

  pictures(node, own, joint, moved) {
    const basis = data.model.bases[node.view];
    basis.values ??= decode(basis.rows);
    const [channels, height, width] = basis.shape, size = channels * height * width;
    const lift = (features) => {
      const image = new Float64Array(size);
      for (let k = node.from; k < node.to; k++) {
        const base = (k - node.from) * size;
        for (let p = 0; p < size; p++) image[p] += features[k] * basis.values[base + p];
      }
      return image;
    };
    const images = [own, joint, moved].map(lift);
    const change = images[2].map((v, p) => v - images[1][p]);
    const scale = (list) => Math.max(1e-12, ...list.map((image) => image.reduce((m, v) => Math.max(m, Math.abs(v)), 0)));
    const common = scale(images), own_scale = scale([change]);
    const names = ["own mean", "joint mean", "with the change", "the change"];
    return make("div", { class: "strip" }, [...images, change].map((image, k) => {
      const canvas = make("canvas", { width, height, role: "img", "aria-label": `${names[k]} of ${data.nodes[node.node].name}` });
      paint(canvas, image, channels, k === 3 ? own_scale : common);
      return make("figure", {}, canvas, make("figcaption", {}, names[k], k === 3 ? ` (± ${brief(own_scale)})` : ` (± ${brief(common)})`));
    }));
  },
};

function paint(canvas, image, channels, scale) {
  const { width, height } = canvas, context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  const plane = width * height;
  for (let p = 0; p < plane; p++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * p + c] = 255 * (0.5 + image[(channels === 3 ? c : 0) * plane + p] / (2 * scale));
    pixels.data[4 * p + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

// ---- sorting -------------------------------------------------------------------------------------------------------

function sortable() {
  for (const table of document.querySelectorAll("table.heat")) {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, column) => {
      if (head.dataset.sort === undefined) return;
      const button = make("button", { type: "button", title: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = column > 0, falling = head.ariaSort ? head.ariaSort !== "descending" : numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const body = table.tBodies[0], value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const [u, v] = [value(a), value(b)];
          if (u !== undefined && v !== undefined) return Number(u) - Number(v);
          if (u !== undefined || v !== undefined) return u === undefined ? -1 : 1;
          return a.cells[column].textContent.localeCompare(b.cells[column].textContent, undefined, { numeric: true });
        });
        body.append(...(falling ? rows.reverse() : rows));
      });
    });
  }
}

// ---- start -----------------------------------------------------------------------------------------------------------

for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;
theme();
sortable();
selectable();
levelSlider();
curves();
recording();
whatIf.start();
details();
window.pgmSync = { data, engine, choose };  // for tests, and for the curious
})();
