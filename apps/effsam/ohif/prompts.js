// Licensed under the Apache License, Version 2.0 (see LICENSE).
// Points and boxes: annotations of the viewer, drawn, moved and kept by it, read here as pixels of the grid.

export const FOREGROUND = 'EffsamForeground';
export const BACKGROUND = 'EffsamBackground';
export const BOX = 'EffsamBox';
export const BRUSH = 'EffsamBrush';
export const ERASER = 'EffsamEraser';
export const TOOL_GROUPS = ['default', 'mpr'];

const KINDS = [FOREGROUND, BACKGROUND, BOX];
const COLOURS = { [FOREGROUND]: 'rgb(0, 230, 118)', [BACKGROUND]: 'rgb(255, 82, 82)', [BOX]: 'rgb(255, 214, 0)' };

/** Make the tools known to cornerstone, once a page. */
export function registerTools(cornerstoneTools) {
  const { ProbeTool, RectangleROITool, addTool } = cornerstoneTools;
  const known = cornerstoneTools.state.tools;
  const silent = { configuration: { getTextLines: () => null, calculateStats: false } };
  const make = (base, name) => {
    const tool = class extends base {
      constructor(props = {}) {
        super(props, { supportedInteractionTypes: ['Mouse', 'Touch'], configuration: { ...silent.configuration, handleRadius: '5' } });
      }
    };
    Object.defineProperty(tool, 'toolName', { value: name });
    return tool;
  };
  for (const [name, base] of [[FOREGROUND, ProbeTool], [BACKGROUND, ProbeTool], [BOX, RectangleROITool]]) {
    if (!known[name]) {
      addTool(make(base, name));
    }
  }
}

/** Add the tools to a tool group of the viewer, and colour them. */
export function equip(cornerstoneTools, groupId) {
  const group = cornerstoneTools.ToolGroupManager.getToolGroup(groupId);
  if (!group || group.hasTool(FOREGROUND)) {
    return;
  }
  for (const kind of KINDS) {
    group.addTool(kind);
    group.setToolPassive(kind);
  }
  group.addToolInstance(BRUSH, 'Brush', { activeStrategy: 'FILL_INSIDE_CIRCLE' });
  group.addToolInstance(ERASER, 'Brush', { activeStrategy: 'ERASE_INSIDE_CIRCLE' });
  const style = colour => ({ color: colour, colorHighlighted: colour, colorSelected: colour, lineWidth: '2', textBoxVisibility: false });
  cornerstoneTools.annotation.config.style.setToolGroupToolStyles(
    groupId,
    Object.fromEntries(KINDS.map(kind => [kind, style(COLOURS[kind])]))
  );
}

/** Give the left mouse button to a tool, in every tool group. */
export function choose(cornerstoneTools, name) {
  const { MouseBindings } = cornerstoneTools.Enums;
  const bindings = [{ mouseButton: MouseBindings.Primary }];
  for (const groupId of TOOL_GROUPS) {
    const group = cornerstoneTools.ToolGroupManager.getToolGroup(groupId);
    if (group && group.hasTool(name)) {
      const before = group.getActivePrimaryMouseButtonTool();
      if (before && before !== name) {
        group.setToolPassive(before, { removeAllBindings: bindings });
      }
      group.setToolActive(name, { bindings });
    }
  }
}

/** The prompts of the user: which there are, what they say of a label. */
export class Prompts {
  /** @param {Object} cornerstoneTools of the viewer. */
  constructor(cornerstoneTools) {
    this.state = cornerstoneTools.annotation.state;
    this.order = [];
  }

  /** Whose an annotation is, from the moment that it is drawn. */
  adopt(annotation, owner) {
    annotation.metadata.effsam = owner;
    this.order.push(annotation.annotationUID);
  }

  /** Prompts of a display set, oldest first. */
  of(displaySetUID) {
    this.order = this.order.filter(uid => this.state.getAnnotation(uid));
    return this.order
      .map(uid => this.state.getAnnotation(uid))
      .filter(annotation => annotation.metadata.effsam.displaySet === displaySetUID);
  }

  remove(annotations) {
    for (const annotation of annotations) {
      this.state.removeAnnotation(annotation.annotationUID);
    }
    this.order = this.order.filter(uid => this.state.getAnnotation(uid));
  }

  /**
   * What the prompts say of a label, in the grid's pixels. An older box gives way to a newer one.
   *
   * @param {import('./grid.js').Grid} grid of the images.
   * @param {Object[]} annotations of one label, oldest first.
   * @param {?number} slice only those on it; null for all.
   * @returns {{foreground: number[][], background: number[][], roi: ?number[]}} roi: x0, x1, y0, y1, z0, z1.
   */
  read(grid, annotations, slice) {
    const said = { foreground: [], background: [], roi: null };
    let box = null;
    for (const annotation of annotations) {
      const { referencedImageId, toolName } = annotation.metadata;
      const points = annotation.data.handles.points.map(point => grid.pixelAt(point, referencedImageId));
      if (slice !== null && points[0][2] !== slice) {
        continue;
      }
      if (toolName !== BOX) {
        said[toolName === FOREGROUND ? 'foreground' : 'background'].push(points[0]);
        continue;
      }
      if (box) {
        this.remove([box]);
      }
      box = annotation;
      said.roi = [0, 1, 2].flatMap(axis => {
        const values = points.map(point => point[axis]);
        return [Math.min(...values), Math.max(...values)];
      });
    }
    return said;
  }
}
