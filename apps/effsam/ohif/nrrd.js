// Licensed under the Apache License, Version 2.0 (see LICENSE).
// NRRD files of masks: one byte a voxel, x fastest.

const TYPES = new Set(['uchar', 'unsigned char', 'uint8', 'uint8_t']);

/** Through a CompressionStream or a DecompressionStream. */
async function through(bytes, stream) {
  const piped = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}

/** "(1,0,0)" -> [1, 0, 0]; "none" and anything else -> null. */
function vector(text) {
  const found = /^\((.+)\)$/.exec(text);
  const values = found ? found[1].split(',').map(Number) : [];
  return values.length === 3 && values.every(Number.isFinite) ? values : null;
}

/** The fields of a header, by lower-case name, and where the data begin. */
function header(bytes) {
  let end = 1;
  while (end < bytes.length && !(bytes[end] === 10 && (bytes[end - 1] === 10 || (bytes[end - 1] === 13 && bytes[end - 2] === 10)))) {
    end += 1;
  }
  const lines = new TextDecoder().decode(bytes.subarray(0, end)).split(/\r?\n/);
  if (!lines[0].startsWith('NRRD') || end === bytes.length) {
    throw new Error('The answer is no NRRD file.');
  }
  const fields = {};
  for (const line of lines.slice(1)) {
    const at = line.indexOf(':');
    if (at > 0 && !line.startsWith('#')) {
      fields[line.slice(0, at).trim().toLowerCase()] = line.slice(at + 1).replace(/^=/, '').trim();
    }
  }
  return { fields, start: end + 1 };
}

/**
 * A mask as the server sends it.
 *
 * @param {ArrayBuffer} buffer the file.
 * @returns {Promise<{sizes: number[], data: Uint8Array, origin: ?number[], directions: ?number[][]}>}
 *   three sizes (x fastest); origin and the step of each axis in mm (LPS), null where the header tells none.
 */
export async function readNrrd(buffer) {
  const bytes = new Uint8Array(buffer);
  const { fields, start } = header(bytes);
  if (!TYPES.has(fields.type)) {
    throw new Error(`The mask has type ${fields.type}, expected one byte a voxel.`);
  }
  const sizes = fields.sizes.split(/\s+/).map(Number);
  let directions = (fields['space directions'] || '').match(/\([^)]*\)|none/g);
  directions = directions ? directions.map(vector) : null;
  while (sizes.length < 3) {
    sizes.push(1);
  }
  if (sizes.length > 3) {
    throw new Error(`The mask has ${sizes.length} axes, expected 3.`);
  }
  let data = bytes.subarray(start);
  if (['gzip', 'gz'].includes(fields.encoding)) {
    data = await through(data, new DecompressionStream('gzip'));
  } else if (fields.encoding !== 'raw') {
    throw new Error(`The mask is encoded as ${fields.encoding}, expected raw or gzip.`);
  }
  const count = sizes[0] * sizes[1] * sizes[2];
  if (data.length !== count) {
    throw new Error(`The mask has ${data.length} voxels, expected ${sizes.join(' x ')}.`);
  }
  const space = (fields.space || '').toLowerCase();
  const flip = ['right-anterior-superior', 'ras'].includes(space) ? [-1, -1, 1] : [1, 1, 1];
  const lps = values => values && values.map((v, axis) => v * flip[axis]);
  const told = directions !== null && directions.length === 3 && directions.every(Boolean);
  return {
    sizes,
    data,
    origin: told ? lps(vector(fields['space origin'] || '') || [0, 0, 0]) : null,
    directions: told ? directions.map(lps) : null,
  };
}

/**
 * A mask as the server takes it.
 *
 * @param {{sizes: number[], data: Uint8Array, origin: ?number[], directions: ?number[][]}} mask as `readNrrd` gives it.
 * @returns {Promise<Blob>} the file, compressed.
 */
export async function writeNrrd({ sizes, data, origin, directions }) {
  const steps = directions || [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const text = [
    'NRRD0004',
    'type: unsigned char',
    'dimension: 3',
    'space: left-posterior-superior',
    `sizes: ${sizes.join(' ')}`,
    `space directions: ${steps.map(step => `(${step.join(',')})`).join(' ')}`,
    'kinds: domain domain domain',
    'encoding: gzip',
    `space origin: (${(origin || [0, 0, 0]).join(',')})`,
  ];
  const packed = await through(data, new CompressionStream('gzip'));
  return new Blob([`${text.join('\n')}\n\n`, packed], { type: 'application/octet-stream' });
}
