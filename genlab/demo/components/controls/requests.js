// Part of the js_on_load of everything that the visitor moves: how its state goes to the server. The part after it has publish(),
// which puts the state where Gradio takes it from, and calls ask(kind) for a state of which only the newest matters (one request
// at a time), tell(kind) for the end of a movement, and answered() when a value has come.

const GAP_MS = 80; // least time between two requests of all components of the page: less than the guard allows a visitor
const ANSWER_MS = 4000; // after which a request counts as lost

const sent = (window.genlabRequests ??= { last: -GAP_MS });
const asked = { input: false, select: false }; // what is to be sent as soon as it may be
const waiting = { input: 0, select: 0 }; // the timer of an answer that is awaited
let later = 0;

// Milliseconds until the next request may be sent; 0 where it may be now, and then it counts as sent.
function toll() {
  const now = performance.now();
  const gap = GAP_MS - (now - sent.last);
  if (gap > 0) return Math.max(gap, 1);
  sent.last = now;
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
