"""The style sheet of the reports."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --surface: #fff; --ink: #1d1d1b; --muted: #62625c; --line: #e2e0d8;
  --accent: #1f6f6b;
  --positive: #e07b3e; --negative: #5a97d0; --neutral: #f0efea;
  --p0: #5a97d0; --p1: #e07b3e; --p2: #4fa28b; --p3: #a9a79d; --p4: #b58ac0;
  --sans: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131312; --surface: #1b1b1a; --ink: #ecebe6; --muted: #a3a299; --line: #34342f;
    --accent: #6fc3bb;
    --positive: #b04e18; --negative: #2d6ba8; --neutral: #2b2b28;
    --p0: #3b7fc2; --p1: #c8642a; --p2: #3c8a75; --p3: #77766d; --p4: #93699e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 1120px; margin: 0 auto; padding: clamp(1.5rem, 5vw, 4rem) clamp(1rem, 4vw, 2.5rem) 4rem; }
header { max-width: 46rem; margin-bottom: 2.5rem; }
.kicker { margin: 0 0 .5rem; color: var(--accent); font: 600 .8rem/1 var(--mono); letter-spacing: .04em; }
h1 {
  margin: 0; font-size: clamp(1.7rem, 4.5vw, 2.5rem); font-weight: 650; line-height: 1.15;
  letter-spacing: -.02em; text-wrap: balance;
}
h2 { margin: 0 0 1rem; font-size: 1.2rem; font-weight: 650; letter-spacing: -.01em; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; }
section { margin-top: 3rem; }
figure { margin: 0; }
.lead { margin: 1rem 0 0; color: var(--muted); font-size: 1.06rem; text-wrap: pretty; }
figcaption { margin-top: .75rem; color: var(--muted); font-size: .875rem; text-wrap: pretty; }
figcaption b { color: var(--ink); font-weight: 600; }
.panel, .metric, .sheet, .groups > div {
  padding: clamp(.9rem, 2vw, 1.4rem); background: var(--surface); border: 1px solid var(--line);
  border-radius: 12px;
}
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 4px; }

.sheets, .groups { display: grid; gap: 1.1rem; }
.sheets { grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.sheet { display: flex; flex-direction: column; }
.sheet figcaption { flex: 1; margin: 0 0 .8rem; }
.sheet figcaption b { display: block; font-size: 1rem; }
.pictures { display: grid; gap: 5px; }
.pictures img { display: block; width: 100%; height: auto; image-rendering: pixelated; border-radius: 2px; }
.ruler { display: block; width: 100%; height: 9px; margin-bottom: 4px; }
.ruler path { fill: none; stroke: var(--muted); vector-effect: non-scaling-stroke; opacity: .8; }

table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: left; }
.number { font-weight: 600; text-align: right; }
.metrics { display: grid; gap: 1.1rem; }
.metric {
  display: grid; gap: .5rem 2.2rem; grid-template-columns: minmax(0, 17rem) minmax(0, 1fr);
  align-items: center;
}
@media (max-width: 46rem) { .metric { grid-template-columns: minmax(0, 1fr); } }
.metric p { margin: .3rem 0 0; color: var(--muted); font-size: .875rem; text-wrap: pretty; }
.metric table { width: 100%; }
.metric td, .metric th { padding: .22rem .9rem .22rem 0; white-space: nowrap; }
.metric thead th { padding-bottom: .2rem; color: var(--muted); font-size: .72rem; }
.metric .reference th, .metric .reference td { color: var(--muted); }
.interval, .count { color: var(--muted); font-size: .8rem; }
.plot { width: 46%; min-width: 110px; }
.plot svg { display: block; width: 100%; height: auto; overflow: visible; }
.plot .zero { stroke: var(--muted); stroke-dasharray: 2 2; opacity: .6; }
.plot .band { fill: var(--accent); opacity: .15; }
.plot .target { stroke: var(--accent); }
.plot .range { stroke: var(--ink); stroke-width: 1.5; }
.plot .dot { fill: var(--ink); }
.reference .dot { fill: var(--accent); }
.reference .range { stroke: var(--accent); }

.graph { display: block; width: 100%; height: auto; margin: 0 auto; }
.graph .edge { fill: none; stroke-linecap: round; }
.graph .plain { stroke: var(--muted); stroke-width: 1; opacity: .55; }
.graph .factor { fill: var(--surface); stroke: var(--ink); stroke-width: 1.1; }
.graph .node { fill: var(--surface); stroke: var(--ink); stroke-width: 1.4; }
.graph .hidden { stroke: var(--muted); stroke-dasharray: 4 3; }
.graph .around { fill: none; }
.graph text { fill: var(--ink); font: 12px var(--sans); text-anchor: middle; }
.legend {
  display: flex; gap: .5rem; align-items: center; margin-top: .9rem; color: var(--muted); font-size: .8rem;
}
.legend i { width: 9rem; height: .6rem; border-radius: 3px; }

.heat { border-collapse: separate; border-spacing: 2px; }
.heat th { padding: .15rem .6rem .15rem 0; font-size: .8rem; white-space: nowrap; }
.heat thead th {
  padding: .2rem; color: var(--muted); line-height: 1.2; text-align: center; vertical-align: bottom;
  white-space: normal;
}
.heat thead th:first-child { text-align: left; }
.heat thead img {
  display: block; width: 26px; height: 26px; margin: 0 auto .25rem; image-rendering: pixelated;
  border: 1px solid var(--line); border-radius: 2px;
}
.heat thead span { display: block; max-width: 4.2rem; margin: 0 auto; }
.heat td { min-width: 3.3rem; padding: .28rem .3rem; border-radius: 3px; text-align: center; }
.heat .sure { font-weight: 650; }
.heat .nats { padding-left: 1rem; text-align: right; white-space: nowrap; }
.nats i {
  display: inline-block; width: 3.2rem; height: .5rem; margin-right: .5rem; border-radius: 2px;
  background: linear-gradient(90deg, var(--accent) var(--share), var(--neutral) var(--share));
}

.key {
  display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 0 0 .8rem; padding: 0; list-style: none;
  color: var(--muted); font-size: .8rem;
}
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 2px; }
.time { width: 100%; }
.time th, .time td { padding: .3rem .8rem .3rem 0; white-space: nowrap; }
.bar { width: 60%; min-width: 9rem; }
.bar div { display: flex; gap: 1px; height: .9rem; }
.bar i { min-width: 1px; border-radius: 2px; }
.split { color: var(--muted); font-size: .8rem; }
.part0 { background: var(--p0); }
.part1 { background: var(--p1); }
.part2 { background: var(--p2); }
.part3 { background: var(--p3); }
.part4 { background: var(--p4); }

.groups { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
dl { margin: .5rem 0 0; font-size: .875rem; }
dl div { display: flex; gap: 1.5rem; justify-content: space-between; padding: .2rem 0; }
dl div + div { border-top: 1px solid var(--line); }
dt { color: var(--muted); }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; text-align: right; }
pre {
  margin: 0; padding: 1rem 1.2rem; overflow-x: auto; background: var(--surface);
  border: 1px solid var(--line); border-radius: 12px; font: .875rem/1.5 var(--mono);
}
@media print { .panel, .metric, .sheet { break-inside: avoid; } }
""".strip()
