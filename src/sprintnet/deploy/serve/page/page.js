// The page; backend.js predicts, with a server (server.js) or in the browser (browser.js).
import { describe, parallel, predict, privacy } from "./backend.js";

const SMALL = 96; // pixels of a side: images up to this size are shown with visible pixels
const MAX_HEIGHT = 22; // rem, of a shown image
const USUAL = 0.9; // coverage of sets
const UNUSUAL = 0.05; // typicality, from which a card says so
const HEAT = 64; // pixels of a side of a coloured activation map
const COLOURS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // inferno

const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const cards = new Set();
const queue = [];
let working = 0;
let model = null;

function announce(text) {
  byId("status").textContent = text;
}

function introduce() {
  const { preprocessing: { classes, tta }, metrics, bytes } = model;
  const names = classes.length <= 12 ? `: ${classes.join(", ")}` : "";
  const metric = model.threshold ? "Exact match" : "Accuracy";
  const images = metrics && `${metrics.images.toLocaleString("en")} ${metrics.split ?? "test"} images`;
  const interval = metrics?.accuracy_interval ? ` (95% CI ${metrics.accuracy_interval.map((end) => (100 * end).toFixed(1)).join(" to ")})` : "";
  const accuracy = metrics ? ` ${metric}: ${percent(metrics.accuracy)}${interval} on ${images}${tta ? ", with test-time augmentation" : ""}.` : "";
  byId("facts").textContent = `${classes.length} classes${names}.${accuracy}`;
  byId("model").textContent = `${model.model}, ${(bytes / 1e6).toFixed(1)} MB`;
  byId("privacy").textContent = privacy;
  byId("overlay").hidden = byId("overlay-help").hidden = !model.outputs.includes("activation_maps");
  byId("sets").hidden = !model.coverages.length;
  for (const coverage of model.coverages) byId("coverage").add(new Option(`${Math.round(100 * coverage)} %`, coverage));
  byId("coverage").value = model.coverages.includes(USUAL) ? USUAL : model.coverages.at(-1);
  if (model.report) {
    byId("report").href = model.report;
    byId("report").hidden = false;
  }
  byId("samples").hidden = !model.samples.length;
  model.samples.forEach((address, index) => {
    const button = document.createElement("button");
    const image = new Image();
    image.src = address;
    image.alt = `Sample ${index + 1}`;
    image.onload = () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
    button.type = "button";
    button.append(image);
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(address);
        if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
        add([new File([await response.blob()], image.alt)]);
      } catch (error) {
        announce(`${image.alt} could not be loaded: ${error.message}`);
      }
    });
    byId("samples").lastElementChild.append(button);
  });
  byId("files").disabled = false;
}

/** Queues files, each with a card, the first on top. */
function add(files) {
  if (!files.length) return; // text or a link was dropped
  const added = files.map((file) => ({ file, root: byId("card").content.firstElementChild.cloneNode(true) }));
  for (const card of added) {
    card.root.classList.add("waiting");
    card.root.querySelector("h2").textContent = "Predicting …";
    card.root.querySelector(".file").textContent = card.file.name;
    cards.add(card);
    queue.push(card);
  }
  byId("cards").prepend(...added.map((card) => card.root));
  byId("predictions").hidden = false;
  start();
}

function start() {
  while (working < parallel && queue.length) work();
}

async function work() {
  working += 1;
  while (queue.length) {
    const card = queue.shift();
    if (!cards.has(card)) continue; // cleared in the meantime
    try {
      if (!card.shape) await preview(card);
      const coverage = Number(byId("coverage").value);
      show(card, await predict(card.file, model, coverage), coverage);
    } catch (error) {
      fail(card, error.message);
    }
  }
  working -= 1;
}

/** Shows the file if the browser can; the prediction does not need it. */
async function preview(card) {
  const image = card.root.querySelector("img");
  image.alt = card.file.name;
  image.src = URL.createObjectURL(card.file);
  try {
    await image.decode();
  } catch {
    return;
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  image.classList.toggle("small", Math.max(width, height) <= SMALL);
  image.parentElement.style.width = `min(100%, ${(MAX_HEIGHT * width) / height}rem)`;
  card.shape = `${width} x ${height} pixels`;
  card.root.querySelector("figure").hidden = false;
}

function show(card, found, coverage) {
  const { root, file } = card;
  root.classList.remove("waiting");
  const heading = root.querySelector("h2");
  const named = found.labels.map((label) => {
    const share = document.createElement("small");
    share.textContent = percent(label.probability);
    return [label.class, " ", share];
  });
  const none = [model.preprocessing.thresholds?.length ? "No class above its threshold" : `No class above ${percent(model.threshold)}`];
  const isUnknown = model.false_alarms !== null && found.typicality <= model.false_alarms;
  root.classList.toggle("unknown", isUnknown);
  const unusual = root.querySelector(".unusual");
  unusual.hidden = !isUnknown && !(found.typicality <= UNUSUAL);
  const asUnusual = `Unlike the training images: so ${isUnknown ? "are fewer than" : "are only"} ${percent(isUnknown ? model.false_alarms : found.typicality)} of images of these classes.`;
  unusual.textContent = isUnknown ? `${asUnusual} If it is one of them:` : asUnusual;
  const labels = named.flatMap((parts, index) => (index ? [", ", ...parts] : parts));
  if (found.unsure) labels.unshift("Not sure enough: perhaps ");
  heading.replaceChildren(...(isUnknown ? ["Probably none of these classes"] : named.length ? labels : none));
  const names = (found.set ?? []).map((entry) => entry.class);
  const set = root.querySelector(".set");
  set.hidden = !names.length || isUnknown || (found.unsure && names.length === 1);
  const others = names.length > 1 ? `one of ${names.length}: ${names.join(", ")}` : "no other class";
  set.textContent = `At ${Math.round(100 * coverage)} %, ${others}`;
  const buttons = found.top.map((entry) => {
    const button = byId("class").content.firstElementChild.cloneNode(true);
    button.querySelector(".name").textContent = button.title = entry.class;
    button.querySelector(".bar").style.width = `${100 * entry.probability}%`;
    button.querySelector(".share").textContent = percent(entry.probability);
    button.classList.toggle("in-set", names.length > 1 && names.includes(entry.class));
    button.disabled = !entry.activation_map;
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      card.entry = entry;
      draw(card);
    });
    return button;
  });
  root.querySelector(".classes").replaceChildren(...buttons);
  const parts = [file.name, card.shape, `predicted in ${found.milliseconds.toFixed(1)} ms`];
  root.querySelector(".file").textContent = parts.filter(Boolean).join(" · ");
  (buttons.find((button) => button.title === card.entry?.class) ?? buttons[0]).click();
  announce(`${file.name}: ${heading.textContent}`);
}

function fail(card, message) {
  card.root.classList.replace("waiting", "failed");
  const cause = message.startsWith(`${card.file.name}: `) ? message.slice(card.file.name.length + 2) : message;
  card.root.querySelector("h2").textContent = "No prediction";
  card.root.querySelector(".file").textContent = `${card.file.name}: ${cause}`;
  announce(`${card.file.name}: ${cause}`);
}

/** Draws the activation map of the chosen class over a card's image. */
function draw({ root, entry }) {
  if (!entry.activation_map) return;
  const heat = heatmap(entry.activation_map);
  const canvas = root.querySelector("canvas");
  canvas.width = canvas.height = HEAT; // also clears it
  if (heat) canvas.getContext("2d").putImageData(heat, 0, 0);
  const caption = heat ? `Evidence for ${entry.class}` : `No evidence for ${entry.class}`;
  root.querySelector("figcaption").textContent = caption;
}

/** Returns an activation map as colours: scaled to a maximum of 1, interpolated linearly; null if it is 0 everywhere. */
function heatmap(map) {
  const maximum = Math.max(...map.flat());
  if (!(maximum > 0)) return null;
  const along = (cells) =>
    Array.from({ length: HEAT }, (_, index) => {
      const place = Math.min(Math.max(((index + 0.5) * cells) / HEAT - 0.5, 0), cells - 1);
      const first = Math.floor(place);
      return [first, Math.min(first + 1, cells - 1), place - first];
    });
  const columns = along(map[0].length);
  const pixels = new ImageData(HEAT, HEAT);
  along(map.length).forEach(([above, below, down], row) => {
    columns.forEach(([left, right, across], column) => {
      const upper = map[above][left] * (1 - across) + map[above][right] * across;
      const lower = map[below][left] * (1 - across) + map[below][right] * across;
      const value = (upper * (1 - down) + lower * down) / maximum;
      const step = Math.min(Math.floor(value * 4), 3);
      const colour = COLOURS[step].map((part, index) => part + (COLOURS[step + 1][index] - part) * (value * 4 - step));
      pixels.data.set([...colour, 255 * Math.sqrt(value)], 4 * (row * HEAT + column)); // transparent where there is no evidence
    });
  });
  return pixels;
}

byId("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => {
  if (model && event.clipboardData.files.length) add([...event.clipboardData.files]);
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (model) add([...event.dataTransfer.files]);
});
byId("opacity").addEventListener("input", (event) => byId("cards").style.setProperty("--opacity", event.target.value / 100));
byId("coverage").addEventListener("change", () => {
  queue.push(...[...cards].filter((card) => !queue.includes(card)));
  start();
});
byId("clear").addEventListener("click", () => {
  for (const card of cards) URL.revokeObjectURL(card.root.querySelector("img").src);
  cards.clear();
  byId("cards").replaceChildren();
  byId("predictions").hidden = true;
  byId("files").focus();
});

try {
  model = await describe();
  introduce();
} catch (error) {
  byId("facts").textContent = `The model could not be loaded: ${error.message}`;
}
