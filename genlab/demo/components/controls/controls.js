// The frames of a player or a figure, and the controls that play them. Texts reach the page through textContent and attributes only.

import { frameAfter, frameBefore, frameNear, percentOf, spansOf } from './frames.js';
import { lower } from './indices.js';
import { labelsOf } from './labels.js';

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const LAST_FRAME_MS = 1200; // how long the last frame stays before a repeat
const LONGEST_TICK_MS = 250; // a tab that was hidden goes on where it stopped
const SHOWN = 'genlab-frame'; // the event of an element that shows another frame, for those that follow it

/**
 * The controls of one component.
 *
 * @property data what is shown, or announced: its segments and fps are used here
 * @property total how many frames the whole run has
 * @property frames index → a frame with its caption; has holes while frames are on their way
 * @property arrived how many frames have come
 * @property index of the frame shown, −1 for none
 * @property complete no more frames will come
 * @property following while frames are on their way: show every new one
 */
export class Controls {
  /**
   * @param {{draw(): void, describe(count: string, caption: string): void, empty(): string}} view
   *   draw: shows frames[index]; describe: describes it to a screen reader; empty: the message before anything has come.
   */
  constructor(element, props, view) {
    const $ = (selector) => element.querySelector(selector);
    Object.assign(this, { $, element, props, view });
    this.root = $('.player');
    this.label = labelsOf(props);
    this.data = props.empty;
    this.total = this.arrived = 0;
    this.frames = [];
    this.index = -1;
    this.complete = this.following = this.playing = this.repeat = false;
    this.repeatChosen = false; // the visitor has pressed the button, so runs no longer decide
    this.speed = 1;
    this.lastTick = 0; // time of the last animation frame
    this.left = 0; // ms until the next frame is shown
    this.scrub = $('.scrub');
    this.buttons = { back: $('.back'), play: $('.play'), forward: $('.forward'), loop: $('.loop'), speed: $('.speed') };
    this.reducedMotion = window.matchMedia('(prefers-reduced-motion: reduce)');
    this.listen();
  }

  get moving() {
    return this.playing || (this.following && !this.complete);
  }

  /** Take all frames of a value; what is being played goes on. */
  setFrames(data, frames) {
    Object.assign(this, { data, frames, total: frames.length, arrived: frames.length, complete: true, following: false });
  }

  /** Draw the segments under the scrubber. */
  drawSegments() {
    const segments = this.total > 1 ? this.data.segments || [] : [];
    this.root.classList.toggle('segmented', segments.length > 0 || Boolean(this.props.empty.segmented));
    this.$('.segments').replaceChildren(
      ...spansOf(segments, this.total).map((place, s) => {
        const span = document.createElement('span');
        span.title = segments[s].label;
        lower(span, segments[s].label);
        Object.assign(span.style, place);
        span.dataset.start = segments[s].start;
        return span;
      }),
    );
  }

  /** Bring everything beside the pictures up to date: texts, scrubber, buttons. */
  update() {
    const { $, root, scrub, buttons, label, frames, index, total, arrived, complete, moving } = this;
    const frame = frames[index];
    const caption = frame ? frame.caption : '';
    const count = frame ? label('frame', { i: index + 1, n: total }) : '';
    lower($('.caption'), caption);
    $('.count').textContent = frame ? `${index + 1} / ${total}` : '';
    $('.state').textContent = total && !complete ? label('computing', { arrived, n: total }) : '';
    this.view.describe(count, caption);
    const last = Math.max(0, total - 1);
    scrub.max = last;
    scrub.value = Math.max(0, index);
    scrub.setAttribute('aria-valuetext', caption ? `${count}, ${caption}` : count);
    scrub.style.setProperty('--at', percentOf(index, last));
    scrub.style.setProperty('--arrived', percentOf(frames.length - 1, last));
    scrub.disabled = arrived < 1 || total < 2;
    buttons.play.disabled = buttons.loop.disabled = buttons.speed.disabled = scrub.disabled;
    buttons.back.disabled = frameBefore(frames, index) < 0;
    buttons.forward.disabled = frameAfter(frames, index) < 0;
    buttons.play.title = label(moving ? 'pause' : 'play');
    buttons.play.setAttribute('aria-label', buttons.play.title);
    buttons.loop.setAttribute('aria-pressed', String(this.repeat));
    root.classList.toggle('moving', moving);
    root.classList.toggle('computing', total > 0 && !complete);
    root.classList.toggle('empty', !arrived);
    const spans = [...$('.segments').children];
    const now = spans.filter((span) => index >= span.dataset.start).pop();
    for (const span of spans) span.classList.toggle('now', span === now);
  }

  /** Write a message over the pictures, or none. */
  message(text) {
    const box = this.$('.message');
    box.replaceChildren();
    if (text) box.appendChild(document.createElement('span')).textContent = text;
  }

  /** Announce a text to screen readers. */
  announce(text) {
    this.$('.status').textContent = text;
  }

  /** Write all texts, at first and after a change of language. */
  write() {
    const { root, scrub, buttons, label } = this;
    for (const node of [root, this.$('.stage')]) node.setAttribute('aria-label', label('player'));
    scrub.setAttribute('aria-label', label('position'));
    for (const key of ['back', 'forward', 'loop', 'speed']) {
      buttons[key].title = label(key);
      buttons[key].setAttribute('aria-label', label(key));
    }
    if (!this.total) this.message(this.view.empty());
    this.update();
  }

  show(i) {
    this.index = i;
    this.view.draw();
    this.update();
    this.root.dataset.frame = i;
    this.root.dispatchEvent(new CustomEvent(SHOWN, { bubbles: true }));
  }

  /** Show, now and from now on, the frame that the player in the element of that id shows. */
  follow(id) {
    const take = () => {
      const frame = document.querySelector(`#${id} .player`)?.dataset.frame;
      if (frame !== undefined && this.total) this.show(Math.min(Number(frame), this.total - 1));
    };
    document.addEventListener(SHOWN, (event) => event.target.closest(`#${id}`) && take());
    return take;
  }

  /** Return the milliseconds that a frame stays. */
  stay() {
    return 1000 / ((this.data.fps || 10) * this.speed);
  }

  tick(now) {
    if (!this.playing || !this.element.isConnected) return;
    this.left -= Math.min(now - this.lastTick, LONGEST_TICK_MS);
    this.lastTick = now;
    if (this.left <= 0) {
      let next = frameAfter(this.frames, this.index);
      if (next < 0 && this.complete && this.repeat) next = frameAfter(this.frames, -1);
      if (next < 0) {
        this.playing = false;
        this.following = !this.complete; // the newest frame is shown: show those to come as they come
        this.update();
        return;
      }
      this.show(next);
      this.left = Math.max(0, this.left + this.stay());
      if (this.complete && frameAfter(this.frames, next) < 0) this.left = Math.max(this.stay(), LAST_FRAME_MS);
    }
    requestAnimationFrame((time) => this.tick(time));
  }

  /** Play from the frame shown, or from the first after the last one. */
  play() {
    if (frameAfter(this.frames, this.index) < 0) {
      if (!this.complete) {
        this.following = true;
        this.update();
        return;
      }
      this.show(frameAfter(this.frames, -1));
    }
    this.playing = true;
    this.lastTick = performance.now();
    this.left = this.stay();
    requestAnimationFrame((time) => this.tick(time));
    this.update();
  }

  toggle() {
    if (!this.arrived || this.total < 2) return;
    if (!this.moving) {
      this.play();
      return;
    }
    this.playing = this.following = false;
    this.update();
  }

  /** Go to frame i, or to the nearest one that has come; beyond the newest means the newest, also when another one comes. */
  go(i) {
    const newest = this.frames.length - 1;
    const target = frameNear(this.frames, Math.max(0, Math.min(i, newest)));
    if (target < 0) return;
    this.playing = false;
    this.following = !this.complete && i > newest;
    this.show(target);
  }

  back() {
    this.go(frameBefore(this.frames, this.index));
  }

  forward() {
    const next = frameAfter(this.frames, this.index);
    this.go(next < 0 ? this.index : next);
  }

  listen() {
    const { root, scrub, buttons } = this;
    buttons.play.addEventListener('click', () => this.toggle());
    buttons.back.addEventListener('click', () => this.back());
    buttons.forward.addEventListener('click', () => this.forward());
    buttons.loop.addEventListener('click', () => {
      this.repeat = !this.repeat;
      this.repeatChosen = true;
      this.update();
    });
    for (const value of SPEEDS) {
      const option = buttons.speed.appendChild(document.createElement('option'));
      option.value = value;
      option.textContent = { 0.25: '¼×', 0.5: '½×' }[value] || `${value}×`;
    }
    buttons.speed.value = '1';
    buttons.speed.addEventListener('change', () => {
      this.left *= this.speed / Number(buttons.speed.value);
      this.speed = Number(buttons.speed.value);
    });
    scrub.addEventListener('input', () => this.go(Number(scrub.value)));
    root.addEventListener('keydown', (event) => {
      if (event.target === buttons.speed || event.altKey || event.ctrlKey || event.metaKey || !this.arrived) return;
      if (event.key === ' ' && !event.target.closest('button')) this.toggle();
      else if (event.key === 'ArrowLeft') this.back();
      else if (event.key === 'ArrowRight') this.forward();
      else if (event.key === 'Home') this.go(0);
      else if (event.key === 'End') this.go(this.total - 1);
      else return;
      event.preventDefault();
    });
  }
}
