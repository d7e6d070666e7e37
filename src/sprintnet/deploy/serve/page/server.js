// The server answers: pictures are sent to it.
export const parallel = 4; // pictures at a time, so that it can answer them together
export const privacy = "The server keeps none of them.";

const PATIENCE = 5; // times a busy server is asked again
const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(address, request) {
  let response;
  try {
    response = await fetch(address, request);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const error = new Error(body.error?.message ?? `${response.status} ${response.statusText}`); // not every proxy speaks JSON
  error.again = response.headers.get("Retry-After");
  throw error;
}

export const describe = () => ask("metadata");

export async function answer(file, model) {
  if (file.size > model.limits.body_bytes) {
    throw new Error(`larger than ${(model.limits.body_bytes / 1e6).toFixed(0)} MB, the most that the server takes`);
  }
  const form = new FormData();
  form.append("image", file);
  const maps = model.outputs.includes("maps");
  for (let times = 1; ; times += 1) {
    try {
      const { images, milliseconds } = await ask(`predict?top=5&maps=${maps}`, { method: "POST", body: form });
      return { labels: images[0].labels, top: images[0].top, milliseconds };
    } catch (error) {
      if (!error.again || times > PATIENCE) throw error;
      await wait(Number(error.again));
    }
  }
}
