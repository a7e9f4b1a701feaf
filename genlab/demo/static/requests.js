// Part of the js_on_load of everything that the visitor moves: how its state goes to the server. The part after it has publish(),
// which puts the state where Gradio takes it from, and calls ask(kind) for a state of which only the newest matters (one request
// at a time), tell(kind) for the end of a movement, and answered() when a value has come.

const GAP_MS = 80; // least time between two requests
const BURST = 60; // requests that may follow each other so, by all components of the page together …
const PER_SECOND = 3.5; // … and how many are earned again in a second: less than the guard allows a visitor
const ANSWER_MS = 4000; // after which a request counts as lost

const purse = (window.genlabRequests ??= { left: BURST, then: performance.now() });
const asked = { input: false, select: false }; // what is to be sent as soon as it may be
const waiting = { input: 0, select: 0 }; // the timer of an answer that is awaited
let later = 0;

// Milliseconds until the next request may be sent; 0 where it may be now, and then it counts as sent.
function toll() {
  const now = performance.now();
  const earned = Math.min(BURST, purse.left + ((now - purse.then) / 1000) * PER_SECOND);
  const gap = GAP_MS - (now - (purse.last ?? -GAP_MS));
  if (earned < 1 || gap > 0) return Math.max(gap, earned < 1 ? (1000 * (1 - earned)) / PER_SECOND : 0, 1);
  Object.assign(purse, { left: earned - 1, then: now, last: now });
  return 0;
}

function pump() {
  for (const kind of ['input', 'select']) {
    if (!asked[kind] || waiting[kind]) continue;
    const wait = toll();
    if (wait) {
      if (!later) later = setTimeout(() => { later = 0; pump(); }, wait);
      return;
    }
    asked[kind] = false;
    waiting[kind] = setTimeout(() => { waiting[kind] = 0; pump(); }, ANSWER_MS);
    publish();
    trigger(kind);
  }
}

function ask(kind) {
  asked[kind] = true;
  pump();
}

function tell(kind) {
  publish();
  trigger(kind);
}

function answered() {
  for (const kind in waiting) {
    clearTimeout(waiting[kind]);
    waiting[kind] = 0;
  }
}
