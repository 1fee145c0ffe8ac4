// Requests to the bridge. Who is signed in is kept here, in memory: a reload forgets it.

import { sha256 } from "./sha256.js";

const TRIES = 5;
let session = null; // {email, authorization}

/** What happens on the way: "wait" {seconds, message}, "reached", "unreachable", "signed-out". */
export const events = new EventTarget();

export class BridgeError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export class UnreachableError extends Error {
  constructor() {
    super("The bridge cannot be reached");
  }
}

export const email = () => session?.email;

export async function signIn(address, password) {
  const candidate = newSession(address, password);
  const usage = await ask("GET", "/usage", { as: candidate });
  session = candidate;
  return usage;
}

export function signOut(reason = "") {
  session = null;
  tell("signed-out", { reason });
}

export async function changePassword(old, password) {
  const asOwner = newSession(session.email, old);
  await ask("PATCH", account(session.email), { as: asOwner, body: { password: sha256(password) } });
  session = newSession(session.email, password);
}

export async function deleteAccount(password) {
  await ask("DELETE", account(session.email), { as: newSession(session.email, password) });
  signOut("The account is deleted.");
}

export function register(address, password, invitation) {
  const body = { email: address, password: sha256(password), ...(invitation && { invitation }) };
  return ask("POST", "/users", { as: null, body });
}

export const askForReset = (address) =>
  ask("POST", `${account(address)}/reset`, { as: null, body: {} });

export const resetPassword = (address, token, password) =>
  ask("PUT", `${account(address)}/reset`, {
    as: null,
    body: { token, password: sha256(password) },
  });

export const info = async () => (await ask("GET", "/", { as: null })).info;

export async function newToken(bucket, operation, signal) {
  return (await ask("POST", `/buckets/${bucket}/tokens`, { body: { operation }, signal })).token;
}

export const contentPath = (bucket, hash) =>
  `/buckets/${encodeURIComponent(bucket)}/files/${encodeURIComponent(hash)}/content`;

/** Send a request and return the value of its answer; throw BridgeError or UnreachableError. */
export async function ask(method, path, options = {}) {
  const response = await send(method, path, options);
  const text = await response.text();
  return text ? JSON.parse(text) : "";
}

/** Send a request and return its response, if that is a good one; wait where the bridge says so. */
export async function send(method, path, { as = session, body, headers, signal } = {}) {
  const options = { method, signal, credentials: "omit", cache: "no-store" };
  options.headers = { Accept: "application/json", ...headers };
  if (as) options.headers.Authorization = as.authorization;
  if (body) options.body = JSON.stringify(body);
  for (let attempt = 1; ; attempt++) {
    const response = await reach(path, options);
    if (response.ok) return response;
    const error = refusal(response.status, await response.text(), response.headers);
    await waitOrThrow(error, attempt, signal, as);
  }
}

/** Wait if the bridge asks for that, else throw *error*; a wrong password of the session ends it. */
export async function waitOrThrow(error, attempt, signal, as = null) {
  if (error.retryAfter && attempt < TRIES) {
    tell("wait", { seconds: error.retryAfter, message: error.message });
    await pause(error.retryAfter, signal);
    return;
  }
  if (as && as === session && error.status === 401)
    signOut(`You are signed out: ${error.message}.`);
  throw error;
}

/** Return the error that an answer of the bridge, or of a proxy before it, is. */
export function refusal(status, text, headers) {
  let message = `The answer was ${status}`;
  try {
    message = JSON.parse(text).error || message;
  } catch {
    // A proxy's page, or the answer to HEAD, which has no body.
  }
  return new BridgeError(status, message, Number(headers.get("retry-after")) || 0);
}

async function reach(path, options) {
  try {
    const response = await fetch(path, options);
    tell("reached");
    return response;
  } catch (error) {
    if (options.signal?.aborted) throw error;
    tell("unreachable");
    throw new UnreachableError();
  }
}

function newSession(address, password) {
  const bytes = new TextEncoder().encode(`${address}:${sha256(password)}`);
  return {
    email: address.toLowerCase(),
    authorization: `Basic ${btoa(String.fromCharCode(...bytes))}`,
  };
}

const account = (address) => `/users/${encodeURIComponent(address)}`;

function tell(name, detail = {}) {
  events.dispatchEvent(new CustomEvent(name, { detail }));
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
