// Whether a large file fits. The bridge refuses one that does not before it is sent, but browsers
// read an answer only when they have sent everything.

import { ask, BridgeError } from "./bridge.js";
import { bytes, GB } from "./texts.js";

const LARGE = 10_000_000; // bytes

/** Throw BridgeError if the bucket, the account or the disk has no room for *size* bytes. */
export async function checkRoom(bucket, size, signal) {
  if (size < LARGE) return;
  const [usage, { storage }] = await Promise.all([
    ask("GET", "/usage", { signal }),
    ask("GET", `/buckets/${bucket}`, { signal }),
  ]);
  const stored = usage.buckets.find(({ id }) => id === bucket)?.stored ?? 0;
  const room = Math.min(left(storage, stored), left(usage.limit, usage.stored));
  if (size > room) {
    const message = `The file has ${bytes(size)}, and there is room for ${bytes(Math.max(room, 0))}`;
    throw new BridgeError(413, message);
  }
  if (size > (usage.disk_free ?? Infinity)) {
    throw new BridgeError(507, `The file has ${bytes(size)}`);
  }
}

const left = (quota, used) => (quota === null ? Infinity : quota * GB - used);
