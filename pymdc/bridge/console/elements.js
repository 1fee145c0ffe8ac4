// Elements of the page. Texts become text nodes: nothing that a bridge says is parsed as HTML.

import { advice } from "./texts.js";

/** Make an element: attributes, listeners ("onclick"), and children, which may be texts. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return element;
}

export const button = (text, onclick, attributes = {}) =>
  h("button", { type: "button", onclick, ...attributes }, text);

/** Say something that a screen reader reads when it has the time, and that is seen for a while. */
export function announce(text) {
  const status = document.getElementById("status");
  // What is outside an open dialog is not read.
  ([...document.querySelectorAll("dialog[open]")].pop() ?? document.body).append(status);
  status.textContent = "";
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => {
    status.textContent = text;
    announce.timer = setTimeout(() => (status.textContent = ""), 6000);
  }, 50);
}

/** Show a notice above the view until it is replaced; nothing hides it. */
export function notice(text = "", kind = "") {
  const box = document.getElementById("notice");
  box.className = `notice ${kind}`;
  box.textContent = text;
  box.hidden = !text;
}

let made = 0; // things with an id

/** Make a labelled input; *hint* stands below it. */
export function field(label, attributes, hint = "") {
  const id = `field-${++made}`;
  const described = hint ? { "aria-describedby": `${id}-hint` } : {};
  const tag = attributes.rows ? "textarea" : "input";
  const { value, ...others } = attributes;
  const input = h(tag, { id, ...described, ...others });
  if (value !== undefined && value !== null) input.value = value;
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    input,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}

/**
 * Make a form. *submit* gets its values; what it throws is shown in the form.
 * The button is off meanwhile, so that nothing is sent twice.
 */
export function form(fields, label, submit, kind = "primary") {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const send = h("button", { type: "submit", class: kind }, label);
  return h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        error.hidden = true;
        send.disabled = true;
        try {
          await submit(Object.fromEntries(new FormData(event.target)));
        } catch (problem) {
          showError(error, problem);
        } finally {
          send.disabled = false;
        }
      },
    },
    fields,
    error,
    h("div", { class: "actions" }, send),
  );
}

/** Show what went wrong, and what to do about it. */
export function showError(box, problem) {
  box.textContent = explained(problem);
  box.hidden = false;
}

export function explained(problem) {
  const what = problem.message.replace(/\.$/, "");
  return [`${what}.`, advice(problem)].filter(Boolean).join(" ");
}

/** Put *children* into the view, under the heading *title*, which gets the focus. */
export function render(title, ...children) {
  const heading = h("h1", { tabindex: "-1" }, title);
  document.title = `${title} – Metadisk`;
  document.getElementById("main").replaceChildren(heading, ...children.filter(Boolean));
  focusHeading();
  return heading;
}

export function focusHeading() {
  document.querySelector("main h1")?.focus();
}

/** Open a dialog; the browser keeps the focus in it, and closes it on Escape. */
export function openDialog(title, ...children) {
  const opener = document.activeElement;
  const id = `dialog-${++made}`;
  const close = button("✕", () => dialog.close(), { class: "plain", "aria-label": "Close" });
  const head = h("div", { class: "dialog-head" }, h("h2", { id }, title), close);
  const dialog = h("dialog", { "aria-labelledby": id }, head, ...children);
  dialog.addEventListener("close", () => {
    document.body.append(document.getElementById("status"));
    dialog.remove();
    if (opener?.isConnected) opener.focus();
    else focusHeading();
  });
  const cancel = button("Cancel", () => dialog.close());
  dialog.querySelector(".danger[type=submit]")?.after(cancel);
  const first = dialog.querySelector("form input:not([hidden]), form textarea");
  first?.setAttribute("autofocus", "");
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Make a button that copies *text*; *what* says to a screen reader what that is. */
export function copyButton(text, what) {
  const copyText = async (event) => {
    const copied = await copy(text, event.target);
    const refused = "The browser does not let the page copy; select the text instead.";
    announce(copied ? "Copied." : refused);
  };
  return button("Copy", copyText, { "aria-label": `Copy ${what}` });
}

/** A box with a text to copy: a command, a link. */
export function copyable(what, text) {
  return h(
    "div",
    { class: "copyable" },
    h("pre", { tabindex: "0", "aria-label": what, role: "group" }, text),
    copyButton(text, what),
  );
}

// navigator.clipboard is missing on http:// other than localhost.
async function copy(text, source) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  source.parentElement.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  source.focus();
  return done;
}
