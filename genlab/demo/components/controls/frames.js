// Arithmetic of frames and of the timeline. `frames` has holes while frames are on their way.

const THUMB = 18; // CSS pixels of the scrubber's thumb, as in controls.css: its middle is half of that from either end

/** Return the index of the frame before i, or −1. */
export function frameBefore(frames, i) {
  for (let k = i - 1; k >= 0; k--) if (frames[k]) return k;
  return -1;
}

/** Return the index of the frame after i, or −1. */
export function frameAfter(frames, i) {
  for (let k = i + 1; k < frames.length; k++) if (frames[k]) return k;
  return -1;
}

/** Return i where there is such a frame, else the nearest before it, else the nearest after it, or −1. */
export function frameNear(frames, i) {
  if (frames[i]) return i;
  const before = frameBefore(frames, i);
  return before >= 0 ? before : frameAfter(frames, i);
}

/** Return the frames without the holes, and the segments moved along; `moved(i)` is the new index of frame i. */
export function withoutHoles(frames, segments) {
  const moved = (i) => frames.slice(0, i).filter(Boolean).length;
  const left = frames.filter(Boolean);
  const starts = segments.map(({ start, label }) => ({ start: moved(start), label }));
  return { frames: left, segments: starts.filter(({ start }) => start < left.length), moved };
}

/** Return the place of frame i among n on the scrubber, as a CSS length; i may lie between two frames. */
function placeOf(i, n) {
  if (i <= 0) return '0px';
  return i >= n - 1 ? '100%' : `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${i / (n - 1)})`;
}

/** Return the CSS lengths { left, width } of every segment under the scrubber of n frames. */
export function spansOf(segments, n) {
  return segments.map(({ start }, s) => {
    const end = s + 1 < segments.length ? segments[s + 1].start - 0.5 : n - 1;
    const left = placeOf(start - 0.5, n);
    return { left, width: `calc(${placeOf(end, n)} - ${left})` };
  });
}

/** Return which part of the way to the last frame i is, as a percentage. */
export function percentOf(i, last) {
  return last > 0 && i > 0 ? `${(100 * i) / last}%` : '0%';
}
