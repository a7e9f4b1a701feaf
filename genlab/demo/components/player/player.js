// The player: pictures that come one by one, then all in one sheet. Nothing here asks the server for anything but the sheet.

import { bytesOf } from '../controls/bytes.js';
import { Controls } from '../controls/controls.js';
import { withoutHoles } from '../controls/frames.js';
import { paneOf, playerPixels, resize } from '../controls/pictures.js';
import { cellsOf } from './sheet.js';

const LEAST_PIXEL = 1.5; // CSS pixels of a picture's pixel below which the panes take more rows
const TALLEST = 560; // CSS pixels of a pane's height
const LONGEST_SYMBOL = 2; // letters of a name that is set as a symbol

/** Return the element with the name of a pane; x_t sets an index. */
function nameOf(text) {
  const name = document.createElement('div');
  name.className = 'name';
  if (!text) return name;
  const [symbol, index] = text.split('_');
  const span = name.appendChild(document.createElement('span'));
  span.textContent = symbol;
  if (symbol.length <= LONGEST_SYMBOL) span.className = 'symbol';
  if (index !== undefined) span.appendChild(document.createElement('sub')).textContent = index;
  return name;
}

/** Return what decides the size of the panes, as text. */
function shapeOf({ panes, colours, width, height }) {
  return JSON.stringify([panes, colours, width, height]);
}

/** Start a player in its element: gradio calls this once for every component on the page. */
export function player({ element, props, watch }) {
  const row = element.querySelector('.panes');
  const controls = new Controls(element, props, { draw, describe, empty: () => controls.label('empty') });
  let run = '';
  let panes = [];
  let sheets = 0; // counts sheets, so that a late one cannot replace a newer one

  function build() {
    const { data } = controls;
    panes = data.panes.map((text, p) => ({ ...paneOf(nameOf(text), data.colours[p]), text }));
    for (const { canvas } of panes) canvas.setAttribute('role', 'img');
    row.replaceChildren(...panes.map((pane) => pane.root));
    layout();
  }

  function layout() {
    if (!row.clientWidth || !panes.length) return;
    const [w, h] = [controls.data.width / panes.length, controls.data.height];
    const pixels = playerPixels({
      width: row.clientWidth,
      gap: parseFloat(getComputedStyle(row).columnGap) || 0,
      ratio: window.devicePixelRatio || 1,
      count: panes.length,
      w,
      h,
      tallest: Math.max(160, Math.min(TALLEST, 0.5 * window.innerHeight)),
      least: LEAST_PIXEL,
    });
    for (const pane of panes) resize(pane, w, h, pixels);
    draw();
  }

  function draw() {
    const frame = controls.frames[controls.index];
    const [w, h] = [controls.data.width / panes.length, controls.data.height];
    panes.forEach(({ canvas, context }, p) => {
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (!frame) return;
      context.imageSmoothingEnabled = false;
      context.drawImage(frame.image, frame.x + p * w, frame.y, w, h, 0, 0, canvas.width, canvas.height);
    });
  }

  function describe(count, caption) {
    for (const { canvas, text } of panes) {
      canvas.setAttribute('aria-label', controls.label('picture', { pane: text, frame: count, caption }));
    }
  }

  /** Forget all frames, and announce those of a value, or of none. */
  function reset(value) {
    const shape = shapeOf(controls.data);
    for (const frame of controls.frames.filter(Boolean)) frame.image.close();
    run = value ? value.run : '';
    controls.setFrames(value || props.empty, []);
    controls.total = value ? value.n : 0;
    controls.index = -1;
    controls.complete = controls.playing = false;
    controls.following = Boolean(value);
    if (!controls.repeatChosen) controls.repeat = Boolean(value?.loop);
    if (shapeOf(controls.data) !== shape) build();
    else draw();
    controls.message(controls.total ? '' : controls.label('empty'));
    controls.announce('');
    controls.drawSegments();
    controls.update();
  }

  async function load() {
    const value = props.value;
    if (!value?.n) {
      reset(null);
      return;
    }
    if (value.run !== run) reset(value);
    try {
      if (value.sheet) await loadSheet(value);
      else if (value.done) end();
      else if (value.live) await loadFrame(value);
    } catch (error) {
      if (value.run !== run) return;
      console.error('player:', error);
      if (!value.sheet) return;
      controls.complete = true;
      controls.following = controls.playing = false;
      controls.message(controls.label('failed'));
      controls.update();
    }
  }

  /** End a run before its last frame: the frames that have come are all of it. */
  function end() {
    if (!controls.arrived) {
      reset(null);
      return;
    }
    const { frames, segments, moved } = withoutHoles(controls.frames, controls.data.segments || []);
    const shown = moved(controls.index);
    controls.setFrames({ ...controls.data, segments }, frames);
    controls.playing = false;
    controls.drawSegments();
    controls.announce(controls.label('ready', { n: frames.length }));
    controls.show(shown);
  }

  async function loadFrame(value) {
    const image = await createImageBitmap(new Blob([bytesOf(value.live)]));
    if (value.run !== run || controls.complete) {
      image.close();
      return;
    }
    const { frames } = controls;
    if (frames[value.i]) frames[value.i].image.close();
    else controls.arrived += 1;
    frames[value.i] = { image, x: 0, y: 0, caption: value.caption };
    if (controls.index < 0 || (controls.following && value.i > controls.index)) controls.show(value.i);
    else controls.update();
  }

  async function loadSheet(value) {
    sheets += 1;
    const number = sheets;
    const picture = new Image();
    picture.src = value.sheet.url;
    await picture.decode();
    const image = await createImageBitmap(picture);
    if (value.run !== run || number !== sheets) {
      image.close();
      return;
    }
    const { index, following, frames } = controls;
    for (const frame of frames.filter(Boolean)) frame.image.close();
    controls.setFrames(value, cellsOf(value, image));
    controls.message('');
    controls.drawSegments();
    if (index >= 0) controls.announce(controls.label('ready', { n: value.n }));
    if (index >= 0 && !following) {
      controls.show(Math.min(index, value.n - 1)); // the visitor has gone to another frame, or is playing
      return;
    }
    const autoplay = value.autoplay && value.n > 1;
    controls.show(autoplay && controls.reducedMotion.matches ? value.n - 1 : value.i);
    if (autoplay && !controls.reducedMotion.matches) controls.play();
  }

  controls.$('.stage').addEventListener('click', () => controls.toggle());
  new ResizeObserver(layout).observe(row);
  const [lines, narrowLines] = props.empty.lines;
  controls.$('.text').style.setProperty('--lines', lines);
  controls.$('.text').style.setProperty('--narrow-lines', narrowLines);
  build();
  controls.drawSegments();
  controls.write();
  watch('value', load);
  watch('labels', () => controls.write());
  load();
}
