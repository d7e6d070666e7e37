// What the page does; who answers (a server, or the browser itself) is the business of backend.js.
import { answer, describe, parallel, privacy } from "./backend.js";

const SIDE = 640; // pixels of a shown picture's longer side
const SMALL = 96; // pictures up to this size are shown with their pixels visible
const HEAT = 64; // pixels of a map's side when it is coloured
const COLOURS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // inferno

const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const opacity = byId("opacity");
const cards = new Set();
const queue = [];
let working = 0;
let model = null;

function say(text) {
  byId("status").textContent = text;
}

function introduce() {
  const { classes, metrics, bytes } = model;
  const names = classes.length <= 12 ? `: ${classes.join(", ")}` : "";
  const right = metrics ? ` ${percent(metrics.accuracy)} right on ${metrics.images.toLocaleString("en")} test images.` : "";
  byId("facts").textContent = `It knows ${classes.length} classes${names}.${right}`;
  byId("model").textContent = `${model.model}, ${(bytes / 1e6).toFixed(1)} MB`;
  byId("privacy").textContent = privacy;
  byId("overlay").hidden = byId("overlay-help").hidden = !model.outputs.includes("maps");
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
      const response = await fetch(address);
      add([new File([await response.blob()], image.alt)]);
    });
    byId("samples").lastElementChild.append(button);
  });
  byId("files").disabled = false;
}

/** Puts files in the queue, each with its card, the first on top. */
function add(files) {
  const added = files.map((file) => ({ file, root: byId("card").content.firstElementChild.cloneNode(true) }));
  for (const card of added) {
    card.root.classList.add("waiting");
    card.root.querySelector("h2").textContent = "Looking …";
    card.root.querySelector(".file").textContent = card.file.name;
    cards.add(card);
    queue.push(card);
  }
  byId("cards").prepend(...added.map((card) => card.root));
  byId("answers").hidden = false;
  while (working < parallel && queue.length) work();
}

async function work() {
  working += 1;
  while (queue.length) {
    const card = queue.shift();
    if (!cards.has(card)) continue; // cleared meanwhile
    try {
      card.picture = await picture(card.file);
      draw(card);
      show(card, await answer(card.file, model));
    } catch (error) {
      fail(card, error.message);
    }
  }
  working -= 1;
}

/** Returns a canvas with the file's picture, or null where this browser cannot show it; the answer may come all the same. */
async function picture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const { width, height } = bitmap;
  const scale = SIDE / Math.max(width, height);
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = Math.max(width, height) > SMALL;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // as for the network, what is transparent lies on white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return Object.assign(canvas, { shape: `${width} x ${height} pixels` });
}

function show(card, found) {
  const { root, file } = card;
  const [best] = found.top;
  root.classList.remove("waiting");
  const heading = root.querySelector("h2");
  const share = document.createElement("small");
  share.textContent = percent(best.probability);
  heading.replaceChildren(best.class, " ", share);
  const buttons = found.top.map((entry) => {
    const button = byId("class").content.firstElementChild.cloneNode(true);
    button.querySelector(".name").textContent = button.title = entry.class;
    button.querySelector(".bar").style.width = `${100 * entry.probability}%`;
    button.querySelector(".share").textContent = percent(entry.probability);
    button.disabled = !entry.map;
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      card.entry = entry;
      draw(card);
    });
    return button;
  });
  root.querySelector(".classes").replaceChildren(...buttons);
  const parts = [file.name, card.picture?.shape, `answered in ${found.milliseconds.toFixed(1)} ms`];
  root.querySelector(".file").textContent = parts.filter(Boolean).join(" · ");
  buttons[0].click();
  say(`${file.name}: ${best.class}, ${percent(best.probability)}`);
}

function fail(card, message) {
  card.root.classList.replace("waiting", "failed");
  const cause = message.startsWith(`${card.file.name}: `) ? message.slice(card.file.name.length + 2) : message;
  card.root.querySelector("h2").textContent = "No answer";
  card.root.querySelector(".file").textContent = `${card.file.name}: ${cause}`;
  say(`${card.file.name}: ${cause}`);
}

/** Draws a card's picture and, over it, the map of the chosen class. */
function draw({ root, picture, entry, file }) {
  if (!picture) return;
  const canvas = root.querySelector("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const heat = entry?.map && heatmap(entry.map);
  if (heat) {
    context.globalAlpha = opacity.value / 100;
    context.imageSmoothingQuality = "high";
    context.drawImage(heat, 0, 0, canvas.width, canvas.height);
  }
  let caption = "";
  if (entry?.map) caption = heat ? `Where it sees evidence for ${entry.class}` : `It sees no evidence for ${entry.class}`;
  root.querySelector("figcaption").textContent = caption;
  canvas.setAttribute("aria-label", caption ? `${file.name}. ${caption}` : file.name);
}

/** Returns a map as colours: its strongest place is 1, between its cells it is linear; null where it is 0 everywhere. */
function heatmap(map) {
  const strongest = Math.max(...map.flat());
  if (!(strongest > 0)) return null;
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
      const value = (upper * (1 - down) + lower * down) / strongest;
      const step = Math.min(Math.floor(value * 4), 3);
      const colour = COLOURS[step].map((part, index) => part + (COLOURS[step + 1][index] - part) * (value * 4 - step));
      pixels.data.set([...colour, 255 * Math.sqrt(value)], 4 * (row * HEAT + column)); // no evidence hides nothing
    });
  });
  const canvas = new OffscreenCanvas(HEAT, HEAT);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
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
opacity.addEventListener("input", () => {
  for (const card of cards) draw(card);
});
byId("clear").addEventListener("click", () => {
  cards.clear();
  byId("cards").replaceChildren();
  byId("answers").hidden = true;
  byId("files").focus();
});

try {
  model = await describe();
  introduce();
} catch (error) {
  byId("facts").textContent = `The model could not be loaded: ${error.message}`;
}
