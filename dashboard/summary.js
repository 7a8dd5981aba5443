// What a screen reader is told: the sum of some seconds in one sentence, never row by row.

export class Summary {
  #opened = 0;
  #critical = 0;
  #resolved = 0;

  note(before, row) {
    if (row.open && !before?.open) {
      this.#opened += 1;
      this.#critical += +(row.rank === 0);
    } else if (!row.open && before?.open) this.#resolved += 1;
  }

  /** The counts since the last time, or undefined where nothing happened. */
  take() {
    const found = { opened: this.#opened, critical: this.#critical, resolved: this.#resolved };
    this.#opened = this.#critical = this.#resolved = 0;
    return found.opened || found.resolved ? found : undefined;
  }
}
