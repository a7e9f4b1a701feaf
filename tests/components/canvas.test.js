import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawLine, opaque } from '../../genlab/demo/components/canvas/pen.js';

const picture = (value, channels = 1) => ({
  x: new Uint8ClampedArray(28 * 28 * channels).fill(value),
  width: 28,
  height: 28,
  channels,
});

test('a dot fades over 1.3 pixels around a radius of 1.05', () => {
  const paper = picture(0);
  drawLine(paper, [14.5, 14.5], [14.5, 14.5]);
  const at = (row, column) => paper.x[28 * row + column];
  assert.equal(at(14, 14), 255);
  assert.equal(at(14, 15), Math.round(255 * (0.5 + 0.05 / 1.3)));
  assert.equal(at(15, 14), at(14, 13));
  assert.equal(at(14, 16), 0);
  assert.equal(
    paper.x.filter((v) => v > 0).length,
    9, // 3 × 3: a corner is √2 away, where 0.5 + (1.05 − √2) / 1.3 = 0.22
  );
});

test('a line is as bright all along, on every channel, and drawing never darkens', () => {
  const paper = picture(100, 3);
  drawLine(paper, [4.5, 10.5], [20.5, 10.5]);
  const row = (j) => Array.from(paper.x.subarray(3 * 28 * j + 3 * 5, 3 * 28 * j + 3 * 20));
  assert.deepEqual(new Set(row(10)), new Set([255]));
  assert.deepEqual(new Set(row(11)), new Set([137]));
  assert.deepEqual(new Set(row(13)), new Set([100]));
});

test('the eraser is half as dark at a radius of 2, and never lightens', () => {
  const paper = picture(255);
  paper.x[28 * 14 + 16] = 50;
  drawLine(paper, [14.5, 14.5], [14.5, 14.5], true);
  assert.deepEqual(Array.from(paper.x.subarray(28 * 14 + 11, 28 * 14 + 18)), [255, 128, 0, 0, 0, 50, 255]);
});

test('a stroke at the edge stays in the picture, and the pen grows with it', () => {
  const paper = { x: new Uint8ClampedArray(56 * 56), width: 56, height: 56, channels: 1 };
  drawLine(paper, [0, 0], [0, 56]);
  assert.equal(paper.x[56 * 28], 255);
  assert.equal(paper.x[56 * 28 + 2], Math.round(255 * (0.5 + (2.1 - 2.5) / 2.6)));
  assert.equal(paper.x[56 * 28 + 55], 0);
});

test('gray and colour become opaque pixels', () => {
  assert.deepEqual(opaque(Uint8Array.of(7, 9), 1), Uint8ClampedArray.of(7, 7, 7, 255, 9, 9, 9, 255));
  assert.deepEqual(opaque(Uint8Array.of(1, 2, 3), 3), Uint8ClampedArray.of(1, 2, 3, 255));
});
