// Backend with a server: images are sent to it.
export const parallel = 4; // images at a time, so that the server can batch them
export const privacy = "The server does not store images.";

const RETRIES = 5; // if the server is busy
const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function request(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not respond; is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const error = new Error(body.error?.message ?? `${response.status} ${response.statusText}`); // a proxy may not send JSON
  error.retryAfter = response.headers.get("Retry-After");
  throw error;
}

export const describe = () => request("metadata");

export async function predict(file, model, coverage) {
  if (file.size > model.limits.body_bytes) {
    throw new Error(`larger than ${(model.limits.body_bytes / 1e6).toFixed(0)} MB, the server's limit`);
  }
  const form = new FormData();
  form.append("image", file);
  const maps = model.outputs.includes("activation_maps");
  const sets = coverage ? `&coverage=${coverage}` : "";
  for (let times = 1; ; times += 1) {
    try {
      const { images, milliseconds } = await request(`predict?top=5&activation_maps=${maps}${sets}`, { method: "POST", body: form });
      return { ...images[0], unsure: images[0].predicted === null, milliseconds };
    } catch (error) {
      if (!error.retryAfter || times > RETRIES) throw error;
      await wait(Number(error.retryAfter));
    }
  }
}
