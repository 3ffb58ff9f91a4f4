// The road from above, in metres: the own car below, what lies ahead above.

import {svg} from "./draw.js";
import {themed} from "./chart.js";

const ARROW_S = 1;

export function drawRoad(element, drive) {
  const range = drive.view_range_m, box = element.getBoundingClientRect();
  const height = range + 8, width = height * (box.width / box.height || 0.5);
  const text = height * 14 / (box.height || 500), line = height * 1.5 / (box.height || 500);
  element.setAttribute("viewBox", `${-width / 2} ${-range - 4} ${width} ${height}`);
  const shapes = [];
  const label = (x, y, words, colour, anchor = "start") => {
    const node = svg("text", {x, y, fill: colour, "font-size": text, "text-anchor": anchor});
    node.textContent = words;
    shapes.push(node);
  };
  for (let metres = 10; metres <= range; metres += 10) {
    shapes.push(svg("line", {x1: -width / 2, x2: width / 2, y1: -metres, y2: -metres, stroke: "#3a4654", "stroke-width": line / 2}));
    label(-width / 2 + text / 3, -metres - text / 4, `${metres} m`, "#9aa8b6");
  }
  const edges = drive.corridor_m, state = themed(`--${{SAFE: "safe", WARN: "warn", BRAKE: "brake"}[drive.state] || "none"}`);
  const outline = [...edges.left, ...edges.right.toReversed()].map(([ahead, side]) => `${side},${-ahead}`).join(" ");
  shapes.push(svg("polygon", {points: outline, fill: state, "fill-opacity": 0.25, stroke: state, "stroke-width": line}));
  for (const [name, metres] of [["warn", drive.warn_m], ["brake", drive.brake_m]]) {
    if (metres === null || metres > range) continue;
    shapes.push(svg("line", {x1: -2.5, x2: 2.5, y1: -metres, y2: -metres, stroke: "#e8eef1", "stroke-width": line, "stroke-dasharray": name === "warn" ? `${line * 3} ${line * 2}` : "none"}));
    label(name === "warn" ? 2.8 : -2.8, -metres + text / 3, name, "#e8eef1", name === "warn" ? "start" : "end");
  }
  shapes.push(svg("rect", {x: -0.9, y: 0, width: 1.8, height: 3.6, rx: 0.4, fill: "#e8eef1"}));
  const named = [];
  for (const item of [...drive.objects].sort((a, b) => b.is_reported - a.is_reported || b.in_corridor - a.in_corridor)) {
    const {forward_m: ahead, lateral_m: side} = item;
    if (ahead === null || side === null || ahead > range + 2) continue;
    const colour = item.is_reported ? state : item.in_corridor ? "#e8eef1" : "#8b99a8";
    shapes.push(svg("ellipse", {cx: side, cy: -ahead, rx: Math.max(0.3, item.width_m / 2), ry: Math.min(item.range_std_m ?? 0, range), fill: "none", stroke: colour, "stroke-width": line / 1.5}));
    shapes.push(svg("rect", {x: side - item.width_m / 2, y: -ahead - Math.max(0.8, item.width_m), width: item.width_m, height: Math.max(0.8, item.width_m), rx: 0.2, fill: colour}));
    shapes.push(svg("line", {x1: side, y1: -ahead, x2: side + (item.lateral_mps ?? 0) * ARROW_S, y2: -ahead + (item.closing_mps ?? 0) * ARROW_S, stroke: colour, "stroke-width": line}));
    // A name that would cover another is left out; the frame has it, too.
    if (named.some((other) => Math.abs(other - ahead) < text)) continue;
    named.push(ahead);
    label(side + item.width_m / 2 + text / 4, -ahead, item.name, colour);
  }
  element.replaceChildren(...shapes);
  element.setAttribute("aria-label", `The road from above: ${drive.objects.map((item) => item.label).join("; ") || "nobody on it"}`);
}
