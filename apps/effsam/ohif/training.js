// Licensed under the Apache License, Version 2.0 (see LICENSE).
// A training that runs at the server, looked after until it ends.

import { isRunning } from './models.js';
import * as server from './server.js';

const EVERY = 3000;

/** What runs, and how far it is. */
export class Training {
  #timer = null;

  /** @param {function(?string, boolean, ?Object): void} told gets a line, whether it is a failure, and `/info/`. */
  constructor(told) {
    this.told = told;
    this.task = null;
  }

  /** Find out whether one runs. */
  async look() {
    this.follow((await server.trainings()).find(isRunning) || null);
  }

  /** Look after a training; null for none. */
  follow(task) {
    this.leave();
    this.task = task;
    if (task) {
      this.#timer = setInterval(() => this.#ask(), EVERY);
    }
  }

  leave() {
    clearInterval(this.#timer);
  }

  async #ask() {
    try {
      const all = await server.trainings();
      const info = await server.info();
      const running = all.find(isRunning);
      this.task = running ? { ...running, stats: Object.values(info.train_stats || {})[0] } : null;
      if (running) {
        this.told(null, false, info);
        return;
      }
      this.leave();
      const failed = all.at(-1)?.status === 'ERROR';
      this.told(failed ? 'The training failed; the log of the server says why.' : 'The training ended.', failed, info);
    } catch (error) {
      this.follow(null);
      this.told(error.message, true, null);
    }
  }
}
