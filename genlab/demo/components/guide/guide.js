// A step of the guide: its button leads to what the step marks, and while what is to be done has been scrolled out of view, a
// bar at the foot of the page says it again and leads back.

/** Start the guide in its element, which holds a step as guide.py writes it. */
export function guide({ element }) {
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-to]');
    const to = button && document.querySelector(button.dataset.to);
    if (!to) return;
    to.scrollIntoView({ block: 'start', behavior: calm.matches ? 'auto' : 'smooth' });
    if (to.tabIndex < 0) to.tabIndex = -1; // and no field within: that would open its choices, or a phone's keyboard
    to.focus({ preventScroll: true });
  });
  const bar = element.querySelector('.bar');
  new IntersectionObserver(([{ isIntersecting, boundingClientRect }]) => {
    bar.hidden = isIntersecting || boundingClientRect.top > 0;
  }).observe(element.querySelector('.do'));
}
