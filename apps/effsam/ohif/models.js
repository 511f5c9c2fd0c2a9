// Licensed under the Apache License, Version 2.0 (see LICENSE).
// What the server's `/info/` tells: names of labels, and which model does what.

/** Names of an `/info/` entry's labels, in the order of their values. */
export function namesOf(labels) {
  if (Array.isArray(labels)) {
    return labels.map(String);
  }
  return Object.entries(labels || {}).sort((a, b) => a[1] - b[1]).map(([name]) => name);
}

/** Names that a model outlines in images of a DICOM modality; null where the server does not tell. */
export function fittingOf(info, name, modality) {
  const names = ((info?.models || {})[name]?.modalities || {})[String(modality || '').trim().toUpperCase()];
  return Array.isArray(names) && names.length ? names : null;
}

/** Names of all labels that the server knows. */
export function labelsOf(info) {
  const all = Object.values(info.models || {}).flatMap(model => namesOf(model.labels));
  return [...new Set([...namesOf(info.labels), ...all])].filter(name => name !== 'background');
}

/** Targets that a model takes by name. */
export function targetsOf(info, name) {
  const model = (info?.models || {})[name];
  const asked = model?.config?.target;
  return Array.isArray(asked) ? asked : namesOf(model?.labels);
}

export const isRunning = task => ['SUBMITTED', 'RUNNING'].includes(task.status);

/** The models by what they do: the server's own names first, else any of the kind. */
export function modelsOf(info) {
  const entries = Object.entries(info.models || {});
  const pick = (name, fits) => (entries.find(([own]) => own === name) || entries.find(([, model]) => fits(model)) || [])[0];
  const clicks = dimension => model => ['deepgrow', 'deepedit'].includes(model.type) && model.dimension === dimension;
  return {
    automatic: pick('automatic', model => model.type === 'segmentation' && !(model.config || {}).target),
    byName: pick('class_prompt', model => model.type === 'segmentation' && Boolean((model.config || {}).target)),
    slice: pick('prompted_2d', clicks(2)),
    volume: pick('prompted_3d', clicks(3)),
  };
}
