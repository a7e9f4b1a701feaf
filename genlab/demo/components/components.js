// What the page gets: the components by their names, for the one line with which gradio starts each of them.

import { canvas } from './canvas/canvas.js';
import { figure } from './figure/figure.js';
import { guide } from './guide/guide.js';
import { player } from './player/player.js';

window.genlab = { canvas, figure, guide, player };
