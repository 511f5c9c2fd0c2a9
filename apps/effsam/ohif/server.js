// Licensed under the Apache License, Version 2.0 (see LICENSE).
// The labelling server: the origin that the page came from. Errors carry the server's own line.

import { readNrrd } from './nrrd.js';

const CLIENT = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);

/** What went wrong, in one line for the user. */
export class ServerError extends Error {}

/** The line that a refusal carries: FastAPI's `detail`, else its first line, else the status. */
async function lineOf(response) {
  const text = await response.text().catch(() => '');
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === 'string') {
      return detail;
    }
    if (Array.isArray(detail) && detail.length) {
      return `${(detail[0].loc || []).join('.')}: ${detail[0].msg}`;
    }
  } catch {
    // no JSON: below
  }
  const first = text.trim().split('\n')[0];
  return first && !first.startsWith('<') ? first.slice(0, 300) : `The server answers ${response.status}.`;
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: 'same-origin', ...options });
  } catch (error) {
    if (error.name === 'AbortError') {
      throw error;
    }
    throw new ServerError('The server cannot be reached. Is it running?');
  }
  if (!response.ok) {
    const error = new ServerError(await lineOf(response));
    error.status = response.status;
    throw error;
  }
  return response;
}

const json = async (path, options) => (await ask(path, options)).json();
const post = (path, body) =>
  json(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
const query = values => new URLSearchParams(values).toString();

export const info = () => json('/info/');

/**
 * A mask of an image.
 *
 * @param {string} model name of the task.
 * @param {string} image SeriesInstanceUID.
 * @param {Object} params of the task.
 * @param {AbortSignal} signal ends the wait.
 * @returns {Promise<{mask: Object, result: Object}>} the mask as `readNrrd` gives it, and what is said of it.
 */
export async function infer(model, image, params, signal) {
  const form = new FormData();
  const format = { result_extension: '.nrrd', result_dtype: 'uint8', result_compress: false };
  form.set('params', JSON.stringify({ ...params, ...format, client_id: CLIENT }));
  const path = `/infer/${encodeURIComponent(model)}?${query({ image })}`;
  const response = await ask(path, { method: 'POST', body: form, signal });
  const type = response.headers.get('content-type') || '';
  if (!type.startsWith('multipart/form-data')) {
    throw new ServerError('The server sent no mask.');
  }
  const parts = await response.formData();
  const file = [...parts.values()].find(part => part instanceof Blob && part.type !== 'application/json');
  if (!file) {
    throw new ServerError('The server sent no mask.');
  }
  const told = parts.get('params');
  const result = JSON.parse(told instanceof Blob ? await told.text() : told || '{}');
  return { mask: await readNrrd(await file.arrayBuffer()), result };
}

/**
 * Store a mask; the server writes a DICOM Segmentation into the archive.
 *
 * @param {string} image SeriesInstanceUID.
 * @param {Blob} file the mask as NRRD.
 * @param {{name: string, idx: number}[]} labels names of its values.
 */
export async function submit(image, file, labels) {
  const form = new FormData();
  form.set('params', JSON.stringify({ label_info: labels, client_id: CLIENT }));
  form.set('label', file, `${image}.nrrd`);
  return json(`/datastore/label?${query({ image, tag: 'final' })}`, { method: 'PUT', body: form });
}

export const nextSample = strategy =>
  post(`/activelearning/${encodeURIComponent(strategy)}`, { client_id: CLIENT });

/** The study of a series, from the archive; null if it is not there. */
export async function studyOf(series, qidoRoot) {
  const path = `${qidoRoot}/series?${query({ SeriesInstanceUID: series, limit: 1 })}`;
  const response = await ask(path, { headers: { Accept: 'application/dicom+json' } });
  const rows = response.status === 204 ? [] : await response.json();
  return rows.length ? rows[0]['0020000D'].Value[0] : null;
}

export const startTraining = trainer =>
  post(`/train/${encodeURIComponent(trainer)}`, { client_id: CLIENT });

export const stopTraining = () => json('/train/', { method: 'DELETE' });

/** The trainings that the server knows of, oldest first. */
export const trainings = () => json('/train/?all=true');
