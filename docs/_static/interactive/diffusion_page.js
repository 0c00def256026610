// Part B: two trajectories, sampled together in five ways and in the exact one.
(function () {
  "use strict";
  const { diffusion } = PGM;
  const { byId, html, number, rgb, colour, calm, onTheme, slider, choices, statusList } = PGM.dom;

  const SAMPLES = 400;
  const TRUE_SAMPLES = 600;
  const PAIRS = 400; // that rho is learned from
  const STEPS = 40;
  const RANGE = 3.2; // half of what an axis shows
  const SEEDS = { truth: 7, pairs: 11, score: 13 };

  const WORLDS = {
    gaussian: "One Gaussian", agree: "Two modes that agree", differ: "Two modes that differ",
    three: "Three modes", bend: "A bend",
  };

  const METHODS = {
    independent: ["independent", "Each denoiser by itself. Every content is right, every pair is a matter of chance."],
    averaging: ["averaging", "Both continue with the mean of their denoised contents (Eq. 12), each from its own noise."],
    attraction: ["attraction", "The second state is drawn to the first, by hand-set strength (SyncSDE, in its stable form)."],
    surrogate: ["learned ρ, surrogate C", "Eq. 5 with the learned ρ. Every posterior counts as that of a Gaussian."],
    denoiser: ["learned ρ, own C", "Eq. 5 with the learned ρ, and the posterior variances that the denoisers themselves state (Eq. 4)."],
    exact: ["exact joint", "The denoiser of the true joint, which nobody has: what is left is the error of 40 steps and of the sample."],
  };

  const SETUPS = {
    exact: () => show("gaussian", "surrogate", { arrows: true, trueArrows: true, level: 16 }),
    differ: () => show("differ", "attraction"),
    averaging: () => show("agree", "averaging"),
    attraction: () => show("agree", "attraction"),
    posterior: () => show("agree", "denoiser"),
    bend: () => show("bend", "surrogate"),
    noises: () => show("differ", "surrogate"),
  };

  const path = diffusion.levels(STEPS);
  const state = { world: "agree", method: "surrogate", seed: 1, fitted: 0 };
  let parts, truth; // of this world: true joint and marginals, and true pairs
  let runs = new Map(); // method -> { key, states, measures }, computed when its settings change
  let playing = null;

  const controls = {
    rho: slider("rho", (v) => `${number(v)}, learned ${number(state.fitted)}`, () => refresh()),
    strength: slider("strength", (v) => number(10 ** v, v > 0 ? 1 : 2), () => refresh()), // a power of ten
    c: slider("noises", (v) => number(v), () => refresh()),
    level: slider("level", levelText, () => {
      pause();
      draw();
    }),
    arrows: byId("arrows"),
    trueArrows: byId("true-arrows"),
  };
  const markWorld = choices("worlds", Object.entries(WORLDS), (key) => open(key));

  function levelText(index) {
    const { sigma, alpha } = path[index];
    const snr = sigma > 0 ? (alpha / sigma) ** 2 : Infinity;
    return index === STEPS ? "no noise" : `σ ${number(sigma)}, snr ${snr < 100 ? number(snr, snr < 1 ? 3 : 1) : Math.round(snr)}`;
  }

  function open(key) {
    pause();
    state.world = key;
    markWorld(key);
    const joint = diffusion.worlds[key];
    parts = { joint, marginals: diffusion.marginals(joint) };
    truth = diffusion.drawTrue(joint, TRUE_SAMPLES, SEEDS.truth);
    state.fitted = diffusion.correlation(diffusion.drawTrue(joint, PAIRS, SEEDS.pairs));
    runs = new Map();
    learn();
  }

  function learn() {
    controls.rho.value = state.fitted.toFixed(2);
    refresh();
  }

  function show(world, method, { arrows = true, trueArrows = false, level = STEPS, c = 0 } = {}) {
    state.method = method;
    controls.arrows.checked = arrows;
    controls.trueArrows.checked = trueArrows;
    controls.level.value = level;
    controls.strength.value = 0.7;
    controls.c.value = c;
    open(world);
    byId("worlds").scrollIntoView({ block: "start" });
  }

  // --- computing

  const settings = (method) => ({
    method, rho: controls.rho.value, strength: 10 ** controls.strength.value, c: controls.c.value,
  });

  function result(method) {
    const learned = `${controls.rho.value} ${controls.c.value}`;
    const depends = { attraction: controls.strength.value, surrogate: learned, denoiser: learned };
    const key = `${state.seed} ${depends[method] ?? ""}`;
    if (runs.get(method)?.key !== key) {
      const states = diffusion.sample(parts, diffusion.noise(SAMPLES, state.seed), path, settings(method));
      const end = states[STEPS];
      const measures = {
        correlation: diffusion.correlation(end),
        matching: diffusion.matching(parts.joint, end),
        energy: diffusion.energyDistance(end, truth),
      };
      runs.set(method, { key, states, measures });
    }
    return runs.get(method);
  }

  // The shown level, with the correlation of the noises that the method uses.
  function levelNow() {
    return { ...path[controls.level.value], r: diffusion.noiseCorrelation(settings(state.method)) };
  }

  // Root mean square of the score's error over that of the score (both times R), at true noisy states of a level.
  function scoreError(level) {
    let [off, size] = [0, 0];
    diffusion.correlated(diffusion.noise(150, SEEDS.score), level.r).forEach((e, n) => {
      const x = e.map((value, i) => level.alpha * truth[n][i] + level.sigma * value);
      const exact = diffusion.drift(parts, x, level, { method: "exact" });
      const own = diffusion.drift(parts, x, level, settings(state.method));
      off += (own[0] - exact[0]) ** 2 + (own[1] - exact[1]) ** 2;
      size += exact[0] ** 2 + exact[1] ** 2;
    });
    return Math.sqrt(off / size);
  }

  // --- the table of methods

  function buildTable() {
    byId("methods").tBodies[0].replaceChildren(
      ...Object.entries(METHODS).map(([key, [label]]) => {
        const radio = html("input", { type: "radio", name: "method", value: key, id: `method-${key}` });
        radio.addEventListener("change", () => {
          state.method = key;
          refresh();
        });
        const head = html("th", { scope: "row" }, html("label", { for: radio.id }, [radio, label]));
        return html("tr", { "data-method": key }, [head, html("td"), html("td"), html("td")]);
      }),
    );
  }

  function paintTable() {
    const rows = Object.keys(METHODS).map((key) => [key, result(key).measures]);
    const worst = Math.max(...rows.map(([, measures]) => measures.energy));
    for (const [key, { correlation, matching, energy }] of rows) {
      const row = byId("methods").querySelector(`[data-method=${key}]`);
      const [head, ...cells] = row.children;
      head.querySelector("input").checked = key === state.method;
      row.classList.toggle("chosen", key === state.method);
      cells[0].textContent = number(correlation);
      cells[1].textContent = matching === null ? "–" : `${Math.round(100 * matching)} %`;
      const meter = html("span", { class: "meter", style: `width: ${(100 * Math.max(0, energy)) / worst}%` });
      cells[2].replaceChildren(number(energy, 4), meter);
    }
    const wanted = diffusion.matching(parts.joint, truth);
    const share = wanted === null ? "" : `, ${Math.round(100 * wanted)} % of modes match`;
    const correlation = number(diffusion.trueCorrelation(parts.joint));
    byId("method-note").textContent = `${METHODS[state.method][1]} True pairs: correlation ${correlation}${share}.`;
  }

  // --- drawing

  const canvas = byId("plane");
  const pen = canvas.getContext("2d");
  let frame; // of the plot, in CSS pixels

  function measure() {
    const width = Math.min(canvas.clientWidth, 700);
    const strip = width < 420 ? 44 : 66;
    const [left, bottom] = [34, 34];
    const size = Math.min(width - left - strip - 16, 520);
    const height = strip + size + bottom + 14;
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const x0 = left + Math.max(0, (canvas.clientWidth - (left + size + strip + 16)) / 2);
    frame = { x0, y0: strip + 8, size, strip };
  }

  const toX = (x) => frame.x0 + ((x + RANGE) / (2 * RANGE)) * frame.size;
  const toY = (y) => frame.y0 + ((RANGE - y) / (2 * RANGE)) * frame.size;

  function draw() {
    if (!canvas.clientWidth || !parts) return;
    measure();
    const level = levelNow();
    const points = result(state.method).states[controls.level.value];
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    shade(level);
    axes();
    pen.save();
    pen.beginPath();
    pen.rect(frame.x0, frame.y0, frame.size, frame.size);
    pen.clip();
    scatter(points);
    if (level.sigma > 0 && controls.trueArrows.checked) arrows(level, { method: "exact" }, colour("ink"), 3.4);
    if (level.sigma > 0 && controls.arrows.checked) arrows(level, settings(state.method), colour("blue"), 1.7);
    pen.restore();
    strips(points, level);
    describe(points, level);
  }

  function shade(level) {
    const n = 72;
    const picture = document.createElement("canvas");
    picture.width = picture.height = n;
    const context = picture.getContext("2d");
    const image = context.createImageData(n, n);
    const at = (k) => -RANGE + (2 * RANGE * (k + 0.5)) / n;
    const values = Array.from({ length: n * n }, (_, k) =>
      diffusion.density(parts.joint, [at(k % n), -at(Math.floor(k / n))], level),
    );
    const top = Math.max(...values);
    const [r, g, b] = rgb("ink");
    values.forEach((value, k) => image.data.set([r, g, b, 110 * Math.sqrt(value / top)], 4 * k));
    context.putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(picture, frame.x0, frame.y0, frame.size, frame.size);
  }

  function axes() {
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1;
    pen.strokeRect(frame.x0, frame.y0, frame.size, frame.size);
    pen.fillStyle = colour("soft");
    pen.font = "12px system-ui, sans-serif";
    for (let tick = -2; tick <= 2; tick++) {
      pen.textAlign = "center";
      pen.fillText(number(tick, 0), toX(tick), frame.y0 + frame.size + 16);
      pen.textAlign = "right";
      pen.fillText(number(tick, 0), frame.x0 - 6, toY(tick) + 4);
    }
    pen.textAlign = "center";
    pen.fillText("state of the first trajectory", frame.x0 + frame.size / 2, frame.y0 + frame.size + 31);
    pen.save();
    pen.translate(frame.x0 - 24, frame.y0 + frame.size / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("state of the second", 0, 0);
    pen.restore();
  }

  function scatter(points) {
    pen.fillStyle = colour("orange");
    pen.globalAlpha = 0.75;
    for (const [x, y] of points) {
      pen.beginPath();
      pen.arc(toX(x), toY(y), 2.3, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  // sigma^2 R times the score: from a state towards where its denoised content would lie.
  function arrows(level, chosen, shade, width) {
    const n = frame.size < 360 ? 9 : 13;
    pen.strokeStyle = pen.fillStyle = shade;
    pen.lineWidth = width;
    const cell = (0.95 * 2 * RANGE) / n;
    for (let a = 0; a < n; a++) {
      for (let b = 0; b < n; b++) {
        const x = [a, b].map((k) => -RANGE + (2 * RANGE * (k + 0.5)) / n);
        const field = diffusion.drift(parts, x, level, chosen);
        const size = Math.hypot(...field);
        if (size < 1e-9) continue;
        const length = (cell * size) / (size + 0.6); // long ones saturate
        const end = x.map((v, i) => v + (length * field[i]) / size);
        arrow(toX(x[0]), toY(x[1]), toX(end[0]), toY(end[1]), 2 + width);
      }
    }
  }

  function arrow(x, y, u, v, head) {
    const angle = Math.atan2(v - y, u - x);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(u, v);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(u + head * 0.6 * Math.cos(angle), v + head * 0.6 * Math.sin(angle));
    for (const side of [2.5, -2.5]) pen.lineTo(u + head * Math.cos(angle + side), v + head * Math.sin(angle + side));
    pen.fill();
  }

  // Histograms of the samples at both edges, under the curves of the true marginals.
  function strips(points, level) {
    const bins = 32;
    const width = (2 * RANGE) / bins;
    for (const i of [0, 1]) {
      const counts = Array(bins).fill(0);
      for (const x of points) {
        const bin = Math.floor((x[i] + RANGE) / width);
        if (bin >= 0 && bin < bins) counts[bin] += 1 / (points.length * width);
      }
      const curve = Array.from({ length: 121 }, (_, k) => {
        const x = -RANGE + (2 * RANGE * k) / 120;
        return [x, marginalDensity(parts.marginals[i], x, level)];
      });
      const top = 1.1 * Math.max(...curve.map(([, d]) => d), 0.5 * Math.max(...counts));
      const height = (d) => (frame.strip * Math.min(d, top)) / top;
      const put = i === 0
        ? (x, d) => [toX(x), frame.y0 - 3 - height(d)]
        : (x, d) => [frame.x0 + frame.size + 3 + height(d), toY(x)];
      pen.fillStyle = colour("orange");
      pen.globalAlpha = 0.45;
      counts.forEach((d, k) => {
        const [x, y] = put(-RANGE + k * width, d);
        const [u, v] = put(-RANGE + (k + 1) * width, 0);
        pen.fillRect(Math.min(x, u), Math.min(y, v), Math.abs(u - x) - (i ? 0 : 0.5), Math.abs(v - y) - (i ? 0.5 : 0));
      });
      pen.globalAlpha = 1;
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 1.4;
      pen.setLineDash([4, 3]);
      pen.beginPath();
      curve.forEach(([x, d]) => pen.lineTo(...put(x, d)));
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  function marginalDensity(mixture, x, { alpha, sigma }) {
    return mixture.reduce((sum, k) => {
      const v = alpha * alpha * k.variance + sigma * sigma;
      return sum + (k.weight * Math.exp((-0.5 * (x - alpha * k.mean) ** 2) / v)) / Math.sqrt(2 * Math.PI * v);
    }, 0);
  }

  function describe(points, level) {
    const wanted = level.alpha ** 2 * diffusion.trueCorrelation(parts.joint) + level.sigma ** 2 * level.r;
    const found = diffusion.correlation(points);
    const states = ["", "States:", `correlation ${number(found)}; true states have ${number(wanted)}.`];
    const error = level.sigma > 0 ? scoreError(level) : null;
    const score = error === null
      ? ["", "Score:", "without noise there is none. Move the slider to the left to see it."]
      : [error < 0.05 ? "good" : "", "Score:", `differs from the true one by ${number(100 * error, 1)} % at this level.`];
    statusList("level-status", [score, states]);
    canvas.setAttribute(
      "aria-label",
      `${METHODS[state.method][0]}, ${levelText(controls.level.value)}: ${SAMPLES} samples with correlation ` +
        `${number(found)}, true states ${number(wanted)}`,
    );
  }

  // --- acting

  function refresh() {
    controls.rho.value = controls.rho.value; // writes the learned value beside it
    byId("strength").disabled = state.method !== "attraction";
    for (const id of ["rho", "noises"]) byId(id).disabled = !["surrogate", "denoiser"].includes(state.method);
    byId("seed-value").textContent = `noise ${state.seed}`;
    paintTable();
    draw();
  }

  function play() {
    if (playing !== null) return pause();
    byId("play").textContent = "Pause";
    if (controls.level.value === STEPS) controls.level.value = 0;
    const tick = () => {
      draw();
      if (controls.level.value === STEPS) return pause();
      playing = setTimeout(() => {
        controls.level.value = controls.level.value + 1;
        tick();
      }, calm() ? 10 : 90);
    };
    tick();
  }

  function pause() {
    clearTimeout(playing);
    playing = null;
    byId("play").textContent = "Denoise";
  }

  byId("play").addEventListener("click", play);
  byId("learn").addEventListener("click", learn);
  byId("reseed").addEventListener("click", () => {
    state.seed += 1;
    refresh();
  });
  for (const box of [controls.arrows, controls.trueArrows]) box.addEventListener("change", draw);
  for (const button of document.querySelectorAll("#diffusion .setup")) {
    button.addEventListener("click", SETUPS[button.dataset.setup]);
  }
  buildTable();
  open("agree");
  onTheme(draw);
  let width = 0; // drawing sets the height, which must not draw again
  new ResizeObserver(() => {
    if (canvas.clientWidth !== width) draw();
    width = canvas.clientWidth;
  }).observe(canvas);

  // For a look from outside.
  PGM.diffusionState = () => ({
    ...state, rho: controls.rho.value, level: controls.level.value, playing: playing !== null,
    measures: Object.fromEntries(Object.keys(METHODS).map((key) => [key, result(key).measures])),
  });
})();
