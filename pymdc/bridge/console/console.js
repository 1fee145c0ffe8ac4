// The console: which view is shown, who is signed in, and what the bridge tells about itself.

import { showAccount, showForgot, showRegister, showReset, showSignIn } from "./account.js";
import * as bridge from "./bridge.js";
import { showBuckets } from "./buckets.js";
import { button, explained, h, notice, render } from "./elements.js";
import { showBucket } from "./files.js";
import { showGet, showReceive } from "./links.js";
import { bytes } from "./texts.js";
import { endUploads } from "./uploads.js";

const HELLO = "#activated";
const WRONG_LINK = "#not-activated";

// What follows # in the address, the view, and whether only somebody who is signed in may see it.
const VIEWS = [
  [/^#register$/, showRegister, false],
  [/^#forgot$/, showForgot, false],
  [/^#reset$/, showReset, false],
  [/^#get\/(\w+)\/(\w+)\/(\w+)$/, showGet, false],
  [/^#receive\/(\w+)\/(\w+)$/, showReceive, false],
  [/^#account$/, showAccount, true],
  [/^#bucket\/(\w+)$/, showBucket, true],
  [/^/, showBuckets, true],
];
const REGISTRATION = { open: "open to everybody", invite: "by invitation", closed: "closed" };

const info = { registration: "open", version: "" };
let disk = null;
let current = new AbortController();

async function show() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const context = { signal, info, showDisk, goOn: show, message: greeting() };
  const [pattern, view, private_] = VIEWS.find(([pattern]) => pattern.test(location.hash));
  document.getElementById("nav").hidden = !bridge.email();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  markPlace();
  if (private_ && !bridge.email()) {
    showSignIn(context);
    return;
  }
  const before = document.querySelector("main h1");
  const busy = setTimeout(
    () => before === document.querySelector("main h1") && render("Loading…"),
    300,
  );
  try {
    await view(context, ...pattern.exec(location.hash).slice(1));
  } catch (error) {
    if (!signal.aborted && (bridge.email() || !private_)) showFailure(error);
  } finally {
    clearTimeout(busy);
  }
}

/** Say how the activation link did that led here, once. */
function greeting() {
  const link = location.hash;
  if (link !== HELLO && link !== WRONG_LINK) return "";
  history.replaceState(null, "", "#");
  return link === HELLO
    ? "Your address is confirmed, and the account is active. Sign in."
    : "This link does not activate an account: it has been used already, or a later registration replaced it. Try to sign in, or register again.";
}

function showFailure(error) {
  render(
    "That did not work",
    h("p", { role: "alert" }, explained(error)),
    h("div", { class: "actions" }, button("Try again", show)),
  );
}

function markPlace() {
  const place = location.hash === "#account" ? "#account" : "#buckets";
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.getAttribute("href") === place) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showDisk(free) {
  disk = free;
  showStrip();
}

function showStrip() {
  const parts = [
    info.version && `pymdc ${info.version}`,
    `Registration is ${REGISTRATION[info.registration]}`,
    disk !== null && `${bytes(disk)} free on the disk`,
  ];
  document
    .getElementById("strip")
    .replaceChildren(...parts.filter(Boolean).map((part) => h("span", {}, part)));
}

async function loadInfo() {
  const told = await bridge.info();
  info.version = told["x-version"];
  info.registration = told["x-registration"];
  showStrip();
}

bridge.events.addEventListener("signed-out", ({ detail }) => {
  endUploads();
  disk = null;
  showStrip();
  notice(detail.reason);
  // Who signs in next goes on here only if the bridge ended the session, not its user.
  if (!detail.reason || location.hash === "#account") history.replaceState(null, "", "#");
  show();
});
bridge.events.addEventListener("wait", ({ detail }) => {
  let left = Math.ceil(detail.seconds);
  clearInterval(waiting);
  const tell = () => {
    notice(
      left > 0 ? `${detail.message}. The bridge asks to wait; the page goes on in ${left} s.` : "",
      "bad",
    );
    if (left-- <= 0) clearInterval(waiting);
  };
  tell();
  waiting = setInterval(tell, 1000);
});
let waiting;

const OFFLINE =
  "The bridge cannot be reached. Check the network; the page goes on when you try again.";
let reachable = true;
bridge.events.addEventListener("unreachable", () => {
  reachable = false;
  notice(OFFLINE, "bad");
});
bridge.events.addEventListener("reached", () => {
  if (!reachable) notice();
  reachable = true;
});
addEventListener("offline", () => notice("This device is offline.", "bad"));
addEventListener("online", () => notice());
addEventListener("hashchange", () => {
  if (reachable) notice();
  show();
});
// A file that is dropped beside the mark would take the place of the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
document.getElementById("sign-out").addEventListener("click", () => bridge.signOut());

loadInfo()
  .catch(() => {})
  .finally(show);
