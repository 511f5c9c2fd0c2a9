// Licensed under the Apache License, Version 2.0 (see LICENSE).
// Extension for a prebuilt OHIF 3: the labelling panel. Loaded by URL; its id must be that URL.

import { buildPanel } from './panel.js';
import { Session } from './session.js';

export const id = '/effsam-ohif/extension.js';

/** A literal React 18 element: React is not in reach of a module that is loaded by URL, nor needed. */
const element = ref => ({
  $$typeof: Symbol.for('react.element'),
  type: 'div',
  key: null,
  ref,
  props: { style: { height: '100%', overflowY: 'auto' } },
  _owner: null,
  _store: {},
});

/** The panel, made once a page and moved to wherever the viewer wants it. */
function panelOf({ servicesManager, extensionManager, commandsManager }) {
  let root = null;
  const build = () => {
    const common = extensionManager.getModuleEntry('@ohif/extension-cornerstone.utilityModule.common');
    const [source] = extensionManager.getActiveDataSource();
    const viewer = {
      ...common.exports.getCornerstoneLibraries(),
      services: servicesManager.services,
      commandsManager,
      qidoRoot: source.getConfig().qidoRoot,
    };
    root = document.createElement('div');
    let show = () => {};
    const session = new Session(viewer, () => show());
    show = buildPanel(root, session);
    session.listen();
    session.connect();
    show();
  };
  return node => {
    if (node && !(root && node.contains(root))) {
      if (!root) {
        build();
      }
      node.replaceChildren(root);
    }
  };
}

export default {
  id,
  getPanelModule(managers) {
    const ref = panelOf(managers);
    return [{ name: 'label', iconName: 'tab-segmentation', iconLabel: 'Label', label: 'Label', component: () => element(ref) }];
  },
};
