// The preview of a file. Images are raster images, by a fixed list: an SVG, as an HTML page, could
// hold scripts, which would run as this page's if somebody opened it in a tab. Both are shown as text.

import * as bridge from "./bridge.js";
import { explained, h } from "./elements.js";
import { bytes } from "./texts.js";

const IMAGES = new Set([
  "image/png",
  "image/jpeg",
  "image/gif",
  "image/webp",
  "image/avif",
  "image/bmp",
]);
const MAX_IMAGE = 10_000_000; // bytes
const MAX_TEXT = 100_000; // bytes; longer texts are cut
const TEXTS = /^text\/|^image\/svg|[/+](json|xml|yaml|x-yaml|toml|javascript|x-sh|x-python|sql)$/;
const TEXT_NAMES =
  /\.(txt|md|rst|csv|tsv|log|json|ya?ml|toml|ini|cfg|conf|py|js|ts|c|h|cpp|rs|go|java|sh|sql|xml|html?|css|svg)$/i;

/** Return an element in which the preview of a file appears. */
export function preview(bucket, file, signal) {
  const make = maker(file);
  const box = h("div", { class: "preview", "aria-busy": Boolean(make) });
  if (!make) return box;
  box.append(h("p", { class: "hint" }, "Loading the preview…"));
  make(bucket, file, signal)
    .then((content) => box.replaceChildren(...content))
    .catch((error) => {
      if (!signal.aborted)
        box.replaceChildren(h("p", { class: "hint" }, `No preview: ${explained(error)}`));
    })
    .finally(() => box.removeAttribute("aria-busy"));
  return box;
}

function maker({ mimetype, filename, size }) {
  if (IMAGES.has(mimetype) && size <= MAX_IMAGE) return image;
  if ((TEXTS.test(mimetype) || TEXT_NAMES.test(filename)) && size > 0) return text;
  return null;
}

async function image(bucket, file, signal) {
  const response = await content(bucket, file, signal);
  const url = URL.createObjectURL(new Blob([await response.blob()], { type: file.mimetype }));
  signal.addEventListener("abort", () => URL.revokeObjectURL(url));
  return [h("img", { src: url, alt: `Preview of ${file.filename}` })];
}

async function text(bucket, file, signal) {
  const response = await content(bucket, file, signal, { Range: `bytes=0-${MAX_TEXT - 1}` });
  const shown = new TextDecoder().decode(await response.arrayBuffer());
  const cut = file.size > MAX_TEXT && h("p", { class: "hint" }, `The first ${bytes(MAX_TEXT)}.`);
  return [
    h("pre", { tabindex: "0", role: "group", "aria-label": `Text of ${file.filename}` }, shown),
    cut,
  ].filter(Boolean);
}

async function content(bucket, file, signal, headers = {}) {
  const token = await bridge.newToken(bucket.id, "PULL", signal);
  const path = bridge.contentPath(bucket.id, file.hash);
  return bridge.send("GET", path, { as: null, signal, headers: { ...headers, "x-token": token } });
}
