// Texts with indices: x_t and x_{t−1}.

/**
 * Return the parts of a text with indices, [{ text, index }]: x_t and x_{t−1} have an index each.
 * An underscore after a longer word, as in the name of a file, is one.
 */
export function partsOf(text) {
  return text
    .split(/(?<=(?<![\p{L}\p{N}\p{M}_])\p{L}\p{M}*)_(\{[^}]*\}|[^\s_{])/u)
    .map((part, i) => (i % 2 ? { text: part.replace(/^\{|\}$/g, ''), index: true } : { text: part, index: false }))
    .filter((part) => part.text);
}

/** Replace an HTML element's text, with its indices lowered. */
export function lower(node, text) {
  const parts = partsOf(text).map((part) => {
    if (!part.index) return part.text;
    const sub = document.createElement('sub');
    sub.textContent = part.text;
    return sub;
  });
  node.replaceChildren(...parts);
}
