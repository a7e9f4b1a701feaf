// Pictures with hard pixels: each pixel is a square of a whole number of screen pixels.

const OUTLINE = 4; // CSS pixels that the coloured outline of a picture takes, left and right together

/** Return the largest side of a pixel up to `limit` CSS pixels that is a whole number of screen pixels (`ratio` to a CSS pixel). */
function wholeSide(limit, ratio) {
  return Math.floor((limit + 1e-6) * ratio) / ratio;
}

/** Return the widest that one of several pictures side by side may be, in CSS pixels. */
function roomOf(width, gap, columns) {
  return (width - gap * (columns - 1)) / columns - OUTLINE;
}

/**
 * Return the side of a picture's pixel for `count` pictures of w × h pixels: as many beside each other as leave it at least
 * `least` CSS pixels.
 *
 * @param {{width: number, gap: number, ratio: number, count: number, w: number, h: number, tallest: number, least: number}} room
 *   width of the row, gap between pictures and greatest height, in CSS pixels; ratio: screen pixels to a CSS pixel.
 * @returns {{side: number, dots: number}} CSS pixels of a pixel's side, and pixels of the canvas; with 1 dot the browser scales.
 */
export function playerPixels({ width, gap, ratio, count, w, h, tallest, least }) {
  let side = 0;
  for (let columns = count; columns >= 1; columns--) {
    side = wholeSide(Math.min(roomOf(width, gap, columns) / w, Math.max(1, tallest / h)), ratio);
    if (side >= least) break;
  }
  if (side < 1 / ratio) return { side: (width - OUTLINE) / w, dots: 1 }; // wider than the row even with the smallest pixels
  return { side, dots: Math.round(side * ratio) };
}

/** Return the side of a picture's pixel as `playerPixels` does, with rows halved until a picture is `least` CSS pixels wide. */
export function canvasPixels({ width, gap, ratio, count, w, h, tallest, least }) {
  let side = 0;
  for (let columns = count; columns >= 1; columns = columns > 1 ? Math.ceil(columns / 2) : 0) {
    side = Math.max(1 / ratio, wholeSide(Math.min(roomOf(width, gap, columns) / w, tallest / h), ratio));
    if (side * w >= least) break;
  }
  return { side, dots: Math.round(side * ratio) };
}

/** Resize a pane's canvas to pictures of w × h pixels; it is emptied only where its size changes. */
export function resize({ root, canvas }, w, h, { side, dots }) {
  if (canvas.width !== w * dots || canvas.height !== h * dots) Object.assign(canvas, { width: w * dots, height: h * dots });
  canvas.style.width = `${w * side}px`;
  canvas.style.height = `${h * side}px`;
  root.style.width = `${w * side + OUTLINE}px`;
}

/** Return a pane, { root, canvas, context, text }, with its name above; `colour` is a name of colours.COLOURS. */
export function paneOf(name, colour = '') {
  const root = document.createElement('div');
  root.className = 'pane';
  if (/^\w+$/.test(colour)) root.style.setProperty('--pane', `var(--genlab-${colour})`);
  const canvas = document.createElement('canvas');
  root.append(name, canvas);
  return { root, canvas, context: canvas.getContext('2d') };
}
