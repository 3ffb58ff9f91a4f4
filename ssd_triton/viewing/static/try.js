// Pictures: dropped, pasted or chosen; boxes, list, times, downloads.

import {ask, askBlob, byId, download, forget, make, note, plural, Refusal, scoreSlider} from "./api.js";
import {colourOf, Frame, paint} from "./draw.js";

const AT_ONCE = 4;
const TOLD = 3; // most refusals that are listed one by one above the sheet

let settings, score, frame, image;
let pictures = [];
let shown = null;
let hiddenClasses = new Set();

export function start(given) {
  settings = given;
  image = make("img", {alt: ""});
  frame = new Frame(byId("try-frame"), image);
  score = scoreSlider("score", settings.score_thresh, drawAll);
  byId("files").accept = "image/*,.heic,.heif,.avif,.jp2,.j2k,.tif,.tiff,.ppm,.pgm,.pbm";
  byId("files").addEventListener("change", takeChosen);
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (byId("page-try").hidden) return;
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length && !byId("page-try").hidden) add(files);
  });
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => save(button.dataset.download).catch((error) => note(byId("try-note"), error.message, true)));
  }
  if (byId("files").files.length) takeChosen(); // chosen while the page was loading
  else showSample();
}

function takeChosen() {
  add([...byId("files").files]);
  byId("files").value = "";
}

async function showSample() {
  try {
    const blob = await askBlob("/api/sample");
    if (pictures.every((picture) => picture.isSample)) await add([new File([blob], "example.jpg", {type: "image/jpeg"})], true);
  } catch (error) {
    note(byId("try-note"), error.message, true);
  }
}

// Called when the server answers again: requests the example again, which failed before.
export function comeBack() {
  if (pictures.every((picture) => picture.isSample && picture.state === "refused")) showSample();
}

async function add(files, isSample = false) {
  const taken = files.slice(0, settings.max_pictures);
  const left = files.length - taken.length;
  for (const picture of pictures) forget(picture.url);
  pictures = taken.map((file) => ({file, name: file.name || "pasted", url: URL.createObjectURL(file), state: "waiting", isSample}));
  shown = pictures[0] || null;
  const mine = pictures;
  drawAll();
  const waiting = [...mine];
  const work = async () => {
    for (let picture; mine === pictures && (picture = waiting.shift());) {
      await detect(picture);
      if (mine === pictures) drawAll();
    }
  };
  await Promise.all(Array.from({length: AT_ONCE}, work));
  if (mine !== pictures) return;
  const refused = mine.filter((picture) => picture.state === "refused");
  const words = refused.slice(0, TOLD).map((picture) => `${picture.name}: ${picture.error}`);
  if (refused.length > TOLD) words.push(`and ${refused.length - TOLD} more were refused`);
  if (left) words.unshift(`took the first ${taken.length} of ${files.length}: 'ssd-triton detect' takes folders of any size`);
  note(byId("try-note"), words.join("; ") || (isSample ? "An example: drop a picture of yours." : ""), words.length > 0);
}

async function detect(picture) {
  picture.state = "asked";
  const startMs = performance.now();
  try {
    if (picture.file.size > settings.max_file_bytes) {
      throw new Refusal(`got ${(picture.file.size / 2 ** 20).toFixed(0)} MiB, expected at most ${settings.max_file_bytes / 2 ** 20} MiB`);
    }
    picture.answer = await ask("/api/detect?stages=1", {method: "POST", body: picture.file});
    picture.totalMs = performance.now() - startMs;
    await makeVisible(picture);
    picture.state = "found";
  } catch (error) {
    picture.state = "refused";
    // The page shows the file's name instead of this prefix: the server does not know the name.
    picture.error = error.message.replace(/^(image|batch element 0): /, "");
  }
}

// Browsers cannot show TIFF or HEIC, and turn pictures by EXIF, whereas the detector sees the stored pixels. For such
// pictures, the server makes a JPEG.
async function makeVisible(picture) {
  const probe = new Image();
  probe.src = picture.url;
  if (picture.answer.turned || !(await probe.decode().then(() => true, () => false))) {
    const jpeg = await askBlob("/api/preview", {method: "POST", body: picture.file});
    forget(picture.url);
    picture.url = URL.createObjectURL(jpeg);
  }
}

function kept(picture) {
  if (!picture.answer) return [];
  return picture.answer.detections.filter((one) => one.score > score() && !hiddenClasses.has(one.class_name));
}

function marksOf(picture) {
  return kept(picture).map((one) => ({box: one.box_xyxy, label: `${one.class_name} ${one.score.toFixed(2)}`, colour: colourOf(one.class_id)}));
}

function drawAll() {
  drawClasses();
  drawShown();
  drawSheet();
  const busy = pictures.filter((picture) => picture.state === "waiting" || picture.state === "asked").length;
  if (busy) note(byId("try-note"), `${plural(pictures.length - busy, "picture")} of ${pictures.length} answered`);
}

function drawClasses() {
  const names = new Map();
  for (const picture of pictures) for (const one of picture.answer?.detections || []) if (one.score > score()) names.set(one.class_name, Math.max(one.score, names.get(one.class_name) || 0));
  const box = byId("classes");
  const wanted = [...names.keys()].sort((a, b) => names.get(b) - names.get(a));
  if (box.dataset.names === wanted.join("\n")) return;
  box.dataset.names = wanted.join("\n");
  const choices = wanted.map((name) => {
    const input = make("input", {type: "checkbox", checked: !hiddenClasses.has(name)});
    input.addEventListener("change", () => {
      hiddenClasses[input.checked ? "delete" : "add"](name);
      drawAll();
    });
    return make("label", {}, input, ` ${name}`);
  });
  box.replaceChildren(make("legend", {textContent: choices.length ? "Classes" : "Classes: none of this score"}), ...choices);
}

function drawShown() {
  byId("try-body").hidden = shown?.state !== "found";
  if (shown?.state !== "found") return;
  const {answer} = shown, found = kept(shown);
  if (image.src !== shown.url) image.src = shown.url;
  frame.show(answer.size_px, marksOf(shown), `${shown.name}: ${plural(found.length, "detection")} shown`);
  const turned = answer.turned ? "; EXIF turns it, but the detector sees the stored pixels, and so do you here" : "";
  byId("try-caption").textContent = `${shown.name}: ${answer.size_px.join(" × ")} px, ${answer.format || "unknown format"}${turned}`;
  byId("found").tBodies[0].replaceChildren(...found.map((one, index) => {
    const swatch = make("span", {className: "swatch"});
    swatch.style.background = colourOf(one.class_id);
    const row = make("tr", {}, make("td", {}, swatch, one.class_name), make("td", {textContent: one.score.toFixed(3)}),
      make("td", {textContent: one.box_xyxy.map((side) => side.toFixed(1)).join(", ")}));
    row.addEventListener("mouseenter", () => mark(index, row, true));
    row.addEventListener("mouseleave", () => mark(index, row, false));
    return row;
  }));
  drawTimes();
}

function mark(index, row, isOn) {
  frame.marks[index].kind = isOn ? "strong" : "";
  row.classList.toggle("on", isOn);
  frame.draw();
}

function drawTimes() {
  const {answer, totalMs} = shown;
  const rows = [["in all, seen from here", totalMs], ["received by the page", answer.times_ms.received]];
  for (const [name, stage] of Object.entries(answer.stages)) {
    const mean = stage.requests > 1 ? ` (mean of ${stage.requests})` : "";
    rows.push([`${name}${mean}`, stage.work_ms], [`waiting for ${name}`, stage.queue_ms]);
  }
  rows.push(["request to Triton", answer.times_ms.request]);
  const lines = rows.map(([name, ms]) => make("tr", {}, make("th", {scope: "row", textContent: name}), make("td", {textContent: `${ms.toFixed(1)} ms`})));
  lines.push(make("tr", {}, make("th", {scope: "row", textContent: "request id"}), make("td", {textContent: answer.request_id})));
  byId("times").tBodies[0].replaceChildren(...lines);
}

function drawSheet() {
  const sheet = byId("sheet");
  sheet.hidden = pictures.length < 2 && shown?.state !== "refused";
  if (sheet.hidden) return;
  sheet.replaceChildren(...pictures.map((picture) => {
    const words = {waiting: "waiting", asked: "asked", refused: picture.error, found: plural(kept(picture).length, "detection")}[picture.state];
    const about = [make("strong", {textContent: picture.name}), make("span", {textContent: words})];
    if (picture.state === "refused") return make("li", {className: "refused bad"}, ...about);
    const button = make("button", {disabled: picture.state !== "found"}, ...about);
    if (picture.state === "found") button.prepend(make("img", {src: picture.url, alt: "", loading: "lazy", decoding: "async"}));
    button.setAttribute("aria-pressed", String(picture === shown));
    button.addEventListener("click", () => { shown = picture; drawAll(); });
    return make("li", {}, button);
  }));
}

async function save(kind) {
  if (kind === "picture") {
    const canvas = paint(image, shown.answer.size_px, marksOf(shown));
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    download(blob, `${shown.name.replace(/\.[^.]*$/, "")}.annotated.jpg`);
    return;
  }
  const results = pictures.map((picture) => ({
    file: picture.name,
    ...(picture.state === "found" ? {size_px: picture.answer.size_px, detections: kept(picture)} : {error: picture.error || "not answered"}),
  }));
  const blob = await askBlob(`/api/results?format=${kind}`, {method: "POST", body: JSON.stringify(results)});
  download(blob, {json: "detections.json", csv: "detections.csv", coco: "detections.coco.json"}[kind]);
}
