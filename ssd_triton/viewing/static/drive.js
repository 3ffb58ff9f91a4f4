// Drives: requests the newest frame whenever this browser is ready for one, and sends commands.

import {ask, byId, make, note} from "./api.js";
import {Chart, themed} from "./chart.js";
import {Frame, objectColour, ON_DARK, svg} from "./draw.js";
import {drawRoad} from "./road.js";

const AGAIN_MS = 2000;
const SLOW_PARTS_MS = 200; // shortest time between two updates of the charts and the table
const BANDS = {SAFE: "--safe", WARN: "--warn", BRAKE: "--brake", NO_DATA: "--none"};
const decoder = new TextDecoder();

let canvas, frame, charts, socket = null, settings;
let run = -1, points = [], state = "", drawnMs = 0, isWanted = false;

export function start(given) {
  settings = given;
  canvas = make("canvas");
  frame = new Frame(byId("drive-frame"), canvas);
  const parent = byId("timeline");
  charts = [
    new Chart(parent, "Range of the object in question", [{name: "range", colour: "--accent"}], {unit: "m", least: 20}),
    new Chart(parent, "Speed", [{name: "own", colour: "--ink"}, {name: "closing", colour: "--accent"}], {unit: "km/h", least: 20}),
    new Chart(parent, "Time to collision", [{name: "by range", colour: "--accent"}, {name: "by scale", colour: "--limit"}], {unit: "s", least: 4, most: 10}),
    new Chart(parent, "Deceleration needed", [{name: "needed", colour: "--brake"}], {unit: "m/s²", least: 6, most: 15}),
  ];
  byId("speed").replaceChildren(...settings.speeds.map((speed) => make("option", {value: speed, textContent: speed ? `${speed} ×` : "as fast as it goes", selected: speed === 1})));
  byId("clip").addEventListener("change", () => open());
  byId("speed").addEventListener("change", () => command({do: "speed", speed: Number(byId("speed").value)}));
  byId("drive-play").addEventListener("click", () => command({do: byId("drive-play").dataset.do}));
  byId("drive-step").addEventListener("click", () => command({do: "step"}));
  byId("drive-restart").addEventListener("click", () => command({do: "restart"}));
  byId("clip-file").addEventListener("change", (event) => { upload(event.target.files[0]); event.target.value = ""; });
  document.addEventListener("keydown", (event) => {
    if (byId("page-drive").hidden || event.target.closest("input, select, button, a") || event.ctrlKey || event.metaKey) return;
    if (event.key === " " || event.key === ".") {
      event.preventDefault();
      byId(event.key === " " ? "drive-play" : "drive-step").click();
    }
  });
}

export async function enter() {
  isWanted = true;
  await listClips();
  if (isWanted) open();
}

export function leave() {
  isWanted = false;
  socket?.close();
}

async function listClips(chosen) {
  try {
    const clips = await ask("/api/clips");
    const select = byId("clip"), before = chosen || select.value;
    select.replaceChildren(...clips.map((clip) => make("option", {value: clip.id, textContent: clip.name})));
    if (clips.some((clip) => clip.id === before)) select.value = before;
  } catch (error) {
    tellOfClip(error.message, true);
  }
}

// Messages about an upload have their own line, since the drive that plays meanwhile shows messages, too.
function tellOfClip(text, isBad = false) {
  byId("clip-note").hidden = !text;
  note(byId("clip-note"), text, isBad);
}

async function upload(file) {
  if (!file) return;
  tellOfClip(`sending ${file.name}`);
  try {
    const clip = await ask("/api/clips", {method: "POST", body: file, headers: {"X-Clip-Name": encodeURIComponent(file.name)}});
    await listClips(clip.id);
    tellOfClip("");
    if (isWanted) open();
  } catch (error) {
    tellOfClip(error.message, true);
  }
}

function open() {
  socket?.close();
  const clip = byId("clip").value;
  if (!clip) return;
  const mine = socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/drive?clip=${encodeURIComponent(clip)}`);
  mine.binaryType = "arraybuffer";
  [run, points] = [-1, []];
  const next = () => { if (mine.readyState === WebSocket.OPEN) mine.send(JSON.stringify({run, points: points.length})); };
  mine.addEventListener("open", next);
  mine.addEventListener("message", async (event) => {
    if (mine !== socket) return;
    await show(event.data);
    // Requested only after drawing: frames that were decided meanwhile are not sent at all.
    requestAnimationFrame(next);
    if (document.hidden) next();
  });
  mine.addEventListener("close", (event) => {
    if (mine !== socket) return;
    socket = null;
    for (const id of ["drive-play", "drive-step", "drive-restart"]) byId(id).disabled = true;
    if (!isWanted) return;
    const reason = event.reason || "the page's own server does not answer";
    note(byId("drive-note"), `${reason}; this page tries again by itself`, true);
    setTimeout(async () => { if (isWanted && !socket) { await listClips(); if (isWanted && !socket) open(); } }, AGAIN_MS);
  });
}

const command = (what) => { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what)); };

async function show(data) {
  const view = new DataView(data);
  let at = 0;
  const part = () => {
    const length = view.getUint32(at, true);
    const text = decoder.decode(new Uint8Array(data, at + 4, length));
    at += 4 + length;
    return JSON.parse(text);
  };
  const drive = part(), news = part();
  if (news.run !== run) [run, points] = [news.run, []];
  // A browser that joins late gets only the last minutes; earlier points stay empty.
  points.length = news.first;
  points.push(...news.points);
  showControls(drive, news);
  note(byId("drive-note"), drive.words || "", Boolean(drive.words && drive.ended && drive.words !== "the clip has ended"));
  if (at < data.byteLength) {
    const picture = await createImageBitmap(new Blob([new Uint8Array(data, at)], {type: "image/jpeg"}));
    showFrame(drive, news, picture);
    picture.close();
  }
  if (performance.now() - drawnMs > SLOW_PARTS_MS || news.paused || drive.ended) {
    drawnMs = performance.now();
    showTimeline();
    if (drive.evidence) showEvidence(drive);
  }
}

function showControls(drive, news) {
  for (const id of ["drive-play", "drive-step"]) byId(id).disabled = Boolean(drive.ended);
  byId("drive-restart").disabled = false;
  const play = byId("drive-play");
  play.dataset.do = news.paused ? "play" : "pause";
  play.textContent = news.paused ? "Play" : "Pause";
  if (document.activeElement !== byId("speed")) byId("speed").value = news.speed;
}

function showFrame(drive, news, picture) {
  byId("drive-body").hidden = false;
  if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const colour = themed(BANDS[drive.state] || "--limit");
  const first = [...drive.objects].sort((a, b) => b.is_reported - a.is_reported || b.in_corridor - a.in_corridor);
  const marks = first.map((item) => ({
    box: item.box_xyxy,
    label: item.is_reported || item.in_corridor ? item.label : item.name,
    colour: objectColour(item, drive.state),
    kind: item.seen ? (item.is_reported ? "strong" : "") : "thin",
  }));
  const tracked = new Set(drive.objects.map((item) => item.box_xyxy.map(Math.round).join()));
  for (const box of drive.others) if (!tracked.has(box.map(Math.round).join())) marks.push({box, colour: ON_DARK.beside, kind: "thin"});
  const shapes = drive.corridor_px.length > 2 ? [svg("polygon", {points: drive.corridor_px.map((point) => point.join()).join(" "), class: "corridor", fill: colour, stroke: colour})] : [];
  frame.show(drive.size_px, marks, `${drive.state_name}: ${drive.objects.map((item) => item.label).join("; ") || "nobody tracked"}`, shapes);
  frame.element.classList.toggle("dim", !drive.has_data);
  // Notices are listed below the banner, since inside it they could be taken for a state.
  const notices = drive.notices.map(([kind, text]) => make("li", {}, make("strong", {textContent: kind}), ` ${text}`));
  byId("drive-notices").replaceChildren(...notices);
  const words = [drive.state_name, ...drive.notices.map(([kind]) => kind)].join(", ");
  const banner = byId("drive-banner");
  banner.className = `banner ${drive.state}`;
  banner.firstElementChild.textContent = drive.state_name;
  banner.lastElementChild.textContent = drive.reason;
  if (words !== state) byId("drive-state").textContent = state = words;
  drawRoad(byId("road"), drive);
  byId("road-captions").replaceChildren(...drive.road.captions.map((text) => make("span", {textContent: text})));
  byId("road-legend").textContent = drive.road.legend;
  const rates = drive.rates.map(([name, ms, fps]) => (ms === null ? `${name} ${fps ?? "–"} frames/s` : `${name} ${ms} ms`)).filter((text) => !/^(draw|write)/.test(text) && !text.includes("–"));
  byId("drive-caption").textContent = `${drive.time_s.toFixed(2)} s, frame ${drive.frame + 1}${drive.frames ? ` of ${drive.frames}` : ""}; ${rates.join(", ")}; ${news.watching} watching`
    + (drive.undecodable ? `; ${drive.undecodable} frames could not be decoded` : "");
}

function showTimeline() {
  const known = points.filter(Boolean);
  const bands = [];
  for (const [time, name] of known) {
    const last = bands.at(-1);
    if (last?.[2] === BANDS[name]) last[1] = time;
    else {
      if (last) last[1] = time;
      bands.push([time, time, BANDS[name] || "--limit"]);
    }
  }
  const columns = [[2], [4, 5], [6, 7], [8]];
  charts.forEach((chart, index) => chart.show(known.map((point) => [point[0], ...columns[index].map((column) => point[column])]), bands));
}

function showEvidence(drive) {
  byId("evidence").tBodies[0].replaceChildren(...drive.evidence.map(([name, value]) =>
    make("tr", {}, make("th", {scope: "row", textContent: name}), make("td", {textContent: value}))));
}
