// Outlines of layers: SVG path data and boxes, in CSS pixels. A box is what `layout.boxOf` returns.

import { numbersOf } from './packed.js';
import { clamped } from './scale.js';

const CLEAR = 16; // pixels between a text and a line that are enough
const LETTERS = 11; // pixels of a text's letters above its base
const FAR = 9999; // pixels: browsers draw badly what lies much farther outside

/** Return the path through (x_i, y_i); it is broken where a value is NaN. `value` maps every y before it is drawn. */
export function pathOf({ sx, sy }, x, y, value = (v) => v) {
  let path = '';
  let command = 'M';
  for (let i = 0; i < x.length; i++) {
    const v = value(y[i]);
    if (Number.isNaN(v) || Number.isNaN(x[i])) command = 'M';
    else {
      path += `${command}${sx.to(x[i]).toFixed(2)} ${clamped(sy.to(v), -FAR, FAR).toFixed(2)}`;
      command = 'L';
    }
  }
  return path;
}

/** Return the paths of an area's parts, { above, below }, on either side of its base; `below` is '' where it has none. */
export function areaOf(box, { x, y, base }) {
  const [xs, ys] = [numbersOf(x), numbersOf(y)];
  const level = box.sy.to(base);
  const closed = (value) => {
    const edge = pathOf(box, xs, ys, (v) => (Number.isNaN(v) ? base : value(v)));
    return edge && `${edge}L${box.sx.to(xs[xs.length - 1])} ${level}L${box.sx.to(xs[0])} ${level}Z`;
  };
  const below = ys.some((v) => v < base);
  return { above: closed((v) => Math.max(v, base)), below: below ? closed((v) => Math.min(v, base)) : '' };
}

/** Return the paths of a field of arrows, { shafts, heads }; those shorter than half a pixel are left out. */
export function arrowsOf({ sx, sy }, layer) {
  const [x, y, u, v] = [layer.x, layer.y, layer.u, layer.v].map(numbersOf);
  const point = (...at) => at.map((place) => place.toFixed(1)).join(' ');
  let shafts = '';
  let heads = '';
  for (let i = 0; i < x.length; i++) {
    const [x1, y1, x2, y2] = [sx.to(x[i]), sy.to(y[i]), sx.to(x[i] + u[i]), sy.to(y[i] + v[i])];
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (!(length > 0.5)) continue;
    const size = Math.min(7, Math.max(2.5, 0.45 * length)); // of the head
    const [cx, cy] = [((x2 - x1) / length) * size, ((y2 - y1) / length) * size];
    shafts += `M${point(x1, y1)}L${point(x2 - cx / 2, y2 - cy / 2)}`;
    heads += `M${point(x2, y2)}L${point(x2 - cx - cy / 2, y2 - cy + cx / 2)}L${point(x2 - cx + cy / 2, y2 - cy - cx / 2)}Z`;
  }
  return { shafts, heads };
}

/**
 * Return every bar of a layer, { parts, middle, end }: the boxes of its parts, { x, y, width, height, stack }, where its middle
 * lies across, and where its number stands along: at the end of the positive parts, or of the negative ones, or at zero.
 */
export function barBoxes({ sx, sy }, { labels, stacks, thickness, horizontal }) {
  const [along, across] = horizontal ? [sx, sy] : [sy, sx];
  const sorted = (...ends) => ends.sort((a, b) => a - b);
  return labels.map((_, i) => {
    const [near, far] = sorted(across.to(i - thickness / 2), across.to(i + thickness / 2));
    const sums = { above: 0, below: 0 }; // zero
    const parts = stacks.map((stack) => {
      const value = stack.values[i];
      const side = value < 0 ? 'below' : 'above';
      const [start, end] = sorted(along.to(sums[side]), along.to(sums[side] + value));
      sums[side] += value;
      return horizontal
        ? { x: start, y: near, width: end - start, height: far - near, stack }
        : { x: near, y: start, width: far - near, height: end - start, stack };
    });
    const end = along.to(sums.above > 0 ? sums.above : sums.below);
    const [first, last] = sorted(end, along.to(0));
    return { parts, middle: (near + far) / 2, end: horizontal ? last : first };
  });
}

/** Return where the number of bar i stands, near pixel y: above the lines that would strike it through. */
export function clearOf({ sy }, lines, i, y) {
  const near = lines.flatMap(({ x, y: values }) => {
    const places = numbersOf(x);
    return Array.from(numbersOf(values)).filter((_, k) => Math.abs(places[k] - i) < 0.5);
  });
  return Math.min(
    y,
    ...near
      .map(sy.to)
      .filter((line) => line > y - 16 && line < y + 4)
      .map((line) => line - 6),
  );
}

/** Return the pixels between a line and the box from x1 to x2 and from y1 to y2, at most `CLEAR`; below 0 where they meet. */
function spaceOf({ sx, sy }, line, [x1, x2], [y1, y2]) {
  const [xs, ys] = [Array.from(numbersOf(line.x), sx.to), Array.from(numbersOf(line.y), sy.to)];
  const over = xs.slice(1).flatMap((x, i) => {
    const [from, to] = [Math.max(x1, xs[i]), Math.min(x2, x)];
    const at = (place) => ys[i] + ((place - xs[i]) / (x - xs[i])) * (ys[i + 1] - ys[i]);
    return from < to ? [at(from), at(to)] : [];
  });
  return Math.min(CLEAR, Math.max(y1 - Math.max(...over), Math.min(...over) - y2));
}

/** Return where the text of a rule across at pixel y stands, `width` pixels wide: where lines leave it room, else on the right. */
export function clearPlace(plot, lines, y, width) {
  const { left, right, top, bottom } = plot;
  const places = [y - 6, y + 17]
    .filter((base) => base - LETTERS > top && base < bottom - 2)
    .flatMap((base) => [
      { x: right - 6, y: base, 'text-anchor': 'end' },
      { x: left + 6, y: base, 'text-anchor': 'start' },
    ]);
  const spaces = places.map((place) => {
    const from = place['text-anchor'] === 'end' ? place.x - width : place.x;
    return Math.min(CLEAR, ...lines.map((line) => spaceOf(plot, line, [from, from + width], [place.y - LETTERS, place.y + 2])));
  });
  return places[spaces.indexOf(Math.max(...spaces))];
}

/** Return the opacities of a heat map's values as bytes: 0 at `low` and for a gap, 255 at `high`. */
export function opacitiesOf({ values, low, high }) {
  return Uint8ClampedArray.from(numbersOf(values), (v) => Math.round(255 * ((v - low) / (high - low))));
}
