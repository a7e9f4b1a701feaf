// First part of the js_on_load of the player and of the figure: frames, and the controls that play them. Gradio calls the whole
// once for every component on the page, with `element`, `props` and `watch`. The last part (player.js, figure.js) fills the
// state below and has three functions: draw() shows frames[at], describe(count, caption) says it to a screen reader, announce()
// is what stands there before anything has come.
// Texts reach the page through textContent and attributes only.

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const HOLD = 1200; // ms that the last frame stays before a repeat

const $ = (selector) => element.querySelector(selector);
const player = $('.player');
const stage = $('.stage');
const scrub = $('.scrub');
const controls = { back: $('.back'), play: $('.play'), forward: $('.forward'), loop: $('.loop'), speed: $('.speed') };

let meta = props.empty; // what is shown, or announced: its segments and fps are used here
let n = 0;
let frames = []; // index → a frame with its caption; has holes while frames are on their way
let held = 0; // how many frames have come
let at = -1; // index of the frame shown
let done = false; // no more frames will come
let follow = false; // while computing: show every new frame
let playing = false;
let repeat = false;
let repeatChosen = false; // the visitor has pressed the button, so runs no longer decide
let speed = 1;
let clock = 0; // time of the last animation frame
let due = 0; // ms until the next frame is shown

const firstLabels = props.labels; // a later change may name some of them only
const say = (key, values = {}) => (props.labels[key] ?? firstLabels[key]).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
const stillness = window.matchMedia('(prefers-reduced-motion: reduce)');
const newest = () => frames.length - 1;
const before = (i) => { for (i -= 1; i >= 0; i--) if (frames[i]) return i; return -1; };
const after = (i) => { for (i += 1; i < frames.length; i++) if (frames[i]) return i; return -1; };
const nearest = (i) => (frames[i] ? i : before(i) >= 0 ? before(i) : after(i));
const moving = () => playing || (follow && !done);

// ---- the controls ----

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
  describe(count, caption);
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
  if (!n) message(announce());
  controlsNow();
}

function show(i) {
  at = i;
  draw();
  controlsNow();
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

