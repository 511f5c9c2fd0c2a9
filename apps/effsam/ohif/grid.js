// Licensed under the Apache License, Version 2.0 (see LICENSE).
// The grid of a display set as the server sees it: columns, rows, and slices along their normal.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const minus = (a, b) => a.map((v, axis) => v - b[axis]);
const plus = (a, b, times) => a.map((v, axis) => v + times * b[axis]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const length = a => Math.sqrt(dot(a, a));

/** Where an image lies: origin, unit vectors and spacing of its columns (x) and rows (y). */
function planeOf(module) {
  const { imagePositionPatient, rowCosines, columnCosines, columnPixelSpacing, rowPixelSpacing } = module || {};
  const list = value => (value && value.length === 3 ? Array.from(value, Number) : null);
  return {
    origin: list(imagePositionPatient),
    x: list(rowCosines) || [1, 0, 0],
    y: list(columnCosines) || [0, 1, 0],
    dx: columnPixelSpacing || 1,
    dy: rowPixelSpacing || 1,
  };
}

/** Images in one plane direction that each have a place of their own. */
function isStack(planes) {
  const [first] = planes;
  const normal = cross(first.x, first.y);
  const along = planes.map(plane => dot(plane.origin, normal)).sort((a, b) => a - b);
  return (
    planes.every(plane => dot(plane.x, first.x) > 0.999 && dot(plane.y, first.y) > 0.999) &&
    along.every((value, at) => at === 0 || value - along[at - 1] > 1e-3)
  );
}

/**
 * The grid of images: [i, j, k] counts columns, rows and slices. Slices that lie in space are counted along their
 * normal, as the server counts them, in whatever order the viewer shows them; others are counted as they come.
 */
export class Grid {
  /**
   * @param {string[]} imageIds of a display set, in the viewer's order.
   * @param {function(string): {plane: Object, rows: number, columns: number, located: boolean}} look header of an image.
   */
  constructor(imageIds, look) {
    const found = imageIds.map(id => ({ id, ...look(id) })).map(one => ({ ...one, plane: planeOf(one.plane) }));
    if (!found.length) {
      throw new Error('This series has no images.');
    }
    const [first] = found;
    if (found.some(one => one.rows !== first.rows || one.columns !== first.columns)) {
      throw new Error('The images of this series differ in size; label them in another viewer.');
    }
    const planes = found.map(one => one.plane);
    this.located = found.every(one => one.located && one.plane.origin) && isStack(planes);
    if (this.located) {
      const normal = cross(first.plane.x, first.plane.y);
      found.sort((a, b) => dot(a.plane.origin, normal) - dot(b.plane.origin, normal));
    }
    this.imageIds = found.map(one => one.id);
    this.planes = found.map(one => one.plane);
    this.sizes = [first.columns, first.rows, found.length];
  }

  /** Step of each axis in mm (LPS). */
  get directions() {
    const [first] = this.planes;
    const last = this.planes[this.planes.length - 1];
    const steps = this.planes.length - 1;
    const k = this.located && steps ? minus(last.origin, first.origin).map(v => v / steps) : cross(first.x, first.y);
    return [first.x.map(v => v * first.dx), first.y.map(v => v * first.dy), k];
  }

  get origin() {
    return this.located ? this.planes[0].origin : [0, 0, 0];
  }

  /** Slice of an image, -1 if it is none of this grid. */
  sliceOf(imageId) {
    return this.imageIds.indexOf(imageId);
  }

  /**
   * Pixel of a place in the viewer's world.
   *
   * @param {number[]} world as a viewport gives it.
   * @param {?string} imageId the image that was pointed at; null in a reformatted plane.
   * @returns {number[]} [i, j, k], clamped to the grid.
   */
  pixelAt(world, imageId) {
    let k = this.sliceOf(imageId);
    if (k < 0) {
      const normal = cross(this.planes[0].x, this.planes[0].y);
      const away = this.planes.map(plane => Math.abs(dot(minus(world, plane.origin || [0, 0, 0]), normal)));
      k = away.indexOf(Math.min(...away));
    }
    const plane = this.planes[k];
    const from = minus(Array.from(world), plane.origin || [0, 0, 0]);
    const clamp = (value, size) => Math.min(Math.max(Math.round(value), 0), size - 1);
    return [
      clamp(dot(from, plane.x) / plane.dx, this.sizes[0]),
      clamp(dot(from, plane.y) / plane.dy, this.sizes[1]),
      k,
    ];
  }

  /**
   * A mask in the order of this grid, whatever order and direction its axes have.
   *
   * @param {{sizes: number[], data: Uint8Array, origin: ?number[], directions: ?number[][]}} mask the server's.
   * @returns {Uint8Array} columns fastest, then rows, then slices.
   */
  place(mask) {
    const axes = this.located && mask.directions ? this.#axes(mask) : [0, 1, 2].map(axis => ({ axis, back: false }));
    const same = axes.every(({ axis }, at) => mask.sizes[at] === this.sizes[axis]);
    if (!same) {
      throw new Error(`The mask has ${mask.sizes.join(' x ')} voxels, the images ${this.sizes.join(' x ')}.`);
    }
    if (axes.every(({ axis, back }, at) => axis === at && !back)) {
      return mask.data;
    }
    const strides = [1, this.sizes[0], this.sizes[0] * this.sizes[1]];
    const steps = axes.map(({ axis, back }) => (back ? -strides[axis] : strides[axis]));
    const start = axes.reduce((sum, { axis, back }) => sum + (back ? (this.sizes[axis] - 1) * strides[axis] : 0), 0);
    const placed = new Uint8Array(mask.data.length);
    let from = 0;
    for (let c = 0; c < mask.sizes[2]; c += 1) {
      for (let b = 0; b < mask.sizes[1]; b += 1) {
        let to = start + c * steps[2] + b * steps[1];
        for (let a = 0; a < mask.sizes[0]; a += 1, to += steps[0]) {
          placed[to] = mask.data[from];
          from += 1;
        }
      }
    }
    return placed;
  }

  /** For each axis of a mask the axis of this grid that it runs along, and whether backwards. */
  #axes(mask) {
    const own = this.directions;
    const axes = mask.directions.map(step => {
      const along = own.map(mine => dot(step, mine) / (length(step) * length(mine)));
      const axis = along.findIndex(value => Math.abs(value) > 0.99);
      return { axis, back: axis >= 0 && along[axis] < 0 };
    });
    if (new Set(axes.map(one => one.axis)).size !== 3 || axes.some(one => one.axis < 0)) {
      throw new Error('The axes of the mask are not those of the images.');
    }
    const corner = axes.reduce(
      (at, { axis, back }) => (back ? plus(at, own[axis], this.sizes[axis] - 1) : at),
      this.origin
    );
    const off = length(minus(mask.origin, corner));
    if (off > Math.max(...own.map(length))) {
      throw new Error(`The mask lies ${off.toFixed(1)} mm away from the images.`);
    }
    return axes;
  }
}

/** The grid of a display set of the viewer, by the headers of its images. */
export function gridOf(displaySet, metaData) {
  return new Grid(displaySet.imageIds, id => {
    const plane = metaData.get('imagePlaneModule', id);
    const { Rows, Columns } = metaData.get('instance', id) || {};
    // the viewer makes up a place for pictures that have none
    const located = Boolean(plane) && !plane.usingDefaultValues;
    return { plane, rows: Rows, columns: Columns, located };
  });
}
