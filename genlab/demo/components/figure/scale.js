// Axes: values, pixels and ticks. An axis is a figure.Axis: { low, high, name, scale, ticks }.

import { format, withMinus } from './format.js';

const DIGITS = 4; // significant digits that a handle's place on a logarithmic axis has
const STEPS = 300; // least number of places that a handle can take on a linear axis
const LONGEST = 6; // characters of a tick's number without an exponent

/** Return the map of an axis to pixels, { to: value → pixel, back: pixel → value }, from pixel `from` at low to `to` at high. */
export function scaleOf(axis, from, to) {
  const log = axis.scale === 'log';
  const [low, high] = log ? [Math.log(axis.low), Math.log(axis.high)] : [axis.low, axis.high];
  const linear = (v) => (log ? Math.log(Math.max(v, axis.low * 1e-6)) : v);
  return {
    to: (v) => from + ((linear(v) - low) / (high - low)) * (to - from),
    back: (pixel) => {
      const v = low + ((pixel - from) / (to - from)) * (high - low);
      return log ? Math.exp(v) : v;
    },
  };
}

/** Return the ticks of an axis, [[value, text]]: round values, about `room` of them and no more. */
export function ticksOf(axis, room) {
  if (!axis.ticks) return [];
  return axis.scale === 'log' ? logTicks(axis, Math.max(1, room)) : linearTicks(axis, Math.max(1, room));
}

function linearTicks({ low, high }, room) {
  const least = (high - low) / room;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= least * (1 - 1e-9));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) values.push(k * step || 0); // −0 is 0
  return labelled(values, () => digits);
}

function logTicks({ low, high }, room) {
  const decades = Math.log10(high / low);
  const every = Math.max(1, Math.ceil(decades / room));
  const values = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high) + 1e-9; e += every) {
    for (const part of decades < 2 ? [1, 2, 5] : [1]) values.push(part * 10 ** e);
  }
  const within = values.filter((v) => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9));
  return labelled(within, (v) => Math.max(0, -Math.floor(Math.log10(v) + 1e-9)));
}

/** Return ticks, [[value, text]], in one format: where one number would be too long, all have an exponent. */
function labelled(values, digitsOf) {
  const plain = values.map((v) => v.toFixed(digitsOf(v)));
  const short = plain.every((text) => text.replace('-', '').length <= LONGEST);
  const withExponent = (v) => (v === 0 ? '0' : Number(v.toPrecision(12)).toExponential().replace('e+', 'e'));
  return values.map((v, i) => [v, withMinus(short ? plain[i] : withExponent(v))]);
}

/** Return a value rounded to what a visitor can set on an axis: about a 300th of it, or four digits where it is logarithmic. */
export function rounded(value, axis) {
  if (axis.scale === 'log') return Number(value.toPrecision(DIGITS));
  const unit = 10 ** Math.floor(Math.log10((axis.high - axis.low) / STEPS));
  return Number((Math.round(value / unit) * unit).toPrecision(12));
}

/** Return a value on an axis as text: no finer than a visitor can set it; on a logarithmic axis whole, or with three digits. */
export function readable(value, axis) {
  if (!Number.isFinite(value)) return format(value);
  const digits = Number.isInteger(value) ? value : Number(value.toPrecision(3));
  return withMinus(String(axis.scale === 'log' ? digits : rounded(value, axis) || 0));
}

/** Return a value within bounds. */
export function clamped(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

/** Return the index of the number nearest to a value, the first of several; −1 where there is none. */
export function nearestIndex(numbers, value) {
  let best = -1;
  for (let i = 0; i < numbers.length; i++) {
    if (best < 0 || Math.abs(numbers[i] - value) < Math.abs(numbers[best] - value)) best = i;
  }
  return best;
}
