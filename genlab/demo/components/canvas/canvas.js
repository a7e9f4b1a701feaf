// The canvas: pictures side by side with hard pixels. The first one, x, is the visitor's to draw on; in the others a pixel can be
// chosen. The value that the server sends is drawn and then replaced by what the visitor can change (token, x, chosen, cover).
// What is drawn here stays until the server sends another token with its x.

import { base64Of, bytesOf } from '../controls/bytes.js';
import { labelsOf } from '../controls/labels.js';
import { canvasPixels, paneOf, resize } from '../controls/pictures.js';
import { Requests } from '../controls/requests.js';
import { BROAD, drawLine, opaque, PEN } from './pen.js';

const LEAST = 124; // CSS pixels of a picture's side below which the pictures take more rows
const TALLEST = 260; // CSS pixels of a picture's height
const HIDDEN = 127; // above which a byte of the cover hides its pixel
const CHOICE = 1; // index of the picture in which the chosen pixel is framed, and the arrow keys choose

const clamped = (value, low, high) => Math.max(low, Math.min(high, value));

/** Return what decides the size of the pictures, as text. */
function shapeOf({ panes, colours, width, height }) {
  return JSON.stringify([panes.length, colours, width, height]);
}

/** Return the step of an arrow key, [right, down], or null. */
function stepOf(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return null;
  return { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || null;
}

/** Start a canvas in its element: gradio calls this once for every component on the page. */
export function canvas({ element, props, trigger, watch }) {
  const $ = (selector) => element.querySelector(selector);
  const row = $('.panes');
  const label = labelsOf(props);
  const requests = new Requests(publish, trigger);

  let data = props.empty; // what is shown, a CanvasData
  let token = ''; // of the picture that x began as
  let x = new Uint8ClampedArray(0); // its bytes, drawn on
  let pictures = []; // the bytes of the others
  let panes = [];
  let chosen = null; // [row, column]
  let cursor = null; // where the keyboard draws: [x, y] in pixels
  let stroke = null; // the last point of the stroke that is being drawn
  let erasing = false;
  let cover = new Uint8ClampedArray(0); // a byte for each pixel of x; empty where nothing can be hidden
  let hiding = false; // whether the pen draws on the cover

  function publish() {
    props.value = { token, x: base64Of(x), chosen, cover: base64Of(cover) };
  }

  // ---- what is shown ----

  function build() {
    panes = data.panes.map((text, p) => {
      const name = document.createElement('div');
      name.className = 'name';
      name.textContent = text;
      const pane = { ...paneOf(name, data.colours[p]), name, text };
      if (p === 0) listenToPen(pane);
      else listenToChoice(pane, p);
      return pane;
    });
    row.replaceChildren(...panes.map((pane) => pane.root));
  }

  function layout() {
    if (!row.clientWidth || !panes.length) return;
    const { width: w, height: h } = data;
    const pixels = canvasPixels({
      width: row.clientWidth,
      gap: parseFloat(getComputedStyle(row).columnGap) || 0,
      ratio: window.devicePixelRatio || 1,
      count: panes.length,
      w,
      h,
      tallest: TALLEST,
      least: LEAST,
    });
    for (const pane of panes) resize(pane, w, h, pixels);
    draw();
  }

  function paint({ canvas, context }, bytes) {
    const { width, height, channels } = data;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (bytes.length !== width * height * channels) return;
    const small = document.createElement('canvas');
    Object.assign(small, { width, height });
    small.getContext('2d').putImageData(new ImageData(opaque(bytes, channels), width, height), 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  /** Paint over the hidden pixels. */
  function hide({ canvas, context }) {
    const k = canvas.width / data.width;
    context.fillStyle = getComputedStyle(element).getPropertyValue('--genlab-kl') || 'orange';
    cover.forEach((value, i) => {
      if (value > HIDDEN) context.fillRect((i % data.width) * k, Math.floor(i / data.width) * k, k, k);
    });
  }

  /** Draw a frame around the pixel whose corner is at [x, y]. */
  function frame({ canvas, context }, [x, y]) {
    const k = canvas.width / data.width;
    const line = Math.max(1, Math.round(window.devicePixelRatio || 1));
    for (const [width, colour] of [
      [3 * line, 'black'],
      [line, 'white'],
    ]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(x * k - line / 2, y * k - line / 2, k + line, k + line);
    }
  }

  function draw() {
    panes.forEach((pane, p) => {
      paint(pane, p ? pictures[p - 1] || [] : x);
    });
    if (cover.length && panes[0]) hide(panes[0]);
    if (chosen && panes[CHOICE]) frame(panes[CHOICE], [chosen[1], chosen[0]]);
    if (cursor && panes[0]?.canvas.matches(':focus-visible')) frame(panes[0], [cursor[0] - 0.5, cursor[1] - 0.5]);
  }

  function write() {
    $('.easel').setAttribute('aria-label', label('canvas'));
    $('.wipe').textContent = label('clear');
    $('.erase').textContent = label('erase');
    $('.cover').textContent = label('hide');
    $('.cover').hidden = !cover.length;
    $('.cover').setAttribute('aria-pressed', String(hiding));
    $('.hint').textContent = label('hint');
    $('.caption').textContent = data.caption;
    panes.forEach(({ canvas, text, name }, p) => {
      name.textContent = text;
      const place = chosen ? label('pixel', { row: chosen[0], column: chosen[1] }) : '';
      canvas.tabIndex = p <= CHOICE ? 0 : -1;
      canvas.setAttribute('role', p <= CHOICE ? 'application' : 'img');
      canvas.setAttribute('aria-label', `${text}. ${p === 0 ? label('draw') : [place, data.caption].join(' ')}`);
    });
  }

  /** Return where an event is on a picture, [x, y] in its pixels. */
  function pointIn(canvas, event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * data.width, ((event.clientY - box.top) / box.height) * data.height];
  }

  // ---- drawing ----

  function drawTo(from, to) {
    const { width, height, channels } = data;
    if (hiding) drawLine({ x: cover, width, height, channels: 1 }, from, to, erasing, BROAD);
    else drawLine({ x, width, height, channels }, from, to, erasing, PEN);
  }

  function listenToPen({ canvas }) {
    canvas.classList.add('paper');
    const follow = (event) => {
      const here = pointIn(canvas, event);
      drawTo(stroke || here, here);
      stroke = here;
    };
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || !event.isPrimary) return; // a second finger, or the palm, is no pen
      canvas.setPointerCapture(event.pointerId);
      stroke = null;
      follow(event);
      draw();
      requests.ask('input');
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!stroke || !event.isPrimary) return;
      (event.getCoalescedEvents?.() || [event]).forEach(follow);
      draw();
      requests.ask('input');
    });
    const lift = (event) => {
      if (!stroke || !event.isPrimary) return;
      stroke = null;
      requests.send('release');
    };
    for (const kind of ['pointerup', 'pointercancel', 'lostpointercapture']) canvas.addEventListener(kind, lift);
    const centre = () => [data.width / 2, data.height / 2];
    canvas.addEventListener('focus', () => {
      cursor ??= centre();
      draw();
    });
    canvas.addEventListener('blur', draw);
    let drew = false; // by key, since the last release
    canvas.addEventListener('keydown', (event) => {
      const step = stepOf(event);
      if (!step && event.key !== ' ') return;
      event.preventDefault();
      const from = cursor ?? centre();
      cursor = step ? [clamped(from[0] + step[0], 0, data.width), clamped(from[1] + step[1], 0, data.height)] : from;
      if (!step || event.shiftKey) {
        drawTo(from, cursor);
        drew = true;
        requests.ask('input');
      }
      draw();
    });
    canvas.addEventListener('keyup', (event) => {
      if (!drew || (event.key !== ' ' && event.key !== 'Shift')) return;
      drew = false;
      requests.send('release');
    });
  }

  $('.wipe').addEventListener('click', () => {
    (hiding ? cover : x).fill(0);
    draw();
    requests.ask('input');
    requests.send('release');
  });
  $('.erase').addEventListener('click', () => {
    erasing = !erasing;
    $('.erase').setAttribute('aria-pressed', String(erasing));
  });

  $('.cover').addEventListener('click', () => {
    hiding = !hiding;
    write();
  });

  // ---- choosing a pixel ----

  function choose(column, line) {
    chosen = [clamped(line, 0, data.height - 1), clamped(column, 0, data.width - 1)];
    draw();
    write();
    requests.ask('select');
  }

  function listenToChoice({ canvas }, p) {
    canvas.addEventListener('click', (event) => choose(...pointIn(canvas, event).map(Math.floor)));
    if (p !== CHOICE) return;
    canvas.addEventListener('keydown', (event) => {
      const step = stepOf(event);
      if (!step) return;
      event.preventDefault();
      const [line, column] = chosen || [Math.floor(data.height / 2), Math.floor(data.width / 2)];
      choose(column + step[0], line + step[1]);
    });
  }

  // ---- what comes from the server ----

  function load() {
    const { value } = props;
    if (!value?.panes) return; // what `publish` has put there
    requests.answered();
    const shape = shapeOf(data);
    data = value;
    const covered = bytesOf(value.cover || '');
    if (value.token !== token || covered.length !== cover.length) {
      cover = new Uint8ClampedArray(covered);
      hiding = cover.length > 0;
    }
    if (value.token !== token) {
      token = value.token;
      x = new Uint8ClampedArray(bytesOf(value.x));
      stroke = null;
      requests.pending.input = false;
    }
    if (!requests.pending.select) chosen = value.chosen;
    pictures = value.pictures.map(bytesOf);
    if (!panes.length || shapeOf(data) !== shape) build();
    panes.forEach((pane, p) => {
      pane.text = data.panes[p];
    });
    write();
    layout();
    publish();
    requests.pump();
  }

  new ResizeObserver(layout).observe(row);
  build();
  write();
  watch('value', load);
  watch('labels', write);
  load();
}
