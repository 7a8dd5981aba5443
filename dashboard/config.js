// What you edit. Everything else of this folder can stay as it is.

/** Your WebSocket API. An interest may stand in its query: ?severity=HIGH,CRITICAL */
export const url = "wss://YOUR-API.execute-api.YOUR-REGION.amazonaws.com/prod";

/**
 * A token of whoever is signed in: asked for before each connection, and before the token ends. Return null where nobody
 * is signed in; throw where the token is only out of reach. Remove it where your API asks for none.
 */
export async function token() {
  const answer = await fetch("/token", { cache: "no-store" });
  if (answer.status === 401 || answer.status === 403) return null;
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  return (await answer.text()).trim();
}

/** The token goes into the URL, where something on the way loses subprotocols (needs AuthQueryToken). */
export const inUrl = false;

/** How many incidents to load when the page is opened, the newest. */
export const history = 1000;

/** The statuses of an incident that needs nobody any more. */
export const resolved = ["RESOLVED", "CLOSED", "FALSE_POSITIVE", "SUPPRESSED", "ARCHIVED"];
