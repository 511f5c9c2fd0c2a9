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
    this.stopping = false;
  }

  /** Find out whether one runs. */
  async look() {
    this.follow((await server.trainings()).find(isRunning) || null);
  }

  /** Look after a training; null for none. */
  follow(task) {
    this.leave();
    this.task = task;
    this.stopping = false;
    if (task) {
      this.#timer = setInterval(() => this.#ask(), EVERY);
    }
  }

  /** Ask the server to end it; it ends when its round is done. */
  async stop() {
    this.stopping = true;
    await server.stopTraining();
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
      this.told(...this.#end(all.at(-1)), info);
    } catch (error) {
      this.follow(null);
      this.told(error.message, true, null);
    }
  }

  /** What is said of a training that has ended, and whether that is a failure. */
  #end(last) {
    if (this.stopping) {
      return ['The training was stopped.', false];
    }
    const failed = last?.status === 'ERROR';
    return [failed ? last.details?.at(-1) || 'The training failed; the log of the server says why.' : 'The training ended.', failed];
  }
}
