// Errors over sweeps, on a logarithmic scale.
(function () {
  "use strict";
  const { svg, set } = PGM.dom;

  // `trace`: rows of { at, mean, sd }, in sweeps and exact standard deviations; null where there is nothing to compare with.
  PGM.errorPlot = function (plot, trace) {
    const [w, h, left, right, top, bottom] = [plot.clientWidth, plot.clientHeight, 44, 112, 12, 34];
    set(plot, { viewBox: `0 0 ${w} ${h}`, class: "plot" });
    if (!trace) {
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
  };
})();
