// Handles: where they are, how far they may go, and where they are drawn. Places are a Map id → { x, y }.

import { clamped, rounded } from './scale.js';

const APART = 22; // least pixels between a handle that goes along with another one and that one, as they are drawn

/** Return the bounds of a handle in a panel: its own, else those of the axes. */
export function boundsOf(handle, panel) {
  return {
    x: [handle.x_low ?? panel.x.low, handle.x_high ?? panel.x.high],
    y: [handle.y_low ?? panel.y.low, handle.y_high ?? panel.y.high],
  };
}

/**
 * Return the new places, as a Map, of a handle that is moved to (x, y), within its bounds and along its axis, and of those that
 * go along with it; null leaves a coordinate as it is. The Map is empty where nothing moves.
 */
export function placesAfter(handles, places, handle, panel, x, y) {
  const bounds = boundsOf(handle, panel);
  const from = places.get(handle.id);
  const to = { ...from };
  if (handle.axis !== 'y' && x !== null) to.x = clamped(rounded(x, panel.x), ...bounds.x);
  if (handle.axis !== 'x' && y !== null) to.y = clamped(rounded(y, panel.y), ...bounds.y);
  const moved = new Map();
  if (to.x === from.x && to.y === from.y) return moved;
  moved.set(handle.id, to);
  for (const { id, with_ } of handles) {
    const place = with_ === handle.id && places.get(id);
    if (place) moved.set(id, { x: place.x + to.x - from.x, y: place.y + to.y - from.y });
  }
  return moved;
}

/** Return where a handle is drawn, [x, y] in pixels: at its place, or beside the handle that it goes along with where that is near. */
export function drawnAt({ sx, sy }, handle, places) {
  const place = places.get(handle.id);
  const [x, y] = [sx.to(place.x), sy.to(place.y)];
  const other = handle.with_ && handle.axis === 'x' && places.get(handle.with_);
  if (!other) return [x, y];
  const [cx, cy] = [sx.to(other.x), sy.to(other.y)];
  if (Math.hypot(x - cx, y - cy) >= APART) return [x, y];
  return [cx + Math.sign(x - cx || 1) * Math.sqrt(APART ** 2 - (y - cy) ** 2), y];
}

/** Return the handle that is drawn nearest to a point [x, y], the first of several. */
export function nearestHandle(box, handles, places, [x, y]) {
  const away = (handle) => {
    const [hx, hy] = drawnAt(box, handle, places);
    return Math.hypot(hx - x, hy - y);
  };
  return handles.reduce((best, handle) => (away(handle) < away(best) ? handle : best));
}

/** Return the steps that a key stands for, ten with Shift or a Page key, as [right, up]; null for any other key. On x, up is right. */
export function stepsOf(event, axis) {
  if (event.altKey || event.ctrlKey || event.metaKey) return null;
  const size = event.shiftKey || event.key.startsWith('Page') ? 10 : 1;
  const up = { ArrowUp: size, ArrowDown: -size, PageUp: size, PageDown: -size }[event.key];
  const right = { ArrowRight: size, ArrowLeft: -size }[event.key];
  if (up) return axis === 'x' ? [up, 0] : [0, up];
  if (right) return axis === 'y' ? [0, right] : [right, 0];
  return null;
}
