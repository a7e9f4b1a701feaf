// Last part of the figure's js_on_load, after controls.js and requests.js: draws panels and layers for the width there is, and
// sends what the visitor moves. The value that the server sends is drawn and then replaced by what can change (handles, selected,
// drawn), so that a request never carries the curves back.

const SVG = 'http://www.w3.org/2000/svg';
const SLACK = 4; // pixels across its way that a handle of two axes does not follow at first
const REACH = 20; // pixels around a handle where a finger takes hold of it
const APART = 22; // least pixels between a handle that goes along with another one and that one, as they are drawn

const row = $('.panels');
const name = `figure-${Math.random().toString(36).slice(2)}`; // of clip paths and patterns

let data = null; // what is drawn, a FigureData
let shape = ''; // of the panels; while it stays, their elements do
let plots = []; // one for each panel
let hands = new Map(); // id → { x, y }
let chosen = null; // what was selected
let sketch = []; // the free-hand points
const moved = new Set(); // ids of the handles in whose place the visitor is ahead of the server
let grabbed = null; // { id, moved } while a handle is dragged
let pen = null; // the plot that is drawn in

// ---- numbers and elements ----

const decoded = new WeakMap();

// A series as numbers, NaN for a gap: see figure.Packed.
function series(values) {
  if (!values) return [];
  let numbers = decoded.get(values);
  if (numbers) return numbers;
  if (Array.isArray(values)) numbers = values.map((v) => (v === null ? NaN : v));
  else {
    const bytes = Uint8Array.from(atob(values.codes), (character) => character.charCodeAt(0));
    const codes = new DataView(bytes.buffer);
    const unit = (values.high - values.low) / 65534;
    numbers = Float64Array.from({ length: bytes.length / 2 }, (_, i) => {
      const code = codes.getUint16(2 * i, true);
      const value = code === 65535 ? NaN : values.low + code * unit;
      return values.log ? Math.exp(value) : value;
    });
  }
  decoded.set(values, numbers);
  return numbers;
}

const minus = (text) => text.replace(/-/g, '−');
function number(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return minus(value.toExponential(1).replace('e+', 'e'));
  return minus(String(Number(value.toPrecision(3))));
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  node.append(...children);
  return node;
}

function html(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

// Text with indices (x_t, x_{t−1}) into an HTML or an SVG element.
function write(node, text) {
  const inSvg = node.namespaceURI === SVG;
  if (text.length <= 16 && !/\s|[A-Za-z]{3}|[\u2e80-\u9fff]/.test(text) && /[^\d.,+−-]/.test(text)) node.classList.add('symbol');
  let lowered = false;
  text.split(/_(\{[^}]*\}|[^\s_{])/).forEach((piece, i) => {
    if (!piece) return;
    const index = i % 2 === 1;
    const plain = index ? piece.replace(/^\{|\}$/g, '') : piece;
    if (!inSvg) node.append(index ? Object.assign(document.createElement('sub'), { textContent: plain }) : plain);
    else {
      const shift = index ? { dy: '0.3em', 'font-size': '0.72em' } : lowered ? { dy: '-0.216em' } : {};
      node.append(svg('tspan', shift, plain));
      lowered = index;
    }
  });
  return node;
}

const paint = (colour) => (colour === 'ink' ? 'var(--ink)' : `var(--genlab-${colour})`);
const computed = (colour) => getComputedStyle(player).getPropertyValue(colour === 'ink' ? '--ink' : `--genlab-${colour}`).trim();

const ruler = document.createElement('canvas').getContext('2d');
function widthOf(text) {
  ruler.font = `13px ${getComputedStyle(player).fontFamily}`;
  return ruler.measureText(text).width;
}

// ---- axes ----

function scaleOf(axis, from, to) {
  const log = axis.scale === 'log';
  const low = log ? Math.log(axis.low) : axis.low;
  const high = log ? Math.log(axis.high) : axis.high;
  const inner = (v) => (log ? Math.log(Math.max(v, axis.low * 1e-6)) : v);
  return {
    to: (v) => from + ((inner(v) - low) / (high - low)) * (to - from),
    back: (p) => {
      const v = low + ((p - from) / (to - from)) * (high - low);
      return log ? Math.exp(v) : v;
    },
  };
}

function ticksOf(axis, room) {
  if (!axis.ticks) return [];
  if (axis.scale === 'log') {
    const decades = Math.log10(axis.high / axis.low);
    const every = Math.max(1, Math.ceil(decades / Math.max(1, room)));
    const parts = decades < 2 ? [1, 2, 5] : [1];
    const values = [];
    for (let e = Math.floor(Math.log10(axis.low)); e <= Math.log10(axis.high) + 1e-9; e += every)
      for (const part of parts) values.push(part * 10 ** e);
    return values.filter((v) => v >= axis.low * (1 - 1e-9) && v <= axis.high * (1 + 1e-9)).map((v) => [v, number(v)]);
  }
  const rough = (axis.high - axis.low) / Math.max(1, room);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values = [];
  for (let k = Math.ceil(axis.low / step - 1e-9); k * step <= axis.high + step * 1e-9; k++) values.push(k * step || 0);
  return values.map((v) => [v, minus(Math.abs(v) >= 1e6 ? v.toExponential(0) : v.toFixed(digits))]);
}

// Room for the numbers at the left; the same for all panels whose x axes should stand below each other.
function leftOf({ panel, height }) {
  const bars = panel.layers.find((layer) => layer.kind === 'bars' && layer.horizontal);
  if (bars) return 14 + Math.max(...bars.labels.map((text) => widthOf(text.replace(/[_{}]/g, ''))), 0);
  return panel.y.ticks ? 14 + Math.max(...ticksOf(panel.y, height / 44).map(([, text]) => widthOf(text)), 0) : 8;
}
const alone = ({ panel }) => panel.equal || panel.layers.some((layer) => layer.kind === 'bars');

// Where things lie in a plot of this size, and the axes.
function frameOf(plot) {
  const { panel, width, height } = plot;
  const bars = panel.layers.find((layer) => layer.kind === 'bars');
  const lying = bars && bars.horizontal;
  const across = bars && !bars.horizontal;
  const yTicks = ticksOf(panel.y, height / 44);
  let left = alone(plot) ? leftOf(plot) : Math.max(...plots.filter((other) => !alone(other)).map(leftOf));
  const texts = bars ? [bars, ...data.frames.map((frame) => frame.layers[bars.id] || {})].flatMap((state) => state.texts || []) : [];
  let right = lying && texts.length ? 10 + Math.max(...texts.map(widthOf)) : 10;
  let top = panel.y.name ? 24 : 8;
  let bottom = (panel.x.ticks || across ? 22 : 8) + (panel.x.name ? 18 : 0);
  if (panel.equal) {
    const unit = Math.min((width - left - right) / (panel.x.high - panel.x.low), (height - top - bottom) / (panel.y.high - panel.y.low));
    const spareX = width - left - right - unit * (panel.x.high - panel.x.low);
    const spareY = height - top - bottom - unit * (panel.y.high - panel.y.low);
    left += spareX / 2;
    right += spareX / 2;
    top += spareY / 2;
    bottom += spareY / 2;
  }
  plot.left = left;
  plot.right = width - right;
  plot.top = top;
  plot.bottom = height - bottom;
  plot.sx = scaleOf(panel.x, plot.left, plot.right);
  plot.sy = lying ? scaleOf(panel.y, plot.top, plot.bottom) : scaleOf(panel.y, plot.bottom, plot.top);

  const nodes = [];
  for (const [value, text] of ticksOf(panel.x, (plot.right - plot.left) / 64)) {
    const x = plot.sx.to(value);
    nodes.push(svg('line', { class: value === 0 ? 'axis' : 'grid', x1: x, x2: x, y1: plot.top, y2: plot.bottom }));
    if (!across) nodes.push(svg('text', { class: 'soft', x, y: plot.bottom + 16, 'text-anchor': 'middle' }, text));
  }
  for (const [value, text] of lying ? [] : yTicks) {
    const y = plot.sy.to(value);
    nodes.push(svg('line', { class: value === 0 ? 'axis' : 'grid', x1: plot.left, x2: plot.right, y1: y, y2: y }));
    nodes.push(svg('text', { class: 'soft', x: plot.left - 7, y: y + 4, 'text-anchor': 'end' }, text));
  }
  if (!lying) nodes.push(svg('line', { class: 'axis', x1: plot.left, x2: plot.right, y1: plot.bottom, y2: plot.bottom }));
  if (lying || across) {
    bars.labels.forEach((text, i) => {
      const place = lying
        ? { x: plot.left - 8, y: plot.sy.to(i) + 4.5, 'text-anchor': 'end' }
        : { x: plot.sx.to(i), y: plot.bottom + 16, 'text-anchor': 'middle' };
      nodes.push(write(svg('text', place), text));
    });
  }
  if (panel.x.name) nodes.push(write(svg('text', { x: (plot.left + plot.right) / 2, y: plot.bottom + (panel.x.ticks || across ? 35 : 17), 'text-anchor': 'middle' }), panel.x.name));
  if (panel.y.name) nodes.push(write(svg('text', { x: lying ? plot.left : Math.max(2, plot.left - 34), y: plot.top - 9 }), panel.y.name));
  plot.axes.replaceChildren(...nodes);
  const box = { x: plot.left, y: plot.top, width: Math.max(0, plot.right - plot.left), height: Math.max(0, plot.bottom - plot.top) };
  for (const key in box) plot.clip.setAttribute(key, box[key]);
}

// ---- layers ----

const layersOf = (plot) => {
  const changes = (frames[at] || {}).layers || {};
  return plot.panel.layers.map((layer) => (layer.id && changes[layer.id] ? { ...layer, ...changes[layer.id] } : layer));
};

function path(plot, x, y, value = (v) => v) {
  let text = '';
  let pen = 'M';
  for (let i = 0; i < x.length; i++) {
    const v = value(y[i]);
    if (Number.isNaN(v) || Number.isNaN(x[i])) {
      pen = 'M';
      continue;
    }
    text += `${pen}${plot.sx.to(x[i]).toFixed(2)} ${Math.max(-9999, Math.min(9999, plot.sy.to(v))).toFixed(2)}`;
    pen = 'L';
  }
  return text;
}

// Where the number of bar i stands, near y: above a line that would strike it through.
function free(plot, i, y) {
  const lines = layersOf(plot).filter((layer) => layer.kind === 'line');
  const near = lines.flatMap((layer) => Array.from(series(layer.y)).filter((_, k) => Math.abs(series(layer.x)[k] - i) < 0.5));
  return Math.min(y, ...near.map(plot.sy.to).filter((line) => line > y - 16 && line < y + 4).map((line) => line - 6));
}

const DRAW = {
  line: (plot, layer) => [
    svg('path', {
      d: path(plot, series(layer.x), series(layer.y)),
      fill: 'none',
      stroke: paint(layer.colour),
      'stroke-width': layer.width,
      'stroke-linejoin': 'round',
      'stroke-dasharray': layer.dash ? '7 5' : 'none',
    }),
  ],

  area(plot, layer) {
    const x = series(layer.x);
    const y = series(layer.y);
    const colour = paint(layer.colour);
    const base = plot.sy.to(layer.base);
    const closed = (value) => {
      const edge = path(plot, x, y, (v) => (Number.isNaN(v) ? layer.base : value(v)));
      return edge ? `${edge}L${plot.sx.to(x[x.length - 1])} ${base}L${plot.sx.to(x[0])} ${base}Z` : '';
    };
    const nodes = [svg('path', { d: closed((v) => Math.max(v, layer.base)), fill: colour, 'fill-opacity': layer.opacity })];
    if (y.some((v) => v < layer.base)) {
      const id = `${name}-${plot.index}-${plot.patterns++}`;
      const stripes = svg('path', { d: 'M-1 7L7 -1M-1 13L13 -1', stroke: colour, 'stroke-width': 1.4, 'stroke-opacity': Math.min(1, 2.4 * layer.opacity) });
      nodes.push(svg('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse' }, stripes));
      nodes.push(svg('path', { d: closed((v) => Math.min(v, layer.base)), fill: `url(#${id})` }));
    }
    if (layer.edge) nodes.push(svg('path', { d: path(plot, x, y), fill: 'none', stroke: colour, 'stroke-width': 2 }));
    return nodes;
  },

  arrows(plot, layer) {
    const [x, y, u, v] = [layer.x, layer.y, layer.u, layer.v].map(series);
    let shafts = '';
    let heads = '';
    for (let i = 0; i < x.length; i++) {
      const [x1, y1, x2, y2] = [plot.sx.to(x[i]), plot.sy.to(y[i]), plot.sx.to(x[i] + u[i]), plot.sy.to(y[i] + v[i])];
      const length = Math.hypot(x2 - x1, y2 - y1);
      if (!(length > 0.5)) continue;
      const size = Math.min(7, Math.max(2.5, 0.45 * length));
      const [cx, cy] = [((x2 - x1) / length) * size, ((y2 - y1) / length) * size];
      shafts += `M${x1.toFixed(1)} ${y1.toFixed(1)}L${(x2 - cx / 2).toFixed(1)} ${(y2 - cy / 2).toFixed(1)}`;
      heads += `M${x2.toFixed(1)} ${y2.toFixed(1)}L${(x2 - cx - cy / 2).toFixed(1)} ${(y2 - cy + cx / 2).toFixed(1)}L${(x2 - cx + cy / 2).toFixed(1)} ${(y2 - cy - cx / 2).toFixed(1)}Z`;
    }
    const colour = paint(layer.colour);
    return [svg('path', { d: shafts, stroke: colour, 'stroke-width': layer.width, fill: 'none' }), svg('path', { d: heads, fill: colour })];
  },

  bars(plot, layer) {
    const along = layer.horizontal ? plot.sx : plot.sy;
    const across = layer.horizontal ? plot.sy : plot.sx;
    const nodes = [];
    layer.labels.forEach((_, i) => {
      const side = [across.to(i - layer.thickness / 2), across.to(i + layer.thickness / 2)].sort((a, b) => a - b);
      const sum = [0, 0]; // above and below zero
      for (const stack of layer.stacks) {
        const value = stack.values[i];
        const sign = value < 0 ? 1 : 0;
        const ends = [along.to(sum[sign]), along.to(sum[sign] + value)].sort((a, b) => a - b);
        sum[sign] += value;
        const long = ends[1] - ends[0];
        const box = layer.horizontal
          ? { x: ends[0], y: side[0], width: long, height: side[1] - side[0] }
          : { x: side[0], y: ends[0], width: side[1] - side[0], height: long };
        nodes.push(svg('rect', { ...box, rx: Math.min(3, long / 2), fill: paint(stack.colour) }));
        if (stack.inside && widthOf(stack.inside) + 12 < box.width && box.height > 16) {
          const fill = stack.colour === 'ink' ? 'var(--block-background-fill)' : `var(--genlab-on-${stack.colour})`;
          const place = { x: box.x + box.width / 2, y: box.y + box.height / 2 + 4.5, 'text-anchor': 'middle', style: `fill:${fill}` };
          nodes.push(write(svg('text', place), stack.inside));
        }
      }
      if (layer.texts.length) {
        const middle = (side[0] + side[1]) / 2;
        const end = along.to(sum[0] > 0 ? sum[0] : sum[1]);
        const place = layer.horizontal
          ? { x: Math.min(plot.right, Math.max(end, along.to(0))) + 6, y: middle + 4.5 }
          : { x: middle, y: free(plot, i, Math.max(plot.top + 8, Math.min(end, along.to(0))) - (plot.grips.size ? 13 : 6)), 'text-anchor': 'middle' };
        plot.over.append(svg('text', { class: 'halo', ...place }, layer.texts[i]));
      }
    });
    return nodes;
  },

  rule(plot, layer) {
    const colour = paint(layer.colour);
    if (layer.axis === 'x') {
      const x = plot.sx.to(layer.at);
      const nodes = [svg('path', { class: 'rule', d: `M${x} ${plot.top}V${plot.bottom}`, stroke: colour })];
      const flip = x > (plot.left + plot.right) / 2;
      if (layer.text) nodes.push(write(svg('text', { class: 'halo', x: x + (flip ? -6 : 6), y: plot.top + 14, 'text-anchor': flip ? 'end' : 'start' }), layer.text));
      return nodes;
    }
    const y = plot.sy.to(layer.at);
    const nodes = [svg('path', { class: 'rule', d: `M${plot.left} ${y}H${plot.right}`, stroke: colour })];
    if (layer.text) nodes.push(write(svg('text', { class: 'halo', x: plot.right - 6, y: y - 6, 'text-anchor': 'end' }), layer.text));
    return nodes;
  },
};

// Clouds and heat maps: on the canvas, under everything else.
function drawCanvas(plot, layers) {
  const { canvas, width, height } = plot;
  const marks = layers.filter((layer) => layer.kind === 'points' || layer.kind === 'heat');
  const own = plot.panel.draw ? sketch : [];
  const ratio = window.devicePixelRatio || 1;
  const context = canvas.getContext('2d');
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!marks.length && !own.length) return;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top);
  context.clip();
  const dots = (x, y, size, colour, opacity, hollow = false) => {
    context.fillStyle = context.strokeStyle = colour;
    context.globalAlpha = opacity;
    for (let i = 0; i < x.length; i++) {
      context.beginPath();
      context.arc(plot.sx.to(x[i]), plot.sy.to(y[i]), size / 2, 0, 2 * Math.PI);
      if (hollow) context.stroke();
      else context.fill();
    }
    context.globalAlpha = 1;
  };
  for (const layer of marks) {
    if (layer.kind === 'points') dots(series(layer.x), series(layer.y), layer.size, computed(layer.colour), layer.opacity, layer.hollow);
    else {
      const values = series(layer.values);
      const rows = values.length / layer.columns;
      const small = document.createElement('canvas');
      small.width = layer.columns;
      small.height = rows;
      const inner = small.getContext('2d');
      inner.fillStyle = computed(layer.colour);
      inner.fillRect(0, 0, layer.columns, rows);
      const picture = inner.getImageData(0, 0, layer.columns, rows);
      values.forEach((v, i) => {
        picture.data[4 * i + 3] = Math.round(255 * Math.max(0, Math.min(1, (v - layer.low) / (layer.high - layer.low) || 0)));
      });
      inner.putImageData(picture, 0, 0);
      const [x1, x2] = (layer.x || [plot.panel.x.low, plot.panel.x.high]).map(plot.sx.to);
      const [y1, y2] = (layer.y || [plot.panel.y.low, plot.panel.y.high]).map(plot.sy.to);
      context.drawImage(small, x1, y2, x2 - x1, y1 - y2);
    }
  }
  dots(own.map(([x]) => x), own.map(([, y]) => y), 5, computed('ink'), 0.9);
  context.restore();
}

function drawPlot(plot) {
  if (!plot.width) return;
  const layers = layersOf(plot);
  plot.patterns = 0;
  plot.over.replaceChildren();
  plot.marks.replaceChildren(...layers.flatMap((layer) => (DRAW[layer.kind] ? DRAW[layer.kind](plot, layer) : [])));
  const here = chosen && chosen.panel === plot.index ? plot.sx.to(chosen.x) : NaN;
  plot.chosen.replaceChildren(...(here >= plot.left - 1 && here <= plot.right + 1 ? [svg('path', { class: 'chosen', d: `M${here} ${plot.top}V${plot.bottom}` })] : []));
  drawCanvas(plot, layers);
  if (plot.pointer) readout(plot, layers);
}

function draw() {
  plots.forEach(drawPlot);
}

function describe(count, caption) {
  if (!data) return;
  if (!n) $('.caption').textContent = data.caption;
  player.setAttribute('aria-label', [say('player'), data.description].filter(Boolean).join('. '));
  for (const plot of plots) plot.picture.setAttribute('aria-label', [plot.panel.title, plot.panel.description || data.description, count && `${count}. ${caption}`].filter(Boolean).join('. '));
}

const announce = () => (data ? '' : say('empty'));

// ---- the values under the pointer ----

function readout(plot, layers = layersOf(plot)) {
  const { panel, pointer } = plot;
  const inside = pointer && pointer.x >= plot.left && pointer.x <= plot.right && pointer.y >= plot.top && pointer.y <= plot.bottom;
  plot.read.hidden = !inside || grabbed !== null || pen !== null;
  if (plot.read.hidden) return;
  const x = plot.sx.back(pointer.x);
  const line = (label, value, colour) => {
    const swatch = html('i', '');
    swatch.style.background = colour ? paint(colour) : 'transparent';
    return html('div', '', swatch, write(html('span', ''), label), html('b', '', number(value)));
  };
  let curves = layers.filter((layer) => layer.kind === 'line' || layer.kind === 'area');
  if (curves.some((layer) => layer.name)) curves = curves.filter((layer) => layer.name);
  const rows = [];
  for (const layer of curves) {
    const i = nearestIndex(series(layer.x), x);
    if (i < 0) continue;
    if (!rows.length) rows.push(line(panel.x.name || 'x', series(layer.x)[i]));
    rows.push(line(layer.name || panel.y.name || 'y', series(layer.y)[i], layer.colour));
  }
  if (!curves.length) rows.push(line(panel.x.name || 'x', x), line(panel.y.name || 'y', plot.sy.back(pointer.y)));
  plot.read.replaceChildren(...rows);
  const onLeft = pointer.x > (plot.left + plot.right) / 2;
  plot.read.style.left = onLeft ? `${plot.left + 4}px` : '';
  plot.read.style.right = onLeft ? '' : `${plot.width - plot.right + 4}px`;
}

function nearestIndex(x, value) {
  let best = -1;
  for (let i = 0; i < x.length; i++) if (best < 0 || Math.abs(x[i] - value) < Math.abs(x[best] - value)) best = i;
  return best;
}

// ---- building ----

function build() {
  plots = data.panels.map((panel, index) => {
    const canvas = document.createElement('canvas');
    const clip = svg('rect', {});
    const [axes, marks, over, selection] = [svg('g', {}), svg('g', { 'clip-path': `url(#${name}-clip-${index})` }), svg('g', {}), svg('g', {})];
    const art = svg('svg', { 'aria-hidden': 'true' }, svg('defs', {}, svg('clipPath', { id: `${name}-clip-${index}` }, clip)), axes, marks, over, selection);
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
    box.style.aspectRatio = String(panel.aspect);
    const plot = { index, panel, root, title, box, canvas, clip, axes, marks, over, chosen: selection, picture, surface, hold, read, width: 0, height: 0, patterns: 0, pointer: null, grips: new Map(), cross: null };
    listen(plot);
    return plot;
  });
  row.replaceChildren(...plots.map((plot) => plot.root));
}

const LINES = { line: 1, area: 1, points: 1, arrows: 1 };
function legend() {
  const items = new Map();
  for (const layer of data.panels.flatMap((panel) => panel.layers)) {
    if (layer.kind === 'bars') for (const stack of layer.stacks) if (stack.name) items.set(`${stack.name} ${stack.colour}`, { ...stack, kind: 'bars' });
    if (LINES[layer.kind] && layer.name) items.has(`${layer.name} ${layer.colour}`) || items.set(`${layer.name} ${layer.colour}`, layer);
  }
  const list = $('.legend');
  list.hidden = !data.legend || !items.size;
  list.replaceChildren(
    ...[...items.values()].map((layer) => {
      const colour = paint(layer.colour);
      const mark = {
        line: () => svg('path', { d: 'M1 7H21', stroke: colour, 'stroke-width': layer.width, 'stroke-dasharray': layer.dash ? '6 3' : 'none' }),
        points: () => svg('circle', { cx: 11, cy: 7, r: 4, stroke: colour, 'stroke-width': 1.5, fill: layer.hollow ? 'none' : colour }),
        arrows: () => svg('path', { d: 'M1 6H14V2L21 7L14 12V8H1Z', fill: colour }),
        area: () => svg('rect', { x: 1, y: 1, width: 20, height: 12, rx: 2, fill: colour, 'fill-opacity': 0.45, stroke: colour, 'stroke-width': 1.5 }),
        bars: () => svg('rect', { x: 5, y: 1, width: 12, height: 12, rx: 2, fill: colour }),
      }[layer.kind]();
      return html('li', '', svg('svg', { viewBox: '0 0 22 14', 'aria-hidden': 'true' }, mark), write(html('span', ''), layer.name));
    }),
  );
}

function layout() {
  for (const plot of plots) {
    plot.width = plot.box.clientWidth;
    plot.height = plot.box.clientHeight;
  }
  for (const plot of plots) {
    if (!plot.width) continue;
    frameOf(plot);
    drawPlot(plot);
    placeHands(plot);
  }
}

// ---- what the visitor moves ----

const state = () => ({
  handles: [...hands].map(([id, { x, y }]) => ({ id, x, y })),
  selected: chosen,
  drawn: sketch,
});
const publish = () => { props.value = state(); };

function boundsOf(handle, panel) {
  return [
    handle.x_low ?? panel.x.low,
    handle.x_high ?? panel.x.high,
    handle.y_low ?? panel.y.low,
    handle.y_high ?? panel.y.high,
  ];
}

function rounded(value, axis) {
  if (axis.scale === 'log') return Number(value.toPrecision(4));
  const unit = 10 ** Math.floor(Math.log10((axis.high - axis.low) / 300));
  return Number((Math.round(value / unit) * unit).toPrecision(12));
}

// Move a handle, within its bounds and along its axis, and those that go along with it; null leaves a coordinate as it is.
function move(handle, plot, x, y) {
  const place = hands.get(handle.id);
  const [xLow, xHigh, yLow, yHigh] = boundsOf(handle, plot.panel);
  const next = { ...place };
  if (handle.axis !== 'y' && x !== null) next.x = Math.max(xLow, Math.min(xHigh, rounded(x, plot.panel.x)));
  if (handle.axis !== 'x' && y !== null) next.y = Math.max(yLow, Math.min(yHigh, rounded(y, plot.panel.y)));
  if (next.x === place.x && next.y === place.y) return;
  hands.set(handle.id, next);
  moved.add(handle.id);
  for (const other of data.handles) {
    const there = other.with_ === handle.id && hands.get(other.id);
    if (!there) continue;
    hands.set(other.id, { x: there.x + next.x - place.x, y: there.y + next.y - place.y });
    moved.add(other.id);
  }
  plots.forEach(placeHands);
  ask('input');
}

// Where a handle is drawn, in pixels: in its place, or as far from the one that it goes along with as to be told from it.
function seat(plot, handle) {
  const place = hands.get(handle.id);
  const [x, y] = [plot.sx.to(place.x), plot.sy.to(place.y)];
  const other = handle.with_ && handle.axis === 'x' && hands.get(handle.with_);
  if (!other) return [x, y];
  const [cx, cy] = [plot.sx.to(other.x), plot.sy.to(other.y)];
  if (Math.hypot(x - cx, y - cy) >= APART) return [x, y];
  return [cx + Math.sign(x - cx || 1) * Math.sqrt(APART ** 2 - (y - cy) ** 2), y];
}

function placeHands(plot) {
  if (!plot.width) return;
  for (const handle of data.handles) {
    const grip = plot.grips.get(handle.id);
    const place = hands.get(handle.id);
    if (!grip || !place) continue;
    const [x, y] = seat(plot, handle);
    grip.setAttribute('transform', `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
    const value = handle.axis === 'y' ? number(place.y) : handle.axis === 'x' ? number(place.x) : `${number(place.x)}, ${number(place.y)}`;
    const [xLow, xHigh, yLow, yHigh] = boundsOf(handle, plot.panel);
    grip.setAttribute('aria-valuenow', handle.axis === 'y' ? place.y : place.x);
    grip.setAttribute('aria-valuemin', handle.axis === 'y' ? yLow : xLow);
    grip.setAttribute('aria-valuemax', handle.axis === 'y' ? yHigh : xHigh);
    grip.setAttribute('aria-valuetext', value);
  }
}

function buildHands() {
  for (const plot of plots) {
    const mine = data.handles.filter((handle) => handle.panels.includes(plot.index));
    if (mine.map((handle) => handle.id + handle.shape).join() === [...plot.grips.keys()].map((id) => id + plot.grips.get(id).dataset.shape).join()) continue;
    plot.grips = new Map(mine.map((handle) => [handle.id, gripOf(plot, handle.id)]));
    plot.hold.replaceChildren(...plot.grips.values());
  }
  for (const plot of plots)
    for (const handle of data.handles) if (plot.grips.has(handle.id)) plot.grips.get(handle.id).setAttribute('aria-label', handle.name || handle.id);
}

function gripOf(plot, id) {
  const find = () => data.handles.find((handle) => handle.id === id);
  const handle = find();
  const fill = paint(handle.colour);
  const bar = handle.shape === 'bar';
  const size = handle.axis === 'y' ? { x: -10, y: -4, width: 20, height: 8, rx: 4 } : { x: -4, y: -10, width: 8, height: 20, rx: 4 };
  const grip = svg(
    'g',
    { class: `hand ${handle.axis}`, role: 'slider', tabindex: 0, 'data-shape': handle.shape, 'data-handle': id },
    svg('circle', { class: 'reach', r: bar ? REACH - 4 : REACH }),
    svg('circle', { class: 'ring', r: 14 }),
    bar ? svg('rect', { class: 'grip', fill, ...size }) : svg('circle', { class: 'grip', fill, r: 8.5 }),
  );
  let origin = [0, 0]; // where the pointer took hold, and how far from the handle's middle
  let offset = [0, 0];
  let free = [false, false]; // along which axes it has left the place by more than SLACK
  const place = (event) => {
    const box = plot.box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  grip.take = (event) => {
    grip.setPointerCapture(event.pointerId);
    origin = place(event);
    const there = hands.get(id);
    offset = [plot.sx.to(there.x) - origin[0], plot.sy.to(there.y) - origin[1]];
    free = [false, false];
    grabbed = { id, from: { ...there } };
    grip.classList.add('held');
    readout(plot);
  };
  grip.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    const [x, y] = place(event); // where several handles are in reach, the nearest is meant, not the one that lies on top
    const away = (handle) => Math.hypot(...seat(plot, handle).map((v, i) => v - [x, y][i]));
    const near = data.handles.filter((handle) => plot.grips.has(handle.id)).sort((a, b) => away(a) - away(b))[0];
    plot.grips.get(near.id).take(event);
    event.stopPropagation();
  });
  grip.addEventListener('pointermove', (event) => {
    if (!grabbed || grabbed.id !== id || !grip.hasPointerCapture(event.pointerId)) return;
    const here = place(event);
    free = free.map((was, i) => was || find().axis !== 'xy' || Math.abs(here[i] - origin[i]) > SLACK);
    move(find(), plot, free[0] ? plot.sx.back(here[0] + offset[0]) : null, free[1] ? plot.sy.back(here[1] + offset[1]) : null);
  });
  const drop = () => {
    if (!grabbed || grabbed.id !== id) return;
    const { from } = grabbed;
    const there = hands.get(id);
    grabbed = null;
    grip.classList.remove('held');
    if (there.x !== from.x || there.y !== from.y) tell('release');
  };
  grip.addEventListener('pointerup', drop);
  grip.addEventListener('pointercancel', drop);
  grip.addEventListener('lostpointercapture', drop);
  grip.addEventListener('click', (event) => event.stopPropagation());
  grip.addEventListener('keydown', (event) => {
    const step = steps(event, plot, find().axis);
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const there = hands.get(id);
    const x = step[0] ? plot.sx.back(plot.sx.to(there.x) + step[0]) : null;
    const y = step[1] ? plot.sy.back(plot.sy.to(there.y) - step[1]) : null;
    move(find(), plot, x, y);
    if (hands.get(id).x !== there.x || hands.get(id).y !== there.y) tell('release');
  });
  return grip;
}

// What a key moves by, in pixels: a hundredth of the panel, with Shift or Page keys a tenth. On an x handle up means right.
function steps(event, plot, axis) {
  if (event.altKey || event.ctrlKey || event.metaKey) return null;
  const far = event.shiftKey || event.key.startsWith('Page') ? 10 : 1;
  const [dx, dy] = [((plot.right - plot.left) / 100) * far, ((plot.bottom - plot.top) / 100) * far];
  const up = { ArrowUp: 1, ArrowDown: -1, PageUp: 1, PageDown: -1 }[event.key];
  const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (up) return axis === 'x' ? [dx * up, 0] : [0, dy * up];
  if (along) return axis === 'y' ? [0, dy * along] : [dx * along, 0];
  return null;
}

// ---- pointer and keys on a panel: read-out, choice, drawing ----

function choose(plot, value, steps = 0) {
  const layer = layersOf(plot).find((one) => one.x && LINES[one.kind]) || layersOf(plot).find((one) => one.kind === 'bars');
  if (!layer) return;
  const x = layer.kind === 'bars' ? layer.labels.map((_, i) => i) : series(layer.x);
  const i = Math.max(0, Math.min(x.length - 1, nearestIndex(x, value) + steps));
  chosen = { panel: plot.index, x: x[i] };
  plot.surface.setAttribute('aria-valuenow', x[i]);
  plot.surface.setAttribute('aria-valuetext', `${plot.panel.x.name || 'x'} ${number(x[i])}`);
  draw();
  ask('select');
}

function addPoint(plot, x, y) {
  if (sketch.length >= props.empty.drawn) return;
  sketch = [...sketch, [rounded(x, plot.panel.x), rounded(y, plot.panel.y)]];
  drawCanvas(plot, layersOf(plot));
  $('.wipe').disabled = false;
}

function listen(plot) {
  const { surface } = plot;
  const at = (event) => {
    const box = plot.box.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const within = ({ x, y }) => x >= plot.left && x <= plot.right && y >= plot.top && y <= plot.bottom;
  let last = null;
  const stroke = (event) => {
    const here = at(event);
    if (!within(here) || (last && Math.hypot(here.x - last.x, here.y - last.y) < 5)) return;
    last = here;
    addPoint(plot, plot.sx.back(here.x), plot.sy.back(here.y));
  };
  plot.box.addEventListener('pointermove', (event) => {
    plot.pointer = at(event);
    if (plot.panel.readout) readout(plot);
    if (pen === plot && event.isPrimary) (event.getCoalescedEvents?.() || [event]).forEach(stroke);
  });
  plot.box.addEventListener('pointerleave', () => {
    plot.pointer = null;
    plot.read.hidden = true;
  });
  surface.addEventListener('pointerdown', (event) => {
    if (!plot.panel.draw || event.button !== 0 || !event.isPrimary) return;
    surface.setPointerCapture(event.pointerId);
    pen = plot;
    last = null;
    stroke(event);
  });
  const lift = (event) => {
    if (pen !== plot || !event.isPrimary) return;
    pen = null;
    ask('input');
    tell('release');
  };
  surface.addEventListener('pointerup', lift);
  surface.addEventListener('pointercancel', lift);
  surface.addEventListener('click', (event) => {
    if (plot.panel.select && !plot.panel.draw && within(at(event))) choose(plot, plot.sx.back(at(event).x));
  });
  surface.addEventListener('focus', () => surface.matches(':focus-visible') && cross(plot, 0, 0));
  surface.addEventListener('blur', () => plot.cross && plot.cross.node.remove());
  surface.addEventListener('keydown', (event) => {
    const step = steps(event, plot, 'xy');
    if (plot.panel.draw && step) cross(plot, step[0], -step[1]);
    else if (plot.panel.draw && event.key === ' ') {
      if (!plot.cross) cross(plot, 0, 0); // the focus came with the mouse
      addPoint(plot, plot.sx.back(plot.cross.x), plot.sy.back(plot.cross.y));
      ask('input');
      tell('release');
    } else if (plot.panel.select && step && data) {
      const ways = Math.sign(step[0] || step[1]) * (event.shiftKey || event.key.startsWith('Page') ? 10 : 1);
      choose(plot, chosen && chosen.panel === plot.index ? chosen.x : plot.panel.x.low, ways);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

// The cross that the keyboard draws with.
function cross(plot, dx, dy) {
  if (!plot.panel.draw) return;
  const from = plot.cross || { x: (plot.left + plot.right) / 2, y: (plot.top + plot.bottom) / 2 };
  const x = Math.max(plot.left, Math.min(plot.right, from.x + dx));
  const y = Math.max(plot.top, Math.min(plot.bottom, from.y + dy));
  if (plot.cross) plot.cross.node.remove();
  plot.cross = { x, y, node: plot.hold.appendChild(svg('path', { class: 'cross', d: `M${x - 9} ${y}H${x + 9}M${x} ${y - 9}V${y + 9}` })) };
}

$('.wipe').addEventListener('click', () => {
  sketch = [];
  draw();
  $('.wipe').disabled = true;
  ask('input');
  tell('clear');
});

function surfaces() {
  for (const { panel, surface } of plots) {
    surface.classList.toggle('selects', panel.select);
    surface.classList.toggle('draws', panel.draw);
    if (panel.select || panel.draw) {
      surface.tabIndex = 0;
      surface.setAttribute('role', panel.draw ? 'application' : 'slider');
      surface.setAttribute('aria-label', panel.draw ? say('drawing') : panel.title || panel.x.name);
      if (panel.select && !panel.draw) {
        surface.setAttribute('aria-valuemin', panel.x.low);
        surface.setAttribute('aria-valuemax', panel.x.high);
        surface.setAttribute('aria-valuenow', chosen ? chosen.x : panel.x.low);
      }
    } else surface.removeAttribute('tabindex');
  }
  const wipe = $('.wipe');
  wipe.hidden = !plots.some(({ panel }) => panel.draw);
  wipe.disabled = !sketch.length;
  wipe.textContent = say('clear');
}

// ---- what comes from the server ----

function load() {
  const value = props.value;
  if (value && !value.panels) return; // what this script has put there itself
  answered();
  if (!value || !value.panels.length) {
    data = null;
    plots = [];
    shape = '';
    row.replaceChildren();
    $('.legend').hidden = true;
    frames = [];
    n = held = 0;
    at = -1;
    message(announce());
    return controlsNow();
  }
  if (!asked.input && grabbed === null) moved.clear();
  const ids = new Map(value.handles.map(({ id, x, y }) => [id, moved.has(id) ? hands.get(id) : { x, y }]));
  hands = ids;
  if (!asked.select) chosen = value.selected;
  if (pen === null && !asked.input) sketch = value.drawn;
  data = meta = value;
  frames = value.frames;
  n = held = frames.length;
  done = true;
  playing = follow = false;
  if (!repeatChosen) repeat = value.loop;
  const play = value.autoplay && n > 1 && !stillness.matches;
  at = n ? value.first ?? (play ? 0 : n - 1) : -1;

  const now = JSON.stringify(value.panels.map(({ aspect, share, least }) => [aspect, share, least]));
  if (now !== shape) build();
  shape = now;
  plots.forEach((plot, i) => {
    plot.panel = value.panels[i];
    plot.title.replaceChildren();
    plot.title.className = 'title';
    write(plot.title, plot.panel.title);
  });
  player.classList.toggle('animated', Boolean(props.empty.animated) || n > 1);
  player.classList.toggle('captioned', Boolean(props.empty.animated) || n > 0 || Boolean(value.caption));
  legend();
  buildHands();
  surfaces();
  message('');
  segments();
  layout();
  controlsNow();
  publish();
  if (play) start();
  pump();
}

new ResizeObserver(layout).observe(row);
new MutationObserver(layout).observe(document.body, { attributes: true, attributeFilter: ['class'] });
texts();
watch('value', load);
watch('labels', () => { texts(); if (data) surfaces(); });
load();
