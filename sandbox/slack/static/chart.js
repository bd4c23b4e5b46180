// The `data_visualization` block as SVG: line, area, bar and pie.

import { h, s } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 240;
const EDGE = { top: 14, right: 16, left: 56 };
const FOOT = 26; // the row of categories
const TITLE = 18; // below it, the title of the axis

/** A figure with its title, the drawing, a legend, and the numbers as a table for screen readers. */
export function chart(block) {
  const data = block.chart ?? {};
  const pie = data.type === "pie";
  const names = pie ? (data.segments ?? []).map((x) => x.label) : (data.series ?? []).map((x) => x.name);
  const drawing = pie ? drawPie(data.segments ?? []) : drawAxes(data);
  return h(
    "figure.chart",
    {},
    h("figcaption", {}, block.title ?? ""),
    drawing,
    names.length > 1 || pie ? legend(names, pie ? shares(data.segments ?? []) : []) : null,
    h("table.sr-only", {}, h("caption", {}, block.title ?? ""), pie ? pieRows(data.segments ?? []) : axisRows(data)),
  );
}

function legend(names, notes) {
  return h("ul.legend", { "aria-hidden": "true" }, names.map((name, i) =>
    h("li", {}, h(`span.swatch.c${i % 6}`), h("bdi", {}, name), notes[i] ? h("b", {}, notes[i]) : null)));
}

const pieRows = (segments) => segments.map((x) => h("tr", {}, h("th", {}, x.label), h("td", {}, String(x.value))));

function axisRows(data) {
  return categories(data).map((label) =>
    h("tr", {}, h("th", {}, label), (data.series ?? []).map((one) => h("td", {}, `${one.name}: ${valueAt(one, label) ?? "none"}`))));
}

function categories(data) {
  return data.axis_config?.categories ?? [...new Set((data.series ?? []).flatMap((one) => (one.data ?? []).map((p) => p.label)))];
}

function valueAt(series, label) {
  const found = (series.data ?? []).find((p) => p.label === label);
  return found && Number.isFinite(Number(found.value)) ? Number(found.value) : null;
}

/** Round steps that cover `low`..`high` in about four. */
export function ticks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= rough);
  const first = Math.floor(low / step) * step;
  const found = [first];
  while (found[found.length - 1] < high - step * 1e-9) found.push(found[found.length - 1] + step);
  if (found.length === 1) found.push(first + step);
  return found;
}

const number = (value) =>
  new Intl.NumberFormat("en-GB", { notation: Math.abs(value) >= 10_000 ? "compact" : "standard", maximumFractionDigits: 2 }).format(value);

function drawAxes(data) {
  const labels = categories(data);
  const series = data.series ?? [];
  const values = series.flatMap((one) => labels.map((label) => valueAt(one, label))).filter((v) => v !== null);
  const low = Math.min(0, ...values);
  const steps = ticks(low, Math.max(low + 1e-9, ...values));
  const floor = HEIGHT - FOOT;
  const frame = {
    labels, series, steps, floor, bars: data.type === "bar",
    y: scale(steps[0], steps[steps.length - 1], floor, EDGE.top),
    x: across(labels.length, data.type === "bar"),
  };
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + (data.axis_config?.x_label ? TITLE : 0)}`, role: "img", "aria-label": `${data.type} chart, ${labels.length} points, ${series.map((o) => o.name).join(", ")}` });
  svg.append(...grid(frame), ...axisTitles(data.axis_config ?? {}));
  const draw = { bar: drawBars, area: drawArea }[data.type] ?? drawLine;
  series.forEach((one, index) => svg.append(...draw(frame, one, index)));
  return svg;
}

const scale = (from, to, start, end) => (value) => start + ((value - from) / (to - from || 1)) * (end - start);

function across(count, bars) {
  const inner = WIDTH - EDGE.left - EDGE.right;
  const band = bars ? inner / Math.max(count, 1) : inner / Math.max(count - 1, 1);
  return { band, at: (i) => (bars ? EDGE.left + band * (i + 0.5) : count === 1 ? EDGE.left + inner / 2 : EDGE.left + band * i) };
}

function grid({ steps, y, x, labels, bars, floor }) {
  const lines = steps.map((step) => s("g", {},
    s("line.grid", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(step), y2: y(step), class: step === 0 ? "zero" : "" }),
    s("text.tick", { x: EDGE.left - 8, y: y(step) + 3.5, "text-anchor": "end" }, number(step))));
  const room = Math.max(1, Math.floor((bars ? x.band : (WIDTH - EDGE.left - EDGE.right) / labels.length) / 6.4));
  const longest = Math.max(1, ...labels.map((label) => label.length));
  // The first name of a line stands to the right of its point: half a name more room.
  const every = Math.max(1, Math.ceil((Math.min(longest, 14) * (bars ? 1 : 1.5)) / room));
  const names = labels.map((label, i) => (i % every === 0
    ? s("text.tick", { x: x.at(i), y: floor + 17, "text-anchor": !bars && i === 0 ? "start" : !bars && i === labels.length - 1 ? "end" : "middle" }, label.length > 14 ? `${label.slice(0, 13)}…` : label)
    : null));
  return [...lines, ...names.filter(Boolean)];
}

function axisTitles({ x_label: xLabel, y_label: yLabel }) {
  const middle = (HEIGHT - FOOT + EDGE.top) / 2;
  return [
    xLabel && s("text.axis", { x: (WIDTH + EDGE.left - EDGE.right) / 2, y: HEIGHT + TITLE - 7, "text-anchor": "middle" }, xLabel),
    yLabel && s("text.axis", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yLabel),
  ].filter(Boolean);
}

function points({ labels, x, y }, one) {
  return labels.map((label, i) => ({ label, value: valueAt(one, label), x: x.at(i) }))
    .filter((p) => p.value !== null)
    .map((p) => ({ ...p, y: y(p.value) }));
}

const path = (list) => list.map((p, i) => `${i ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join(" ");

const tip = (name, p) => s("title", {}, `${name}, ${p.label}: ${number(p.value)}`);

function drawLine(frame, one, index) {
  const list = points(frame, one);
  const dots = list.map((p) => s(`circle.dot.c${index % 6}`, { cx: p.x, cy: p.y, r: 3.4 }, tip(one.name, p)));
  return [s(`path.line.c${index % 6}`, { d: path(list) }), ...dots];
}

function drawArea(frame, one, index) {
  const list = points(frame, one);
  if (!list.length) return [];
  const floor = frame.y(Math.max(0, frame.steps[0]));
  const under = `${path(list)} L${list[list.length - 1].x.toFixed(1)} ${floor} L${list[0].x.toFixed(1)} ${floor} Z`;
  return [s(`path.area.c${index % 6}`, { d: under }), ...drawLine(frame, one, index)];
}

function drawBars(frame, one, index) {
  const count = frame.series.length;
  const width = Math.min((frame.x.band * 0.72) / count, 46);
  const zero = frame.y(Math.max(0, frame.steps[0]));
  return points(frame, one).map((p) => {
    const left = p.x - (width * count) / 2 + width * index;
    return s(`rect.bar.c${index % 6}`, { x: left + 1, y: Math.min(p.y, zero), width: Math.max(width - 2, 1), height: Math.max(Math.abs(zero - p.y), 1), rx: 2.5 }, tip(one.name, p));
  });
}

function shares(segments) {
  const total = segments.reduce((sum, x) => sum + Math.max(0, Number(x.value) || 0), 0) || 1;
  return segments.map((x) => `${Math.round((Math.max(0, Number(x.value) || 0) / total) * 100)} %`);
}

function drawPie(segments) {
  const total = segments.reduce((sum, x) => sum + Math.max(0, Number(x.value) || 0), 0) || 1;
  const svg = s("svg.pie", { viewBox: "0 0 220 220", role: "img", "aria-label": `pie chart: ${segments.map((x) => `${x.label} ${x.value}`).join(", ")}` });
  let turn = -Math.PI / 2;
  segments.forEach((one, index) => {
    const part = Math.max(0, Number(one.value) || 0) / total;
    svg.append(s(`path.slice.c${index % 6}`, { d: slice(turn, turn + part * 2 * Math.PI) }, s("title", {}, `${one.label}: ${number(Number(one.value))}`)));
    turn += part * 2 * Math.PI;
  });
  return svg;
}

// A ring segment; a whole circle stops just short of itself, since an arc to its own start draws nothing.
function slice(from, to) {
  const end = Math.min(to, from + 2 * Math.PI - 1e-4);
  const large = end - from > Math.PI ? 1 : 0;
  const at = (angle, radius) => `${(110 + radius * Math.cos(angle)).toFixed(2)} ${(110 + radius * Math.sin(angle)).toFixed(2)}`;
  return `M${at(from, 100)} A100 100 0 ${large} 1 ${at(end, 100)} L${at(end, 58)} A58 58 0 ${large} 0 ${at(from, 58)} Z`;
}
