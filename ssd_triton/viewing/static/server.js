// The server's state over the last minutes.

import {byId, make, note} from "./api.js";
import {Chart} from "./chart.js";

const ENSEMBLES = ["ssd", "ssd_frames"];
const MEMBERS = {ssd_preprocess: "preprocess", ssd_detector: "detect", ssd_postprocess: "postprocess"};
const GIB = 2 ** 30;

let charts;

export function start() {
  const parent = byId("server-charts"), options = {clock: true};
  charts = {
    images: new Chart(parent, "Images a second", [{name: "images", colour: "--accent"}, {name: "frames", colour: "--warn"}], options),
    request: new Chart(parent, "Time of a request", [{name: "images", colour: "--accent"}, {name: "frames", colour: "--warn"}], {...options, unit: "ms", least: 10}),
    members: new Chart(parent, "Time in each member", Object.values(MEMBERS).map((name, index) => ({name, colour: ["--accent", "--warn", "--limit"][index]})), {...options, unit: "ms", least: 10}),
    queue: new Chart(parent, "Waiting before the detector", [{name: "time", colour: "--accent"}], {...options, unit: "ms", least: 10}),
    refused: new Chart(parent, "Refused and failed a second", [{name: "refused", colour: "--warn"}, {name: "failed", colour: "--brake"}], options),
    machine: new Chart(parent, "Use of the machine", [{name: "CPU", colour: "--accent"}, {name: "memory", colour: "--limit"}, {name: "GPU", colour: "--warn"}, {name: "GPU memory", colour: "--safe"}], {...options, unit: "%", least: 100, most: 100}),
  };
}

export function show(status, history) {
  note(byId("server-note"), status.problem || status.problems.join("; "), Boolean(status.problem));
  const at = (read) => history.map((look) => [look.time_s, ...(look.models ? read(look) : [null])]);
  const of = (look, model, figure) => look.models[model]?.[figure] ?? null;
  charts.images.show(at((look) => ENSEMBLES.map((model) => of(look, model, "images_per_s"))));
  charts.request.show(at((look) => ENSEMBLES.map((model) => of(look, model, "request_ms"))));
  charts.members.show(at((look) => Object.keys(MEMBERS).map((model) => of(look, model, "request_ms"))));
  charts.queue.show(at((look) => [of(look, "ssd_detector", "queue_ms")]));
  // In an ensemble, Triton counts each failed request twice, and refused requests as failed.
  charts.refused.show(at((look) => {
    const refused = of(look, "ssd_preprocess", "refused_per_s"), failed = of(look, "ssd", "failed_per_s");
    return [refused, failed === null ? null : Math.max(0, failed / 2 - (refused ?? 0))];
  }));
  charts.machine.show(at((look) => machineShares(look.machine)));
  if (status.problem) return;
  const models = Object.entries(status.models);
  const variant = models.map(([, model]) => model.variant).find(Boolean) || "unknown";
  const latest = history.at(-1);
  const memory = status.machine && "cpu_memory_used_bytes" in status.machine
    ? `${(status.machine.cpu_memory_used_bytes / GIB).toFixed(1)} of ${(status.machine.cpu_memory_total_bytes / GIB).toFixed(1)} GiB` : "–";
  const figures = {server: `${status.url}, ${status.ready ? "ready" : "NOT READY"}`, Triton: status.triton_version, variant, memory,
    pending: latest?.models?.ssd_detector?.pending ?? "–"};
  byId("server-figures").replaceChildren(...Object.entries(figures).map(([name, value]) => make("div", {}, make("dt", {textContent: name}), make("dd", {textContent: String(value)}))));
  const number = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const columns = [["model", (name) => name], ["state", (_, model) => (model.ready ? "ready" : model.reason || "NOT READY")], ["instances", (_, model) => model.instances || "–"],
    ["pending", (_, model) => number(model.pending)], ["requests", (_, model) => number(model.succeeded)], ["failed", (_, model) => number(model.failed)],
    ["refused", (_, model) => number(model.refused)], ["batch", (_, model) => (model.executions ? number(model.images / model.executions, 1) : "–")],
    ["queue ms", (_, model) => number(model.mean_ms.queue, 1)], ["work ms", (_, model) => number(model.mean_ms.compute_infer, 1)], ["request ms", (_, model) => number(model.mean_ms.request, 1)]];
  byId("models").tHead.replaceChildren(make("tr", {}, ...columns.map(([name]) => make("th", {scope: "col", textContent: name}))));
  byId("models").tBodies[0].replaceChildren(...models.map(([name, model]) => make("tr", {}, ...columns.map(([, read]) => make("td", {textContent: read(name, model)})))));
}

// Shares in percent; for GPUs, those of the busiest one.
function machineShares(machine) {
  const share = (used, total) => (total ? used / total * 100 : null);
  const gpus = Object.keys(machine).filter((name) => name.startsWith("gpu_utilization ")).map((name) => name.split(" ")[1]);
  const most = (values) => (values.length ? Math.max(...values) : null);
  return [
    "cpu_utilization" in machine ? machine.cpu_utilization * 100 : null,
    share(machine.cpu_memory_used_bytes, machine.cpu_memory_total_bytes),
    most(gpus.map((gpu) => machine[`gpu_utilization ${gpu}`] * 100)),
    most(gpus.map((gpu) => share(machine[`gpu_memory_used_bytes ${gpu}`], machine[`gpu_memory_total_bytes ${gpu}`]))),
  ];
}
