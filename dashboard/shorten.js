// Foreign values as text that is safe to look at: whole where it is short, cut where it is huge, never executed.

const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const LINES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Any value as text: "" where there is none, JSON where it is an object. */
export function text(value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "object") return String(value);
  try { return JSON.stringify(value); } catch { return "[too deep]"; }
}

/** Characters that would hide or turn round what is beside them, written out. */
export const visible = (value, keepLines = false) =>
  value.replace(keepLines ? LINES : CONTROLS, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** The first `most` characters, and how many were left out. */
export function cut(value, most) {
  if (value.length <= most) return { kept: value, left: 0 };
  const at = whole(value, most);
  return { kept: value.slice(0, at), left: value.length - at };
}

/** At most `most` characters with both ends, and "…" for the middle. */
export function middleCut(value, most) {
  if (value.length <= most) return value;
  const tail = Math.floor((most - 1) / 2);
  return `${value.slice(0, whole(value, most - 1 - tail))}…${value.slice(whole(value, value.length - tail))}`;
}

/**
 * A head that may be cut to fit where it stands, and a tail that is always seen. The tail begins at a separator or
 * a capital where one is near, so that the name at the end of an ARN stays in one piece.
 */
export function ends(value, tail = 14) {
  const shown = visible(middleCut(value, 240));
  if (shown.length <= tail + 4) return [shown, ""];
  const from = Math.max(1, shown.length - tail - 8), near = shown.slice(from, Math.max(from, shown.length - 5)).search(/[/:]|(?<=[a-z])(?=[A-Z])/);
  const at = whole(shown, near < 0 ? shown.length - tail : from + near);
  return [shown.slice(0, at), shown.slice(at)];
}

/** A place to cut that leaves no half of a character on either side. */
function whole(value, at) {
  const code = value.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at - 1 : at;
}
