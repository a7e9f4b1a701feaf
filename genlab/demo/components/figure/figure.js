// The figure: draws panels and layers for the width there is, and sends what the visitor moves. The value that the server sends
// is drawn and then replaced by what can change (handles, selected, drawn), so that a request never carries the curves back.

import { Controls } from '../controls/controls.js';
import { lower } from '../controls/indices.js';
import { Requests } from '../controls/requests.js';
import { measureIn, paint, svg, write } from './elements.js';
import { format } from './format.js';
import { boundsOf, drawnAt, nearestHandle, placesAfter, stepsOf } from './handles.js';
import { drawAxes, drawMarks, drawPicture, legendOf } from './layers.js';
import { barsOf, boxOf, sharedLeft } from './layout.js';
import { numbersOf, unzipped } from './packed.js';
import { moveCross, pixelsOf, plotOf, pointIn, readOut, within } from './plot.js';
import { clamped, nearestIndex, rounded } from './scale.js';

const SLACK = 4; // pixels across its way that a handle of two axes does not follow at first
const REACH = 20; // pixels around a handle where a finger takes hold of it
const STROKE = 5; // least pixels between two points of a free-hand stroke
const SELECTABLE = ['line', 'area', 'points', 'arrows']; // kinds of layers whose x can be chosen

const takes = (event) => event.button === 0 && event.isPrimary; // a second finger, or the palm, takes hold of nothing

/** Start a figure in its element: gradio calls this once for every component on the page. */
export function figure({ element, props, trigger, watch }) {
  const $ = (selector) => element.querySelector(selector);
  const row = $('.panels');
  const wipe = $('.wipe');
  const name = `figure-${Math.random().toString(36).slice(2)}`; // of clip paths and patterns
  const controls = new Controls(element, props, { draw, describe, empty: () => (data ? '' : controls.label('empty')) });
  const requests = new Requests(publish, trigger);
  const widthOf = measureIn(controls.root);
  const follow = props.empty.follows ? controls.follow(props.empty.follows) : () => {};

  let data = null; // what is drawn, a FigureData
  let shape = ''; // of the panels; while it stays, their elements do
  let plots = []; // one for each panel
  let places = new Map(); // id of a handle → { x, y }
  let sheet = {}; // { url, layers }: the file that was fetched last, and a promise of the frames' layers in it
  let selected = null; // the panel and the x that were chosen
  let drawn = []; // the free-hand points
  const ahead = new Set(); // ids of the handles whose places the server does not know yet
  let dragged = null; // { id, from } while a handle is dragged
  let pen = null; // the plot that is drawn in

  function publish() {
    const handles = [...places].map(([id, { x, y }]) => ({ id, x, y }));
    props.value = { handles, selected, drawn };
  }

  // ---- drawing ----

  /** Return the layers of a plot as they are in the frame shown. */
  function layersOf(plot) {
    const changes = controls.frames[controls.index]?.layers ?? {};
    return plot.panel.layers.map((layer) => (layer.id && changes[layer.id] ? { ...layer, ...changes[layer.id] } : layer));
  }

  function drawPlot(plot) {
    if (!plot.width) return;
    const layers = layersOf(plot);
    drawMarks(plot, layers);
    const x = selected && selected.panel === plot.index ? plot.sx.to(selected.x) : NaN;
    const visible = x >= plot.left - 1 && x <= plot.right + 1;
    plot.chosen.replaceChildren(...(visible ? [svg('path', { class: 'chosen', d: `M${x} ${plot.top}V${plot.bottom}` })] : []));
    drawPicture(plot, layers, plot.panel.draw ? drawn : []);
    if (plot.pointer) readValues(plot, layers);
  }

  function draw() {
    plots.forEach(drawPlot);
  }

  function describe(count, caption) {
    if (!data) return;
    const sentences = (...texts) => texts.filter(Boolean).join('. ');
    if (!controls.total) lower($('.caption'), data.caption);
    controls.root.setAttribute('aria-label', sentences(controls.label('player'), data.description));
    for (const { panel, picture } of plots) {
      const state = count && `${count}. ${caption}`;
      picture.setAttribute('aria-label', sentences(panel.title, panel.description || data.description, state));
    }
  }

  /** Show the values under the pointer, except while it moves something. */
  function readValues(plot, layers = layersOf(plot)) {
    if (dragged || pen) plot.read.hidden = true;
    else readOut(plot, layers);
  }

  function layout() {
    for (const { panel, root, box } of plots) {
      const alone = panel.alone && root.offsetWidth > row.clientWidth - 1;
      box.style.aspectRatio = String(alone ? panel.alone : panel.aspect);
    }
    for (const plot of plots) Object.assign(plot, { width: plot.box.clientWidth, height: plot.box.clientHeight });
    const panels = plots.map((plot) => plot.panel);
    const heights = plots.map((plot) => plot.height);
    for (const plot of plots) {
      if (!plot.width) continue;
      const bars = barsOf(plot.panel);
      const states = bars ? [bars, ...data.frames.map((frame) => frame.layers[bars.id] || {})] : [];
      const texts = states.flatMap((state) => state.texts || []);
      Object.assign(plot, boxOf(plot.panel, plot, sharedLeft(panels, heights, plot.index, widthOf), texts, widthOf));
      drawAxes(plot);
      drawPlot(plot);
      placeHandles(plot);
    }
  }

  // ---- building ----

  function build() {
    plots = data.panels.map((panel, index) => plotOf(panel, index, `${name}-${index}`, widthOf));
    plots.forEach(listen);
    row.replaceChildren(...plots.map((plot) => plot.root));
  }

  function drawLegend() {
    const items = legendOf(data.panels);
    $('.legend').hidden = !data.legend || !items.length;
    $('.legend').replaceChildren(...items);
  }

  // ---- handles ----

  /** Move a handle to (x, y), and those that go along with it; null leaves a coordinate as it is. */
  function move(handle, plot, x, y) {
    const moved = placesAfter(data.handles, places, handle, plot.panel, x, y);
    if (!moved.size) return;
    for (const [id, place] of moved) {
      places.set(id, place);
      ahead.add(id);
    }
    plots.forEach(placeHandles);
    requests.ask('input');
  }

  function placeHandles(plot) {
    if (!plot.width) return;
    for (const handle of data.handles) {
      const grip = plot.grips.get(handle.id);
      const place = places.get(handle.id);
      if (!grip || !place) continue;
      const [x, y] = drawnAt(plot, handle, places);
      grip.setAttribute('transform', `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
      const axis = handle.axis === 'y' ? 'y' : 'x';
      const [low, high] = boundsOf(handle, plot.panel)[axis];
      grip.setAttribute('aria-valuenow', place[axis]);
      grip.setAttribute('aria-valuemin', low);
      grip.setAttribute('aria-valuemax', high);
      const text = handle.axis === 'xy' ? `${format(place.x)}, ${format(place.y)}` : format(place[axis]);
      grip.setAttribute('aria-valuetext', text);
    }
  }

  /** Make the grips of the handles, except where the same ones are there: one of them may be dragged. */
  function buildHandles() {
    for (const plot of plots) {
      const here = data.handles.filter((handle) => handle.panels.includes(plot.index));
      const there = [...plot.grips].map(([id, grip]) => id + grip.dataset.shape);
      if (here.map((handle) => handle.id + handle.shape).join() !== there.join()) {
        plot.grips = new Map(here.map((handle) => [handle.id, gripOf(plot, handle)]));
        plot.hold.replaceChildren(...plot.grips.values());
      }
      for (const handle of here) plot.grips.get(handle.id).setAttribute('aria-label', handle.name || handle.id);
    }
  }

  function gripOf(plot, { id, shape, axis, colour }) {
    const now = () => data.handles.find((handle) => handle.id === id);
    const fill = paint(colour);
    const bar = axis === 'y' ? { x: -10, y: -4, width: 20, height: 8, rx: 4 } : { x: -4, y: -10, width: 8, height: 20, rx: 4 };
    const grip = svg(
      'g',
      { class: `hand ${axis}`, role: 'slider', tabindex: 0, 'data-shape': shape, 'data-handle': id },
      svg('circle', { class: 'reach', r: shape === 'bar' ? REACH - 4 : REACH }),
      svg('circle', { class: 'ring', r: 14 }),
      shape === 'bar' ? svg('rect', { class: 'grip', fill, ...bar }) : svg('circle', { class: 'grip', fill, r: 8.5 }),
    );
    let origin = [0, 0]; // where the pointer took hold
    let offset = [0, 0]; // from there to the handle's middle
    let follows = [false, false]; // along which axes the pointer has left its origin by more than SLACK
    grip.take = (event) => {
      grip.setPointerCapture(event.pointerId);
      const { x, y } = pointIn(plot, event);
      const from = places.get(id);
      origin = [x, y];
      offset = [plot.sx.to(from.x) - x, plot.sy.to(from.y) - y];
      follows = [false, false];
      dragged = { id, from: { ...from } };
      grip.classList.add('dragged');
      readValues(plot);
    };
    grip.addEventListener('pointerdown', (event) => {
      if (!takes(event)) return;
      const { x, y } = pointIn(plot, event); // several handles may be in reach: the nearest is meant, not the topmost
      const here = data.handles.filter((handle) => plot.grips.has(handle.id));
      plot.grips.get(nearestHandle(plot, here, places, [x, y]).id).take(event);
      event.stopPropagation();
    });
    grip.addEventListener('pointermove', (event) => {
      if (dragged?.id !== id || !grip.hasPointerCapture(event.pointerId)) return;
      const { x, y } = pointIn(plot, event);
      const handle = now();
      follows = follows.map((was, i) => was || handle.axis !== 'xy' || Math.abs([x, y][i] - origin[i]) > SLACK);
      const to = [plot.sx.back(x + offset[0]), plot.sy.back(y + offset[1])].map((value, i) => (follows[i] ? value : null));
      move(handle, plot, ...to);
    });
    const drop = () => {
      if (dragged?.id !== id) return;
      const { from } = dragged;
      dragged = null;
      grip.classList.remove('dragged');
      sendIfMoved(id, from);
    };
    for (const kind of ['pointerup', 'pointercancel', 'lostpointercapture']) grip.addEventListener(kind, drop);
    grip.addEventListener('click', (event) => event.stopPropagation());
    grip.addEventListener('keydown', (event) => {
      const steps = stepsOf(event, now().axis);
      if (!steps) return;
      event.preventDefault();
      event.stopPropagation();
      const from = places.get(id);
      const [dx, dy] = pixelsOf(plot, steps);
      move(now(), plot, dx ? plot.sx.back(plot.sx.to(from.x) + dx) : null, dy ? plot.sy.back(plot.sy.to(from.y) + dy) : null);
      sendIfMoved(id, from);
    });
    return grip;
  }

  function sendIfMoved(id, from) {
    const place = places.get(id);
    if (place.x !== from.x || place.y !== from.y) requests.send('release');
  }

  // ---- pointer and keys on a panel: read-out, choice, free-hand drawing ----

  /** Choose the x of the first layer that has one, nearest to a value, and `steps` further. */
  function choose(plot, value, steps = 0) {
    const layers = layersOf(plot);
    const layer = layers.find((one) => one.x && SELECTABLE.includes(one.kind)) || barsOf({ layers });
    if (!layer) return;
    const x = layer.kind === 'bars' ? layer.labels.map((_, i) => i) : numbersOf(layer.x);
    const i = clamped(nearestIndex(x, value) + steps, 0, x.length - 1);
    selected = { panel: plot.index, x: x[i] };
    plot.surface.setAttribute('aria-valuenow', x[i]);
    plot.surface.setAttribute('aria-valuetext', `${plot.panel.x.name || 'x'} ${format(x[i])}`);
    draw();
    requests.ask('select');
  }

  function addPoint(plot, { x, y }) {
    if (drawn.length >= props.empty.drawn) return;
    drawn = [...drawn, [rounded(plot.sx.back(x), plot.panel.x), rounded(plot.sy.back(y), plot.panel.y)]];
    drawPicture(plot, layersOf(plot), drawn);
    wipe.disabled = false;
  }

  function listen(plot) {
    const { box, surface } = plot;
    let last = null; // the point of the stroke before
    const stroke = (event) => {
      const here = pointIn(plot, event);
      if (!within(plot, here) || (last && Math.hypot(here.x - last.x, here.y - last.y) < STROKE)) return;
      last = here;
      addPoint(plot, here);
    };
    box.addEventListener('pointermove', (event) => {
      plot.pointer = pointIn(plot, event);
      if (plot.panel.readout) readValues(plot);
      if (pen === plot && event.isPrimary) (event.getCoalescedEvents?.() || [event]).forEach(stroke);
    });
    box.addEventListener('pointerleave', () => {
      plot.pointer = null;
      plot.read.hidden = true;
    });
    surface.addEventListener('pointerdown', (event) => {
      if (!plot.panel.draw || !takes(event)) return;
      surface.setPointerCapture(event.pointerId);
      pen = plot;
      last = null;
      stroke(event);
    });
    const lift = (event) => {
      if (pen !== plot || !event.isPrimary) return;
      pen = null;
      requests.ask('input');
      requests.send('release');
    };
    surface.addEventListener('pointerup', lift);
    surface.addEventListener('pointercancel', lift);
    surface.addEventListener('click', (event) => {
      const here = pointIn(plot, event);
      if (plot.panel.select && !plot.panel.draw && within(plot, here)) choose(plot, plot.sx.back(here.x));
    });
    surface.addEventListener('focus', () => {
      if (plot.panel.draw && surface.matches(':focus-visible')) moveCross(plot, 0, 0);
    });
    surface.addEventListener('blur', () => plot.cross?.node.remove());
    surface.addEventListener('keydown', (event) => {
      const steps = stepsOf(event, 'xy');
      if (plot.panel.draw && steps) moveCross(plot, ...pixelsOf(plot, steps));
      else if (plot.panel.draw && event.key === ' ') {
        if (!plot.cross) moveCross(plot, 0, 0); // the focus came with the mouse
        addPoint(plot, plot.cross);
        requests.ask('input');
        requests.send('release');
      } else if (plot.panel.select && steps && data) {
        choose(plot, selected?.panel === plot.index ? selected.x : plot.panel.x.low, steps[0] || steps[1]);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /** Show what can be done on each panel: by the pointer, and to screen readers. */
  function writeSurfaces() {
    for (const { panel, surface } of plots) {
      surface.classList.toggle('selects', panel.select);
      surface.classList.toggle('draws', panel.draw);
      if (!panel.select && !panel.draw) {
        surface.removeAttribute('tabindex');
        continue;
      }
      surface.tabIndex = 0;
      surface.setAttribute('role', panel.draw ? 'application' : 'slider');
      surface.setAttribute('aria-label', panel.draw ? controls.label('drawing') : panel.title || panel.x.name);
      if (panel.draw) continue;
      surface.setAttribute('aria-valuemin', panel.x.low);
      surface.setAttribute('aria-valuemax', panel.x.high);
      surface.setAttribute('aria-valuenow', selected ? selected.x : panel.x.low);
    }
    wipe.hidden = !plots.some(({ panel }) => panel.draw);
    wipe.disabled = !drawn.length;
    wipe.textContent = controls.label('clear');
  }

  // ---- what comes from the server ----

  function clear() {
    data = null;
    plots = [];
    shape = '';
    row.replaceChildren();
    $('.legend').hidden = true;
    controls.setFrames(controls.data, []);
    controls.index = -1;
    controls.message(controls.label('empty'));
    controls.update();
  }

  function load() {
    const { value } = props;
    if (value && !value.panels) return; // what `publish` has put there
    requests.answered();
    if (!value?.panels.length) {
      clear();
      return;
    }
    if (!requests.pending.input && dragged === null) ahead.clear();
    places = new Map(value.handles.map(({ id, x, y }) => [id, ahead.has(id) ? places.get(id) : { x, y }]));
    if (!requests.pending.select) selected = value.selected;
    if (pen === null && !requests.pending.input) drawn = value.drawn;
    data = value;
    const { first } = value;
    controls.setFrames(value, value.sheet ? value.frames.map((frame, i) => i === first && frame) : value.frames);
    controls.playing = false;
    if (!controls.repeatChosen) controls.repeat = value.loop;
    const { total } = controls;
    const play = value.autoplay && total > 1 && !controls.reducedMotion.matches;
    controls.index = total ? (first ?? (play ? 0 : total - 1)) : -1;

    const now = JSON.stringify(value.panels.map(({ aspect, share, least }) => [aspect, share, least]));
    if (now !== shape) build();
    shape = now;
    plots.forEach((plot, i) => {
      plot.panel = value.panels[i];
      plot.title.replaceChildren();
      plot.title.className = 'title';
      write(plot.title, plot.panel.title);
    });
    const animated = Boolean(props.empty.animated);
    controls.root.classList.toggle('follows', Boolean(props.empty.follows));
    controls.root.classList.toggle('animated', animated || total > 1);
    controls.root.classList.toggle('captioned', animated || total > 0 || Boolean(value.caption));
    drawLegend();
    buildHandles();
    writeSurfaces();
    controls.message('');
    controls.drawSegments();
    layout();
    controls.update();
    publish();
    if (value.sheet) loadFrames(value, play);
    else if (play) controls.play();
    follow();
    requests.pump();
  }

  /** Fetch the layers of the frames of a value, and play it then, unless another value has come. */
  async function loadFrames(value, play) {
    const { url } = value.sheet;
    if (sheet.url !== url) sheet = { url, layers: fetch(url).then(unzipped) }; // gradio hands over its first value twice
    try {
      const layers = await sheet.layers;
      if (data !== value) return;
      data = { ...value, frames: value.frames.map(({ caption }, i) => ({ caption, layers: layers[i] })) };
      controls.setFrames(data, data.frames);
      if (value.autoplay && !play) controls.index = controls.total - 1; // motion is not wanted: the result
      layout();
      controls.update();
      if (play) controls.play();
    } catch (error) {
      if (data !== value) return;
      console.error('figure:', error);
      controls.message(controls.label('failed'));
    }
  }

  wipe.addEventListener('click', () => {
    drawn = [];
    draw();
    wipe.disabled = true;
    requests.ask('input');
    requests.send('clear');
  });
  new ResizeObserver(layout).observe(row);
  new MutationObserver(layout).observe(document.body, { attributes: true, attributeFilter: ['class'] });
  controls.write();
  watch('value', load);
  watch('labels', () => {
    controls.write();
    if (data) writeSurfaces();
  });
  load();
}
