// Licensed under the Apache License, Version 2.0 (see LICENSE).
// What the panel does: from the user's wish to the server and back into the viewer.

import { gridOf } from './grid.js';
import { Labelmap } from './labelmap.js';
import { fittingOf, labelsOf, modelsOf, targetsOf } from './models.js';
import { writeNrrd } from './nrrd.js';
import { BACKGROUND, BOX, BRUSH, ERASER, FOREGROUND, Prompts, TOOL_GROUPS, choose, equip } from './prompts.js';
import * as server from './server.js';
import { Training } from './training.js';
import { listenTo, openSample, showMaps, shownSet } from './viewer.js';

const SETTLE = 400;

/** One page: the server, the label maps of the display sets, the prompts; tells `changed` of what happens. */
export class Session {
  #maps = new Map();
  #waiting = null;
  #steps = [];
  #timer = null;

  /**
   * @param {Object} viewer `{services, commandsManager, cornerstone, cornerstoneTools, qidoRoot}`.
   * @param {function(): void} changed called after each change of what the panel shows.
   */
  constructor(viewer, changed) {
    this.viewer = viewer;
    this.changed = changed;
    this.prompts = new Prompts(viewer.cornerstoneTools);
    this.models = {};
    this.known = [];
    this.label = null;
    this.through = false;
    this.tool = 'WindowLevel';
    this.busy = '';
    this.message = '';
    this.failed = false;
    this.told = 0;
    this.watch = new Training((message, failed, info) => {
      this.info = info || this.info;
      if (message) {
        this.#tell(message, failed);
      }
      this.changed();
    });
    this.info = null;
    this.times = null;
  }

  /** The training under way, or null. */
  get training() {
    return this.watch.task;
  }

  /** Listen to the viewer; returns the function that ends it. */
  listen() {
    const end = listenTo(this.viewer, {
      completed: annotation => this.#drawn(annotation),
      modified: annotation => this.#moved(annotation),
      ready: () => this.#ready(),
      active: () => this.#fit(),
    });
    return () => {
      end();
      this.watch.leave();
      this.#waiting?.abort();
    };
  }

  /** Ask the server what it can do. */
  connect() {
    return this.#run('Connecting', async () => {
      this.info = await server.info();
      this.models = modelsOf(this.info);
      this.known = labelsOf(this.info);
      this.#fit();
      await this.watch.look();
      return 'Connected.';
    });
  }

  /** Labels of the images shown; all that the server knows where nothing tells which. */
  get labels() {
    return this.#fitting() || this.known;
  }

  /** Targets that can be named, of the class prompt. */
  get targets() {
    const all = targetsOf(this.info, this.models.byName);
    const own = this.#fitting();
    return own ? own.filter(name => all.includes(name)) : all;
  }

  pickLabel(name) {
    this.label = name;
    this.#current()?.activate(name);
    this.changed();
  }

  async pickTool(name) {
    TOOL_GROUPS.forEach(id => equip(this.viewer.cornerstoneTools, id));
    if ([BRUSH, ERASER].includes(name)) {
      (await this.#open()).activate(this.label);
    }
    choose(this.viewer.cornerstoneTools, name);
    this.tool = name;
    this.changed();
  }

  automatic() {
    return this.#infer('Outlining', this.models.automatic, {}, null);
  }

  byName(target) {
    return this.#infer(`Outlining ${target}`, this.models.byName, { target }, target);
  }

  undo() {
    return this.#run('', async () => {
      const step = this.#steps.pop();
      if (!step) {
        return 'There is nothing to undo.';
      }
      step.map.undo();
      this.prompts.remove(step.prompts);
      return 'Undone.';
    });
  }

  /** Empty the mask of the series shown and forget its prompts. */
  clear() {
    return this.#run('', async () => {
      const map = await this.#open();
      this.prompts.remove(this.prompts.of(map.displaySet.displaySetInstanceUID));
      map.clear();
      this.#steps.push({ map, prompts: [] });
      return 'Cleared.';
    });
  }

  submit() {
    return this.#run('Storing', async () => {
      const map = await this.#open();
      const { data, labels } = map.labelled();
      const { sizes, origin, directions } = map.grid;
      const file = await writeNrrd({ sizes, data, origin, directions });
      await server.submit(map.displaySet.SeriesInstanceUID, file, labels);
      return labels.length ? `Stored: ${labels.map(one => one.name).join(', ')}.` : 'Stored: nothing to see here.';
    });
  }

  /** Go to the image that the strategy proposes. */
  next(strategy) {
    return this.#run('Choosing', async () => {
      const sample = await server.nextSample(strategy);
      if (!sample.id) {
        return 'Every image has its label.';
      }
      await openSample(sample, this.viewer.qidoRoot);
      return 'Opening the next image.';
    });
  }

  train(trainer) {
    return this.#run('Starting the training', async () => {
      this.watch.follow(await server.startTraining(trainer));
      return 'Training.';
    });
  }

  stopTraining() {
    return this.#run('Stopping the training', async () => {
      await this.watch.stop();
      return 'The training ends after this round.';
    });
  }

  /** The display set of the active viewport that holds images. */
  displaySet() {
    return shownSet(this.viewer.services);
  }

  /** Names that fit the images shown: as the last answer said, else as their modality says; null if neither does. */
  #fitting() {
    return this.#current()?.labels || fittingOf(this.info, this.models.automatic, this.displaySet()?.Modality);
  }

  #current() {
    return this.#maps.get(this.displaySet()?.displaySetInstanceUID);
  }

  /** The label map of what the active viewport shows, made where it is missing, and shown. */
  async #open() {
    const displaySet = this.displaySet();
    if (!displaySet) {
      throw new Error('Show an image first.');
    }
    let map = this.#maps.get(displaySet.displaySetInstanceUID);
    if (!map) {
      map = new Labelmap(this.viewer, displaySet, gridOf(displaySet, this.viewer.cornerstone.metaData));
      await map.create(this.known);
      this.#maps.set(displaySet.displaySetInstanceUID, map);
    }
    await this.#showAll();
    return map;
  }

  /** Work on a label that is offered. */
  #fit() {
    this.label = this.labels.includes(this.label) ? this.label : this.labels[0] || null;
    this.changed();
  }

  #showAll() {
    return showMaps(this.viewer.services, this.#maps);
  }

  #ready() {
    this.#fit();
    return this.#showAll();
  }

  /** A prompt was drawn: it belongs to the label and the images of the moment. */
  #drawn(annotation) {
    if (![FOREGROUND, BACKGROUND, BOX].includes(annotation.metadata.toolName)) {
      return;
    }
    const displaySet = this.displaySet();
    if (!displaySet || !this.label) {
      this.prompts.remove([annotation]);
      return;
    }
    this.prompts.adopt(annotation, { displaySet: displaySet.displaySetInstanceUID, label: this.label });
    this.#ask(annotation);
  }

  #moved(annotation) {
    const own = annotation.metadata.effsam;
    if (own && own.at && own.at !== JSON.stringify(annotation.data.handles.points)) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ask(annotation, false), SETTLE);
    }
  }

  /** Ask for the outline that the prompts of a label describe. */
  async #ask(annotation, fresh = true) {
    const { label } = annotation.metadata.effsam;
    annotation.metadata.effsam.at = JSON.stringify(annotation.data.handles.points);
    const model = (this.through && this.models.volume) || this.models.slice || this.models.volume;
    const prompts = fresh ? [annotation] : [];
    await this.#infer(`Outlining ${label}`, model, map => {
      const { grid } = map;
      const flat = model === this.models.slice;
      const [, , k] = grid.pixelAt(annotation.data.handles.points[0], annotation.metadata.referencedImageId);
      const own = this.prompts.of(map.displaySet.displaySetInstanceUID).filter(one => one.metadata.effsam.label === label);
      const { roi, ...points } = this.prompts.read(grid, own, flat ? k : null);
      if (roi && roi[4] !== roi[5]) {
        throw new Error('A box lies in one slice; draw it where the slices are seen as they were taken.');
      }
      return { label, ...points, ...(roi ? { roi } : {}), ...(flat ? { slice: k } : {}) };
    }, label, prompts);
  }

  /** Ask a model; its answer goes into the label map. A newer question ends the wait for an older one. */
  #infer(what, model, params, label, prompts = []) {
    return this.#run(what, async signal => {
      if (!model) {
        throw new Error('This server has no model for that.');
      }
      const map = await this.#open();
      const asked = typeof params === 'function' ? params(map) : params;
      const { mask, result } = await server.infer(model, map.displaySet.SeriesInstanceUID, asked, signal);
      const placed = map.grid.place(mask);
      const { to, owned } = map.tableOf(result.label_names || this.info.models[model].labels, label);
      const k = asked.slice;
      map.take(placed, to, owned, k === undefined ? [0, map.grid.sizes[2] - 1] : [k, k]);
      this.#steps.push({ map, prompts });
      this.times = result.latencies || null;
      if (label === null) {
        map.offer(Object.keys(result.quality || {}));
        this.#fit();
      }
      return placed.some(Boolean) ? 'Done.' : `Nothing found${label ? ` for ${label}` : ''}.`;
    }, prompts);
  }

  #tell(message, failed) {
    Object.assign(this, { message, failed, told: this.told + 1 });
  }

  /** Do one thing at a time, say what is done, and what went wrong. */
  async #run(what, work, prompts = []) {
    this.#waiting?.abort();
    const waiting = new AbortController();
    this.#waiting = waiting;
    this.busy = what;
    this.failed = false;
    this.changed();
    try {
      this.#tell(await work(waiting.signal), false);
    } catch (error) {
      if (error.name === 'AbortError') {
        return;
      }
      this.prompts.remove(prompts); // a prompt that was refused must not come again with the next
      this.#tell(error.message || String(error), true);
    }
    if (this.#waiting === waiting) {
      this.busy = '';
    }
    this.changed();
  }
}
