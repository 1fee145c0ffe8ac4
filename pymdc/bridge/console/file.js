// One file: its preview, and what can be done with it.

import * as bridge from "./bridge.js";
import { curlDownload, getCommand, pythonDownload } from "./commands.js";
import {
  announce,
  button,
  copyable,
  copyButton,
  field,
  form,
  h,
  openDialog,
  showError,
} from "./elements.js";
import { preview } from "./preview.js";
import { bytes, timeIn, when } from "./texts.js";

/** Let the browser download a file; it streams it to the disk. */
export async function download(bucket, file) {
  const token = await bridge.newToken(bucket.id, "PULL");
  await startDownload(bridge.contentPath(bucket.id, file.hash), token);
  announce(`${file.filename} is being downloaded.`);
}

/** Download what *token* is for; HEAD, which does not spend it, tells first whether that will go. */
export async function startDownload(path, token) {
  await bridge.send("HEAD", path, { as: null, headers: { "x-token": token } });
  const link = h("a", { href: `${path}?token=${encodeURIComponent(token)}`, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Show a file in a dialog; *renamed* gets its new entry, and *remove* asks whether to delete it. */
export function showFile(bucket, file, { renamed, remove }) {
  const stop = new AbortController();
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const shared = h("div");
  const trying = (action) => async (event) => {
    error.hidden = true;
    event.target.disabled = true;
    try {
      await action();
    } catch (problem) {
      showError(error, problem);
    }
    event.target.disabled = false;
  };
  const facts = [file.mimetype, bytes(file.size), when(file.created)].filter(Boolean).join(" · ");
  const dialog = openDialog(
    file.filename,
    h("p", { class: "facts" }, facts),
    preview(bucket, file, stop.signal),
    h(
      "div",
      { class: "actions" },
      button(
        "Download",
        trying(() => download(bucket, file)),
        { class: "primary" },
      ),
      button(
        "Share…",
        trying(() => share(bucket, file, shared)),
      ),
      button("Rename…", () => rename(bucket, file, dialog, renamed)),
      button(
        "Delete…",
        () => {
          dialog.close();
          remove();
        },
        { class: "danger" },
      ),
    ),
    error,
    shared,
    h("p", { class: "hash" }, "Hash ", h("code", {}, file.hash), copyButton(file.hash, "the hash")),
    h(
      "details",
      { class: "commands" },
      h("summary", {}, "As pymdc, in Python, with curl"),
      copyable("the command that downloads the file", getCommand(bucket, file)),
      copyable("the same in Python", pythonDownload(bucket, file)),
      h("p", { class: "hint" }, "For curl, press “Share…”: its token stands in a command too."),
    ),
  );
  dialog.classList.add("wide");
  dialog.addEventListener("close", () => stop.abort());
}

async function share(bucket, file, box) {
  const token = await bridge.newToken(bucket.id, "PULL");
  const link = `${location.origin}/#get/${bucket.id}/${file.hash}/${token}`;
  box.replaceChildren(
    h("h3", {}, "A link to share"),
    h(
      "p",
      { class: "hint" },
      `Works once, until ${timeIn(5)}; no account is needed. The link and the command have the same token, so one of them works.`,
    ),
    copyable("the link", link),
    copyable("the command", curlDownload(bridge.contentPath(bucket.id, file.hash), token)),
  );
  announce("The link is ready.");
  box.querySelector("button").focus();
}

function rename(bucket, file, parent, renamed) {
  const fields = [
    field("Name", {
      name: "filename",
      value: file.filename,
      required: true,
      maxlength: "1024",
      autocomplete: "off",
    }),
  ];
  const dialog = openDialog(
    "Rename",
    form(fields, "Rename", async ({ filename }) => {
      const path = `/buckets/${bucket.id}/files/${file.hash}`;
      const entry = await bridge.ask("PATCH", path, { body: { filename } });
      dialog.close();
      parent.close();
      renamed(entry);
      announce("The file is renamed.");
    }),
  );
}
