// The page: a picture goes to /api/explain, and everything after that happens here.

import { logitText, percent, predicted, read, signed } from "./answer.js";
import { backdrop, evidence, Figure } from "./figure.js";
import { rgba } from "./maps.js";
import { save, sheet } from "./save.js";

const find = (id) => document.getElementById(id);
const MOST_LISTED = 50; // classes; the others are found by name
const FILTERED = 12; // classes, above which there is a field to find one

const look = { kind: "smooth", grey: true, opacity: 0.75, boxed: true, threshold: 0.2 };
let limits = null; // of the server
let given = null; // its document, for the download
let answer = null; // the document, read
let back = null; // the picture
let figures = [];
let chosen = null; // key of the class that is shown
let pending = null; // the request under way
let fileName = "picture";

// --- a picture comes

find("choose").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  event.target.value = ""; // the same file may be chosen again
  if (file) explain(file);
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file) {
    event.preventDefault();
    explain(file);
  } else if (!event.target.closest("input")) {
    fail("The clipboard holds no picture.");
  }
});
let within = 0; // dragenter and dragleave come for every element on the way
for (const [name, change] of [["dragenter", 1], ["dragleave", -1]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    within = Math.max(0, within + change);
    find("veil").hidden = within === 0;
  });
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // else the browser would leave the page for the picture
  within = 0;
  find("veil").hidden = true;
  const file = event.dataTransfer.files[0];
  if (file) explain(file);
  else fail("That is no file: save the picture first, or copy and paste it.");
});

async function explain(file) {
  pending?.abort();
  const request = (pending = new AbortController());
  find("error").hidden = true;
  if (limits && file.size > limits.upload) {
    fail(`${file.name}: ${(file.size / 2 ** 20).toFixed(0)} MB; at most ${(limits.upload / 2 ** 20).toFixed(0)} MB are taken.`);
    return;
  }
  document.body.classList.add("busy");
  find("said").textContent = "Looking at the picture.";
  try {
    const response = await fetch("api/explain?preview=1", {
      method: "POST",
      body: file,
      headers: { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" },
      signal: request.signal,
    });
    const document = await response.json();
    if (!response.ok) throw new Error(document.error);
    await show(document, file.name || "pasted picture");
  } catch (error) {
    if (request.signal.aborted) return;
    const lost = error instanceof TypeError; // fetch's word for a connection that failed
    fail(`${file.name || "The picture"}: ${lost ? "the server does not answer. Is it still running?" : error.message}`);
  } finally {
    if (pending === request) document.body.classList.remove("busy");
  }
}

function fail(message) {
  document.body.classList.remove("busy");
  find("error").textContent = message;
  find("error").hidden = false;
  find("said").textContent = "";
}

// --- the answer is shown

async function show(document, name) {
  const image = new Image();
  image.src = document.picture.preview;
  await image.decode();
  fileName = name;
  given = { ...document, picture: { ...document.picture, preview: null } };
  answer = read(document, find("centred").checked);
  back = backdrop(image, answer.size);
  const before = chosen;
  chosen = answer.classes[0].key;
  if (before !== chosen) find("other").value = "";
  const second = answer.models.length === 1 && answer.models[0].multiLabel ? predicted(answer.models[0])[1] : null;
  find("scales").hidden = answer.models.length === 1;
  find("centring").hidden = !document.models.some((model) => model.mean);
  find("filter").value = "";
  find("filtering").hidden = answer.classes.length <= FILTERED;
  list();
  others();
  if (second) {
    window.document.querySelector("input[name=mode][value=beside]").checked = true;
    find("other").value = second.key;
  }
  notes();
  bar();
  window.document.body.classList.add("answered");
  find("answer").hidden = false;
  find("name").hidden = false;
  find("name").textContent = `${name}, ${answer.size[1]} × ${answer.size[0]} px`;
  find("choose").textContent = "Choose another picture";
  compose();
  find("said").textContent = `${answer.models.map((model) => `${nameOf(model)}${best(model)}`).join("; ")}.`;
}

const nameOf = (model) => (answer.models.length > 1 ? `${model.name}: ` : "");
const best = (model) => predicted(model).map((entry) => `${entry.shown}, ${percent(entry.probability)}`).join("; ") || "no class of 50 % or more";

function list() {
  const wanted = find("filter").value.trim().toLowerCase();
  const matching = answer.classes.filter((entry) => entry.label.toLowerCase().includes(wanted));
  const shown = matching.slice(0, MOST_LISTED);
  find("list").replaceChildren(...shown.map(row));
  find("heads").hidden = answer.models.length === 1;
  find("heads").replaceChildren(...answer.models.map((model) => element("span", model.name)));
  const left = matching.length - shown.length;
  find("more").hidden = left === 0 && shown.length > 0;
  find("more").textContent = shown.length ? `${left} less probable classes: find them by name.` : "No class of that name.";
}

function row(entry) {
  const reached = entry.of.some((one, m) => one && answer.models[m].multiLabel && one.probability >= 0.5);
  const label = element("label", "", reached ? "class predicted" : "class");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: entry.key });
  radio.checked = entry.key === chosen;
  label.append(radio, element("span", entry.label, "label"));
  entry.of.forEach((one, m) => {
    const value = element("span", one ? percent(one.probability) : "no such class", "value");
    const track = element("span", "", `track model${m}`);
    const fill = element("span", "", "fill");
    fill.style.width = `${one ? 100 * one.probability : 0}%`;
    track.append(fill);
    if (one) value.title = logitText(answer.models[m], one.logit);
    label.append(track, value);
  });
  return label;
}

function others() {
  const before = find("other").value;
  const options = answer.classes.filter((entry) => entry.key !== chosen);
  find("other").replaceChildren(new Option("none", ""), ...options.map((entry) => new Option(entry.label, entry.key)));
  find("other").value = options.some((entry) => entry.key === before) ? before : "";
}

function notes() {
  const texts = answer.notes.map((note) => `This file: ${note}.`);
  for (const model of answer.models) {
    const [[top, bottom], [left, right]] = model.placement.seen;
    const whole = top <= 0.5 && left <= 0.5 && bottom >= answer.size[0] - 0.5 && right >= answer.size[1] - 0.5;
    if (!whole) texts.push("The network saw the part that is not darkened.");
    if (!model.placement.exact) texts.push(`${nameOf(model)}Cells share what was seen in equal parts: their true centres are not known for this network.`);
    if (model.multiLabel) texts.push(`${nameOf(model)}Each class has a probability of its own and is predicted from 50 % on: here ${predicted(model).length || "none"} of ${model.classes.length}.`);
    if (model.count < model.classes.length) texts.push(`${nameOf(model)}Maps of the ${model.count} most probable classes of ${model.classes.length}.`);
  }
  find("notes").replaceChildren(...[...new Set(texts)].map((text) => element("li", text)));
}

// Logits of two networks may differ a thousandfold; then one of them is blank on the scale of both.
const own = () => answer.models.length > 1 && find("own").checked;

function bar() {
  const { width, height } = find("bar");
  const values = Float32Array.from({ length: width * height }, (_, i) => answer.largest * (((i % width) + 0.5) / width * 2 - 1));
  const pixels = rgba(values, answer.largest);
  for (let i = 3; i < pixels.length; i += 4) pixels[i] *= look.opacity;
  find("bar").getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  const ends = own() ? answer.models.map((model) => model.largest) : [answer.largest];
  find("low").textContent = ends.map((end) => signed(-end)).join(" | ");
  find("high").textContent = ends.map((end) => signed(end)).join(" | ");
  find("whose").textContent = own() ? "one scale for each model" : "one scale for all maps of this picture";
}

// --- which figures there are, and how they look

function compose() {
  const one = answer.classes.find((entry) => entry.key === chosen);
  const two = answer.classes.find((entry) => entry.key === find("other").value);
  const compete = answer.models.some((model) => !model.multiLabel);
  const difference = two && compete && document.querySelector("input[name=mode]:checked").value === "difference";
  find("mode").hidden = !two || !compete;
  const made = answer.models.flatMap((model, m) => {
    if (difference) return [figure(model, m, one, two)];
    return two ? [figure(model, m, one), figure(model, m, two)] : [figure(model, m, one)];
  });
  figures = made.filter((each) => each instanceof Figure);
  find("png").disabled = figures.length === 0;
  find("figures").className = made.length > 1 ? "several" : "";
  find("figures").replaceChildren(...made.map((each) => each.element ?? each));
  draw();
}

function figure(model, m, one, two) {
  const [a, b] = [one.of[m], two?.of[m]];
  const shown = two ? evidence(model, a, b) : evidence(model, a);
  const named = two ? `${one.label} − ${two.label}` : one.label;
  if (!shown) {
    const missing = (!a && one) || (two && !b && two);
    const why = missing ? `${model.name} has no class ${missing.label}.` : `No map of ${named}: only the ${model.count} most probable classes have one.`;
    return element("figure", why, "missing");
  }
  const title = two ? [named, `Δ logit ${signed(shown.logit)}`] : [named, percent(a.probability), logitText(model, a.logit)];
  if (answer.models.length > 1) title.push(model.name);
  return new Figure(shown, back, own() ? model.largest : answer.largest, title, point);
}

function draw() {
  for (const each of figures) each.draw(look);
}

function point(source, at, aloud) {
  for (const each of figures) each.pointAt(at, look);
  if (aloud) find("said").textContent = source.reading();
}

function element(kind, text, name = "") {
  return Object.assign(document.createElement(kind), { textContent: text, className: name });
}

// --- controls

find("list").addEventListener("change", (event) => {
  chosen = event.target.value;
  others();
  compose();
  find("said").textContent = figures.map((each) => each.title.join(", ")).join("; ");
});
find("list").addEventListener("keydown", (event) => {
  const radio = find("list").querySelectorAll("input")[Number(event.key) - 1];
  if (!/^[1-9]$/.test(event.key) || !radio) return;
  radio.focus();
  radio.click();
});
find("own").addEventListener("change", () => {
  bar();
  compose();
});
find("centred").addEventListener("change", (event) => {
  answer = read(given, event.target.checked);
  list();
  bar();
  compose();
});
find("filter").addEventListener("input", list);
find("other").addEventListener("change", compose);
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", compose);
for (const radio of document.querySelectorAll("input[name=kind]")) {
  radio.addEventListener("change", () => {
    look.kind = radio.value;
    draw();
  });
}
for (const name of ["grey", "boxed"]) {
  find(name).addEventListener("change", (event) => {
    look[name] = event.target.checked;
    find("threshold").disabled = !look.boxed;
    draw();
  });
}
for (const name of ["opacity", "threshold"]) {
  find(name).addEventListener("input", (event) => {
    look[name] = event.target.value / 100;
    find(`${name}-value`).textContent = `${event.target.value} %`;
    if (name === "opacity") bar();
    draw();
  });
}
const stem = () => fileName.replace(/\.[^.]*$/, "");
find("json").addEventListener("click", () => {
  save(new Blob([JSON.stringify(given)], { type: "application/json" }), `${stem()}.gapstone.json`);
});
find("png").addEventListener("click", () => {
  point(null, null, false); // the outlined cell is no part of the picture
  const range = `${find("low").textContent} to ${find("high").textContent} logits per cell, blue against, orange for`;
  sheet(figures, range).toBlob((blob) => save(blob, `${stem()}.gapstone.png`), "image/png");
});

// --- what the server says of itself

fetch("api/models")
  .then((response) => response.json())
  .then((document) => {
    limits = document.limits;
    find("models").textContent = document.models.map((model) => model.name).join(" and ");
    const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    find("where").textContent = local ? "It stays on this computer, and is not kept." : `It goes to ${location.host} only, and is not kept.`;
  })
  .catch(() => fail("The server does not answer. Is it still running?"));
