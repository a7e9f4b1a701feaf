/** Return a text with values in the place of the names in braces; a name without a value stays. */
export function fill(text, values = {}) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Return the function (key, values) → text for a component's labels; a later change of `props.labels` may name only some. */
export function labelsOf(props) {
  const first = props.labels;
  return (key, values) => fill(props.labels[key] ?? first[key], values);
}
