/** Return the text of a number with a minus sign in the place of the hyphen. */
export function withMinus(text) {
  return text.replace(/-/g, '−');
}

/** Return a number as text with three significant digits; – where it is not finite. */
export function format(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return withMinus(value.toExponential(1).replace('e+', 'e'));
  return withMinus(String(Number(value.toPrecision(3))));
}

/** Return whether a text is set as a symbol (x_t, x̂_0) and not as words or a bare number. */
export function isSymbol(text) {
  return text.length <= 16 && !/\s|[A-Za-z]{3}|[\u2e80-\u9fff]/.test(text) && /[^\d.,+−-]/.test(text);
}
