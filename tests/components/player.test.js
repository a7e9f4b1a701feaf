import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cellsOf } from '../../genlab/demo/components/player/sheet.js';

test('the cells of a sheet: ⌈√5⌉ = 3 columns', () => {
  const cells = cellsOf({ n: 5, width: 12, height: 5, captions: ['t = 4', '', 't = 2'] }, 'image');
  assert.deepEqual(
    cells.map(({ x, y }) => [x, y]),
    [
      [0, 0],
      [12, 0],
      [24, 0],
      [0, 5],
      [12, 5],
    ],
  );
  assert.deepEqual(
    cells.map(({ caption }) => caption),
    ['t = 4', '', 't = 2', '', ''],
  );
  assert.equal(cells[4].image, 'image');
});
