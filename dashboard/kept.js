// What this browser keeps for its user: settings, and which incidents were acknowledged here. Nobody else hears of it.

const MOST = 5_000;

export class Kept {
  #store;
  #settings;
  #acknowledged;

  /** @param store localStorage, or what is like it */
  constructor(store) {
    this.#store = store;
    this.#settings = new Map(this.#read("settings"));
    this.#acknowledged = new Map(this.#read("acknowledged"));
  }

  setting(name, otherwise) { return this.#settings.get(name) ?? otherwise; }

  set(name, value) {
    this.#settings.set(name, value);
    this.#write("settings", this.#settings);
  }

  /** It holds until the incident is worse than it was: more severe, or open again. */
  acknowledged({ key, rank, open }) {
    const at = this.#acknowledged.get(key);
    return at !== undefined && rank >= at.rank && (at.open || !open);
  }

  toggle(row) {
    if (this.acknowledged(row)) this.#acknowledged.delete(row.key);
    else this.#acknowledged.set(row.key, { rank: row.rank, open: row.open });
    if (this.#acknowledged.size > MOST) this.#acknowledged.delete(this.#acknowledged.keys().next().value);
    this.#write("acknowledged", this.#acknowledged);
  }

  #read(name) {
    try {
      const found = JSON.parse(this.#store.getItem(`async-relay.${name}`) ?? "[]");
      return Array.isArray(found) ? found.filter((each) => Array.isArray(each) && each[1] !== null) : [];
    } catch { return []; }
  }

  #write(name, map) {
    // A browser may keep nothing: then it holds until the page is closed.
    try { this.#store.setItem(`async-relay.${name}`, JSON.stringify([...map])); } catch { /* see above */ }
  }
}
