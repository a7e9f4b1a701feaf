// How often a component that the visitor moves sends its state to the server.

export const GAP_MS = 80; // least time between two requests of all components of the page: less than the guard allows a visitor
export const ANSWER_MS = 4000; // after which a request counts as lost

/** The time of the last request, for all components of a page. */
export class Pace {
  constructor(now = () => performance.now()) {
    this.now = now;
    this.last = -GAP_MS;
  }

  /** Return the milliseconds until the next request may be sent; 0 where it may be sent now, and then it counts as sent. */
  take() {
    const now = this.now();
    const wait = GAP_MS - (now - this.last);
    if (wait > 0) return Math.max(wait, 1);
    this.last = now;
    return 0;
  }
}

const PAGE = new Pace();

/**
 * The requests of one component. Of the kinds `input` and `select` only the newest state matters: one request at a time, the
 * next when its answer has come.
 */
export class Requests {
  /**
   * @param {() => void} publish puts the state where gradio takes it from.
   * @param {(kind: string) => void} trigger has gradio send it.
   */
  constructor(publish, trigger, pace = PAGE) {
    Object.assign(this, { publish, trigger, pace });
    this.pending = { input: false, select: false }; // to be sent as soon as it may be
    this.timers = { input: 0, select: 0 }; // run while an answer is awaited
    this.timer = 0; // runs until the next request may be sent
  }

  /** Send the newest state, now or as soon as it may be sent. */
  ask(kind) {
    this.pending[kind] = true;
    this.pump();
  }

  /** Send the state at the end of a movement, at once. */
  send(kind) {
    this.publish();
    this.trigger(kind);
  }

  /** Stop waiting for an answer: a value has come. What is pending is sent by the next `pump`. */
  answered() {
    for (const kind in this.timers) {
      clearTimeout(this.timers[kind]);
      this.timers[kind] = 0;
    }
  }

  /** Send what is pending and may be sent. */
  pump() {
    for (const kind of ['input', 'select']) {
      if (!this.pending[kind] || this.timers[kind]) continue;
      const wait = this.pace.take();
      if (wait) {
        this.timer ||= this.after(wait, () => (this.timer = 0));
        return;
      }
      this.pending[kind] = false;
      this.timers[kind] = this.after(ANSWER_MS, () => (this.timers[kind] = 0));
      this.send(kind);
    }
  }

  after(ms, done) {
    return setTimeout(() => {
      done();
      this.pump();
    }, ms);
  }
}
