// Licensed under the Apache License, Version 2.0 (see LICENSE).
// Mode for a prebuilt OHIF 3: any modality, stacks and volumes, with the labelling panel at the right.

import { TOOL_GROUPS, equip, registerTools } from './prompts.js';

const EXTENSION = '/effsam-ohif/extension.js';
const DEFAULT = '@ohif/extension-default';
const CORNERSTONE = '@ohif/extension-cornerstone';
const SEG = '@ohif/extension-cornerstone-dicom-seg';
const NEEDS = { [DEFAULT]: '^3.0.0', [CORNERSTONE]: '^3.0.0', [SEG]: '^3.0.0', [EXTENSION]: '*' };
const STACK = `${DEFAULT}.sopClassHandlerModule.stack`;
const SEG_STACK = `${SEG}.sopClassHandlerModule.dicom-seg`;

function onModeEnter({ servicesManager, extensionManager }) {
  const { toolGroupService } = servicesManager.services;
  const { toolNames, Enums } = extensionManager.getModuleEntry(`${CORNERSTONE}.utilityModule.tools`).exports;
  const { cornerstoneTools } = extensionManager.getModuleEntry(`${CORNERSTONE}.utilityModule.common`).exports.getCornerstoneLibraries();
  const { Primary, Secondary, Auxiliary, Wheel } = Enums.MouseBindings;
  const on = (toolName, mouseButton) => ({ toolName, bindings: [{ mouseButton }] });
  registerTools(cornerstoneTools);
  for (const group of TOOL_GROUPS) {
    toolGroupService.createToolGroupAndAddTools(group, {
      active: [
        on(toolNames.WindowLevel, Primary),
        on(toolNames.Zoom, Secondary),
        on(toolNames.Pan, Auxiliary),
        on(toolNames.StackScroll, Wheel),
      ],
    });
    equip(cornerstoneTools, group);
  }
}

function onModeExit({ servicesManager }) {
  const { toolGroupService, segmentationService, cornerstoneViewportService, syncGroupService } = servicesManager.services;
  for (const service of [toolGroupService, syncGroupService, segmentationService, cornerstoneViewportService]) {
    service.destroy();
  }
}

export default {
  id: '/effsam-ohif/mode.js',
  extensionDependencies: NEEDS,
  modeFactory: () => ({
    id: '/effsam-ohif/mode.js',
    routeName: 'effsam',
    displayName: 'Label with effsam',
    onModeEnter,
    onModeExit,
    validationTags: { study: [], series: [] },
    isValidMode: ({ modalities }) => {
      const left = modalities.split('\\').filter(name => !['SEG', 'SR', 'RTSTRUCT', 'PR', 'KO', 'DOC'].includes(name));
      return { valid: left.length > 0, description: 'Images are needed.' };
    },
    routes: [
      {
        path: 'effsam',
        layoutTemplate: () => ({
          id: `${DEFAULT}.layoutTemplateModule.viewerLayout`,
          props: {
            leftPanels: [`${DEFAULT}.panelModule.seriesList`],
            rightPanels: [`${EXTENSION}.panelModule.label`],
            viewports: [
              { namespace: `${CORNERSTONE}.viewportModule.cornerstone`, displaySetsToDisplay: [STACK] },
              { namespace: `${SEG}.viewportModule.dicom-seg`, displaySetsToDisplay: [SEG_STACK] },
            ],
          },
        }),
      },
    ],
    extensions: NEEDS,
    hangingProtocol: 'default',
    sopClassHandlers: [STACK, SEG_STACK],
    hotkeys: [],
  }),
};
