// Backend without a server: ONNX Runtime runs the model in the browser, and images stay here.
import * as ort from "./ort.wasm.bundle.min.mjs";

export const parallel = 1;
export const privacy = "Images never leave this browser.";

const TOP = 5;
const SIDE = 2048; // larger images are first reduced to this: a phone has little memory
const SIGNATURES = [[0xff, 0xd8, 0xff], [0x89, 0x50, 0x4e, 0x47], [0x52, 0x49, 0x46, 0x46]]; // of JPEG, PNG, WebP

ort.env.wasm.numThreads = 1; // more need headers that a plain static server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
let session = null;

export async function describe() {
  const response = await fetch("metadata.json");
  if (!response.ok) throw new Error(`metadata.json: ${response.status} ${response.statusText}`);
  const model = await response.json();
  session = await ort.InferenceSession.create(new URL(model.model, document.baseURI).href);
  return model;
}

export async function predict(file, model, coverage) {
  const started = performance.now();
  const images = await pixels(file, model.preprocessing.image_shape[2]);
  const outputs = await session.run({ images });
  const milliseconds = performance.now() - started;
  const probabilities = outputs.probabilities.data;
  const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const entry = (index) => ({ class: model.preprocessing.classes[index], probability: probabilities[index] });
  const { thresholds = [] } = model.preprocessing;
  const isAbove = (index) => probabilities[index] > (thresholds[index] ?? model.threshold);
  const isPredicted = (index) => (model.threshold ? isAbove(index) : index === ranked[0]);
  const labels = ranked.filter(isPredicted).map(entry);
  const top = ranked.slice(0, TOP).map((index) => ({ ...entry(index), activation_map: outputs.activation_maps && rows(outputs.activation_maps, index) }));
  const scores = model.preprocessing.novelty_scores;
  const typicality = outputs.novelty && scores.length ? share(outputs.novelty.data[0], scores) : undefined;
  const fits = coverage ? setRule(probabilities, model, coverage) : () => false;
  const set = coverage ? ranked.filter((index, rank) => rank === 0 || fits(index)).map(entry) : [];
  for (const tensor of [images, ...Object.values(outputs)]) tensor.dispose();
  const unsure = !model.threshold && thresholds.length > 0 && !isAbove(ranked[0]);
  return { labels, set, top, typicality, unsure, milliseconds };
}

/** Returns a function of whether a class is in the set: HeldOutScores.sets, by threshold. */
function setRule(probabilities, { preprocessing: { held_out, tta } }, coverage) {
  const { scores, exponent = 1 } = held_out[tta ?? "none"];
  const raised = [...probabilities].map((probability) => (probability / Math.max(...probabilities)) ** exponent);
  const total = raised.reduce((sum, value) => sum + value);
  const pool = scores.threshold.flat();
  return (index) => share(1 - raised[index] / total, pool) > Math.round((1 - coverage) * 1e12) / 1e12;
}

/** Returns the share of scores that are as large or larger, the score itself included: conformal.p_values. */
function share(score, scores) {
  return (scores.filter((other) => other >= score).length + 1) / (scores.length + 1);
}

/** Returns the activation map of a class as a list of rows. */
function rows({ data, dims }, index) {
  const [, , height, width] = dims;
  const start = index * height * width;
  return Array.from({ length: height }, (_, row) => [...data.slice(start + row * width, start + (row + 1) * width)]);
}

/** Returns the model's input, uint8 (1, H, W, channels): EXIF orientation applied, transparency on white. */
async function pixels(file, channels) {
  const unusable = `${file.name}: cannot be read as an image (JPEG, PNG, WebP); repair or remove it`;
  const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  if (!SIGNATURES.some((bytes) => bytes.every((byte, index) => byte === head[index]))) throw new Error(unusable);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(unusable);
  }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    if (channels === 1) {
      values[to++] = (19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2] + 32768) >> 16; // as Pillow does
    } else {
      values[to++] = data[from];
      values[to++] = data[from + 1];
      values[to++] = data[from + 2];
    }
  }
  return new ort.Tensor("uint8", values, [1, height, width, channels]);
}
