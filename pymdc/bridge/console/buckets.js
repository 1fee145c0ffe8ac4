// The list of buckets, and the dialogs that change one.

import * as bridge from "./bridge.js";
import { announce, button, field, form, h, openDialog, render } from "./elements.js";
import { counted, GB, ofQuota } from "./texts.js";

const NOTHING = { stored: 0, files: 0, transferred: 0 };

/** Return the buckets, each with its usage in bytes: stored, files, transferred. */
export async function loadBuckets(signal) {
  const [buckets, usage] = await Promise.all([
    bridge.ask("GET", "/buckets", { signal }),
    bridge.ask("GET", "/usage", { signal }),
  ]);
  const used = new Map(usage.buckets.map((entry) => [entry.id, entry]));
  return {
    usage,
    buckets: buckets.map((bucket) => ({ ...bucket, usage: used.get(bucket.id) ?? NOTHING })),
  };
}

export async function showBuckets({ signal, showDisk }) {
  const { usage, buckets } = await loadBuckets(signal);
  showDisk(usage.disk_free);
  buckets.sort((one, other) => title(one).localeCompare(title(other)));
  render(
    "Buckets",
    h(
      "div",
      { class: "toolbar" },
      button(
        "New bucket",
        () => editBucket(null, (made) => (location.hash = `#bucket/${made.id}`)),
        { class: "primary" },
      ),
      h("p", { class: "subtitle" }, `${ofQuota(usage.stored, usage.limit)} stored`),
    ),
    buckets.length
      ? h("ul", { class: "cards" }, buckets.map(card))
      : h("div", { class: "empty card" }, h("p", {}, "A bucket holds files. Make the first one.")),
  );
}

export const title = (bucket) => bucket.name || "(no name)";

function card(bucket) {
  const { files, transferred } = bucket.usage;
  return h(
    "li",
    { class: "card" },
    h("h2", {}, h("a", { href: `#bucket/${bucket.id}` }, title(bucket))),
    usageBar(bucket),
    h(
      "p",
      { class: "facts" },
      [
        counted(files, "file"),
        counted(bucket.pubkeys.length, "key"),
        `${ofQuota(transferred, bucket.transfer)} sent this month`,
      ].join(" · "),
    ),
  );
}

/** Show how much of the storage of a bucket is used. */
export function usageBar({ usage, storage }) {
  const text = ofQuota(usage.stored, storage);
  if (storage === null) return h("p", { class: "usage" }, text);
  const bar = h("progress", {
    max: storage * GB || 1,
    value: storage ? usage.stored : 1,
    "aria-label": `Storage: ${text}`,
    class: usage.stored > 0.9 * storage * GB ? "nearly-full" : "",
  });
  return h("div", { class: "usage" }, bar, h("p", {}, text));
}

/** Ask for the name, the quotas and the keys of a new bucket, or of *bucket*. */
export function editBucket(bucket, done) {
  const quota = { type: "number", min: "0", step: "any", inputmode: "decimal" };
  const fields = [
    field("Name", {
      name: "name",
      required: true,
      maxlength: "1024",
      value: bucket?.name ?? "",
      autocomplete: "off",
    }),
    h(
      "div",
      { class: "pair" },
      field(
        "Storage in GB",
        { ...quota, name: "storage", value: bucket ? bucket.storage : 10 },
        "Empty is without limit.",
      ),
      field(
        "Transfer in GB a month",
        { ...quota, name: "transfer", value: bucket ? bucket.transfer : 30 },
        "Empty is without limit.",
      ),
    ),
    field(
      "Public keys",
      { name: "pubkeys", rows: "3", spellcheck: "false", value: bucket?.pubkeys.join("\n") ?? "" },
      "One a line. Whoever has one of these key pairs may upload and download, and nothing else; no account is needed.",
    ),
  ];
  const dialog = openDialog(
    bucket ? "Edit the bucket" : "A new bucket",
    form(fields, bucket ? "Save" : "Make the bucket", async (values) => {
      const [method, path] = bucket ? ["PATCH", `/buckets/${bucket.id}`] : ["POST", "/buckets"];
      const answer = await bridge.ask(method, path, { body: changes(values) });
      dialog.close();
      announce(bucket ? "The bucket is changed." : "The bucket is made.");
      done(answer);
    }),
  );
}

const changes = ({ name, storage, transfer, pubkeys }) => ({
  name: name.trim(),
  storage: number(storage),
  transfer: number(transfer),
  pubkeys: pubkeys.split(/\s+/).filter(Boolean),
});

const number = (text) => (text === "" ? null : Number(text));

/** Ask for the name of *bucket*, so that nobody deletes it by a slip. */
export function confirmDeletion(bucket, done) {
  const typed = field("Type the name of the bucket", {
    name: "typed",
    autocomplete: "off",
    required: true,
    spellcheck: "false",
  });
  const sure = form(
    [typed],
    "Delete the bucket",
    async () => {
      await bridge.ask("DELETE", `/buckets/${bucket.id}`);
      dialog.close();
      announce("The bucket is deleted.");
      done();
    },
    "danger",
  );
  const submit = sure.querySelector("[type=submit]");
  submit.disabled = true;
  const isSure = () => typed.querySelector("input").value === title(bucket);
  typed.addEventListener("input", () => (submit.disabled = !isSure()));
  const dialog = openDialog(
    "Delete this bucket?",
    h(
      "p",
      {},
      h("strong", {}, title(bucket)),
      ` and ${counted(bucket.usage.files, "file")} in it are deleted for good.`,
    ),
    sure,
  );
}
