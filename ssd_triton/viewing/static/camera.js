// The browser's own camera: sends frames as fast as the server answers, and keeps none.

import {ask, byId, make, median, note, scoreSlider} from "./api.js";
import {colourOf, Frame} from "./draw.js";

const WIDEST_PX = 1280;
const IN_FLIGHT = 2;
const RECENT = 30;

let video, frame, canvas, score;
let stream = null, isOpening = false;
let newest = 0, latenciesMs = [], answeredMs = [];

export function start(settings) {
  video = make("video", {muted: true, playsInline: true});
  canvas = make("canvas");
  frame = new Frame(byId("camera-frame"), canvas);
  score = scoreSlider("camera-score", settings.score_thresh, () => {});
  byId("camera-toggle").addEventListener("click", () => (stream ? stop("Stopped.") : open()));
}

export function leave() {
  if (stream) stop("Stopped, since the page was left.");
}

async function open() {
  if (!navigator.mediaDevices) {
    note(byId("camera-note"), "got no access to cameras: browsers allow it on this machine or with TLS only", true);
    return;
  }
  if (isOpening) return;
  isOpening = true;
  let mine;
  try {
    mine = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment", width: {ideal: WIDEST_PX}}, audio: false});
  } catch (error) {
    const words = {NotAllowedError: "got no permission for a camera: allow it in the browser, and start again", NotFoundError: "got no camera: connect one, and start again",
      NotReadableError: "got a camera that another program uses: close that, and start again"};
    note(byId("camera-note"), words[error.name] || `got no camera (${error.name}): connect another, and start again`, true);
    return;
  } finally {
    isOpening = false;
  }
  stream = mine;
  // The page may have been left while the browser asked for the permission.
  if (byId("page-camera").hidden) return leave();
  stream.getVideoTracks()[0].addEventListener("ended", () => { if (stream === mine) stop("The camera has gone: connect it, and start again.", true); });
  video.srcObject = stream;
  // Stop while the camera starts ends play() with an error.
  await video.play().catch((error) => { if (stream === mine) throw error; });
  if (stream !== mine) return;
  [newest, latenciesMs, answeredMs] = [0, [], []];
  byId("camera-toggle").textContent = "Stop";
  byId("camera-frame").hidden = byId("camera-figures").hidden = false;
  note(byId("camera-note"), "Frames go to the server one by one, and nothing is stored.");
  for (let i = 0; i < IN_FLIGHT; i++) work(mine);
}

function stop(words, isBad = false) {
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  video.srcObject = null;
  byId("camera-toggle").textContent = "Start";
  byId("camera-frame").hidden = byId("camera-figures").hidden = true;
  note(byId("camera-note"), words, isBad);
}

// A loop with one request in flight: it takes the next frame when the last one is answered.
async function work(mine) {
  const buffer = document.createElement("canvas");
  let taken = 0;
  while (stream === mine) {
    const scale = Math.min(1, WIDEST_PX / video.videoWidth);
    buffer.width = Math.round(video.videoWidth * scale);
    buffer.height = Math.round(video.videoHeight * scale);
    buffer.getContext("2d").drawImage(video, 0, 0, buffer.width, buffer.height);
    const takenMs = performance.now();
    taken = takenMs;
    const jpeg = await new Promise((resolve) => buffer.toBlob(resolve, "image/jpeg", 0.85));
    if (stream !== mine) return; // No frame leaves the browser after Stop.
    try {
      const answer = await ask("/api/detect", {method: "POST", body: jpeg});
      if (stream !== mine) return;
      const nowMs = performance.now();
      latenciesMs = [...latenciesMs, nowMs - takenMs].slice(-RECENT);
      answeredMs = [...answeredMs, nowMs].slice(-RECENT);
      if (byId("camera-note").classList.contains("bad")) note(byId("camera-note"), "The server answers again.");
      if (taken > newest) {
        newest = taken;
        show(buffer, answer);
      }
    } catch (error) {
      if (stream !== mine) return;
      note(byId("camera-note"), error.message, true);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

function show(buffer, answer) {
  canvas.width = buffer.width;
  canvas.height = buffer.height;
  canvas.getContext("2d").drawImage(buffer, 0, 0);
  const found = answer.detections.filter((one) => one.score > score());
  const marks = found.map((one) => ({box: one.box_xyxy, label: `${one.class_name} ${one.score.toFixed(2)}`, colour: colourOf(one.class_id)}));
  frame.show([buffer.width, buffer.height], marks, `camera: ${found.map((one) => one.class_name).join(", ") || "nothing found"}`);
  const spanS = (answeredMs.at(-1) - answeredMs[0]) / 1000;
  const figures = {rate: spanS ? `${((answeredMs.length - 1) / spanS).toFixed(1)} frames/s` : "–", latency: `${median(latenciesMs).toFixed(0)} ms`, found: String(found.length),
    frame: `${buffer.width} × ${buffer.height} px`};
  byId("camera-figures").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    make("div", {}, make("dt", {textContent: name}), make("dd", {textContent: value}))));
}
