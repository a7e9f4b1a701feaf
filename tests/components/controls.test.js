// What the components share: bytes, frames, labels, sizes of pictures, the pace of requests.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { base64Of, bytesOf } from '../../genlab/demo/components/controls/bytes.js';
import {
  frameAfter,
  frameBefore,
  frameNear,
  percentOf,
  spansOf,
  withoutHoles,
} from '../../genlab/demo/components/controls/frames.js';
import { fill, labelsOf } from '../../genlab/demo/components/controls/labels.js';
import { canvasPixels, playerPixels } from '../../genlab/demo/components/controls/pictures.js';
import { ANSWER_MS, GAP_MS, Pace, Requests } from '../../genlab/demo/components/controls/requests.js';

test('bytes and base64', () => {
  assert.equal(base64Of(Uint8Array.of(0, 255, 16)), 'AP8Q');
  assert.deepEqual(bytesOf('AP8Q'), Uint8Array.of(0, 255, 16));
  const many = Uint8Array.from({ length: 100_000 }, (_, i) => i % 256);
  assert.deepEqual(bytesOf(base64Of(many)), many);
});

test('labels: braces are filled once, a later change may name only some', () => {
  assert.equal(fill('frame {i} of {n}', { i: 3, n: '{i}' }), 'frame 3 of {i}');
  assert.equal(fill('{i} {unknown}', { i: 0 }), '0 {unknown}');
  const props = { labels: { play: 'Play', loop: 'Repeat {n}' } };
  const label = labelsOf(props);
  props.labels = { play: '播放' };
  assert.deepEqual([label('play'), label('loop', { n: 2 })], ['播放', 'Repeat 2']);
});

test('frames with holes', () => {
  const frames = ['a', undefined, 'c', undefined, 'e'];
  assert.deepEqual(
    [0, 1, 2, 4].map((i) => frameBefore(frames, i)),
    [-1, 0, 0, 2],
  );
  assert.deepEqual(
    [-1, 0, 2, 4].map((i) => frameAfter(frames, i)),
    [0, 2, 4, -1],
  );
  assert.deepEqual(
    [0, 1, 3, 9].map((i) => frameNear(frames, i)),
    [0, 0, 2, 4],
  );
  assert.equal(frameNear([undefined, 'b'], 0), 1);
  assert.equal(frameNear([], 0), -1);
});

test('a run that ends early: the frames close up, and the segments with them', () => {
  const segments = [
    { start: 0, label: 'noising' },
    { start: 3, label: 'denoising' },
    { start: 6, label: 'never reached' },
  ];
  const { frames, segments: left, moved } = withoutHoles(['a', undefined, 'c', 'd', undefined, 'f'], segments);
  assert.deepEqual(frames, ['a', 'c', 'd', 'f']);
  assert.deepEqual(left, [
    { start: 0, label: 'noising' },
    { start: 2, label: 'denoising' },
  ]);
  assert.equal(moved(5), 3);
});

test('the timeline: a segment begins half a frame before its first', () => {
  const half = 'calc(9px + (100% - 18px) * 0.5)';
  assert.deepEqual(spansOf([{ start: 0 }, { start: 10 }], 20), [
    { left: '0px', width: `calc(${half} - 0px)` },
    { left: half, width: `calc(100% - ${half})` },
  ]);
  assert.deepEqual([percentOf(5, 20), percentOf(-1, 20), percentOf(0, 0)], ['25%', '0%', '0%']);
});

const ROOM = { gap: 16, ratio: 1, count: 3, w: 28, h: 28, tallest: 560, least: 1.5 };

test('a pixel of the player is a whole number of screen pixels', () => {
  // (324 − 2 · 16) / 3 − 4 = 93.3 = 3.33 · 28
  assert.deepEqual(playerPixels({ ...ROOM, width: 324 }), { side: 3, dots: 3 });
  // (338 − 2 · 16) / 3 − 4 = 98 = 3.5 · 28: seven of the half pixels
  assert.deepEqual(playerPixels({ ...ROOM, width: 338, ratio: 2 }), { side: 3.5, dots: 7 });
  assert.deepEqual(playerPixels({ ...ROOM, width: 2000, tallest: 70 }), { side: 2, dots: 2 });
});

test('panes leave the row where a pixel would be too small, and shrink only where even one is too wide', () => {
  // 112 pixels in (362 − 32) / 3 − 4 = 106 or (362 − 16) / 2 − 4 = 169 are less than 1.5 each, in 358 they are 3
  assert.deepEqual(playerPixels({ ...ROOM, width: 362, w: 112, h: 112 }), { side: 3, dots: 3 });
  assert.deepEqual(playerPixels({ ...ROOM, width: 304, w: 500, h: 500 }), { side: 0.6, dots: 1 });
});

test('pictures of the canvas take twice the rows until they are wide enough', () => {
  const room = { ...ROOM, width: 400, count: 4, tallest: 260, least: 124 };
  // (400 − 3 · 16) / 4 − 4 = 84 < 124; (400 − 16) / 2 − 4 = 188 = 6.7 · 28
  assert.deepEqual(canvasPixels(room), { side: 6, dots: 6 });
  assert.deepEqual(canvasPixels({ ...room, width: 480 }), { side: 8, dots: 8 }, 'three in a row would do');
  assert.deepEqual(canvasPixels({ ...room, width: 1000 }), { side: 8, dots: 8 });
  assert.deepEqual(canvasPixels({ ...room, width: 60, w: 128, h: 128 }), { side: 1, dots: 1 });
});

/** Start requests on a clock that only `wait` moves; `sent` is what was sent, as [ms, kind]. */
function clocked(t, names = ['a']) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 1000;
  const sent = [];
  const pace = new Pace(() => now);
  const requests = names.map((name) => {
    let published = 0;
    const publish = () => {
      published += 1;
    };
    return new Requests(publish, (kind) => sent.push([now - 1000, name, kind, published]), pace);
  });
  const wait = (ms) => {
    for (let i = 0; i < ms; i++) {
      now += 1;
      t.mock.timers.tick(1);
    }
  };
  return { requests, sent, wait };
}

test('one request at a time: the newest state is sent when the answer has come', (t) => {
  const { requests, sent, wait } = clocked(t);
  const [one] = requests;
  one.ask('input');
  for (let i = 0; i < 200; i++) {
    one.ask('input');
    wait(1);
  }
  assert.deepEqual(sent, [[0, 'a', 'input', 1]]);
  one.answered();
  one.pump();
  assert.deepEqual(sent, [
    [0, 'a', 'input', 1],
    [200, 'a', 'input', 2],
  ]);
  one.answered();
  one.pump();
  wait(10_000);
  assert.equal(sent.length, 2);
});

test('two components of a page keep the gap together, and what ends a movement does not wait', (t) => {
  const { requests, sent, wait } = clocked(t, ['a', 'b']);
  requests[0].ask('input');
  requests[1].ask('select');
  requests[1].send('release');
  wait(GAP_MS - 1);
  assert.deepEqual(
    sent.map(([ms, name, kind]) => [ms, name, kind]),
    [
      [0, 'a', 'input'],
      [0, 'b', 'release'],
    ],
  );
  wait(1);
  assert.deepEqual(sent[2].slice(0, 3), [GAP_MS, 'b', 'select']);
});

test('an answer that does not come is given up', (t) => {
  const { requests, sent, wait } = clocked(t);
  requests[0].ask('input');
  requests[0].ask('input');
  wait(ANSWER_MS - 1);
  assert.equal(sent.length, 1);
  wait(1);
  assert.deepEqual(sent[1].slice(0, 3), [ANSWER_MS, 'a', 'input']);
});
