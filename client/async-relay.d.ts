/** What a client of async-relay is given, and what it gives. docs/client.md tells the whole of it. */

/** A message or an incident: JSON, of which these keys mean something to the client. */
export interface Message {
  /** What the message is about: `incident_update`, `remediation`, or a kind of your own. */
  kind?: string;
  /** The incident whose state this is. */
  incident_id?: string | number;
  /** The same for every repeat of a message. */
  event_id?: string;
  /** A decimal string, larger for a newer state of one incident; too large for a number. */
  sequence?: string;
  /** ISO text, seconds or milliseconds. */
  updated_at?: string | number;
  /** Where in the feed it stands. */
  position?: string;
  [key: string]: any;
}

/**
 * - `connecting`: a connection is being opened, and there is none.
 * - `catching up`: it is open; what was missed is being loaded.
 * - `live`
 * - `offline`: there is none; the next is tried in `retryIn` seconds.
 * - `refused`: the end. There is no token, or the server did not let us in with new ones.
 * - `closed`: the end, by `close()`.
 */
export type State = "connecting" | "catching up" | "live" | "offline" | "refused" | "closed";

export interface Detail {
  /** With `offline`: seconds until the next try. */
  retryIn?: number;
  /** With `refused`: why, in words. */
  reason?: string;
}

export interface History {
  /**
   * What happened while the client was away can no longer be had: this history takes the place of the picture, and
   * messages of that time are lost.
   */
  gap: boolean;
  /** Whether these are all incidents the server has. */
  complete: boolean;
}

export interface Options {
  /** The WebSocket's URL, `wss://…`, with an interest in its query if you like. */
  url: string | URL;
  /**
   * A token, or what gets one: asked before every connection, and before the token ends. Null (or anything empty) says
   * no, which is the end; throw where it is only out of reach, and it is tried again.
   */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** The token and the protocol go into the URL, where a proxy or the server loses subprotocols. Default: false. */
  inUrl?: boolean;
  /** The subprotocols to offer, the best first. Default: `async-relay.v2` and `.v1`. */
  protocols?: string[];
  /** Each message once; of an incident, only states newer than what is known. */
  onMessage?(message: Message): void;
  /** Each message that came when a newer state of its incident was known already; for logs. */
  onStale?(message: Message): void;
  onState?(state: State, detail: Detail): void;
  /** The history was loaded: on the first connection, and after a gap. It is in `incidents` already. */
  onHistory?(found: Message[], history: History): void;
  /** How many incidents the history is to have, the newest. Default: 200; Infinity: all. */
  history?: number;
  /** Go on from here, as `position` said before: the first thing to be had is what was missed since then. */
  position?: string;
  /** Seconds of silence before a ping. Default: 60. */
  pingAfter?: number;
  /** Seconds until a connection is replaced, less up to a twentieth. Default: 6600; API Gateway ends it at 7200. */
  rotateAfter?: number;
  /** After how many connections in a row, closed before they were open, a token counts as refused. Default: 10. */
  refusedAfter?: number;
  /** How many ids of messages, and how many incidents, are kept. Default: 20000. */
  memory?: number;
  /** Parts of the world to take in place of the real ones: a WebSocket for Node 20, a clock for tests. */
  world?: Partial<World>;
}

export interface World {
  WebSocket: new (url: string, protocols: string[]) => any;
  setTimeout(call: () => void, ms: number): unknown;
  clearTimeout(timer: any): void;
  /** Milliseconds since 1970. */
  now(): number;
  /** From 0 to 1. */
  random(): number;
  /** What has `addEventListener`, `document` and `navigator`. */
  page: any;
}

export interface Connection {
  /** The newest state of each incident, the one that changed last at the end. Always the same Map; read it only. */
  readonly incidents: ReadonlyMap<string | number, Message>;
  readonly state: State;
  /** How far messages were delivered without a gap, where the server has a feed; for `position` of the next one. */
  readonly position: string | undefined;
  /** Close it for good. */
  close(): void;
}

/** Connect, and stay connected until `close()`. */
export declare const connect: (options: Options) => Connection;
