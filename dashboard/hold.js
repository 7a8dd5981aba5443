// What stays where it is: the order of the rows while somebody points at them, and everything while paused.

export class Hold {
  #keys = [];
  #known = new Set();
  #frozen;

  get paused() { return this.#frozen !== undefined; }

  /** Everything stays as it is until `play`. */
  pause(rows) { this.#frozen = new Map(rows); }

  play() { this.#frozen = undefined; }

  /** The rows to choose from, and how many are new or other than when it was paused. */
  source(rows) {
    if (!this.#frozen) return { rows, changed: 0 };
    let changed = 0;
    for (const [key, row] of rows) changed += +(this.#frozen.get(key) !== row);
    return { rows: this.#frozen, changed };
  }

  /** The rows to show: in their order, or while `held` in the one they have, and those that wait. */
  order(rows, all, held) {
    const waiting = held ? rows.filter(({ key }) => !this.#known.has(key)) : [];
    if (held) return { shown: this.#keys.map((key) => all.get(key)).filter(Boolean), waiting };
    this.#keys = rows.map(({ key }) => key);
    this.#known = new Set(this.#keys);
    return { shown: rows, waiting };
  }
}
