// A plot: the elements and the geometry of one panel.

import { html, paint, svg, write } from './elements.js';
import { numbersOf } from './packed.js';
import { clamped, nearestIndex, readable } from './scale.js';

/** Return a plot: the elements of a panel, empty, with the state that belongs to it. `name` is unique on the page. */
export function plotOf(panel, index, name, widthOf) {
  const clip = svg('rect', {});
  const id = `${name}-clip`;
  const [axes, over, chosen] = [svg('g', {}), svg('g', {}), svg('g', {})];
  const marks = svg('g', { 'clip-path': `url(#${id})` });
  const art = svg('svg', { 'aria-hidden': 'true' }, svg('defs', {}, svg('clipPath', { id }, clip)), axes, marks, over, chosen);
  const canvas = document.createElement('canvas');
  const picture = html('div', 'picture', canvas, art);
  picture.setAttribute('role', 'img');
  const surface = html('div', 'surface');
  const hold = svg('svg', { class: 'hands' });
  const read = html('div', 'read');
  read.hidden = true;
  read.setAttribute('aria-hidden', 'true');
  const box = html('div', 'plot', picture, surface, hold, read);
  const title = html('div', 'title');
  const root = html('div', 'panel', title, box);
  root.style.flex = `${panel.share} 1 ${Math.round(panel.least)}px`;
  const elements = { root, title, box, canvas, clip, axes, marks, over, chosen, picture, surface, hold, read };
  const state = { width: 0, height: 0, pointer: null, grips: new Map(), cross: null };
  return { index, name, panel, widthOf, ...elements, ...state };
}

/** Return where an event is in a plot, { x, y } in pixels. */
export function pointIn(plot, event) {
  const box = plot.box.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

/** Return whether a point is between the axes. */
export function within(plot, { x, y }) {
  return x >= plot.left && x <= plot.right && y >= plot.top && y <= plot.bottom;
}

/** Return steps of a key, [right, up], in pixels: a step is a hundredth of the panel. */
export function pixelsOf(plot, [right, up]) {
  return [((plot.right - plot.left) / 100) * right, ((plot.top - plot.bottom) / 100) * up];
}

/** Move the cross that the keyboard draws with by (dx, dy) pixels. */
export function moveCross(plot, dx, dy) {
  const from = plot.cross || { x: (plot.left + plot.right) / 2, y: (plot.top + plot.bottom) / 2 };
  const x = clamped(from.x + dx, plot.left, plot.right);
  const y = clamped(from.y + dy, plot.top, plot.bottom);
  plot.cross?.node.remove();
  const node = svg('path', { class: 'cross', d: `M${x - 9} ${y}H${x + 9}M${x} ${y - 9}V${y + 9}` });
  plot.cross = { x, y, node: plot.hold.appendChild(node) };
}

/** Show the values under the pointer: those of the curves at the nearest x, or the place where there are no curves. */
export function readOut(plot, layers) {
  const { panel, pointer } = plot;
  plot.read.hidden = !pointer || !within(plot, pointer);
  if (plot.read.hidden) return;
  const x = plot.sx.back(pointer.x);
  const line = (label, value, axis, colour) => {
    const swatch = html('i', '');
    swatch.style.background = colour ? paint(colour) : 'transparent';
    return html('div', '', swatch, write(html('span', ''), label), html('b', '', readable(value, axis)));
  };
  let curves = layers.filter((layer) => layer.kind === 'line' || layer.kind === 'area');
  if (curves.some((layer) => layer.name)) curves = curves.filter((layer) => layer.name);
  const rows = [];
  for (const layer of curves) {
    const i = nearestIndex(numbersOf(layer.x), x);
    if (i < 0) continue;
    if (!rows.length) rows.push(line(panel.x.name || 'x', numbersOf(layer.x)[i], panel.x));
    rows.push(line(layer.name || panel.y.name || 'y', numbersOf(layer.y)[i], panel.y, layer.colour));
  }
  const place = () => [line(panel.x.name || 'x', x, panel.x), line(panel.y.name || 'y', plot.sy.back(pointer.y), panel.y)];
  if (!curves.length) rows.push(...place());
  plot.read.replaceChildren(...rows);
  const onLeft = pointer.x > (plot.left + plot.right) / 2;
  plot.read.style.left = onLeft ? `${plot.left + 4}px` : '';
  plot.read.style.right = onLeft ? '' : `${plot.width - plot.right + 4}px`;
}
