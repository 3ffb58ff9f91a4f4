// Lines over time on a canvas, with bands behind them.

import {make} from "./api.js";

const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];

export const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  // series: [{name, colour: "--accent"}]; options: {unit, least (smallest upper end of the axis), most}.
  constructor(parent, title, series, options = {}) {
    this.title = title;
    this.series = series;
    this.options = options;
    this.canvas = make("canvas");
    this.canvas.setAttribute("role", "img");
    this.legend = make("figcaption", {}, make("strong", {textContent: title}));
    this.values = series.map((one) => this.legend.appendChild(make("span", {textContent: one.name})));
    parent.append(make("figure", {className: "chart"}, this.legend, this.canvas));
    this.points = [];
    this.bands = [];
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // points: [[time, value or null, ...]]; bands: [[from, to, "--safe"]].
  show(points, bands = []) {
    this.points = points;
    this.bands = bands;
    const last = points.at(-1) || [];
    const texts = this.series.map((one, index) => `${one.name} ${this.text(last[index + 1])}`);
    texts.forEach((text, index) => { this.values[index].textContent = `${["━", "╍", "┅", "┉"][index % 4]} ${text}`; });
    this.canvas.setAttribute("aria-label", `${this.title}: ${texts.join(", ") || "nothing yet"}`);
    this.draw();
  }

  text(value) {
    if (value === null || value === undefined) return "–";
    return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${this.options.unit || ""}`.trim();
  }

  draw() {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const first = this.points[0]?.[0] ?? 0, last = Math.max(this.points.at(-1)?.[0] ?? 1, first + 1);
    let top = this.options.least || 1;
    for (const point of this.points) for (let i = 1; i < point.length; i++) if (point[i] !== null) top = Math.max(top, point[i]);
    top = Math.min(top, this.options.most || Infinity) * 1.08;
    const left = 34, x = (time) => left + (time - first) / (last - first) * (width - left - 4);
    const y = (value) => height - 14 - Math.min(value, top) / top * (height - 20);
    for (const [from, to, colour] of this.bands) {
      context.globalAlpha = 0.22;
      context.fillStyle = themed(colour);
      context.fillRect(x(from), 0, Math.max(1, x(to) - x(from)), height - 14);
    }
    context.globalAlpha = 1;
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = themed("--soft");
    context.strokeStyle = themed("--grid");
    for (const share of [0, 0.5, 1]) {
      const value = top / 1.08 * share;
      context.beginPath();
      context.moveTo(left, y(value));
      context.lineTo(width, y(value));
      context.stroke();
      context.fillText(value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1), 0, y(value) + 4);
    }
    const span = last - first;
    context.fillText(this.options.clock ? `the last ${Math.max(1, Math.round(span / 60))} min` : `${first.toFixed(0)} s`, left, height - 2);
    if (!this.options.clock) context.fillText(`${last.toFixed(1)} s`, width - 38, height - 2);
    this.series.forEach((one, index) => {
      context.strokeStyle = themed(one.colour);
      context.lineWidth = 1.8;
      context.setLineDash(DASHES[index % DASHES.length]);
      context.beginPath();
      let isOpen = false;
      for (const point of this.points) {
        const value = point[index + 1];
        if (value === null || value === undefined) { isOpen = false; continue; }
        context[isOpen ? "lineTo" : "moveTo"](x(point[0]), y(value));
        isOpen = true;
      }
      context.stroke();
      context.setLineDash([]);
    });
  }
}
