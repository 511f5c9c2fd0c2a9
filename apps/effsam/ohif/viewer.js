// Licensed under the Apache License, Version 2.0 (see LICENSE).
// What the viewer shows: which images, in which layout, of which study.

import { ServerError, studyOf } from './server.js';

/**
 * Listen to the viewer.
 *
 * @param {Object} viewer `{services, cornerstone, cornerstoneTools}`.
 * @param {Object} on `completed(annotation)`, `modified(annotation)`, `ready()` of viewports, `active()`: other images
 *   may be worked on.
 * @returns {function(): void} ends it.
 */
export function listenTo({ services, cornerstone, cornerstoneTools }, on) {
  const { Events } = cornerstoneTools.Enums;
  const completed = event => on.completed(event.detail.annotation);
  const modified = event => on.modified(event.detail.annotation);
  cornerstone.eventTarget.addEventListener(Events.ANNOTATION_COMPLETED, completed);
  cornerstone.eventTarget.addEventListener(Events.ANNOTATION_MODIFIED, modified);
  const grid = services.viewportGridService;
  const ready = grid.subscribe(grid.EVENTS.VIEWPORTS_READY, on.ready);
  const { ACTIVE_VIEWPORT_ID_CHANGED, GRID_STATE_CHANGED } = grid.EVENTS;
  const active = [ACTIVE_VIEWPORT_ID_CHANGED, GRID_STATE_CHANGED].map(event => grid.subscribe(event, on.active));
  return () => {
    cornerstone.eventTarget.removeEventListener(Events.ANNOTATION_COMPLETED, completed);
    cornerstone.eventTarget.removeEventListener(Events.ANNOTATION_MODIFIED, modified);
    ready.unsubscribe();
    active.forEach(one => one.unsubscribe());
  };
}

/** Show label maps, by display set, wherever their images are shown. */
export async function showMaps({ viewportGridService }, maps) {
  for (const [viewportId, viewport] of viewportGridService.getState().viewports) {
    for (const uid of viewport.displaySetInstanceUIDs || []) {
      await maps.get(uid)?.show(viewportId);
    }
  }
}

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
