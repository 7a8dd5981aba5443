// How the page stands with the server, in words: which sentence, what is in it, and how it feels.

const SLOW = 8_000;

/**
 * @param of `state` and its detail since `since`, whether the server `answered` yet, and the time `now`
 * @returns the tone (good, busy, bad), the sentence's name in words.js and its values
 */
export function standing({ state, since, retryAt, reason, answered, now }) {
  const seconds = Math.floor((now - since) / 1000), slow = now - since >= SLOW;
  switch (state) {
    case "live":
      return answered ? { tone: "good", name: "live" } : { tone: "busy", name: "liveUnanswered" };
    case "catching up":
      return slow ? { tone: "busy", name: "catchingUpSlow", seconds } : { tone: "busy", name: "catchingUp" };
    case "connecting":
      return slow ? { tone: "bad", name: "connectingSlow", seconds } : { tone: "busy", name: "connecting" };
    case "offline":
      return { tone: "bad", name: "offline", seconds: Math.max(0, Math.ceil((retryAt - now) / 1000)), ...(reason && { name: "offlineWhy", reason }) };
    case "refused":
      return { tone: "bad", name: "refused", reason };
    case "not set up":
      return { tone: "bad", name: "notSetUp" };
    default:
      return { tone: "bad", name: "closed" };
  }
}
