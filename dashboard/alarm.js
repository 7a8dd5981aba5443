// Sound and notifications for what is CRITICAL: only where asked for, only for what happens now.

import { middleCut, visible } from "./shorten.js";

const PAUSE = 3_000;

/** Whether a change is news that may disturb somebody: CRITICAL and open now, and not both before. */
export const alarming = (before, row) => row.rank === 0 && row.open && !(before && before.rank === 0 && before.open);

export class Alarm {
  #context;
  #last = 0;

  /** From a click on, since browsers let no page sound before. */
  prepare() {
    this.#context ??= new AudioContext();
    return this.#context.resume();
  }

  /** Two short tones; not more than one pair in a few seconds, however many incidents come. */
  async sound() {
    if (Date.now() - this.#last < PAUSE || navigator.userActivation?.hasBeenActive === false) return;
    this.#last = Date.now();
    try {
      await this.prepare();
      this.#tone(880, 0);
      this.#tone(660, 0.18);
    } catch { /* a browser without sound shows the incident all the same */ }
  }

  /** Whether the browser lets this page notify; it asks where nobody said so yet. */
  async mayNotify() {
    return typeof Notification !== "undefined" && (await Notification.requestPermission()) === "granted";
  }

  notify(row, open) {
    const of = (value) => visible(middleCut(value, 120));
    try {
      const shown = new Notification(`${of(row.severity)}: ${of(row.type)}`, { body: `${of(row.resource)}\n${of(row.id)}`, tag: row.key });
      shown.onclick = () => { window.focus(); open(); shown.close(); };
    } catch { /* phones have it for service workers alone */ }
  }

  #tone(frequency, delay) {
    const { currentTime, destination } = this.#context, begin = currentTime + delay;
    const source = this.#context.createOscillator(), volume = this.#context.createGain();
    source.frequency.value = frequency;
    volume.gain.setValueAtTime(0.0001, begin);
    volume.gain.exponentialRampToValueAtTime(0.15, begin + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0001, begin + 0.16);
    source.connect(volume).connect(destination);
    source.start(begin);
    source.stop(begin + 0.17);
  }
}
