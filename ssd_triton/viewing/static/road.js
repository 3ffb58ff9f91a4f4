// The road from above, in metres, with the own car at the bottom. The marks are those of the demo's picture.

import {objectColour, ON_DARK, svg} from "./draw.js";

const INK = "#10151c", PAPER = ON_DARK.inCorridor, GRID = "#3a4654";

const path = (points) => points.map(([ahead, side]) => `${side},${-ahead}`).join(" ");

function line([from, to], stroke, width) {
  return svg("line", {x1: from[1], y1: -from[0], x2: to[1], y2: -to[0], stroke, "stroke-width": width});
}

// Makes an arrow, unless it would be shorter than its head.
function arrow([ahead, side], [tipAhead, tipSide], px) {
  const length = Math.hypot(tipAhead - ahead, tipSide - side), head = 5 * px;
  if (length < head) return [];
  const along = [(tipAhead - ahead) / length, (tipSide - side) / length];
  const base = [tipAhead - along[0] * head, tipSide - along[1] * head], half = head * 0.55;
  const corners = [[tipAhead, tipSide], [base[0] - along[1] * half, base[1] + along[0] * half], [base[0] + along[1] * half, base[1] - along[0] * half]];
  return [line([[ahead, side], base], PAPER, 1.5 * px), svg("polygon", {points: path(corners), fill: PAPER})];
}

function marker(item, colour, text) {
  const width = Math.max(item.size[0], text * 0.5), length = Math.max(item.size[1], text * 0.5);
  return {left: item.at[1] - width / 2, top: -item.at[0] - length, width, height: length, colour};
}

// Finds a free place for a name beside its marker or above it; null if there is none.
function placed(item, {left, top, width, height}, text, room, taken) {
  const extent = {width: item.name.length * text * 0.56, height: text * 1.2}, gap = text / 3;
  const beside = [[left + width + gap, top + height - extent.height], [left - gap - extent.width, top + height - extent.height]];
  if (item.at[1] < 0) beside.reverse();
  for (const [x, y] of [...beside, [left + (width - extent.width) / 2, top - extent.height - gap]]) {
    const isInside = x >= room.left && x + extent.width <= room.right && y >= room.top && y + extent.height <= 0;
    const isFree = taken.every((other) => x >= other.left + other.width || x + extent.width <= other.left || y >= other.top + other.height || y + extent.height <= other.top);
    if (isInside && isFree) return {left: x, top: y, ...extent};
  }
  return null;
}

export function drawRoad(element, drive) {
  const road = drive.road, range = road.range_m, box = element.getBoundingClientRect();
  const height = range + 8, width = height * (box.width / box.height || 0.5);
  const px = height / (box.height || 500), text = 14 * px;
  element.setAttribute("viewBox", `${-width / 2} ${-range - 4} ${width} ${height}`);
  const shapes = [];
  const label = (x, y, words, fill, anchor = "start") => {
    const node = svg("text", {x, y, fill, "font-size": text, "text-anchor": anchor});
    node.textContent = words;
    shapes.push(node);
  };
  for (let metres = 10; metres <= range; metres += 10) {
    shapes.push(line([[metres, -width / 2], [metres, width / 2]], GRID, px * 0.75));
    label(-width / 2 + text / 3, -metres - text / 4, `${metres} m`, ON_DARK.beside);
  }
  for (let side = -10 * Math.floor(width / 20); side <= width / 2; side += 10) shapes.push(line([[0, side], [range + 4, side]], GRID, px * 0.75));
  const state = ON_DARK[drive.state];
  const {left, right} = road.corridor;
  shapes.push(svg("polygon", {points: path([...left, ...right.toReversed()]), fill: state, "fill-opacity": 0.25, stroke: state, "stroke-width": 1.5 * px}));
  for (const [name, from, to] of road.triggers) {
    shapes.push(line([from, to], ON_DARK[name], 2.5 * px));
    const [end, anchor, aside] = name === "WARN" ? [to, "start", text / 3] : [from, "end", -text / 3];
    label(end[1] + aside, -end[0] + text / 3, name.toLowerCase(), PAPER, anchor);
  }
  shapes.push(svg("rect", {x: -0.9, y: -1.2, width: 1.8, height: 3.7, rx: 0.4, fill: PAPER}));
  const markers = road.objects.map((item) => marker(item, objectColour(item, drive.state), text));
  road.objects.forEach((item, index) => {
    const {left: x, top: y, width: across, height: along, colour} = markers[index];
    if (item.in_corridor) shapes.push(svg("polyline", {points: path(item.trail), fill: "none", stroke: colour, "stroke-opacity": 0.6, "stroke-width": 1.5 * px, class: "trail"}));
    shapes.push(svg("rect", {x, y, width: across, height: along, rx: across / 4, fill: colour, "fill-opacity": item.seen ? 1 : 0.4, stroke: INK, "stroke-width": px}));
    if (!item.in_corridor) return;
    for (const [stroke, thick] of [[INK, 3.5], [PAPER, 1.5]]) {
      shapes.push(svg("g", {class: stroke === PAPER ? "bar" : ""}, ...item.bar.map((segment) => line(segment, stroke, thick * px))));
    }
    shapes.push(...arrow(item.at, item.tip, px));
  });
  const taken = [...markers], room = {left: -width / 2 + text * 3, right: width / 2, top: -range - 4};
  for (let index = road.objects.length - 1; index >= 0; index--) {
    const item = road.objects[index], place = item.in_corridor && placed(item, markers[index], text, room, taken);
    if (!place) continue;
    taken.push(place);
    shapes.push(svg("rect", {x: place.left, y: place.top, width: place.width, height: place.height, rx: text / 4, fill: INK, "fill-opacity": 0.7}));
    label(place.left, place.top + text * 0.95, item.name, markers[index].colour);
  }
  element.replaceChildren(...shapes);
  element.setAttribute("aria-label", `The road from above: ${drive.objects.map((item) => item.label).join("; ") || "nobody on it"}`);
}
