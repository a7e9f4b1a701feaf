// Layers of a plot: SVG elements, and the picture of points and heat maps under them.

import { computedColour, html, paint, svg, write } from './elements.js';
import { barsOf, xTicksOf, yTicksOf } from './layout.js';
import { numbersOf } from './packed.js';
import { areaOf, arrowsOf, barBoxes, clearOf, clearPlace, opacitiesOf, pathOf } from './shapes.js';

const POINT = 5; // pixels of a free-hand point
const HANDLE_ROOM = 7; // pixels that the number of a bar stands higher where there are handles

/** Draw the axes of a plot: grid, ticks, labels of bars, names. */
export function drawAxes(plot) {
  const { panel, left, right, top, bottom } = plot;
  const bars = barsOf(panel);
  const lying = bars?.horizontal;
  const standing = bars && !lying;
  const nodes = [];
  for (const [value, text] of xTicksOf(panel, plot)) {
    const x = plot.sx.to(value);
    nodes.push(svg('line', { class: value === 0 ? 'axis' : 'grid', x1: x, x2: x, y1: top, y2: bottom }));
    if (!standing) nodes.push(svg('text', { class: 'soft', x, y: bottom + 16, 'text-anchor': 'middle' }, text));
  }
  for (const [value, text] of lying ? [] : yTicksOf(panel, plot.height)) {
    const y = plot.sy.to(value);
    nodes.push(svg('line', { class: value === 0 ? 'axis' : 'grid', x1: left, x2: right, y1: y, y2: y }));
    nodes.push(svg('text', { class: 'soft', x: left - 7, y: y + 4, 'text-anchor': 'end' }, text));
  }
  if (!lying) nodes.push(svg('line', { class: 'axis', x1: left, x2: right, y1: bottom, y2: bottom }));
  for (const [i, text] of (bars ? bars.labels : []).entries()) {
    const place = lying
      ? { x: left - 8, y: plot.sy.to(i) + 4.5, 'text-anchor': 'end' }
      : { x: plot.sx.to(i), y: bottom + 16, 'text-anchor': 'middle' };
    nodes.push(write(svg('text', place), text));
  }
  if (panel.x.name) {
    const y = bottom + (panel.x.ticks || standing ? 35 : 17);
    nodes.push(write(svg('text', { x: (left + right) / 2, y, 'text-anchor': 'middle' }), panel.x.name));
  }
  if (panel.y.name) nodes.push(write(svg('text', { x: lying ? left : Math.max(2, left - 34), y: top - 9 }), panel.y.name));
  plot.axes.replaceChildren(...nodes);
  const clip = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  for (const key in clip) plot.clip.setAttribute(key, clip[key]);
}

const DRAW = {
  line: (plot, layer) => [
    svg('path', {
      d: pathOf(plot, numbersOf(layer.x), numbersOf(layer.y)),
      fill: 'none',
      stroke: paint(layer.colour),
      'stroke-width': layer.width,
      'stroke-linejoin': 'round',
      'stroke-dasharray': layer.dash ? '7 5' : 'none',
    }),
  ],

  area(plot, layer, number) {
    const colour = paint(layer.colour);
    const { above, below } = areaOf(plot, layer);
    const nodes = [svg('path', { d: above, fill: colour, 'fill-opacity': layer.opacity })];
    if (below) {
      const id = `${plot.name}-${number}`;
      const opacity = Math.min(1, 2.4 * layer.opacity);
      const stripes = { d: 'M-1 7L7 -1M-1 13L13 -1', stroke: colour, 'stroke-width': 1.4, 'stroke-opacity': opacity };
      nodes.push(svg('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse' }, svg('path', stripes)));
      nodes.push(svg('path', { d: below, fill: `url(#${id})` }));
    }
    if (layer.edge) {
      const d = pathOf(plot, numbersOf(layer.x), numbersOf(layer.y));
      nodes.push(svg('path', { d, fill: 'none', stroke: colour, 'stroke-width': 2 }));
    }
    return nodes;
  },

  arrows(plot, layer) {
    const colour = paint(layer.colour);
    const { shafts, heads } = arrowsOf(plot, layer);
    return [
      svg('path', { d: shafts, stroke: colour, 'stroke-width': layer.width, fill: 'none' }),
      svg('path', { d: heads, fill: colour }),
    ];
  },

  bars(plot, layer, _, layers) {
    const nodes = [];
    const lines = layers.filter((other) => other.kind === 'line');
    barBoxes(plot, layer).forEach(({ parts, middle, end }, i) => {
      for (const { stack, ...box } of parts) {
        const length = layer.horizontal ? box.width : box.height;
        nodes.push(svg('rect', { ...box, rx: Math.min(3, length / 2), fill: paint(stack.colour) }));
        if (stack.inside && plot.widthOf(stack.inside) + 12 < box.width && box.height > 16) {
          const fill = stack.colour === 'ink' ? 'var(--block-background-fill)' : `var(--genlab-on-${stack.colour})`;
          const place = {
            x: box.x + box.width / 2,
            y: box.y + box.height / 2 + 4.5,
            'text-anchor': 'middle',
            style: `fill:${fill}`,
          };
          nodes.push(write(svg('text', place), stack.inside));
        }
      }
      if (!layer.texts.length) return;
      const y = Math.max(plot.top + 8, end) - 6 - (plot.grips.size ? HANDLE_ROOM : 0);
      const place = layer.horizontal
        ? { x: Math.min(plot.right, end) + 6, y: middle + 4.5 }
        : { x: middle, y: clearOf(plot, lines, i, y), 'text-anchor': 'middle' };
      plot.over.append(svg('text', { class: 'halo', ...place }, layer.texts[i]));
    });
    return nodes;
  },

  rule(plot, layer, _, layers) {
    const place = layer.axis === 'x' ? plot.sx.to(layer.at) : plot.sy.to(layer.at);
    const d = layer.axis === 'x' ? `M${place} ${plot.top}V${plot.bottom}` : `M${plot.left} ${place}H${plot.right}`;
    const nodes = [svg('path', { class: 'rule', d, stroke: paint(layer.colour) })];
    if (!layer.text) return nodes;
    const onLeft = place > (plot.left + plot.right) / 2; // where there is more room
    const side = { x: place + (onLeft ? -6 : 6), y: plot.top + 14, 'text-anchor': onLeft ? 'end' : 'start' };
    const lines = layers.filter((other) => other.kind === 'line');
    const at = layer.axis === 'x' ? side : clearPlace(plot, lines, place, plot.widthOf(layer.text));
    nodes.push(write(svg('text', { class: 'halo', ...at }), layer.text));
    return nodes;
  },
};

/** Draw the layers that are lines, areas, arrows, bars and rules. */
export function drawMarks(plot, layers) {
  plot.over.replaceChildren();
  plot.marks.replaceChildren(...layers.flatMap((layer, i) => DRAW[layer.kind]?.(plot, layer, i, layers) ?? []));
}

/** Draw heat maps, clouds and free-hand points on the plot's canvas, under everything else. */
export function drawPicture(plot, layers, drawn) {
  const { canvas, left, right, top, bottom } = plot;
  const ratio = window.devicePixelRatio || 1;
  const context = canvas.getContext('2d');
  const size = { width: Math.round(plot.width * ratio), height: Math.round(plot.height * ratio) };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  for (const layer of layers) {
    if (layer.kind === 'heat') drawHeat(context, plot, layer);
    if (layer.kind === 'points') drawPoints(context, plot, numbersOf(layer.x), numbersOf(layer.y), layer);
  }
  if (drawn.length) {
    const [x, y] = [0, 1].map((axis) => drawn.map((point) => point[axis]));
    drawPoints(context, plot, x, y, { size: POINT, colour: 'ink', opacity: 0.9, hollow: false });
  }
  context.restore();
}

function drawPoints(context, { root, sx, sy }, x, y, { size, colour, opacity, hollow }) {
  context.fillStyle = context.strokeStyle = computedColour(root, colour);
  context.globalAlpha = opacity;
  for (let i = 0; i < x.length; i++) {
    context.beginPath();
    context.arc(sx.to(x[i]), sy.to(y[i]), size / 2, 0, 2 * Math.PI);
    if (hollow) context.stroke();
    else context.fill();
  }
  context.globalAlpha = 1;
}

function drawHeat(context, { root, panel, sx, sy }, layer) {
  const opacities = opacitiesOf(layer);
  const small = document.createElement('canvas'); // one pixel a value
  Object.assign(small, { width: layer.columns, height: opacities.length / layer.columns });
  const inner = small.getContext('2d');
  inner.fillStyle = computedColour(root, layer.colour);
  inner.fillRect(0, 0, small.width, small.height);
  const picture = inner.getImageData(0, 0, small.width, small.height);
  opacities.forEach((opacity, i) => {
    picture.data[4 * i + 3] = opacity;
  });
  inner.putImageData(picture, 0, 0);
  const [x1, x2] = (layer.x || [panel.x.low, panel.x.high]).map(sx.to);
  const [y1, y2] = (layer.y || [panel.y.low, panel.y.high]).map(sy.to);
  context.drawImage(small, x1, y2, x2 - x1, y1 - y2);
}

const SWATCH = {
  line: ({ width, dash }, stroke) =>
    svg('path', { d: 'M1 7H21', stroke, 'stroke-width': width, 'stroke-dasharray': dash ? '6 3' : 'none' }),
  points: ({ hollow }, stroke) =>
    svg('circle', { cx: 11, cy: 7, r: 4, stroke, 'stroke-width': 1.5, fill: hollow ? 'none' : stroke }),
  arrows: (_, fill) => svg('path', { d: 'M1 6H14V2L21 7L14 12V8H1Z', fill }),
  area: (_, fill) =>
    svg('rect', { x: 1, y: 1, width: 20, height: 12, rx: 2, fill, 'fill-opacity': 0.45, stroke: fill, 'stroke-width': 1.5 }),
  bars: (_, fill) => svg('rect', { x: 5, y: 1, width: 12, height: 12, rx: 2, fill }),
};

/** Return the items of a figure's legend: one for every name and colour of a layer, or of a part of bars. */
export function legendOf(panels) {
  const items = new Map();
  for (const layer of panels.flatMap((panel) => panel.layers)) {
    const named = layer.kind === 'bars' ? layer.stacks.map((stack) => ({ ...stack, kind: 'bars' })) : [layer];
    for (const item of named) {
      const key = `${item.name} ${item.colour}`;
      if (SWATCH[item.kind] && item.name && !items.has(key)) items.set(key, item);
    }
  }
  return [...items.values()].map((item) => {
    const swatch = svg('svg', { viewBox: '0 0 22 14', 'aria-hidden': 'true' }, SWATCH[item.kind](item, paint(item.colour)));
    return html('li', '', swatch, write(html('span', ''), item.name));
  });
}
