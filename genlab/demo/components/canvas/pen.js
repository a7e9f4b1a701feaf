// Drawing on the bytes of a picture, { x, width, height, channels }: row by row, the channels of a pixel side by side.

const SIDE = 28; // pixels of the picture for which the pen's size is given
export const PEN = 1.05; // radius of the pen where it is half as bright
export const BROAD = 2; // … of the pen that hides
const RUBBER = 2; // … and of the eraser
const EDGE = 1.3; // pixels over which either fades

/** Draw a soft line from a to b, each [x, y] in pixels: lighter than what is there, or with `erasing` darker. */
export function drawLine({ x, width, height, channels }, a, b, erasing = false, pen = PEN) {
  const unit = Math.min(width, height) / SIDE;
  const radius = (erasing ? RUBBER : pen) * unit;
  const reach = radius + EDGE * unit;
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const square = dx * dx + dy * dy;
  const span = (p, q, size) => [
    Math.max(0, Math.floor(Math.min(p, q) - reach)),
    Math.min(size - 1, Math.ceil(Math.max(p, q) + reach)),
  ];
  const [left, right] = span(a[0], b[0], width);
  const [top, bottom] = span(a[1], b[1], height);
  for (let j = top; j <= bottom; j++) {
    for (let i = left; i <= right; i++) {
      const [px, py] = [i + 0.5 - a[0], j + 0.5 - a[1]];
      const along = square ? Math.max(0, Math.min(1, (px * dx + py * dy) / square)) : 0;
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const ink = Math.max(0, Math.min(1, 0.5 + (radius - distance) / (EDGE * unit)));
      for (let k = 0; k < channels; k++) {
        const at = channels * (width * j + i) + k;
        x[at] = erasing ? Math.min(x[at], 255 * (1 - ink)) : Math.max(x[at], 255 * ink);
      }
    }
  }
}

/** Return the bytes of a picture of gray or of colour as red, green, blue and opacity, for an ImageData. */
export function opaque(bytes, channels) {
  const pixels = bytes.length / channels;
  const picture = new Uint8ClampedArray(4 * pixels).fill(255);
  for (let i = 0; i < pixels; i++) {
    for (let k = 0; k < 3; k++) picture[4 * i + k] = bytes[channels * i + (channels === 3 ? k : 0)];
  }
  return picture;
}
