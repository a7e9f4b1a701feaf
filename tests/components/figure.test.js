// The pure parts of the figure: numbers, texts, axes, layout, outlines, handles.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { partsOf } from '../../genlab/demo/components/controls/indices.js';
import { format, isSymbol } from '../../genlab/demo/components/figure/format.js';
import { boundsOf, drawnAt, nearestHandle, placesAfter, stepsOf } from '../../genlab/demo/components/figure/handles.js';
import { boxOf, leftOf, sharedLeft } from '../../genlab/demo/components/figure/layout.js';
import { numbersOf } from '../../genlab/demo/components/figure/packed.js';
import { nearestIndex, readable, rounded, scaleOf, ticksOf } from '../../genlab/demo/components/figure/scale.js';
import {
  areaOf,
  arrowsOf,
  barBoxes,
  clearOf,
  clearPlace,
  opacitiesOf,
  pathOf,
} from '../../genlab/demo/components/figure/shapes.js';

const axis = (low, high, more = {}) => ({ low, high, name: '', scale: 'linear', ticks: true, ...more });
const log = (low, high) => axis(low, high, { scale: 'log' });
const close = (found, expected) =>
  assert.ok(Math.abs(found - expected) <= 1e-9 * Math.abs(expected), `${found}, expected ${expected}`);
const packed = (codes, more) => ({ codes: Buffer.from(Uint16Array.from(codes).buffer).toString('base64'), ...more });

// ---- numbers and texts ----

test('codes are spread evenly from low to high, and the last one is a gap', () => {
  const numbers = numbersOf(packed([0, 32767, 65534, 65535], { low: -1, high: 3, log: false }));
  assert.deepEqual(Array.from(numbers), [-1, 1, 3, NaN]);
});

test('logarithms are undone', () => {
  const numbers = numbersOf(packed([0, 32767, 65534], { low: 0, high: Math.log(1e4), log: true }));
  for (const [i, expected] of [1, 100, 1e4].entries()) close(numbers[i], expected);
});

test('few numbers travel as they are, and a series is decoded once', () => {
  assert.deepEqual(numbersOf([1, null, 0]), [1, NaN, 0]);
  assert.deepEqual(numbersOf(undefined), []);
  const series = packed([1, 2], { low: 0, high: 65534, log: false });
  assert.equal(numbersOf(series), numbersOf(series));
});

test('numbers have three digits', () => {
  const texts = {
    0: '0',
    0.12345: '0.123',
    1234.5: '1230',
    '-2': '−2',
    1e5: '1.0e5',
    0.0001: '1.0e−4',
    NaN: '–',
    Infinity: '–',
  };
  for (const [value, text] of Object.entries(texts)) assert.equal(format(Number(value)), text);
});

test('a number on an axis is no finer than one can set it, and whole where it is', () => {
  assert.equal(readable(-2.7e-5, axis(-0.2, 0.4)), '0');
  assert.equal(readable(4.99, axis(0, 1000)), '5');
  assert.equal(readable(-0.03456, axis(-1, 1)), '−0.035');
  assert.equal(readable(0.0000471, axis(0, 0.001)), '0.000047');
  assert.equal(readable(0.00047123, log(1e-7, 1)), '0.000471');
  assert.equal(readable(160000, log(10, 1e6)), '160000');
  assert.equal(readable(NaN, axis(0, 1)), '–');
});

test('indices of texts', () => {
  const text = (part) => ({ text: part, index: false });
  const index = (part) => ({ text: part, index: true });
  assert.deepEqual(partsOf('x_t'), [text('x'), index('t')]);
  assert.deepEqual(partsOf('q(x_{t−1}|x_0)'), [text('q(x'), index('t−1'), text('|x'), index('0'), text(')')]);
  for (const name of ['my_cats', 'ddpm-my_own_cats', '_x', 'x2_3']) assert.deepEqual(partsOf(name), [text(name)]);
  assert.deepEqual(partsOf('x̂_0'), [text('x̂'), index('0')]);
  assert.deepEqual(partsOf('two words'), [text('two words')]);
  assert.deepEqual(partsOf(''), []);
});

test('symbols are told from words and numbers', () => {
  for (const symbol of ['x_t', 'σ²', 'q(z)', 'KL']) assert.equal(isSymbol(symbol), true, symbol);
  for (const plain of ['bits', 'a b', '12.5', '−3', '噪声', '']) assert.equal(isSymbol(plain), false, plain);
});

// ---- axes ----

test('a linear and a logarithmic scale, there and back', () => {
  const x = scaleOf(axis(0, 10), 100, 300);
  assert.deepEqual([x.to(0), x.to(2.5), x.to(10), x.back(200)], [100, 150, 300, 5]);
  const y = scaleOf(axis(-1, 1), 90, 10); // upwards
  assert.deepEqual([y.to(-1), y.to(1), y.back(50)], [90, 10, 0]);
  const decades = scaleOf(log(1, 100), 0, 200);
  close(decades.to(10), 100);
  close(decades.back(150), 10 ** 1.5);
  assert.ok(decades.to(0) < -200, 'what has no logarithm lies far below');
});

test('ticks are round, and no more than there is room for', () => {
  const texts = (axis, room) => ticksOf(axis, room).map(([, text]) => text);
  assert.deepEqual(texts(axis(0, 1), 5), ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']);
  assert.deepEqual(texts(axis(0, 1), 4.9), ['0.0', '0.5', '1.0']);
  assert.deepEqual(texts(axis(-3, 3), 3), ['−2', '0', '2']);
  assert.deepEqual(texts(axis(0.013, 0.027), 3), ['0.015', '0.020', '0.025']);
  assert.deepEqual(texts(axis(0, 1), 0.3), ['0', '1']);
  assert.deepEqual(texts(axis(-0.4, 2), 2), ['0', '2'], 'zero has no sign');
  assert.deepEqual(ticksOf(axis(0, 1, { ticks: false }), 5), []);
});

test('ticks of a logarithmic axis are decades, and between them only where there are few', () => {
  const values = (axis, room) => ticksOf(axis, room).map(([value]) => Number(value.toPrecision(6)));
  assert.deepEqual(values(log(1, 1000), 10), [1, 10, 100, 1000]);
  assert.deepEqual(values(log(1, 50), 10), [1, 2, 5, 10, 20, 50]);
  assert.deepEqual(values(log(1e-4, 1e4), 4), [1e-4, 1e-2, 1, 100, 1e4]);
});

test('all ticks of an axis have one format: an exponent where the number of one would be longer than six characters', () => {
  const texts = (axis, room) => ticksOf(axis, room).map(([, text]) => text);
  assert.deepEqual(texts(log(50, 2e5), 5), ['100', '1000', '10000', '100000'], 'pictures seen in a training');
  assert.deepEqual(texts(log(1e-4, 1), 4), ['0.0001', '0.001', '0.01', '0.1', '1']);
  assert.deepEqual(texts(log(1e-5, 1), 3), ['1e−5', '1e−3', '1e−1']);
  assert.deepEqual(texts(log(1e3, 1e6), 9), ['1e3', '1e4', '1e5', '1e6']);
  assert.deepEqual(texts(axis(0, 1.5e6), 3), ['0', '5e5', '1e6', '1.5e6']);
  assert.deepEqual(texts(axis(0, 6e-5), 3), ['0', '2e−5', '4e−5', '6e−5']);
  assert.deepEqual(texts(axis(-1e5, 1e5), 2), ['−100000', '0', '100000']);
});

test('a place is rounded to about a 300th of its axis', () => {
  assert.equal(rounded(0.123456, axis(0, 1)), 0.123);
  assert.equal(rounded(12.3456, axis(0, 500)), 12);
  assert.equal(rounded(123.456, log(1, 1000)), 123.5);
});

test('the nearest number', () => {
  assert.deepEqual([nearestIndex([0, 1, 2], 1.4), nearestIndex([0, 1], 0.5), nearestIndex([], 1)], [1, 0, -1]);
});

// ---- layout ----

const widthOf = (text) => 7 * text.length;
const panel = (more) => ({ x: axis(0, 10), y: axis(0, 1), layers: [], equal: false, ...more });
const bars = (more) => ({ kind: 'bars', labels: ['H_p', 'H'], stacks: [], thickness: 0.5, horizontal: false, ...more });

test('the room at the left is that of the widest number, or label', () => {
  assert.equal(leftOf(panel(), 220, widthOf), 14 + widthOf('0.0'));
  assert.equal(leftOf(panel({ y: axis(0, 1, { ticks: false }) }), 220, widthOf), 8);
  assert.equal(leftOf(panel({ layers: [bars({ horizontal: true })] }), 220, widthOf), 14 + widthOf('Hp'));
});

test('panels have their x axes below each other, but not those of bars', () => {
  const panels = [panel(), panel({ y: axis(0, 1e5) }), panel({ layers: [bars()] })];
  const left = [0, 1, 2].map((i) => sharedLeft(panels, [220, 220, 220], i, widthOf));
  assert.deepEqual(left, [14 + widthOf('100000'), 14 + widthOf('100000'), 14 + widthOf('0.0')]);
});

test('the box within the axes', () => {
  const size = { width: 400, height: 300 };
  const plain = boxOf(panel({ x: axis(0, 10, { ticks: false }) }), size, 35, [], widthOf);
  assert.deepEqual([plain.left, plain.right, plain.top, plain.bottom], [35, 390, 8, 292]);
  const named = boxOf(panel({ x: axis(0, 10, { name: 't' }), y: axis(0, 1, { name: 'KL' }) }), size, 35, [], widthOf);
  assert.deepEqual([named.top, named.bottom, named.sx.to(10), named.sy.to(0)], [24, 260, 390, 260]);
  const lying = boxOf(panel({ layers: [bars({ horizontal: true })] }), size, 35, ['1.5 bits', '2'], widthOf);
  assert.deepEqual([lying.right, lying.sy.to(0)], [390 - widthOf('1.5 bits'), 8]);
});

test('a unit of x is as long as one of y where that is asked for', () => {
  const square = panel({ x: axis(-2, 2, { ticks: false }), y: axis(-1, 1), equal: true });
  const box = boxOf(square, { width: 414, height: 416 }, 4, [], widthOf);
  assert.deepEqual([box.left, box.right, box.top, box.bottom], [4, 404, 108, 308]);
  assert.equal(box.sx.to(1) - box.sx.to(0), box.sy.to(0) - box.sy.to(1));
  const wide = boxOf(square, { width: 1014, height: 216 }, 4, [], widthOf);
  assert.deepEqual([wide.left, wide.right, wide.top, wide.bottom], [304, 704, 8, 208]);
});

// ---- outlines ----

const BOX = { left: 0, right: 100, top: 0, bottom: 100, sx: scaleOf(axis(0, 10), 0, 100), sy: scaleOf(axis(0, 10), 100, 0) };

test('a line is broken at a gap', () => {
  assert.equal(pathOf(BOX, [0, 5, 10, 10], [0, 5, NaN, 10]), 'M0.00 100.00L50.00 50.00M100.00 0.00');
  assert.equal(pathOf(BOX, [0], [-1e9]), 'M0.00 9999.00');
});

test('an area is closed along its base, with what lies below apart', () => {
  const { above, below } = areaOf(BOX, { x: [0, 10], y: [4, null], base: 2 });
  assert.deepEqual([above, below], ['M0.00 60.00L100.00 80.00L100 80L0 80Z', '']);
  const crossing = areaOf(BOX, { x: [0, 10], y: [4, 0], base: 2 });
  assert.equal(crossing.above, 'M0.00 60.00L100.00 80.00L100 80L0 80Z');
  assert.equal(crossing.below, 'M0.00 80.00L100.00 100.00L100 80L0 80Z');
  assert.equal(areaOf(BOX, { x: [], y: [], base: 0 }).above, '');
});

test('an arrow has a head of at most 7 pixels, and none where it is no longer than half a pixel', () => {
  const field = { x: [0, 5], y: [0, 5], u: [10, 0.01], v: [0, 0] };
  assert.deepEqual(arrowsOf(BOX, field), {
    shafts: 'M0.0 100.0L96.5 100.0',
    heads: 'M100.0 100.0L93.0 103.5L93.0 96.5Z',
  });
});

test('parts of a bar are stacked away from zero on both sides', () => {
  const stacks = [{ values: [2] }, { values: [-1] }, { values: [3] }];
  const box = { sx: scaleOf(axis(-0.5, 0.5), 0, 100), sy: scaleOf(axis(-5, 5), 100, 0) };
  const [bar] = barBoxes(box, bars({ labels: ['a'], stacks }));
  const boxes = bar.parts.map(({ x, y, width, height }) => [x, y, width, height]);
  assert.deepEqual(boxes, [
    [25, 30, 50, 20],
    [25, 50, 50, 10],
    [25, 0, 50, 30],
  ]);
  assert.deepEqual([bar.middle, bar.end, bar.parts[2].stack], [50, 0, stacks[2]]);
  const [lying] = barBoxes({ sx: box.sy, sy: box.sx }, bars({ labels: ['a'], stacks: [stacks[1]], horizontal: true }));
  assert.deepEqual([lying.parts[0].width, lying.end], [10, 60]);
});

test('the number of a bar stands above a line that would strike it through', () => {
  const line = { x: [0, 1], y: [5, 9] };
  assert.equal(clearOf(BOX, [line], 0, 52), 44);
  assert.equal(clearOf(BOX, [line], 0, 80), 80);
  assert.equal(clearOf(BOX, [line], 1, 52), 52);
});

test('the text of a rule stands where lines leave it room', () => {
  const box = { sx: scaleOf(axis(0, 1), 0, 400), sy: scaleOf(axis(0, 100), 100, 0), left: 0, right: 400, top: 0, bottom: 100 };
  const placeOf = (y) => {
    const { x, y: base, 'text-anchor': anchor } = clearPlace(box, [{ x: [0, 1], y }], 50, 100);
    return [x, base, anchor];
  };
  const [rightAbove, leftAbove] = [
    [394, 44, 'end'],
    [6, 44, 'start'],
  ];
  assert.equal(clearPlace(box, [], 50, 100).x, 394);
  assert.deepEqual(placeOf([90, 90]), rightAbove);
  assert.deepEqual(placeOf([10, 10]), rightAbove);
  assert.deepEqual(placeOf([95, 55]), leftAbove);
  assert.deepEqual(placeOf([55, 95]), rightAbove);
  assert.deepEqual(placeOf([58, 58]), [394, 67, 'end']);
  assert.equal(clearPlace({ ...box, bottom: 60 }, [{ x: [0, 1], y: [58, 58] }], 50, 100).y, 44);
});

test('a heat map is clear at low and for a gap, and full at high', () => {
  assert.deepEqual(
    opacitiesOf({ values: [0, 1, 2, 3, 9, null], low: 1, high: 3 }),
    Uint8ClampedArray.of(0, 0, 128, 255, 255, 0),
  );
});

// ---- handles ----

const MEAN = { id: 'mean', axis: 'x', x_low: 1, x_high: null, y_low: null, y_high: null, with_: '' };
const WIDTH = { ...MEAN, id: 'width', x_low: null, with_: 'mean' };

test('a handle keeps to its axis and its bounds, and takes along what goes with it', () => {
  const places = new Map([
    ['mean', { x: 4, y: 0.5 }],
    ['width', { x: 6, y: 0.25 }],
  ]);
  const after = (handle, x, y) => Object.fromEntries(placesAfter([MEAN, WIDTH], places, handle, panel(), x, y));
  assert.deepEqual(boundsOf(MEAN, panel()), { x: [1, 10], y: [0, 1] });
  assert.deepEqual(after(MEAN, 5.004, 0.9), { mean: { x: 5, y: 0.5 }, width: { x: 7, y: 0.25 } });
  assert.deepEqual(after(MEAN, -8, 0), { mean: { x: 1, y: 0.5 }, width: { x: 3, y: 0.25 } });
  assert.deepEqual(after(WIDTH, 99, null), { width: { x: 10, y: 0.25 } });
  assert.deepEqual(after({ ...MEAN, axis: 'xy' }, null, 0.75).mean, { x: 4, y: 0.75 });
  assert.deepEqual(after({ ...MEAN, axis: 'y' }, 9, 0.75).mean, { x: 4, y: 0.75 });
  assert.deepEqual(after(MEAN, 4, null), {});
  assert.deepEqual(places.get('mean'), { x: 4, y: 0.5 }, 'the places themselves stay');
});

test('a handle beside the one that it goes along with is drawn 22 pixels away', () => {
  const places = new Map([
    ['mean', { x: 5, y: 5 }],
    ['width', { x: 5, y: 5 }],
  ]);
  assert.deepEqual(drawnAt(BOX, WIDTH, places), [72, 50]);
  places.set('width', { x: 4.5, y: 5 });
  assert.deepEqual(drawnAt(BOX, WIDTH, places), [28, 50]);
  places.set('width', { x: 9, y: 5 });
  assert.deepEqual(drawnAt(BOX, WIDTH, places), [90, 50]);
  assert.equal(nearestHandle(BOX, [MEAN, WIDTH], places, [71, 50]), WIDTH);
  assert.equal(nearestHandle(BOX, [MEAN, WIDTH], places, [70, 50]), MEAN, 'of two as near the first');
});

test('arrow keys go one step, with Shift and by page ten, and up means right on an x axis', () => {
  const key = (name, more = {}) => ({ key: name, shiftKey: false, altKey: false, ctrlKey: false, metaKey: false, ...more });
  assert.deepEqual(stepsOf(key('ArrowUp'), 'xy'), [0, 1]);
  assert.deepEqual(stepsOf(key('ArrowUp'), 'x'), [1, 0]);
  assert.deepEqual(stepsOf(key('ArrowLeft', { shiftKey: true }), 'xy'), [-10, 0]);
  assert.deepEqual(stepsOf(key('ArrowLeft'), 'y'), [0, -1]);
  assert.deepEqual(stepsOf(key('PageDown'), 'y'), [0, -10]);
  assert.equal(stepsOf(key('a'), 'x'), null);
  assert.equal(stepsOf(key('ArrowUp', { ctrlKey: true }), 'x'), null);
});
