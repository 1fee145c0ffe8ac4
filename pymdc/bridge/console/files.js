// The view of one bucket: its files, and what is done to several of them.

import * as bridge from "./bridge.js";
import { confirmDeletion, editBucket, loadBuckets, title, usageBar } from "./buckets.js";
import { putCommand, pythonUpload } from "./commands.js";
import { confirmDeletionOf } from "./deletion.js";
import { button, copyable, explained, h, notice, render } from "./elements.js";
import { download, showFile } from "./file.js";
import { makeReceiveLink } from "./links.js";
import { Listing, pieces } from "./listing.js";
import { bytes, counted, when } from "./texts.js";
import { dropZone, pickers, uploads } from "./uploads.js";

const ROWS = 200; // that are added at a time
const COLUMNS = [
  ["filename", "Name"],
  ["size", "Size"],
  ["mimetype", "Type"],
  ["created", "When"],
];

export async function showBucket({ signal, showDisk }, id) {
  const { usage, buckets } = await loadBuckets(signal);
  showDisk(usage.disk_free);
  const bucket = buckets.find((one) => one.id === id);
  if (!bucket) throw new bridge.BridgeError(404, "Bucket not found");
  const view = new BucketView(bucket, signal);
  view.show();
  await view.load();
}

class BucketView {
  constructor(bucket, signal) {
    this.bucket = bucket;
    this.signal = signal;
    this.listing = new Listing();
    this.rows = ROWS;
    this.loading = true;
    this.body = h("tbody", { role: "rowgroup" });
    this.summary = h("p", { class: "subtitle", "aria-live": "polite" });
    this.more = button("Show more", () => this.showMore(), { class: "more", hidden: true });
    this.bulk = h("div", {
      class: "bulk",
      role: "group",
      "aria-label": "Selected files",
      hidden: true,
    });
    this.heads = new Map(COLUMNS.map(([key, label]) => [key, this.head(key, label)]));
    this.all = h("input", {
      type: "checkbox",
      "aria-label": "Select all files shown",
      onchange: () => this.selectAll(),
    });
    this.usage = h("div");
    this.zone = dropZone(bucket.id, signal);
    uploads.addEventListener("stored", ({ detail }) => this.stored(detail), { signal });
    const seen = new IntersectionObserver(([entry]) => entry.isIntersecting && this.showMore());
    seen.observe(this.more);
    signal.addEventListener("abort", () => seen.disconnect());
  }

  show() {
    const { bucket } = this;
    const filter = h("input", {
      type: "search",
      id: "filter",
      placeholder: "Filter by name",
      "aria-label": "Filter by name",
      autocomplete: "off",
    });
    filter.addEventListener("input", () => this.filterBy(filter.value));
    render(
      title(bucket),
      h("p", { class: "path" }, h("a", { href: "#buckets" }, "Buckets"), " / ", title(bucket)),
      this.usage,
      h(
        "div",
        { class: "toolbar" },
        pickers(bucket.id),
        h("span", { class: "gap" }),
        button("Receive…", () => makeReceiveLink(bucket)),
        button("Edit…", () => editBucket(bucket, (changed) => this.changed(changed))),
        button("Delete…", () => confirmDeletion(bucket, () => (location.hash = "#buckets")), {
          class: "danger",
        }),
      ),
      this.zone,
      (this.tools = h("div", { class: "toolbar" }, filter, this.summary)),
      this.bulk,
      this.table(),
      this.more,
      this.commands(),
    );
    this.update();
  }

  table() {
    const heads = [...this.heads.values()].map((head) => head.cell);
    const select = h("th", { scope: "col", role: "columnheader", class: "check" }, this.all);
    const actions = h(
      "th",
      { scope: "col", role: "columnheader", class: "act" },
      h("span", { class: "unseen" }, "Download"),
    );
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, select, heads, actions));
    this.grid = h(
      "table",
      { class: "files", role: "table", "aria-label": "Files" },
      head,
      this.body,
    );
    return this.grid;
  }

  head(key, label) {
    const sort = button(label, () => this.sortBy(key), { class: "plain sort" });
    return { sort, cell: h("th", { scope: "col", role: "columnheader", class: key }, sort) };
  }

  commands() {
    return h(
      "details",
      { class: "commands" },
      h("summary", {}, "As pymdc, in Python"),
      copyable("the command that uploads", putCommand(this.bucket)),
      copyable("the same in Python", pythonUpload(this.bucket)),
      h(
        "p",
        { class: "hint" },
        "For curl, make a link with “Receive…”: its token stands in a command too.",
      ),
    );
  }

  async load() {
    for await (const piece of pieces(this.bucket.id, this.signal)) {
      const first = this.listing.files.size === 0;
      this.listing.add(piece);
      if (first) this.update();
      else this.summarize(this.listing.files.size);
    }
    this.loading = false;
    this.update();
  }

  /** A file was stored; many small ones are shown together. */
  stored({ bucket, entry }) {
    if (bucket !== this.bucket.id) return;
    const twin = this.listing.files.get(entry.hash);
    if (twin && twin.filename !== entry.filename) {
      notice(
        `${entry.filename} has the content of ${twin.filename}, so the two are one file, which has the new name.`,
      );
    }
    this.listing.add([entry]);
    this.bucket.usage.files = this.listing.files.size;
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      if (!this.signal.aborted) this.update();
    }, 300);
  }

  changed(bucket) {
    this.bucket = { ...bucket, usage: this.bucket.usage };
    this.show();
  }

  filterBy(text) {
    this.listing.filter = text;
    this.rows = ROWS;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.update(), this.listing.files.size > 5000 ? 200 : 0);
  }

  sortBy(key) {
    this.listing.sortBy(key);
    this.update();
  }

  showMore() {
    if (this.rows >= this.shown.length) return;
    const [from, to] = [this.rows, this.rows + ROWS];
    this.rows = to;
    this.body.append(...this.shown.slice(from, to).map((file) => this.row(file)));
    this.more.hidden = this.rows >= this.shown.length;
  }

  update() {
    const { listing } = this;
    this.shown = listing.shown();
    for (const [key, { cell, sort }] of this.heads) {
      const sorted = key === listing.key;
      cell.setAttribute(
        "aria-sort",
        sorted ? (listing.descending ? "descending" : "ascending") : "none",
      );
      sort.dataset.sorted = sorted ? (listing.descending ? "↓" : "↑") : "";
    }
    this.keepFocus(() =>
      this.body.replaceChildren(...this.shown.slice(0, this.rows).map((file) => this.row(file))),
    );
    this.more.hidden = this.rows >= this.shown.length;
    this.grid.hidden = !this.shown.length;
    this.tools.hidden = !listing.files.size && !this.loading;
    let stored = 0;
    for (const file of listing.files.values()) stored += file.size;
    if (!this.loading) this.bucket.usage.stored = stored;
    this.usage.replaceChildren(usageBar(this.bucket));
    this.summarize(this.shown.length);
    this.showBulk();
  }

  /** Keep the focus on the same file's control while the rows are made anew. */
  keepFocus(change) {
    const focused = this.body.contains(document.activeElement) && document.activeElement;
    const [hash, kind] = focused ? [focused.closest("tr").dataset.hash, focused.dataset.kind] : [];
    change();
    if (hash)
      this.body.querySelector(`tr[data-hash="${CSS.escape(hash)}"] [data-kind="${kind}"]`)?.focus();
  }

  summarize(count) {
    const total = counted(this.listing.files.size, "file");
    let text = total;
    if (this.loading) text = `Loading… ${total} so far`;
    else if (this.listing.filter) text = `${count.toLocaleString()} of ${total}`;
    else if (!count) text = "No files yet";
    this.summary.textContent = text;
  }

  row(file) {
    const { hash, filename } = file;
    const check = h("input", {
      type: "checkbox",
      "data-kind": "check",
      "aria-label": `Select ${filename}`,
      onchange: (event) => this.select(hash, event.target.checked),
    });
    check.checked = this.listing.selected.has(hash);
    const cell = (name, ...children) => h("td", { role: "cell", class: name }, ...children);
    return h(
      "tr",
      { role: "row", "data-hash": hash },
      cell("check", check),
      cell(
        "filename",
        button(filename, () => this.open(file), { class: "plain name", "data-kind": "name" }),
      ),
      cell("size", bytes(file.size)),
      cell("mimetype", file.mimetype),
      cell("created", file.created && h("time", { datetime: file.created }, when(file.created))),
      cell(
        "act",
        button("↓", (event) => this.download(file, event.target), {
          class: "plain",
          "data-kind": "act",
          title: "Download",
          "aria-label": `Download ${filename}`,
        }),
      ),
    );
  }

  open(file) {
    showFile(this.bucket, file, {
      renamed: (entry) => {
        this.listing.add([{ ...file, ...entry }]);
        this.update();
      },
      remove: () => this.confirm([file]),
    });
  }

  async download(file, source) {
    source.disabled = true;
    try {
      await download(this.bucket, file);
    } catch (error) {
      notice(explained(error), "bad");
    } finally {
      source.disabled = false;
      source.focus();
    }
  }

  select(hash, on) {
    if (on) this.listing.selected.add(hash);
    else this.listing.selected.delete(hash);
    this.showBulk();
  }

  selectAll() {
    for (const { hash } of this.shown) {
      if (this.all.checked) this.listing.selected.add(hash);
      else this.listing.selected.delete(hash);
    }
    for (const box of this.body.querySelectorAll("[data-kind=check]"))
      box.checked = this.all.checked;
    this.showBulk();
  }

  showBulk() {
    const { selected } = this.listing;
    const count = selected.size;
    const ticked = this.shown.filter((file) => selected.has(file.hash)).length;
    this.all.checked = ticked > 0 && ticked === this.shown.length;
    this.all.indeterminate = ticked > 0 && ticked < this.shown.length;
    const changed = this.bulk.hidden !== (count === 0);
    this.bulk.hidden = count === 0;
    if (!count) return;
    if (changed || !this.bulk.childElementCount) {
      this.bulk.replaceChildren(
        h("span", { "aria-live": "polite" }),
        button("Delete…", () => this.confirm(this.chosen()), { class: "danger" }),
        button("Clear", () => this.clear(), { class: "plain" }),
      );
    }
    this.bulk.firstChild.textContent = `${counted(count, "file")} selected`;
  }

  chosen() {
    return [...this.listing.selected].map((hash) => this.listing.files.get(hash));
  }

  clear() {
    this.listing.selected.clear();
    this.update();
    this.all.focus();
  }

  /** Ask whether to delete *files*; what failed stays selected. */
  confirm(files) {
    confirmDeletionOf(files, this.bucket, {
      deleted: (file) => this.listing.remove(file.hash),
      closed: () => {
        this.bucket.usage.files = this.listing.files.size;
        this.update();
      },
    });
  }
}
