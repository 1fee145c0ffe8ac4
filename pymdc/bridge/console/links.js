// Links for people without an account: to get a file, and to send one. Each works once.

import * as bridge from "./bridge.js";
import { curlUpload } from "./commands.js";
import { onDrop } from "./dropped.js";
import { button, copyable, form, h, openDialog, render, showError } from "./elements.js";
import { startDownload } from "./file.js";
import { sendFile } from "./sending.js";
import { Speed } from "./speed.js";
import { bytes, timeIn } from "./texts.js";

const GONE =
  "This link does not work any more: it has been used, or it is older than five minutes. Ask for a new one.";

/** Make a link with which somebody without an account stores one file in *bucket*. */
export function makeReceiveLink(bucket) {
  const made = h("div");
  const dialog = openDialog(
    "Receive a file",
    h(
      "p",
      {},
      "Make a link for somebody who has no account. With it, that person stores one file in this bucket.",
    ),
    form([], "Make a link", async () => {
      const token = await bridge.newToken(bucket.id, "PUSH");
      made.replaceChildren(
        h(
          "p",
          { class: "hint" },
          `Works once, until ${timeIn(5)}. The link and the command have the same token, so one of them works.`,
        ),
        copyable("the link", `${location.origin}/#receive/${bucket.id}/${token}`),
        copyable("the command", curlUpload(bucket.id, token)),
      );
    }),
    made,
  );
  dialog.classList.add("wide");
}

/** The page of a link to get a file. To look at it does not use the link up; the button does. */
export async function showGet({ signal }, bucket, hash, token) {
  const path = bridge.contentPath(bucket, hash);
  let response;
  try {
    response = await bridge.send("HEAD", path, { as: null, signal, headers: { "x-token": token } });
  } catch (error) {
    if (error.status !== 401) throw error;
    render("A file for you", h("div", { class: "card narrow front" }, h("p", {}, GONE)));
    return;
  }
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const get = button("Download", start, { class: "primary" });
  const card = h(
    "div",
    { class: "card narrow front" },
    h("p", { class: "name" }, fileName(response.headers.get("content-disposition")) || "A file"),
    h("p", { class: "facts" }, bytes(Number(response.headers.get("content-length")))),
    h("div", { class: "actions" }, get),
    error,
    h("p", { class: "hint" }, "The link works once, and for five minutes after it was made."),
  );
  render("A file for you", card);

  async function start() {
    get.disabled = true;
    try {
      await startDownload(path, token);
      card.replaceChildren(
        h("p", { role: "status" }, "The download has begun. The link is used up."),
      );
    } catch (problem) {
      get.disabled = false;
      showError(error, problem);
    }
  }
}

/** The page of a link to send a file. */
export function showReceive({ signal }, bucket, token) {
  const input = h("input", { type: "file", hidden: true, onchange: () => take([...input.files]) });
  const card = h(
    "div",
    { class: "card narrow front" },
    h("p", {}, "Drop a file here, or choose one."),
    h(
      "div",
      { class: "actions" },
      button("Choose a file", () => input.click(), { class: "primary" }),
      input,
    ),
    h(
      "p",
      { class: "hint" },
      "The link is good for one file, and for five minutes after it was made.",
    ),
  );
  render("Send a file", card);
  onDrop(take, signal);
  let begun = false;

  async function take([file]) {
    if (begun || !file) return;
    begun = true;
    const stop = new AbortController();
    const speed = new Speed();
    const bar = h("progress", {
      max: file.size || 1,
      value: 0,
      "aria-label": `Progress of ${file.name}`,
    });
    const text = h("p", { class: "facts", role: "status" });
    const cancel = button("Cancel", () => stop.abort());
    card.replaceChildren(
      h("p", { class: "name" }, file.name),
      bar,
      text,
      h("div", { class: "actions" }, cancel),
    );
    cancel.focus();
    try {
      await sendFile(bucket, file, async () => token, progress, stop.signal);
      card.replaceChildren(
        h(
          "p",
          { role: "status" },
          h("strong", {}, file.name),
          ` has arrived, ${bytes(file.size)}. Thank you.`,
        ),
      );
    } catch (error) {
      const failed = h("p", { class: "error", role: "alert" });
      if (stop.signal.aborted)
        failed.textContent =
          "Cancelled: nothing is stored. The link is used up; ask for a new one.";
      else if (error.status === 401) failed.textContent = GONE;
      else showError(failed, error);
      card.replaceChildren(h("p", { class: "name" }, file.name), failed);
    }

    function progress(done) {
      if (done === null) {
        bar.removeAttribute("value");
        text.textContent = "Storing…";
        return;
      }
      bar.value = done;
      text.textContent = `${bytes(done)} of ${bytes(file.size)} · ${bytes(speed.at(done))}/s`;
    }
  }
}

/** Return the file name in a Content-Disposition (RFC 6266). */
function fileName(disposition) {
  const [, extended] = /filename\*=UTF-8''([^;]+)/i.exec(disposition ?? "") ?? [];
  if (extended) return decodeURIComponent(extended);
  const [, plain] = /filename="((?:[^"\\]|\\.)*)"/i.exec(disposition ?? "") ?? [];
  return plain?.replace(/\\(.)/g, "$1");
}
