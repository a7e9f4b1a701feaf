import { bytesOf } from '../controls/bytes.js';

const GAP = 65535; // the code of a missing value, as in figure.Packed

const decoded = new WeakMap();

/** Return a series as numbers, NaN for a gap: from a list with null for a gap, or from a figure.Packed; nothing gives []. */
export function numbersOf(series) {
  if (!series) return [];
  if (!decoded.has(series)) decoded.set(series, Array.isArray(series) ? series.map((v) => v ?? NaN) : unpack(series));
  return decoded.get(series);
}

function unpack({ codes, low, high, log }) {
  const view = new DataView(bytesOf(codes).buffer);
  const unit = (high - low) / (GAP - 1);
  return Float64Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const code = view.getUint16(2 * i, true);
    if (code === GAP) return NaN;
    return log ? Math.exp(low + code * unit) : low + code * unit;
  });
}

/** Return a promise of the JSON in a reply that is a gzip file. */
export function unzipped({ ok, status, body }) {
  if (!ok) throw new Error(`expected a file, got status ${status}`);
  return new Response(body.pipeThrough(new DecompressionStream('gzip'))).json();
}
