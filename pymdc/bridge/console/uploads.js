// Uploads: a queue that goes on while other views are shown, and its panel.

import * as bridge from "./bridge.js";
import { onDrop } from "./dropped.js";
import { announce, button, explained, focusHeading, h } from "./elements.js";
import { checkRoom } from "./room.js";
import { sendFile } from "./sending.js";
import { Speed } from "./speed.js";
import { bytes, counted } from "./texts.js";

const AT_ONCE = 3;
const SHOWN_FAILURES = 50;
const SHOWN_AFTER = 5000; // milliseconds that the panel stays if nothing failed

/** Sends "stored" {bucket, entry}. */
export const uploads = new EventTarget();

const waiting = [];
const running = new Set();
const failed = new Set();
let stored = 0;
let speed = null;
let sent = 0; // bytes of the uploads that are over

const panel = document.getElementById("uploads");
const title = h("h2", { tabindex: "-1" });
const rate = h("p", { class: "facts" });
const list = h("ul");
const cancel = button("Cancel all", () => cancelAll(), { class: "plain" });
const dismiss = button("Close", () => close(), { class: "plain" });
panel.append(h("div", { class: "panel-head" }, title, cancel, dismiss), rate, list);

/** Queue *files* for a bucket. */
export function upload(bucket, files) {
  for (const file of files) waiting.push(new Upload(bucket, file));
  speed ??= new Speed();
  startNext();
}

function cancelAll() {
  waiting.length = 0;
  for (const one of [...running]) one.cancel();
  show();
}

/** Cancel everything, and show nothing of it: somebody else may sign in now. */
export function endUploads() {
  cancelAll();
  speed = null; // so that nothing is announced when the last one has ended
  announce("");
  forget();
}

/** A button for files and one for a folder. */
export function pickers(bucket) {
  return [
    picker("Upload files", bucket, { multiple: true }, "primary"),
    picker("Upload a folder", bucket, { webkitdirectory: true }),
  ];
}

/** What says that files can be dropped; they can, anywhere on the page. */
export function dropZone(bucket, signal) {
  onDrop((files) => upload(bucket, files), signal);
  return h(
    "p",
    { class: "drop" },
    "Drop files or folders anywhere on this page. A file keeps its name, without the folders around it.",
  );
}

class Upload {
  constructor(bucket, file) {
    this.bucket = bucket;
    this.file = file;
    this.sent = 0;
  }

  async run() {
    this.stop = new AbortController();
    this.speed = new Speed();
    this.makeRow();
    running.add(this);
    try {
      await checkRoom(this.bucket, this.file.size, this.stop.signal);
      const token = (signal) => bridge.newToken(this.bucket, "PUSH", signal);
      const entry = await sendFile(
        this.bucket,
        this.file,
        token,
        (done) => this.progress(done),
        this.stop.signal,
      );
      stored++;
      sent += this.file.size;
      this.removeRow();
      uploads.dispatchEvent(new CustomEvent("stored", { detail: { bucket: this.bucket, entry } }));
    } catch (error) {
      if (this.stop.signal.aborted) this.removeRow();
      else this.fail(error);
    }
    running.delete(this);
    startNext();
  }

  cancel() {
    this.stop.abort();
    announce(`${this.file.name} is cancelled.`);
  }

  makeRow() {
    this.row?.remove();
    this.bar = h("progress", {
      max: this.file.size || 1,
      value: 0,
      "aria-label": `Progress of ${this.file.name}`,
    });
    this.text = h("p", { class: "facts" }, "Waiting for the bridge");
    this.actions = h(
      "div",
      { class: "actions" },
      button("Cancel", () => this.cancel(), {
        class: "plain",
        "aria-label": `Cancel ${this.file.name}`,
      }),
    );
    this.row = h(
      "li",
      {},
      h("p", { class: "name" }, this.file.name),
      this.actions,
      this.bar,
      this.text,
    );
    list.append(this.row);
  }

  /** Remove the row; the focus goes to the head of the panel if it was there. */
  removeRow() {
    const focused = this.row.contains(document.activeElement);
    this.row.remove();
    if (focused) title.focus();
  }

  progress(done) {
    if (done === null) {
      this.sent = this.file.size;
      this.bar.removeAttribute("value");
      this.text.textContent = "Storing…";
    } else {
      this.sent = done;
      this.bar.value = done;
      const percent = Math.floor((100 * done) / (this.file.size || 1));
      this.text.textContent = `${percent} % · ${bytes(done)} of ${bytes(this.file.size)} · ${bytes(this.speed.at(done))}/s`;
    }
    showRate();
  }

  fail(error) {
    failed.add(this);
    this.bar.remove();
    this.text.className = "error";
    this.text.textContent = explained(error);
    this.actions.replaceChildren(
      button("Try again", () => this.again(), { "aria-label": `Try ${this.file.name} again` }),
      button("Dismiss", () => this.dismiss(), {
        class: "plain",
        "aria-label": `Dismiss ${this.file.name}`,
      }),
    );
    if (failed.size > SHOWN_FAILURES) this.row.remove();
    announce(`${this.file.name} was not stored. ${explained(error)}`);
  }

  again() {
    failed.delete(this);
    this.removeRow();
    waiting.unshift(this);
    speed ??= new Speed();
    startNext();
  }

  dismiss() {
    failed.delete(this);
    this.removeRow();
    show();
  }
}

function startNext() {
  while (running.size < AT_ONCE && waiting.length) waiting.shift().run();
  show();
  if (!running.size && speed) finish();
}

function finish() {
  speed = null;
  announce(summary());
  setTimeout(() => {
    if (!speed && !failed.size && !panel.contains(document.activeElement)) forget();
  }, SHOWN_AFTER);
}

function show() {
  const active = running.size + waiting.length;
  panel.hidden = !(active || failed.size || stored);
  title.textContent = active ? `Uploading ${counted(active, "file")}` : summary();
  cancel.hidden = !active;
  dismiss.hidden = Boolean(active);
  window.onbeforeunload = active ? (event) => event.preventDefault() : null;
  showRate();
}

function showRate() {
  let done = sent;
  for (const one of running) done += one.sent;
  const parts = [
    stored && `${counted(stored, "file")} stored`,
    waiting.length && `${waiting.length} waiting`,
    speed && `${bytes(speed.at(done))}/s`,
  ];
  rate.textContent = running.size ? parts.filter(Boolean).join(" · ") : "";
}

function summary() {
  const failures = failed.size ? `, ${failed.size} failed` : "";
  return stored || failed.size ? `${counted(stored, "file")} stored${failures}` : "Nothing stored";
}

function forget() {
  for (const one of failed) one.row.remove();
  failed.clear();
  stored = 0;
  sent = 0;
  show();
}

function close() {
  forget();
  focusHeading();
}

function picker(label, bucket, attributes, kind = "") {
  const input = h("input", { type: "file", hidden: true, ...attributes });
  input.addEventListener("change", () => {
    upload(bucket, [...input.files]);
    input.value = "";
  });
  return [button(label, () => input.click(), { class: kind }), input];
}
