// Licensed under the Apache License, Version 2.0 (see LICENSE).
// The panel in the viewer's right side bar: plain DOM; text of the server is only ever set as text.

import { BACKGROUND, BOX, BRUSH, ERASER, FOREGROUND } from './prompts.js';
import { togglePlanes } from './viewer.js';

const STYLE = `
.effsam { color: #e6edf3; font: 13px/1.4 system-ui, sans-serif; padding: 10px; display: flex; flex-direction: column; gap: 10px; }
.effsam section { display: flex; flex-direction: column; gap: 6px; border-top: 1px solid #2b3b55; padding-top: 8px; }
.effsam h3 { font-size: 11px; letter-spacing: .06em; text-transform: uppercase; color: #8fb4e8; margin: 0; }
.effsam-row { display: flex; gap: 6px; }
.effsam-row > * { flex: 1; min-width: 0; }
.effsam button { background: #16335c; color: #e6edf3; border: 1px solid #2d5a97; border-radius: 4px; padding: 5px 6px; cursor: pointer; }
.effsam button:hover:enabled { background: #1f4a84; }
.effsam button.effsam-main { background: #2563c9; font-weight: 600; }
.effsam button.effsam-on { background: #e6edf3; color: #0b1b33; }
.effsam button:disabled { opacity: .45; cursor: default; }
.effsam select { background: #0b1b33; color: #e6edf3; border: 1px solid #2d5a97; border-radius: 4px; padding: 4px; }
.effsam-said { min-height: 2.8em; overflow-wrap: anywhere; }
.effsam-said.effsam-failed { color: #ff8a80; }
.effsam-small { color: #8b9bb0; font-size: 11px; }
.effsam progress { width: 100%; }
`;

/** An element: `make('button', {text, name, class, on}, children)`. */
function make(tag, { text, name, on, ...rest } = {}, children = []) {
  const node = document.createElement(tag);
  if (text !== undefined) {
    node.textContent = text;
  }
  if (name) {
    node.dataset.effsam = name;
  }
  if (on) {
    node.addEventListener(tag === 'select' ? 'change' : 'click', on);
  }
  Object.assign(node, rest);
  node.append(...children);
  return node;
}

/** Fill a select, keeping what is chosen. */
function choices(select, names, chosen = select.value) {
  const same = names.length === select.options.length && names.every((name, at) => select.options[at].value === name);
  if (!same) {
    select.replaceChildren(...names.map(name => make('option', { text: name, value: name })));
  }
  if (names.includes(chosen)) {
    select.value = chosen;
  }
}

/**
 * Build the panel for a session.
 *
 * @param {HTMLElement} root an empty element.
 * @param {import('./session.js').Session} session what the buttons do.
 * @returns {function(): void} shows the session as it is now.
 */
export function buildPanel(root, session) {
  const part = {};
  const button = (name, text, on, more = {}) => (part[name] = make('button', { name, text, on, type: 'button', ...more }));
  const select = (name, on) => (part[name] = make('select', { name, on }));
  const row = (...children) => make('div', { className: 'effsam-row' }, children);
  const section = (title, ...children) => make('section', {}, [make('h3', { text: title }), ...children]);
  const tool = (name, kind, text) => button(name, text, () => session.pickTool(kind), { title: text });

  part.said = make('div', { name: 'said', className: 'effsam-said', role: 'status' });
  part.bar = make('progress', { name: 'progress', max: 1, value: 0 });
  part.times = make('div', { name: 'times', className: 'effsam-small' });
  root.className = 'effsam';
  root.replaceChildren(
    make('style', { text: STYLE }),
    part.said,
    section('Automatic', button('automatic', 'Outline everything', () => session.automatic(), { className: 'effsam-main' }),
      row(select('target'), button('byName', 'Outline this', () => session.byName(part.target.value)))),
    section('Correct', select('label', () => session.pickLabel(part.label.value)),
      row(tool('foreground', FOREGROUND, 'Point +'), tool('background', BACKGROUND, 'Point −'), tool('box', BOX, 'Box')),
      row(tool('brush', BRUSH, 'Brush'), tool('eraser', ERASER, 'Eraser'), tool('window', 'WindowLevel', 'Window')),
      row(button('through', 'Through the volume', () => { session.through = !session.through; session.changed(); }),
        button('planes', 'Three planes', () => togglePlanes(session.viewer))),
      row(button('undo', 'Undo', () => session.undo()), button('clear', 'Clear', () => session.clear()))),
    section('Keep', button('submit', 'Submit', () => session.submit(), { className: 'effsam-main' }),
      row(select('strategy'), button('next', 'Next image', () => session.next(part.strategy.value)))),
    section('Learn', row(select('trainer'), button('train', 'Train', () => session.train(part.trainer.value)),
      button('stop', 'Stop', () => session.stopTraining())), part.bar),
    part.times,
    row(button('connect', 'Connect again', () => session.connect())),
    make('div', { className: 'effsam-small', text: 'Research software: not a medical device, not for diagnosis.' })
  );
  return () => show(part, session);
}

const KINDS = { foreground: FOREGROUND, background: BACKGROUND, box: BOX, brush: BRUSH, eraser: ERASER, window: 'WindowLevel' };

function show(part, session) {
  const { busy, info, models, training } = session;
  part.said.textContent = busy ? `${busy} …` : session.message;
  part.said.classList.toggle('effsam-failed', session.failed && !busy);
  part.said.dataset.told = session.told;
  part.said.dataset.state = busy ? 'busy' : session.failed ? 'failed' : 'ready';
  choices(part.target, session.targets);
  choices(part.label, session.labels, session.label);
  choices(part.strategy, Object.keys(info?.strategies || {}));
  choices(part.trainer, Object.keys(info?.trainers || {}));
  for (const [name, kind] of Object.entries(KINDS)) {
    part[name].classList.toggle('effsam-on', session.tool === kind);
    part[name].disabled = !info || (name !== 'window' && !session.label);
  }
  part.automatic.disabled = !models.automatic;
  part.byName.disabled = !models.byName;
  part.through.classList.toggle('effsam-on', session.through);
  part.through.disabled = !models.volume || (session.displaySet()?.imageIds || []).length < 2;
  part.submit.disabled = part.undo.disabled = part.clear.disabled = !info;
  part.next.disabled = !part.strategy.options.length;
  part.train.disabled = !part.trainer.options.length || Boolean(training);
  part.stop.disabled = !training;
  part.planes.disabled = !session.displaySet()?.isReconstructable;
  const { epoch = 0, total_epochs: total = 0 } = training?.stats || {};
  part.bar.hidden = !training;
  part.bar.value = total ? epoch / total : 0;
  const { total: spent, ...stages } = session.times || {};
  part.times.textContent = typeof spent === 'number' ? `Answered in ${spent.toFixed(2)} s.` : '';
  part.times.title = Object.entries(stages).map(([stage, value]) => `${stage} ${value} s`).join(', ');
}
