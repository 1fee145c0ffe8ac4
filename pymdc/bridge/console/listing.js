// The files of a bucket in memory: fetched in pieces, filtered and sorted.

import * as bridge from "./bridge.js";

const PIECE = 5000; // files of one request: each checks the password, which takes the bridge 50 ms

/** Yield the files of a bucket in pieces. */
export async function* pieces(bucket, signal) {
  const path = `/buckets/${bucket}/files?limit=${PIECE}`;
  let after = "";
  for (;;) {
    const piece = await bridge.ask("GET", path + after, { signal });
    yield piece;
    if (piece.length < PIECE) return;
    after = `&after=${encodeURIComponent(piece.at(-1).hash)}`;
  }
}

export class Listing {
  constructor() {
    this.files = new Map(); // by hash, which identifies a file in its bucket
    this.selected = new Set(); // hashes
    this.filter = "";
    this.key = "filename";
    this.descending = false;
    this.byName = null; // all files, sorted; null when that has to be done again
  }

  add(files) {
    for (const file of files) {
      this.files.set(file.hash, { ...file, folded: file.filename.toLowerCase() });
    }
    this.byName = null;
  }

  remove(hash) {
    this.files.delete(hash);
    this.selected.delete(hash);
    this.byName = null;
  }

  sortBy(key) {
    this.descending = key === this.key ? !this.descending : key === "size" || key === "created";
    this.key = key;
  }

  /** Return the files that the filter leaves, in order; equal ones are in the order of names. */
  shown() {
    this.byName ??= [...this.files.values()].sort(ascending("folded"));
    const wanted = this.filter.toLowerCase();
    const found = this.byName.filter((file) => file.folded.includes(wanted));
    if (this.key === "filename") return this.descending ? found.reverse() : found;
    const compare = ascending(this.key);
    return found.sort(this.descending ? (one, other) => compare(other, one) : compare);
  }
}

// Not by a collator, which takes seconds for 100,000 names.
function ascending(key) {
  const value = (file) => file[key] ?? ""; // a file that was stored long ago has no time
  return (one, other) => (value(one) < value(other) ? -1 : value(one) > value(other) ? 1 : 0);
}
