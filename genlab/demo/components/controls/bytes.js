const CHUNK = 4096; // arguments that one call of String.fromCharCode gets: engines have a limit

/** Return the bytes of a base64 text. */
export function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Return the base64 text of bytes. */
export function base64Of(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += CHUNK) text += String.fromCharCode(...bytes.subarray(i, i + CHUNK));
  return btoa(text);
}
