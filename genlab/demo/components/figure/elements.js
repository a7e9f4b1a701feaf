// Elements of SVG and HTML. Texts become text nodes, never markup.

import { partsOf } from '../controls/indices.js';
import { isSymbol } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';

/** Return an SVG element. */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  node.append(...children);
  return node;
}

/** Return an HTML element. */
export function html(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

/** Write a text with indices (x_t, x_{t−1}) into an HTML or an SVG element, and return the element. */
export function write(node, text) {
  if (isSymbol(text)) node.classList.add('symbol');
  let lowered = false;
  for (const part of partsOf(text)) {
    if (node.namespaceURI !== SVG) node.append(part.index ? html('sub', '', part.text) : part.text);
    else {
      const shift = part.index ? { dy: '0.3em', 'font-size': '0.72em' } : lowered ? { dy: '-0.216em' } : {};
      node.append(svg('tspan', shift, part.text));
      lowered = part.index;
    }
  }
  return node;
}

/** Return a CSS colour by its name, one of colours.COLOURS or "ink". */
export function paint(colour) {
  return colour === 'ink' ? 'var(--ink)' : `var(--genlab-${colour})`;
}

/** Return the colour itself, as it is in an element: a canvas knows no custom properties. */
export function computedColour(element, colour) {
  return getComputedStyle(element).getPropertyValue(paint(colour).slice('var('.length, -1)).trim();
}

let ruler = null; // a canvas's context

/** Return the function that gives the width of a text in pixels, in the font of an element. */
export function measureIn(element) {
  ruler ??= document.createElement('canvas').getContext('2d');
  return (text) => {
    ruler.font = `13px ${getComputedStyle(element).fontFamily}`;
    return ruler.measureText(text).width;
  };
}
