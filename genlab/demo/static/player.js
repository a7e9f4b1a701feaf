// Body of the player's js_on_load: Gradio calls it once for every player on the page, with `element`, `props` and `watch`.
// Texts reach the page through textContent and attributes only. Nothing here asks the server for anything but the sheet itself.

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const HOLD = 1200; // ms that the last frame stays before a repeat
const WRAP_BELOW = 1.5; // panes leave the row when it would show a pixel smaller than this many CSS pixels
const TALLEST = 560; // CSS pixels of a pane's height

const $ = (selector) => element.querySelector(selector);
const player = $('.player');
const stage = $('.stage');
const row = $('.panes');
const scrub = $('.scrub');
const controls = { back: $('.back'), play: $('.play'), forward: $('.forward'), loop: $('.loop'), speed: $('.speed') };

let meta = props.empty; // names, colours and size of what is shown: of the run, or of the run that is announced
let run = '';
let n = 0;
let frames = []; // index → { image, x, y, caption }; has holes while frames are on their way
let held = 0; // how many frames have come
let at = -1; // index of the frame shown
let done = false; // no more frames will come
let follow = false; // while computing: show every new frame
let playing = false;
let repeat = false;
let repeatChosen = false; // the visitor has pressed the button, so runs no longer decide
let speed = 1;
let panes = []; // { canvas, context }
let clock = 0; // time of the last animation frame
let due = 0; // ms until the next frame is shown
let sheets = 0; // counts sheets, so that a late one cannot replace a newer one

const firstLabels = props.labels; // a later change may name some of them only
const say = (key, values = {}) => (props.labels[key] ?? firstLabels[key]).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
const stillness = window.matchMedia('(prefers-reduced-motion: reduce)');
const newest = () => frames.length - 1;
const before = (i) => { for (i -= 1; i >= 0; i--) if (frames[i]) return i; return -1; };
const after = (i) => { for (i += 1; i < frames.length; i++) if (frames[i]) return i; return -1; };
const nearest = (i) => (frames[i] ? i : before(i) >= 0 ? before(i) : after(i));
const moving = () => playing || (follow && !done);

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

function segments() {
  const list = n > 1 ? meta.segments || [] : [];
  player.classList.toggle('segmented', list.length > 0 || Boolean(props.empty.segmented));
  const place = (i) => (i <= 0 ? '0px' : i >= n - 1 ? '100%' : `calc(9px + (100% - 18px) * ${i / (n - 1)})`);
  $('.segments').replaceChildren(
    ...list.map(({ start, label }, s) => {
      const end = s + 1 < list.length ? list[s + 1].start - 0.5 : n - 1;
      const span = document.createElement('span');
      span.textContent = label;
      span.title = label;
      span.style.left = place(start - 0.5);
      span.style.width = `calc(${place(end)} - ${place(start - 0.5)})`;
      span.dataset.start = start;
      return span;
    }),
  );
}

// Everything beside the pictures: texts, scrubber, buttons.
function controlsNow() {
  const frame = frames[at];
  const caption = frame ? frame.caption : '';
  const count = frame ? say('frame', { i: at + 1, n }) : '';
  $('.caption').textContent = caption;
  $('.count').textContent = frame ? `${at + 1} / ${n}` : '';
  $('.state').textContent = n && !done ? say('computing', { held, n }) : '';
  for (const { canvas, text } of panes) canvas.setAttribute('aria-label', say('picture', { pane: text, frame: count, caption }));
  const last = Math.max(0, n - 1);
  const part = (i) => (last > 0 && i > 0 ? `${(100 * i) / last}%` : '0%');
  scrub.max = last;
  scrub.value = Math.max(0, at);
  scrub.setAttribute('aria-valuetext', caption ? `${count}, ${caption}` : count);
  scrub.style.setProperty('--at', part(at));
  scrub.style.setProperty('--held', part(newest()));
  scrub.disabled = held < 1 || n < 2;
  controls.play.disabled = controls.loop.disabled = controls.speed.disabled = scrub.disabled;
  controls.back.disabled = before(at) < 0;
  controls.forward.disabled = after(at) < 0;
  controls.play.setAttribute('aria-label', say(moving() ? 'pause' : 'play'));
  controls.play.title = say(moving() ? 'pause' : 'play');
  controls.loop.setAttribute('aria-pressed', String(repeat));
  player.classList.toggle('moving', moving());
  player.classList.toggle('computing', n > 0 && !done);
  player.classList.toggle('empty', !held);
  let now = null;
  for (const span of $('.segments').children) {
    span.classList.remove('now');
    if (at >= span.dataset.start) now = span;
  }
  if (now) now.classList.add('now');
}

function message(text) {
  const box = $('.message');
  box.replaceChildren();
  if (text) box.appendChild(document.createElement('span')).textContent = text;
}

function texts() {
  player.setAttribute('aria-label', say('player'));
  stage.setAttribute('aria-label', say('player'));
  scrub.setAttribute('aria-label', say('position'));
  for (const key of ['back', 'forward', 'loop', 'speed']) {
    controls[key].setAttribute('aria-label', say(key));
    controls[key].title = say(key);
  }
  if (!n) message(say('empty'));
  controlsNow();
}

function show(i) {
  at = i;
  draw();
  controlsNow();
}

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

// ---- playing ----

const step = () => 1000 / ((meta.fps || 10) * speed);

function tick(now) {
  if (!playing || !element.isConnected) return;
  due -= Math.min(now - clock, 250); // a tab that was hidden goes on where it stopped
  clock = now;
  if (due <= 0) {
    let next = after(at);
    if (next < 0 && done && repeat) next = after(-1);
    if (next < 0) {
      playing = false;
      follow = !done; // caught up with the computation: every new frame is shown as it comes
      return controlsNow();
    }
    show(next);
    due = Math.max(0, due + step());
    if (done && after(next) < 0) due = Math.max(step(), HOLD);
  }
  requestAnimationFrame(tick);
}

function start() {
  if (after(at) < 0) {
    if (!done) {
      follow = true;
      return controlsNow();
    }
    show(after(-1));
  }
  playing = true;
  clock = performance.now();
  due = step();
  requestAnimationFrame(tick);
  controlsNow();
}

function stop() {
  playing = follow = false;
  controlsNow();
}

const toggle = () => held && n > 1 && (moving() ? stop() : start());

// To frame i, or to the nearest one that has come; beyond the newest means "the newest, whichever that is".
function go(i) {
  const target = nearest(Math.max(0, Math.min(i, newest())));
  if (target < 0) return;
  playing = false;
  follow = !done && i > newest();
  show(target);
}

controls.play.addEventListener('click', toggle);
controls.back.addEventListener('click', () => go(before(at)));
controls.forward.addEventListener('click', () => go(after(at) < 0 ? at : after(at)));
controls.loop.addEventListener('click', () => {
  repeat = !repeat;
  repeatChosen = true;
  controlsNow();
});
for (const value of SPEEDS) {
  const option = controls.speed.appendChild(document.createElement('option'));
  option.value = value;
  option.textContent = { 0.25: '¼×', 0.5: '½×' }[value] || `${value}×`;
}
controls.speed.value = '1';
controls.speed.addEventListener('change', () => {
  due *= speed / Number(controls.speed.value);
  speed = Number(controls.speed.value);
});
scrub.addEventListener('input', () => go(Number(scrub.value)));
stage.addEventListener('click', toggle);
player.addEventListener('keydown', (event) => {
  if (event.target === controls.speed || event.altKey || event.ctrlKey || event.metaKey || !held) return;
  const onButton = event.target.closest('button');
  if (event.key === ' ' && !onButton) toggle();
  else if (event.key === 'ArrowLeft') go(before(at));
  else if (event.key === 'ArrowRight') go(after(at) < 0 ? at : after(at));
  else if (event.key === 'Home') go(0);
  else if (event.key === 'End') go(n - 1);
  else return;
  event.preventDefault();
});

new ResizeObserver(layout).observe(row);
build();
segments();
texts();
watch('value', load);
watch('labels', texts);
load();
