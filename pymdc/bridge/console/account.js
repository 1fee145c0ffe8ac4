// Signing in, registering, a new password; and the account of who is signed in.

import * as bridge from "./bridge.js";
import { announce, button, field, form, h, notice, openDialog, render } from "./elements.js";
import { counted, ofQuota } from "./texts.js";

const PASSWORD = { type: "password", required: true };
const emailField = (value) =>
  field("E-mail", {
    type: "email",
    name: "email",
    autocomplete: "username",
    required: true,
    value,
  });
const newPasswordField = (label) =>
  field(label, { ...PASSWORD, name: "password", autocomplete: "new-password" });

let waiting = {}; // the address and password of a registration, until its link is opened

/** Ask who it is, and go on to the view that was asked for. */
export function showSignIn({ info, goOn, message }) {
  if (message) notice(message, "good");
  const fields = [
    emailField(waiting.email),
    field("Password", { ...PASSWORD, name: "password", autocomplete: "current-password" }),
  ];
  render(
    "Sign in",
    h(
      "div",
      { class: "card narrow front" },
      form(fields, "Sign in", async ({ email, password }) => {
        await bridge.signIn(email.trim(), password);
        waiting = {};
        notice();
        goOn();
      }),
      h(
        "p",
        { class: "links" },
        info.registration !== "closed" && h("a", { href: "#register" }, "Register"),
        h("a", { href: "#forgot" }, "Forgot the password?"),
      ),
    ),
  );
  fields[waiting.email ? 1 : 0].querySelector("input").focus();
}

export function showRegister({ info }) {
  if (info.registration === "closed") {
    render(
      "Register",
      h("p", {}, "Registration is closed: the person who runs this bridge opens accounts."),
    );
    return;
  }
  const invited = info.registration === "invite";
  const invitation = field(
    "Invitation",
    { name: "invitation", required: true, autocomplete: "off" },
    "The code that you got from the person who runs this bridge.",
  );
  const fields = [emailField(), newPasswordField("Password"), invited && invitation];
  render(
    "Register",
    h(
      "div",
      { class: "card narrow front" },
      form(fields.filter(Boolean), "Register", async ({ email, password, invitation }) => {
        await bridge.register(email.trim(), password, invitation?.trim());
        waiting = { email: email.trim(), password };
        showLookInMail();
      }),
      h("p", { class: "links" }, h("a", { href: "#" }, "I have an account")),
    ),
  );
}

function showLookInMail() {
  const signIn = form([], "I have opened the link", async () => {
    await bridge.signIn(waiting.email, waiting.password);
    waiting = {};
    location.hash = "#buckets";
  });
  render(
    "Look in your mail",
    h(
      "div",
      { class: "card narrow front" },
      h(
        "p",
        {},
        "A mail with a link is on its way to ",
        h("strong", {}, waiting.email),
        ". Open the link to activate the account.",
      ),
      h("p", { class: "hint" }, "A bridge without a mail server prints the link where it runs."),
      signIn,
    ),
  );
}

export function showForgot() {
  render(
    "A new password",
    h(
      "div",
      { class: "card narrow front" },
      h("p", {}, "The bridge mails a token, with which you set a new password."),
      form([emailField(waiting.email)], "Send the mail", async ({ email }) => {
        await bridge.askForReset(email.trim());
        waiting = { email: email.trim() };
        location.hash = "#reset";
      }),
      h(
        "p",
        { class: "links" },
        h("a", { href: "#reset" }, "I have a token"),
        h("a", { href: "#" }, "Sign in"),
      ),
    ),
  );
}

export function showReset() {
  const token = {
    name: "token",
    required: true,
    autocomplete: "one-time-code",
    spellcheck: "false",
  };
  const fields = [
    emailField(waiting.email),
    field("Token", token, "The 64 digits and letters in the mail; they are good for an hour."),
    newPasswordField("New password"),
  ];
  const asked = "If there is an account for this address, a mail with a token is on its way.";
  render(
    "Set a new password",
    h(
      "div",
      { class: "card narrow front" },
      waiting.email && h("p", {}, asked),
      form(fields, "Set the password", async ({ email, token, password }) => {
        await bridge.resetPassword(email.trim(), token.trim(), password);
        await bridge.signIn(email.trim(), password);
        waiting = {};
        location.hash = "#buckets";
        announce("The new password is set.");
      }),
      h("p", { class: "hint" }, "This removes the key pairs of the account; register them again."),
    ),
  );
}

/** The account: what it stores, its password, its keys, its end. */
export async function showAccount({ signal }) {
  const [usage, keys] = await Promise.all([
    bridge.ask("GET", "/usage", { signal }),
    bridge.ask("GET", "/keys", { signal }),
  ]);
  render(
    "Account",
    h(
      "p",
      { class: "subtitle" },
      bridge.email(),
      " · ",
      ofQuota(usage.stored, usage.limit),
      " in ",
      counted(usage.buckets.length, "bucket"),
    ),
    h(
      "div",
      { class: "grid" },
      h("section", { class: "card" }, h("h2", {}, "Password"), passwordForm()),
      keySection(keys),
      h(
        "section",
        { class: "card" },
        h("h2", {}, "Delete the account"),
        h("p", {}, "This deletes its buckets and all files in them too."),
        h(
          "div",
          { class: "actions" },
          button("Delete the account…", confirmEnd, { class: "danger" }),
        ),
      ),
    ),
  );
}

/** Tell a password manager whose password a form asks for. */
const whose = () =>
  h("input", {
    type: "email",
    name: "email",
    autocomplete: "username",
    value: bridge.email(),
    hidden: true,
  });

function passwordForm() {
  const fields = [
    whose(),
    field("Old password", { ...PASSWORD, name: "old", autocomplete: "current-password" }),
    newPasswordField("New password"),
  ];
  return form(fields, "Change the password", async ({ old, password }) => {
    await bridge.changePassword(old, password);
    announce("The password is changed.");
    document.querySelector("main form").reset();
  });
}

function keySection(keys) {
  const rows = keys.map(({ key }) =>
    h(
      "li",
      {},
      h("code", {}, key),
      button("Remove", (event) => removeKey(key, event.target), {
        class: "plain",
        "aria-label": `Remove the key ${key.slice(0, 12)}`,
      }),
    ),
  );
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Key pairs"),
    h(
      "p",
      { class: "hint" },
      "Programs sign with a private key; the bridge knows the public one. ",
      h("code", {}, "pymdc login"),
      " registers one.",
    ),
    rows.length ? h("ul", { class: "keys" }, rows) : h("p", {}, "No key is registered."),
  );
}

function removeKey(key, source) {
  const dialog = openDialog(
    "Remove this key?",
    h("p", {}, "Programs that sign with it are refused from now on."),
    h("p", {}, h("code", {}, key)),
    form([], "Remove", async () => {
      await bridge.ask("DELETE", `/keys/${key}`);
      source.closest("li").remove();
      dialog.close();
      announce("The key is removed.");
    }),
  );
}

function confirmEnd() {
  const fields = [
    whose(),
    field("Password", { ...PASSWORD, name: "password", autocomplete: "current-password" }),
  ];
  const sure = form(
    fields,
    "Delete everything",
    ({ password }) => bridge.deleteAccount(password),
    "danger",
  );
  openDialog(
    "Delete the account?",
    h(
      "p",
      {},
      "Everything that ",
      h("strong", {}, bridge.email()),
      " stored here is deleted for good.",
    ),
    sure,
  );
}
