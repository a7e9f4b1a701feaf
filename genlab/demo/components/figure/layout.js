// Where the parts of a plot lie, in CSS pixels. `widthOf` measures a text.

import { scaleOf, ticksOf } from './scale.js';

const X_TICK = 64; // room for the number at a tick of the x axis
const Y_TICK = 44; // … and of the y axis
const MARGIN = 8; // where nothing is written

export const yTicksOf = (panel, height) => ticksOf(panel.y, height / Y_TICK);
export const xTicksOf = (panel, box) => ticksOf(panel.x, (box.right - box.left) / X_TICK);

/** Return the bars of a panel, the layer, or undefined. */
export function barsOf(panel) {
  return panel.layers.find((layer) => layer.kind === 'bars');
}

/** Return the room that the numbers or labels at the left of a panel take. */
export function leftOf(panel, height, widthOf) {
  const bars = barsOf(panel);
  const labels = bars?.horizontal ? bars.labels.map((text) => text.replace(/[_{}]/g, '')) : null;
  if (!labels && !panel.y.ticks) return MARGIN;
  return 14 + Math.max(0, ...(labels ?? yTicksOf(panel, height).map(([, text]) => text)).map(widthOf));
}

/** Return the room at the left of panel `index`: the same for all whose x axes may stand below each other. */
export function sharedLeft(panels, heights, index, widthOf) {
  const alone = (panel) => panel.equal || barsOf(panel);
  const together = alone(panels[index]) ? [index] : panels.map((_, i) => i).filter((i) => !alone(panels[i]));
  return Math.max(...together.map((i) => leftOf(panels[i], heights[i], widthOf)));
}

/**
 * Return the box within the axes, { left, right, top, bottom }, and the maps { sx, sy } of its axes.
 *
 * @param {number} left the room at the left.
 * @param {string[]} texts at the ends of bars that lie, of every frame.
 */
export function boxOf(panel, { width, height }, left, texts, widthOf) {
  const bars = barsOf(panel);
  const box = {
    left,
    right: width - 10 - (bars?.horizontal ? Math.max(0, ...texts.map(widthOf)) : 0),
    top: panel.y.name ? 24 : MARGIN,
    bottom: height - (panel.x.ticks || (bars && !bars.horizontal) ? 22 : MARGIN) - (panel.x.name ? 18 : 0),
  };
  if (panel.equal) {
    const [spanX, spanY] = [panel.x.high - panel.x.low, panel.y.high - panel.y.low];
    const unit = Math.min((box.right - box.left) / spanX, (box.bottom - box.top) / spanY);
    const [spareX, spareY] = [box.right - box.left - unit * spanX, box.bottom - box.top - unit * spanY];
    box.left += spareX / 2;
    box.right -= spareX / 2;
    box.top += spareY / 2;
    box.bottom -= spareY / 2;
  }
  box.sx = scaleOf(panel.x, box.left, box.right);
  box.sy = bars?.horizontal ? scaleOf(panel.y, box.top, box.bottom) : scaleOf(panel.y, box.bottom, box.top);
  return box;
}
