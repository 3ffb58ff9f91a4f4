// The page: shows one of its parts, and whether the server answers.

import {ask, byId, note} from "./api.js";
import * as camera from "./camera.js";
import * as drive from "./drive.js";
import * as server from "./server.js";
import * as pictures from "./try.js";

const PAGES = {try: {}, camera, drive, server: {}};
const LOOK_MS = 2000;
const KEPT = 150;

let history = [], latest = null, current = null;

function turnTo() {
  const wanted = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "try";
  if (wanted === current) return;
  if (current) PAGES[current].leave?.();
  current = wanted;
  for (const name of Object.keys(PAGES)) {
    byId(`page-${name}`).hidden = name !== wanted;
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${wanted}-title`).textContent} – SSD300 on Triton`;
  PAGES[wanted].enter?.();
  if (latest) server.show(latest, history);
}

function tell(text, className, alert) {
  note(byId("health"), text);
  byId("health").className = `chip ${className}`;
  byId("alert").hidden = !alert;
  note(byId("alert"), alert || "");
}

async function look() {
  if (document.hidden) return;
  try {
    const status = await ask(`/api/status?since=${history.at(-1)?.number ?? 0}`);
    // The page's server counts from one again after a restart.
    if (status.history[0]?.number <= (history.at(-1)?.number ?? 0)) history = [];
    history = [...history, ...status.history].slice(-KEPT);
    if (latest?.problem && !status.problem) pictures.comeBack();
    latest = status;
    if (status.problem) tell("the server is away", "away", `${status.problem}. This page tries again by itself.`);
    else tell(status.ready ? `Triton ${status.triton_version}, ready` : "not ready", status.ready ? "ready" : "away", status.ready ? "" : "The server has models that are not ready: see Server.");
    if (current === "server") server.show(status, history);
  } catch (error) {
    tell("no answer", "away", error.message);
  }
}

async function keepLooking() {
  for (;;) {
    await look();
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

const settings = await ask("/api/settings");
pictures.start(settings);
camera.start(settings);
drive.start(settings);
server.start();
addEventListener("hashchange", turnTo);
turnTo();
keepLooking();
