// Charts by uPlot, which draws on a canvas; its own legend is off, ours is made of text nodes.
/* global uPlot */
import { at, el, swatch, fill } from "./dom.js";
import { bucket, percent } from "./format.js";

const HEIGHT = 250;
const live = new Map();

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const tierColour = (tiers, tier) => (tiers.includes(tier) ? `t${tiers.indexOf(tier) % 6}` : "idle");

function draw(id, options, data) {
  live.get(id)?.destroy();
  const host = at(id);
  host.replaceChildren();
  const made = new uPlot({ width: Math.max(260, host.clientWidth), height: HEIGHT, legend: { show: false }, ...options }, data, host);
  live.set(id, made);
  return made;
}

export function clear(id, text) {
  live.get(id)?.destroy();
  live.delete(id);
  at(id).replaceChildren(el("p", { className: "empty" }, text));
}

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const chart = live.get(target.id);
    const width = Math.floor(target.clientWidth);
    if (chart && width > 0 && width !== chart.width) chart.setSize({ width, height: HEIGHT });
  }
});
export const watch = (...ids) => ids.forEach((id) => resized.observe(at(id)));

const axis = (more) => ({
  stroke: colour("soft"), font: '12px system-ui, "Segoe UI", sans-serif', grid: { stroke: colour("grid"), width: 1 },
  ticks: { stroke: colour("grid"), width: 1, size: 4 }, ...more,
});

/** A box beside the pointer. lines: index => [title, [[name, value]...]] or null. */
function tip(lines) {
  let box;
  return {
    hooks: {
      init: (u) => { box = el("div", { className: "tip", hidden: true }); u.over.append(box); },
      setCursor: (u) => {
        const told = u.cursor.idx === null || u.cursor.left < 0 ? null : lines(u.cursor.idx);
        box.hidden = !told;
        if (!told) return;
        box.replaceChildren(el("b", {}, told[0]), ...told[1].map(([name, value]) => el("div", {}, el("i", {}, name), el("span", {}, value))));
        const left = u.cursor.left + 14 + box.offsetWidth > u.over.clientWidth ? u.cursor.left - box.offsetWidth - 14 : u.cursor.left + 14;
        box.style.left = `${Math.max(0, left)}px`;
        box.style.top = "8px";
      },
    },
  };
}

/** Which buckets have room for their name: each begins under its bar. */
function marks(times, step, width) {
  const every = Math.ceil((times.length * (step >= 86_400 ? 62 : 96)) / Math.max(1, width - 80));
  return times.filter((time, i) => i % every === 0).map((time) => time + step / 2);
}

/** Bars on top of each other by time. parts: {name, colour, values}; line: the same, drawn as a line over the bars. */
export function bars(id, legend, times, step, parts, line, format) {
  const shown = parts.filter((part) => part.values.some((value) => value > 0));
  const entries = shown.map((part) => el("li", {}, swatch(`var(--${part.colour})`), part.name));
  if (line) entries.push(el("li", {}, swatch(`var(--${line.colour})`, "line"), line.name));
  fill(legend, entries);
  if (!shown.length) return clear(id, "Nothing in this interval.");
  const sums = [];
  for (const part of shown) sums.push(part.values.map((value, i) => value + (sums.length ? sums[sums.length - 1][i] : 0)));
  const middle = times.map((time) => time + step / 2);
  const series = shown.map((part) => ({ fill: colour(part.colour), width: 0, paths: uPlot.paths.bars({ size: [0.72, 56], radius: 0 }), points: { show: false } })).reverse();
  const data = [middle, ...sums.slice().reverse()];
  if (line) {
    series.push({ stroke: colour(line.colour), width: 1.5, dash: [5, 4], points: { show: true, size: 5, fill: colour(line.colour), width: 0 } });
    data.push(line.values);
  }
  const told = (i) => [bucket(times[i], step), [
    ...shown.map((part) => [part.name, format(part.values[i])]).reverse(),
    ["in all", format(sums[sums.length - 1][i])], ...(line ? [[line.name, format(line.values[i])]] : []),
  ]];
  return draw(id, {
    tzDate: (time) => uPlot.tzDate(new Date(time * 1e3), "Etc/UTC"),
    scales: { x: { time: true, range: [times[0], times[times.length - 1] + step] }, y: { range: (u, low, high) => [0, (high || 1) * 1.06] } },
    axes: [axis({ grid: { show: false }, splits: () => marks(times, step, at(id).clientWidth), values: (u, found) => found.map((time) => bucket(time - step / 2, step)) }), axis({ size: 62, values: (u, marks) => marks.map(format) })],
    series: [{}, ...series],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    plugins: [tip(told)],
  }, data);
}

const RADIUS = 4.5;

function dots(points, kind) {
  return (u) => {
    const { ctx } = u, ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.font = `${12 * ratio}px system-ui, "Segoe UI", sans-serif`;
    for (const point of points) {
      const x = u.valToPos(point.cost, "x", true), y = u.valToPos(point.quality, "y", true);
      ctx.beginPath();
      ctx.arc(x, y, (kind === "live" ? RADIUS + 2 : RADIUS) * ratio, 0, 7);
      ctx.fillStyle = colour(kind === "live" ? "alone" : "card");
      ctx.fill();
      ctx.lineWidth = 2 * ratio;
      ctx.strokeStyle = colour(kind === "live" ? "card" : "t1");
      ctx.stroke();
      ctx.fillStyle = colour(kind === "live" ? "ink" : "soft");
      const right = x + (ctx.measureText(point.label).width + 12 * ratio) < u.bbox.left + u.bbox.width;
      ctx.textAlign = right ? "left" : "right";
      ctx.fillText(point.label, x + (right ? 10 : -10) * ratio, y + (kind === "live" ? 18 : 16) * ratio);
    }
    ctx.restore();
  };
}

/** Quality over cost, both as shares of always the top tier: the promised curve, its targets, where the traffic is. */
export function curve(id, legend, points, targets, now, top) {
  const entries = [];
  if (points.length) entries.push(el("li", {}, swatch("var(--t1)", "dot"), "promised by the artefact"));
  if (now.length) entries.push(el("li", {}, swatch("var(--alone)", "dot"), "now"));
  fill(legend, entries);
  const all = [...points.map(([cost, quality]) => ({ cost, quality })), ...now];
  if (!all.length) return clear(id, "Neither a curve nor routed requests in this interval.");
  const low = Math.min(...all.map((p) => p.quality)), high = Math.max(1, ...all.map((p) => p.quality));
  const pad = Math.max(0.01, (high - low) * 0.22);
  const right = Math.max(1, ...all.map((p) => p.cost)) * 1.08;
  const data = points.length ? [points.map((p) => p[0]), points.map((p) => p[1])] : [[0, right], [null, null]];
  return draw(id, {
    scales: { x: { time: false, range: [0, right] }, y: { range: [Math.max(0, low - pad), high + pad * 0.6] } },
    axes: [
      axis({ label: `cost, always ${top} = 100 %`, labelFont: "12px system-ui, sans-serif", labelSize: 22, values: (u, marks) => marks.map((v) => percent(v, 0)) }),
      axis({ size: 58, values: (u, marks) => marks.map((v) => percent(v, marks.length > 1 && marks[1] - marks[0] < 0.01 ? 1 : 0)) }),
    ],
    series: [{}, { stroke: colour("t1"), width: 2, points: { show: false } }],
    cursor: { show: false },
    hooks: { draw: [dots(targets, "target"), dots(now, "live")] },
  }, data);
}
