// Licensed under the Apache License, Version 2.0 (see LICENSE).
// The mask of one display set in the viewer: a label map with an image behind each image, so that stacks
// (ultrasound, endoscopy, X-ray) show it as volumes do.

import { namesOf } from './models.js';

/** A label map, its names, and what undoes its last changes. */
export class Labelmap {
  #changes = [];

  /**
   * @param {Object} viewer `{services, cornerstone, cornerstoneTools}`.
   * @param {Object} displaySet of the viewer.
   * @param {import('./grid.js').Grid} grid of its images.
   */
  constructor(viewer, displaySet, grid) {
    this.viewer = viewer;
    this.displaySet = displaySet;
    this.grid = grid;
    this.id = `effsam-${displaySet.displaySetInstanceUID}`;
    this.names = [];
    this.labels = null;
  }

  /** Make it, with a segment for each name. */
  async create(names) {
    const { services, cornerstone, cornerstoneTools } = this.viewer;
    this.names = names.slice(0, 255);
    const segments = Object.fromEntries(this.names.map((label, at) => [at + 1, { label, active: at === 0 }]));
    const options = { segmentationId: this.id, label: 'effsam', segments };
    await services.segmentationService.createLabelmapForDisplaySet(this.displaySet, options);
    const { imageIds, referencedImageIds } = cornerstoneTools.segmentation.state.getSegmentation(this.id).representationData.Labelmap;
    const behind = new Map(referencedImageIds.map((id, at) => [id, imageIds[at]]));
    this.images = this.grid.imageIds.map(id => cornerstone.cache.getImage(behind.get(id)));
  }

  /** Show it in a viewport that shows the images. */
  async show(viewportId) {
    const { segmentationService } = this.viewer.services;
    const shown = segmentationService.getSegmentationRepresentations(viewportId, { segmentationId: this.id });
    if (!shown.length) {
      await segmentationService.addSegmentationRepresentation(viewportId, { segmentationId: this.id, type: 'Labelmap' });
    }
  }

  /** Value of a name; a new name gets the next one. */
  valueOf(name) {
    let at = this.names.indexOf(name);
    if (at < 0) {
      if (this.names.length === 255) {
        throw new Error('There are 255 labels already.');
      }
      at = this.names.push(name) - 1;
      this.viewer.services.segmentationService.addSegment(this.id, { segmentIndex: at + 1, label: name });
    }
    return at + 1;
  }

  /** Keep to the labels that an answer spoke of, which are those of the modality; none: to all. */
  offer(names) {
    this.labels = names.length ? names : null;
  }

  /** The label that brush and eraser work on. */
  activate(name) {
    this.viewer.services.segmentationService.setActiveSegment(this.id, this.valueOf(name));
  }

  slice(k) {
    return this.images[k].voxelManager.getScalarData();
  }

  /** All values, columns fastest, then rows, then slices. */
  values() {
    const [columns, rows, slices] = this.grid.sizes;
    const all = new Uint8Array(columns * rows * slices);
    for (let k = 0; k < slices; k += 1) {
      all.set(this.slice(k), k * columns * rows);
    }
    return all;
  }

  /** Names of the values that occur, and a mask that counts them 1 ... n. */
  labelled() {
    const data = this.values();
    const seen = new Uint8Array(256);
    for (const value of data) {
      seen[value] = 1;
    }
    const names = this.names.filter((_, at) => seen[at + 1]);
    const to = new Uint8Array(256);
    names.forEach((name, at) => { to[this.names.indexOf(name) + 1] = at + 1; });
    return { data: data.map(value => to[value]), labels: names.map((name, at) => ({ name, idx: at + 1 })) };
  }

  /**
   * What an answer speaks of.
   *
   * @param {Object|string[]} names of its values.
   * @param {?string} label that was asked for, whatever the values; null for all.
   * @returns {{to: Uint8Array, owned: Uint8Array}} as `take` wants them.
   */
  tableOf(names, label) {
    const to = new Uint8Array(256);
    const owned = new Uint8Array(256);
    if (label !== null) {
      to.fill(this.valueOf(label), 1);
      owned[this.valueOf(label)] = 1;
      return { to, owned };
    }
    owned.fill(1);
    namesOf(names).forEach((name, at) => { to[Array.isArray(names) ? at + 1 : names[name]] = this.valueOf(name); });
    return { to, owned };
  }

  /**
   * Take over a mask. What it shows wins; where it shows nothing, the labels that it speaks of go.
   *
   * @param {Uint8Array} values in the order of the grid.
   * @param {Uint8Array} to value of the mask -> value here, 0 for none (256 entries).
   * @param {Uint8Array} owned values here that the mask speaks of (256 flags).
   * @param {number[]} slices first and last slice that it speaks of.
   */
  take(values, to, owned, [first, last]) {
    const size = this.grid.sizes[0] * this.grid.sizes[1];
    const change = [];
    for (let k = first; k <= last; k += 1) {
      const old = this.slice(k);
      const at = [];
      const before = [];
      for (let p = 0; p < size; p += 1) {
        const value = to[values[k * size + p]] || (owned[old[p]] ? 0 : old[p]);
        if (value !== old[p]) {
          at.push(p);
          before.push(old[p]);
          old[p] = value;
        }
      }
      if (at.length) {
        change.push({ k, at: Uint32Array.from(at), before: Uint8Array.from(before) });
      }
    }
    this.#changes.push(change);
    this.#draw(change);
  }

  /** Empty a label, or all of them. */
  clear(name = null) {
    const owned = new Uint8Array(256).fill(name === null ? 1 : 0);
    if (name !== null) {
      owned[this.valueOf(name)] = 1;
    }
    const [columns, rows, slices] = this.grid.sizes;
    this.take(new Uint8Array(columns * rows * slices), new Uint8Array(256), owned, [0, slices - 1]);
  }

  /** Take the last change back; false if there is none. */
  undo() {
    const change = this.#changes.pop();
    if (!change) {
      return false;
    }
    for (const { k, at, before } of change) {
      const values = this.slice(k);
      at.forEach((p, n) => { values[p] = before[n]; });
    }
    this.#draw(change);
    return true;
  }

  #draw(change) {
    const { triggerSegmentationDataModified } = this.viewer.cornerstoneTools.segmentation.triggerSegmentationEvents;
    triggerSegmentationDataModified(this.id, change.map(one => one.k));
  }
}
