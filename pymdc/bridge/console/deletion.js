// The dialog that deletes files.

import * as bridge from "./bridge.js";
import { announce, form, h, openDialog } from "./elements.js";
import { counted } from "./texts.js";

const NAMED = 5; // files

/** Ask, then delete *files* one after the other; *deleted* gets each, and *closed* is told the end. */
export function confirmDeletionOf(files, bucket, { deleted, closed }) {
  const one = files.length === 1;
  const progress = h("progress", {
    max: files.length,
    value: 0,
    "aria-label": "Deleted",
    hidden: true,
  });
  const stop = new AbortController();
  const sure = form(
    [],
    "Delete",
    async () => {
      progress.hidden = one;
      for (const file of files.slice(progress.value)) {
        const path = `/buckets/${bucket.id}/files/${file.hash}`;
        await bridge.ask("DELETE", path, { signal: stop.signal }).catch(unlessGone);
        deleted(file);
        progress.value++;
      }
      dialog.close();
      announce(`${counted(files.length, "file")} deleted.`);
    },
    "danger",
  );
  const dialog = openDialog(
    one ? "Delete this file?" : `Delete ${counted(files.length, "file")}?`,
    h("ul", { class: "names" }, names(files)),
    h("p", {}, one ? "It is deleted for good." : "They are deleted for good."),
    progress,
    sure,
  );
  dialog.addEventListener("close", () => {
    stop.abort();
    closed();
  });
}

function unlessGone(error) {
  if (error.status !== 404) throw error;
}

function names(files) {
  const rest = files.length - NAMED;
  const named = files.slice(0, NAMED).map((file) => h("li", {}, file.filename));
  return [named, rest > 0 && h("li", {}, `and ${rest} more`)];
}
