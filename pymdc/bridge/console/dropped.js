// Files that are dropped, also from folders and the folders in them.

/** Call *take* with the files that are dropped anywhere on the page, until *signal*. */
export function onDrop(take, signal) {
  const mark = (on) => document.body.classList.toggle("dragging", on);
  const listen = (name, listener) => window.addEventListener(name, listener, { signal });
  listen("dragover", (event) => mark(event.dataTransfer.types.includes("Files")));
  listen("dragleave", (event) => event.relatedTarget || mark(false));
  listen("drop", async (event) => {
    mark(false);
    const files = await droppedFiles(event.dataTransfer);
    if (files.length) take(files);
  });
  signal.addEventListener("abort", () => mark(false));
}

async function droppedFiles(transfer) {
  // The items are gone after the first wait.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A folder is read in pieces, of 100 entries in Chromium.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const inner of entries) found.push(...(await filesIn(inner)));
  }
}
