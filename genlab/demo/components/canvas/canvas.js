// Second part of the canvas's js_on_load, after requests.js: pictures side by side with hard pixels. The first one, x, is the
// visitor's to draw on; in the others a pixel can be chosen. The value that the server sends is drawn and then replaced by what
// the visitor can change (token, x, chosen). What is drawn here stays until the server sends another token with its x.

const LEAST = 124; // CSS pixels of a picture's side below which the pictures take more rows
const TALLEST = 260; // CSS pixels of a picture's height
const PEN = 1.05; // radius of the pen where it is half as bright, in pixels of a picture of 28 × 28
const RUBBER = 2; // … and of the eraser
const EDGE = 1.3; // over how many such pixels it fades

const $ = (selector) => element.querySelector(selector);
const row = $('.panes');
const say = (key, values = {}) => props.labels[key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

let meta = props.empty; // what is shown, a CanvasData
let token = ''; // of the picture that x began as
let x = new Uint8ClampedArray(0); // its bytes, drawn on
let pictures = []; // the bytes of the others
let panes = []; // { root, canvas, context }
let chosen = null; // [row, column]
let cursor = null; // where the keyboard draws: [x, y] in pixels
let stroke = null; // the last point of the stroke that is being drawn
let erasing = false;

const decode = (text) => Uint8ClampedArray.from(atob(text), (character) => character.charCodeAt(0));
function encode(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
}
const publish = () => { props.value = { token, x: encode(x), chosen }; };

// ---- what is shown ----

function build() {
  panes = meta.panes.map((text, p) => {
    const root = document.createElement('div');
    root.className = 'pane';
    const colour = meta.colours[p] || '';
    if (/^\w+$/.test(colour)) root.style.setProperty('--pane', `var(--genlab-${colour})`);
    const name = document.createElement('div');
    name.className = 'name';
    name.textContent = text;
    const canvas = document.createElement('canvas');
    root.append(name, canvas);
    const pane = { root, name, canvas, context: canvas.getContext('2d'), text };
    if (p === 0) listenToPen(pane);
    else listenToChoice(pane, p);
    return pane;
  });
  row.replaceChildren(...panes.map((pane) => pane.root));
}

// Every picture pixel becomes a square of a whole number of screen pixels.
function layout() {
  const width = row.clientWidth;
  const { width: w, height: h } = meta;
  if (!width || !panes.length) return;
  const ratio = window.devicePixelRatio || 1;
  const gap = parseFloat(getComputedStyle(row).columnGap) || 0;
  let scale = 0;
  for (let columns = panes.length; columns >= 1; columns = columns > 1 ? Math.ceil(columns / 2) : 0) {
    const room = (width - gap * (columns - 1)) / columns - 4; // 4: the coloured outline
    scale = Math.max(1, Math.floor((Math.min(room / w, TALLEST / h) + 1e-6) * ratio)) / ratio;
    if (scale * w >= LEAST || columns === 1) break;
  }
  for (const { root, canvas } of panes) {
    const k = Math.round(scale * ratio);
    if (canvas.width !== w * k || canvas.height !== h * k) Object.assign(canvas, { width: w * k, height: h * k });
    canvas.style.width = `${w * scale}px`;
    canvas.style.height = `${h * scale}px`;
    root.style.width = `${w * scale + 4}px`;
  }
  draw();
}

function paint({ canvas, context }, bytes) {
  const { width: w, height: h, channels: c } = meta;
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (bytes.length !== w * h * c) return;
  const image = new ImageData(w, h);
  for (let i = 0; i < w * h; i++) {
    for (let j = 0; j < 3; j++) image.data[4 * i + j] = bytes[c * i + (c === 3 ? j : 0)];
    image.data[4 * i + 3] = 255;
  }
  const small = document.createElement('canvas');
  Object.assign(small, { width: w, height: h });
  small.getContext('2d').putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function frame({ canvas, context }, at, side) {
  const k = canvas.width / meta.width;
  const line = Math.max(1, Math.round(window.devicePixelRatio || 1));
  const box = [at[0] * k - line / 2, at[1] * k - line / 2, side * k + line, side * k + line];
  context.lineWidth = 3 * line;
  context.strokeStyle = 'black';
  context.strokeRect(...box);
  context.lineWidth = line;
  context.strokeStyle = 'white';
  context.strokeRect(...box);
}

function draw() {
  panes.forEach((pane, p) => {
    paint(pane, p ? pictures[p - 1] || [] : x);
    if (chosen && p === 1) frame(pane, [chosen[1], chosen[0]], 1);
  });
  if (cursor && panes.length && panes[0].canvas.matches(':focus-visible')) frame(panes[0], [cursor[0] - 0.5, cursor[1] - 0.5], 1);
}

function texts() {
  $('.easel').setAttribute('aria-label', say('canvas'));
  $('.wipe').textContent = say('clear');
  $('.erase').textContent = say('erase');
  $('.hint').textContent = say('hint');
  $('.caption').textContent = meta.caption;
  panes.forEach(({ canvas, text, name }, p) => {
    name.textContent = text;
    const place = chosen ? say('pixel', { row: chosen[0], column: chosen[1] }) : '';
    canvas.tabIndex = p < 2 ? 0 : -1;
    canvas.setAttribute('role', p < 2 ? 'application' : 'img');
    canvas.setAttribute('aria-label', `${text}. ${p === 0 ? say('draw') : [place, meta.caption].join(' ')}`);
  });
}

// ---- drawing ----

// A soft line from a to b, both [x, y] in pixels: lighter than what is there, or, erasing, darker.
function dab(a, b) {
  const { width: w, height: h, channels: c } = meta;
  const unit = Math.min(w, h) / 28;
  const radius = (erasing ? RUBBER : PEN) * unit;
  const reach = radius + EDGE * unit;
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const square = dx * dx + dy * dy;
  const span = (p, q, most) => [Math.max(0, Math.floor(Math.min(p, q) - reach)), Math.min(most - 1, Math.ceil(Math.max(p, q) + reach))];
  const [left, right] = span(a[0], b[0], w);
  const [top, bottom] = span(a[1], b[1], h);
  for (let j = top; j <= bottom; j++) {
    for (let i = left; i <= right; i++) {
      const [px, py] = [i + 0.5 - a[0], j + 0.5 - a[1]];
      const along = square ? Math.max(0, Math.min(1, (px * dx + py * dy) / square)) : 0;
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const ink = Math.max(0, Math.min(1, 0.5 + (radius - distance) / (EDGE * unit)));
      for (let k = 0; k < c; k++) {
        const at = c * (w * j + i) + k;
        x[at] = erasing ? Math.min(x[at], 255 * (1 - ink)) : Math.max(x[at], 255 * ink);
      }
    }
  }
}

function listenToPen(pane) {
  const { canvas } = pane;
  canvas.classList.add('paper');
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * meta.width, ((event.clientY - box.top) / box.height) * meta.height];
  };
  const go = (event) => {
    const here = at(event);
    dab(stroke || here, here);
    stroke = here;
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !event.isPrimary) return; // a second finger, or the palm, is no pen
    canvas.setPointerCapture(event.pointerId);
    stroke = null;
    go(event);
    draw();
    ask('input');
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!stroke || !event.isPrimary) return;
    (event.getCoalescedEvents?.() || [event]).forEach(go);
    draw();
    ask('input');
  });
  const lift = (event) => {
    if (!stroke || !event.isPrimary) return;
    stroke = null;
    tell('release');
  };
  for (const kind of ['pointerup', 'pointercancel', 'lostpointercapture']) canvas.addEventListener(kind, lift);
  canvas.addEventListener('focus', () => {
    cursor ??= [meta.width / 2, meta.height / 2];
    draw();
  });
  canvas.addEventListener('blur', draw);
  let dabbed = false; // by key, since the last release
  canvas.addEventListener('keydown', (event) => {
    const step = arrow(event);
    if (!step && event.key !== ' ') return;
    event.preventDefault();
    const from = cursor ?? [meta.width / 2, meta.height / 2];
    cursor = step ? [Math.max(0, Math.min(meta.width, from[0] + step[0])), Math.max(0, Math.min(meta.height, from[1] + step[1]))] : from;
    if (!step || event.shiftKey) {
      dab(from, cursor);
      dabbed = true;
      ask('input');
    }
    draw();
  });
  canvas.addEventListener('keyup', (event) => {
    if (!dabbed || (event.key !== ' ' && event.key !== 'Shift')) return;
    dabbed = false;
    tell('release');
  });
}

function arrow(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return null;
  return { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || null;
}

$('.wipe').addEventListener('click', () => {
  x.fill(0);
  draw();
  ask('input');
  tell('release');
});
$('.erase').addEventListener('click', () => {
  erasing = !erasing;
  $('.erase').setAttribute('aria-pressed', String(erasing));
});

// ---- choosing a pixel ----

function choose(column, line) {
  chosen = [Math.max(0, Math.min(meta.height - 1, line)), Math.max(0, Math.min(meta.width - 1, column))];
  draw();
  texts();
  ask('select');
}

function listenToChoice({ canvas }, p) {
  canvas.addEventListener('click', (event) => {
    const box = canvas.getBoundingClientRect();
    choose(Math.floor(((event.clientX - box.left) / box.width) * meta.width), Math.floor(((event.clientY - box.top) / box.height) * meta.height));
  });
  if (p > 1) return;
  canvas.addEventListener('keydown', (event) => {
    const step = arrow(event);
    if (!step) return;
    event.preventDefault();
    const from = chosen || [meta.height / 2, meta.width / 2];
    choose(Math.floor(from[1]) + step[0], Math.floor(from[0]) + step[1]);
  });
}

// ---- what comes from the server ----

function load() {
  const value = props.value;
  if (!value || !value.panes) return; // what this script has put there itself
  answered();
  const shape = JSON.stringify([meta.panes.length, meta.colours, meta.width, meta.height]);
  meta = value;
  if (value.token !== token) {
    token = value.token;
    x = decode(value.x);
    stroke = null;
    asked.input = false;
  }
  if (!asked.select) chosen = value.chosen;
  pictures = value.pictures.map(decode);
  if (!panes.length || JSON.stringify([meta.panes.length, meta.colours, meta.width, meta.height]) !== shape) build();
  panes.forEach((pane, p) => { pane.text = meta.panes[p]; });
  texts();
  layout();
  publish();
  pump();
}

new ResizeObserver(layout).observe(row);
build();
texts();
watch('value', load);
watch('labels', texts);
load();
