// How sizes, times and errors are written.

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const whole = new Intl.NumberFormat();

export const GB = 1e9;

/** Write a number of bytes, in powers of 1000 as the bridge's quotas are. */
export function bytes(count) {
  if (count === 1) return "1 byte";
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1000;
    unit++;
  }
  const digits = unit && count < 99.95 ? 10 : 1;
  return `${Math.round(digits * count) / digits} ${UNITS[unit]}`;
}

export const when = (iso) => (iso ? moment.format(new Date(iso)) : "");
export const timeIn = (minutes) => clock.format(new Date(Date.now() + 60000 * minutes));

export const counted = (count, one, many = `${one}s`) =>
  `${whole.format(count)} ${count === 1 ? one : many}`;

/** Write how much of a quota in GB is used; null is without limit. */
export const ofQuota = (used, quota) =>
  quota === null || quota === undefined ? bytes(used) : `${bytes(used)} of ${bytes(quota * GB)}`;

const ADVICE = [
  [/Invalid email or password/, "Check both. If you forgot the password, ask for a new one."],
  [/not been activated/, "Open the link in the mail first."],
  [
    /already registered/,
    "Sign in, or ask for a new password. After a registration, wait a minute before the next one.",
  ],
  [/Invalid or expired token/, "A link works once, for five minutes. Ask for a new one."],
  [/Invalid reset token/, "It works once, for an hour. Ask for another mail."],
  [/invitation/i, "Ask the person who runs this bridge for an invitation."],
  [/Registration is closed/, "Ask the person who runs this bridge for an account."],
  [/disabled/, "Ask the person who runs this bridge."],
  [/Bucket not found|File not found/, "It may have been deleted meanwhile."],
  [/public key/i, "A public key has 66 or 130 hexadecimal digits."],
];
const ADVICE_BY_STATUS = {
  0: "Check the network, and try again.",
  403: "",
  413: "Delete files, or give the bucket more storage.",
  429: "Wait a minute, and try again.",
  500: "Tell the person who runs this bridge.",
  502: "The bridge behind the proxy does not answer. Try again in a minute.",
  503: "Try again in a minute.",
  504: "The bridge behind the proxy does not answer. Try again in a minute.",
  507: "The disk of the bridge is full. Tell the person who runs it.",
};

/** Say what to do about an error. */
export function advice({ message, status = 0 }) {
  const found = ADVICE.find(([pattern]) => pattern.test(message));
  return found ? found[1] : ADVICE_BY_STATUS[status];
}
