// Boxes over a picture, as SVG in the picture's own pixels.

const SVG = "http://www.w3.org/2000/svg";
// Okabe and Ito's colours, which colour-blind people can distinguish; each box also has its name.
const COLOURS = ["#56b4e9", "#e69f00", "#2cc99a", "#f0e442", "#dd8fbd", "#f08a4b", "#8fb8ff", "#d8d8d8"];

// Colours of states and marks on a dark background, in both themes.
export const ON_DARK = {SAFE: "#2cc99a", WARN: "#e69f00", BRAKE: "#f08a4b", NO_DATA: "#d8d8d8", inCorridor: "#e8eef1", beside: "#9aa8b6", disagreement: "#dd8fbd"};

export const objectColour = (item, state) => item.disagreement ? ON_DARK.disagreement : item.is_reported ? ON_DARK[state] : item.in_corridor ? ON_DARK.inCorridor : ON_DARK.beside;

export const colourOf = (classId) => COLOURS[classId % COLOURS.length];

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A frame with the aspect ratio of a picture: the picture, and a layer for boxes above it.
export class Frame {
  constructor(element, picture) {
    this.element = element;
    this.layer = svg("svg", {preserveAspectRatio: "none", role: "img"});
    element.replaceChildren(picture, this.layer);
    this.marks = [];
    this.sizePx = [1, 1];
    new ResizeObserver(() => this.draw()).observe(element);
  }

  // marks: {box: [left, top, right, bottom], label, colour, kind}; shapes: SVG elements below them.
  show(sizePx, marks, title, shapes = []) {
    this.sizePx = sizePx;
    this.marks = marks;
    this.shapes = shapes;
    this.element.style.aspectRatio = `${sizePx[0]} / ${sizePx[1]}`;
    this.element.style.maxWidth = `calc(78vh * ${sizePx[0] / sizePx[1]})`;
    this.layer.setAttribute("viewBox", `0 0 ${sizePx[0]} ${sizePx[1]}`);
    this.layer.setAttribute("aria-label", title);
    this.draw();
  }

  draw() {
    const scale = this.sizePx[0] / (this.element.clientWidth || this.sizePx[0]);
    const text = 13 * scale;
    const groups = this.marks.map((mark) => {
      const [left, top, right, bottom] = mark.box;
      const box = {x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top)};
      const group = svg("g", {class: `mark ${mark.kind || ""}`}, svg("rect", {...box, class: "under"}), svg("rect", {...box, stroke: mark.colour, class: "box"}));
      if (mark.label) {
        // Labels are moved inside the picture: those of boxes at its edges would be cut off.
        const width = mark.label.length * text * 0.56 + text * 0.6;
        const x = Math.max(0, Math.min(left, this.sizePx[0] - width));
        const y = Math.max(text * 1.35, Math.min(top, this.sizePx[1]));
        const label = svg("text", {x: x + text * 0.3, y: y - text * 0.35, "font-size": text});
        label.textContent = mark.label;
        group.append(svg("rect", {x, y: y - text * 1.35, width, height: text * 1.35, fill: mark.colour, class: "tag"}), label);
      }
      return group;
    });
    this.layer.replaceChildren(...(this.shapes || []), ...groups.reverse());
  }
}

// Draws the boxes on a canvas of the picture's size, for the download.
export function paint(image, sizePx, marks) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = sizePx;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, ...sizePx);
  const text = Math.max(11, Math.round(sizePx[1] / 45)), line = Math.max(2, sizePx[1] / 300);
  context.font = `600 ${text}px system-ui, sans-serif`;
  for (const {box: [left, top, right, bottom], label, colour} of [...marks].reverse()) {
    for (const [stroke, width] of [["rgba(0, 0, 0, .65)", line * 2], [colour, line]]) {
      context.strokeStyle = stroke;
      context.lineWidth = width;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    const y = Math.max(text * 1.35, top);
    context.fillStyle = colour;
    context.fillRect(left, y - text * 1.35, context.measureText(label).width + text * 0.6, text * 1.35);
    context.fillStyle = "#06151c";
    context.fillText(label, left + text * 0.3, y - text * 0.35);
  }
  return canvas;
}
