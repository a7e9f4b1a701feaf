// Second part of the player's js_on_load, after controls.js: pictures that come one by one, then all in one sheet.
// Nothing here asks the server for anything but the sheet itself.

const WRAP_BELOW = 1.5; // panes leave the row when it would show a pixel smaller than this many CSS pixels
const TALLEST = 560; // CSS pixels of a pane's height

const row = $('.panes');

let run = '';
let panes = []; // { canvas, context }
let sheets = 0; // counts sheets, so that a late one cannot replace a newer one

// ---- what is shown ----

function name(text) {
  const label = document.createElement('div');
  label.className = 'name';
  if (!text) return label;
  const [symbol, index] = text.split('_');
  const span = label.appendChild(document.createElement('span'));
  span.textContent = symbol;
  if (symbol.length <= 2) span.className = 'symbol';
  if (index !== undefined) span.appendChild(document.createElement('sub')).textContent = index;
  return label;
}

function build() {
  panes = meta.panes.map((text, p) => {
    const pane = document.createElement('div');
    pane.className = 'pane';
    const colour = meta.colours[p] || '';
    if (/^\w+$/.test(colour)) pane.style.setProperty('--pane', `var(--genlab-${colour})`);
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'img');
    pane.append(name(text), canvas);
    return { root: pane, canvas, context: canvas.getContext('2d'), text };
  });
  row.replaceChildren(...panes.map((pane) => pane.root));
  layout();
}

// Every picture pixel becomes a square of a whole number of screen pixels, as large as width and height allow.
function layout() {
  const width = row.clientWidth;
  if (!width || !panes.length) return;
  const ratio = window.devicePixelRatio || 1;
  const w = meta.width / panes.length;
  const h = meta.height;
  const gap = parseFloat(getComputedStyle(row).columnGap) || 0;
  const tallest = Math.max(160, Math.min(TALLEST, 0.5 * window.innerHeight));
  let scale = 0;
  for (let columns = panes.length; columns >= 1; columns--) {
    const room = (width - gap * (columns - 1)) / columns - 4; // 4: the coloured outline
    scale = Math.floor((Math.min(room / w, Math.max(1, tallest / h)) + 1e-6) * ratio) / ratio;
    if (scale >= WRAP_BELOW) break;
  }
  const shrunk = scale < 1 / ratio;
  const side = shrunk ? (width - 4) / w : scale;
  for (const { root, canvas } of panes) {
    const k = shrunk ? 1 : Math.round(scale * ratio);
    if (canvas.width !== w * k || canvas.height !== h * k) {
      canvas.width = w * k;
      canvas.height = h * k;
    }
    canvas.style.width = `${w * side}px`;
    canvas.style.height = `${h * side}px`;
    root.style.width = `${w * side + 4}px`;
  }
  draw();
}

function draw() {
  const frame = frames[at];
  const w = meta.width / panes.length;
  panes.forEach(({ canvas, context }, p) => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!frame) return;
    context.imageSmoothingEnabled = false;
    context.drawImage(frame.image, frame.x + p * w, frame.y, w, meta.height, 0, 0, canvas.width, canvas.height);
  });
}

function describe(count, caption) {
  for (const { canvas, text } of panes) canvas.setAttribute('aria-label', say('picture', { pane: text, frame: count, caption }));
}

const announce = () => say('empty');

// ---- what comes from the server ----

function reset(value) {
  const shape = JSON.stringify([meta.panes, meta.colours, meta.width, meta.height]);
  frames.forEach((frame) => frame.image.close());
  meta = value || props.empty;
  run = value ? value.run : '';
  n = value ? value.n : 0;
  frames = [];
  held = 0;
  at = -1;
  done = playing = false;
  follow = Boolean(value);
  if (!repeatChosen) repeat = Boolean(value && value.loop);
  if (JSON.stringify([meta.panes, meta.colours, meta.width, meta.height]) !== shape) build();
  else draw();
  message(n ? '' : say('empty'));
  $('.said').textContent = '';
  segments();
  controlsNow();
}

async function load() {
  const value = props.value;
  if (!value || !value.n) return reset(null);
  if (value.run !== run) reset(value);
  try {
    if (value.sheet) await loadSheet(value, ++sheets);
    else if (value.done) ended();
    else if (value.live) await loadLive(value);
  } catch (error) {
    if (value.run !== run) return;
    console.error('player:', error);
    if (value.sheet) {
      done = true;
      follow = playing = false;
      message(say('failed'));
      controlsNow();
    }
  }
}

// The run has ended early: the frames that have come are all of it.
function ended() {
  if (!held) return reset(null);
  const place = (i) => frames.slice(0, i).filter(Boolean).length;
  const list = (meta.segments || []).map(({ start, label }) => ({ start: place(start), label }));
  meta = { ...meta, segments: list.filter(({ start }) => start < held) };
  const shown = place(at);
  frames = frames.filter(Boolean);
  n = held;
  done = true;
  follow = playing = false;
  segments();
  $('.said').textContent = say('ready', { n });
  show(shown);
}

async function loadLive(value) {
  const bytes = Uint8Array.from(atob(value.live), (character) => character.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes]));
  if (value.run !== run || done) return image.close();
  if (frames[value.i]) frames[value.i].image.close();
  else held += 1;
  frames[value.i] = { image, x: 0, y: 0, caption: value.caption };
  if (at < 0 || (follow && value.i > at)) show(value.i);
  else controlsNow();
}

async function loadSheet(value, number) {
  const picture = new Image();
  picture.src = value.sheet.url;
  await picture.decode();
  const image = await createImageBitmap(picture);
  if (value.run !== run || number !== sheets) return image.close();
  const streamed = at >= 0;
  const watched = streamed && !follow; // the visitor has gone to another frame, or is playing
  frames.forEach((frame) => frame.image.close());
  n = held = value.n;
  meta = value;
  const k = Math.ceil(Math.sqrt(n));
  frames = Array.from({ length: n }, (_, i) => ({
    image,
    x: (i % k) * value.width,
    y: Math.floor(i / k) * value.height,
    caption: value.captions[i] || '',
  }));
  done = true;
  follow = false;
  message('');
  segments();
  if (streamed) $('.said').textContent = say('ready', { n });
  if (watched) return show(Math.min(at, n - 1));
  const play = value.autoplay && n > 1;
  show(play && stillness.matches ? n - 1 : value.i);
  if (play && !stillness.matches) start();
}

stage.addEventListener('click', toggle);
new ResizeObserver(layout).observe(row);
$('.text').style.setProperty('--lines', props.empty.lines[0]);
$('.text').style.setProperty('--narrow-lines', props.empty.lines[1]);
build();
segments();
texts();
watch('value', load);
watch('labels', texts);
load();
