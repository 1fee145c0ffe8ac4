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
  }

  add(files) {
    for (const file of files)
      this.files.set(file.hash, { ...file, folded: file.filename.toLowerCase() });
  }

  remove(hash) {
    this.files.delete(hash);
    this.selected.delete(hash);
  }

  sortBy(key) {
    this.descending = key === this.key ? !this.descending : key === "size" || key === "created";
    this.key = key;
  }

  /** Return the files that the filter leaves, in order. */
  shown() {
    const wanted = this.filter.toLowerCase();
    const found = [...this.files.values()].filter((file) => file.folded.includes(wanted));
    const key = this.key === "filename" ? "folded" : this.key;
    const sign = this.descending ? -1 : 1;
    return found.sort(
      (one, other) => sign * compare(one[key], other[key]) || compare(one.folded, other.folded),
    );
  }
}

// Not by a collator, which takes seconds for 100,000 names.
const compare = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
