// Licensed under the Apache License, Version 2.0 (see LICENSE).
// What the viewer shows: which images, in which layout, of which study.

import { ServerError, studyOf } from './server.js';

/** The display set of the active viewport that holds images; null if there is none. */
export function shownSet({ viewportGridService, displaySetService }) {
  const { activeViewportId, viewports } = viewportGridService.getState();
  const shown = viewports.get(activeViewportId)?.displaySetInstanceUIDs || [];
  const sets = shown.map(uid => displaySetService.getDisplaySetByUID(uid));
  return sets.find(one => one && (one.imageIds || []).length && one.Modality !== 'SEG') || null;
}

/** Three planes of a volume, or back to its images. */
export async function togglePlanes({ services, commandsManager }) {
  const { protocol } = services.hangingProtocolService.getActiveProtocol();
  const protocolId = protocol.id === 'mpr' ? 'default' : 'mpr';
  await commandsManager.runCommand('setHangingProtocol', { protocolId });
}

/** Go to the image that the server has chosen. */
export async function openSample(sample, qidoRoot) {
  const study = sample.StudyInstanceUID || (await studyOf(sample.id, qidoRoot));
  if (!study) {
    throw new ServerError('The archive does not have the series that was chosen.');
  }
  const to = new URLSearchParams({ StudyInstanceUIDs: study, initialSeriesInstanceUID: sample.id });
  window.location.assign(`${window.location.pathname}?${to}`);
}
