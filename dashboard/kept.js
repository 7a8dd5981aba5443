// What this browser keeps for its user: settings, and which incidents were acknowledged here. Nobody else hears of it.

const MOST = 5_000;

export class Kept {
  #store;
  #settings = new Map();
  #acknowledged = new Map();
  /** Nothing can be kept, so what is known here is all there is. */
  #alone = false;
  #saw = [];

  /** @param store localStorage, or what is like it */
  constructor(store) {
    this.#store = store;
    this.#refresh("settings", this.#settings);
    this.#refresh("acknowledged", this.#acknowledged);
  }

  setting(name, otherwise) { return this.#settings.get(name) ?? otherwise; }

  set(name, value) {
    this.#refresh("settings", this.#settings);
    this.#settings.set(name, value);
    this.#write("settings", this.#settings);
  }

  /** It holds until the incident is worse than it was: more severe, or open again. */
  acknowledged({ key, rank, open }) {
    const at = this.#acknowledged.get(key);
    return at !== undefined && rank >= at.rank && (at.open || !open);
  }

  toggle(row) {
    const ends = this.acknowledged(row);
    this.#refresh("acknowledged", this.#acknowledged);
    this.#acknowledged.delete(row.key);
    if (!ends) this.#acknowledged.set(row.key, { rank: row.rank, open: row.open });
    if (this.#acknowledged.size > MOST) this.#acknowledged.delete(this.#acknowledged.keys().next().value);
    this.#write("acknowledged", this.#acknowledged);
  }

  /** How an incident is now: where it is better, that is what it must not get worse than any more. */
  saw(row) {
    if (!this.#see(row)) return;
    if (!this.#saw.length) queueMicrotask(() => this.#flush());
    this.#saw.push(row);
  }

  /** Whether it made a difference. */
  #see(row) {
    const { key, rank, open } = row, at = this.#acknowledged.get(key);
    if (!at) return false;
    if (!this.acknowledged(row)) return this.#acknowledged.delete(key);
    if (rank === at.rank && open === at.open) return false;
    return this.#acknowledged.set(key, { rank, open });
  }

  /** Once for a whole history: each time all of them are written. */
  #flush() {
    this.#refresh("acknowledged", this.#acknowledged);
    this.#saw.splice(0).forEach((row) => this.#see(row));
    if (!this.#alone) this.#write("acknowledged", this.#acknowledged);
  }

  /** Another tab may have kept something since. */
  #refresh(name, map) {
    if (this.#alone) return;
    map.clear();
    for (const [key, value] of this.#read(name)) map.set(key, value);
  }

  #read(name) {
    try {
      const found = JSON.parse(this.#store.getItem(`async-relay.${name}`) ?? "[]");
      return Array.isArray(found) ? found.filter((each) => Array.isArray(each) && each[1] !== null) : [];
    } catch { return []; }
  }

  #write(name, map) {
    // A browser may keep nothing: then it holds until the page is closed.
    try { this.#store.setItem(`async-relay.${name}`, JSON.stringify([...map])); } catch { this.#alone = true; }
  }
}
