// What a screen reader is told: some seconds in one sentence, never row by row.

const PAUSE = 6_000, MOST = 4;

export class Announcer {
  #say;
  #said = [];
  #last = -Infinity;
  #opened = 0;
  #critical = 0;
  #resolved = 0;

  constructor(say) { this.#say = say; }

  announce(words) { this.#said = [...this.#said, words].slice(-MOST); }

  /** An incident that changed; only what is new or over is worth words. */
  note(before, row) {
    if (row.open && !before?.open) {
      this.#opened += 1;
      this.#critical += +(row.rank === 0);
    } else if (!row.open && before?.open) this.#resolved += 1;
  }

  /** What is to be said now; undefined where there is nothing, or something was said just before. */
  take(now) {
    if (now - this.#last < PAUSE) return undefined;
    if (this.#opened) this.announce(this.#say("say.opened", { n: this.#opened, critical: this.#critical }));
    if (this.#resolved) this.announce(this.#say("say.resolved", { n: this.#resolved }));
    if (!this.#said.length) return undefined;
    const words = this.#said.join(". ");
    [this.#said, this.#opened, this.#critical, this.#resolved, this.#last] = [[], 0, 0, 0, now];
    return words;
  }
}
