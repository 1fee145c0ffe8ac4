// One upload to the bridge. XMLHttpRequest tells how much is sent, which fetch does not.

import { refusal, UnreachableError, waitOrThrow } from "./bridge.js";

/**
 * Send *file* and return its entry.
 *
 * *newToken* is called for each try: a token is spent by the first one. *progress* gets the number of
 * bytes sent, and null from when all are sent: then the bridge is storing.
 */
export async function sendFile(bucket, file, newToken, progress, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await put(`/buckets/${bucket}/files`, file, await newToken(signal), progress, signal);
    } catch (error) {
      await waitOrThrow(error, attempt, signal);
    }
  }
}

function put(path, file, token, progress, signal) {
  const request = new XMLHttpRequest();
  const [boundary, body] = form(file);
  request.open("PUT", path);
  request.setRequestHeader("content-type", `multipart/form-data; boundary=${boundary}`);
  request.setRequestHeader("x-token", token);
  request.setRequestHeader("x-filesize", file.size);
  // The form around the file is counted too; it is a few hundred bytes.
  let begun = false;
  request.upload.onprogress = ({ loaded }) => {
    begun = loaded > 0;
    progress(Math.min(loaded, file.size));
  };
  request.upload.onload = () => progress(null);
  return new Promise((resolve, reject) => {
    const headers = { get: (name) => request.getResponseHeader(name) };
    request.onload = () => {
      const { status, responseText } = request;
      if (status === 200) resolve(JSON.parse(responseText));
      else reject(refusal(status, responseText, headers));
    };
    request.onerror = () => whyNot(file, begun).then(reject);
    request.onabort = () => reject(signal.reason);
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/**
 * Return a boundary, and a form with *file* between two of them, which is read while it is sent.
 *
 * FormData would write %22 for a quotation mark in the name, which is then part of the name.
 */
function form(file) {
  const random = crypto.getRandomValues(new Uint32Array(4));
  const boundary = [...random].map((word) => word.toString(16).padStart(8, "0")).join("");
  const head = [
    `--${boundary}`,
    `Content-Disposition: form-data; name="file"; filename*=UTF-8''${encoded(file.name)}`,
    `Content-Type: ${file.type || "application/octet-stream"}`,
    "\r\n",
  ].join("\r\n");
  return [boundary, new Blob([head, file, `\r\n--${boundary}--\r\n`])];
}

/** Encode a name as in RFC 8187. */
function encoded(name) {
  const escaped = (character) => `%${character.charCodeAt(0).toString(16)}`;
  return encodeURIComponent(name.toWellFormed?.() ?? name).replace(/['()*]/g, escaped);
}

async function whyNot(file, begun) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return new Error("The browser cannot read the file; perhaps it was changed or removed");
  }
  // Who is refused early and goes on sending may lose the answer.
  if (begun) return new Error("The connection ended: the network failed, or the file was refused");
  return new UnreachableError();
}
