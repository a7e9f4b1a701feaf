/** Return the frames of a sprite sheet: frame i is the cell at column i mod k, row ⌊i/k⌋, with k = ⌈√n⌉ columns. */
export function cellsOf({ n, width, height, captions }, image) {
  const k = Math.ceil(Math.sqrt(n));
  return Array.from({ length: n }, (_, i) => ({
    image,
    x: (i % k) * width,
    y: Math.floor(i / k) * height,
    caption: captions[i] || '',
  }));
}
