// Requests to the page's server, and small helpers for the document.

export class Refusal extends Error {}

// Returns the answer as JSON; a refusal is thrown with the server's message.
export async function ask(path, options = {}) {
  const response = await send(path, options);
  return response.json();
}

export async function askBlob(path, options = {}) {
  const response = await send(path, options);
  return response.blob();
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, {cache: "no-store", ...options});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the page's own server does not answer: start 'ssd-triton view' again; this page tries again by itself");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const id = told.request_id ? ` (request ${told.request_id})` : "";
  throw new Refusal((told.error || `got status ${response.status} of the page's server`) + id);
}

export const byId = (id) => document.getElementById(id);

// Makes an element with properties and children; text is never parsed as HTML.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function note(element, text, isBad = false) {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("bad", isBad);
}

// Offers a blob as a file.
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", {href: url, download: name}).click();
  forget(url);
}

// Frees a blob's address, after a delay for elements that are still loading it.
export const forget = (url) => setTimeout(() => URL.revokeObjectURL(url), 60_000);

export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Sets up the slider for the lowest score, with its value beside it; calls back on each change.
export function scoreSlider(id, start, changed) {
  const slider = byId(id), value = byId(`${id}-value`);
  const show = () => { value.textContent = Number(slider.value).toFixed(2); };
  slider.value = start;
  slider.addEventListener("input", () => { show(); changed(); });
  show();
  return () => Number(slider.value);
}
