"""The animation that the page shows before anyone has pressed a button."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from genlab.demo.components.player import PlayerData
from genlab.demo.limits import ANY, SEED, Offer
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.figure import animation_of, caption_of, sheet
from genlab.demo.tabs.sample.request import COUNT, GUIDANCE, SAMPLER, STEPS, parse_sample
from genlab.demo.turns import Runner

log = logging.getLogger("genlab.demo")

WAIT = 30.0
"""Seconds that a visitor's page waits for the poster."""


class Poster:
    """One small run, made once, in the background, when the page is served."""

    def __init__(self, models: Models, runner: Runner, offer: Offer) -> None:
        self._models, self._runner, self._offer = models, runner, offer
        self._animation: Future[Animation | None] = Future()
        self._begun = threading.Lock()
        runner.after_start(self.begin)

    def begin(self) -> None:
        """Begin to make it, if nobody has."""
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._make).start()

    def _make(self) -> None:
        models, offer = self._models, self._offer
        try:
            steps = min(STEPS.default, offer.T or 1)
            request = parse_sample(models.offers, offer.id, ANY, COUNT.default, steps, SAMPLER, GUIDANCE.default, SEED.default)
            animation = animation_of(models, request)
            for frame in sample(models, self._runner, request):
                if not threading.main_thread().is_alive():
                    return
                animation.add(frame.index, [sheet(frame)], caption_of(frame))
            self._animation.set_result(animation)
        except Exception:  # without a poster the player asks for the button to be pressed
            log.warning("the first pictures could not be made", exc_info=True)
            self._animation.set_result(None)

    def show(self) -> PlayerData:
        """Return the animation, playing; an empty player if there is none, or none yet."""
        self.begin()
        try:
            animation = self._animation.result(timeout=WAIT)
        except FutureTimeout:  # before Python 3.11 not the built-in TimeoutError
            animation = None
        return PlayerData() if animation is None else animation.sheet(autoplay=True, loop=True, first=0)
