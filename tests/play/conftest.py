"""Play on the tiny model, a job at a time and at once, by a clock of the test's own."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest

from genie_env.envs.single import GenieEnv
from genie_env.play.controls import Controls
from genie_env.play.game import Game
from genie_env.play.keymap import Keymap
from genie_env.play.session import Session

MEASURED = {
    "none": (0.1, 0.9, 0, 0, 0, 0, 0, 0),
    "left": (0.2, 0, 0.8, 0, 0, 0, 0, 0),
    "right": (0.4, 0, 0, 0.6, 0, 0, 0, 0),
    "jump": (0, 0, 0, 0, 1.0, 0, 0, 0),
    "right+jump": (0, 0, 0, 0, 0.5, 0.5, 0, 0),
}


class AtOnce(Executor):
    """Jobs are done when they are handed in, or when the test says so."""

    def __init__(self):
        self.waiting = None
        self.later = False

    def submit(self, job, /, *args, **kwargs):
        future = Future()

        def run():
            try:
                future.set_result(job(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        self.waiting = run
        if not self.later:
            run()
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def controls(tiny_model):
    return Controls.of(MEASURED, tiny_model.config.num_actions)


@pytest.fixture
def env(tiny_model):
    size = tiny_model.config.frame_size
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    env = GenieEnv(frames, tiny_model, reward="none", temperature=1.0)
    yield env
    env.close()


@pytest.fixture
def session(env, controls):
    session = Session(env, controls)
    session.start(seed=3)
    yield session
    session.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def executor():
    return AtOnce()


@pytest.fixture
def make_game(env, controls, clock, executor, tmp_path):
    games = []

    def make(**kwargs):
        session = Session(env, controls, kwargs.pop("policy", None), kwargs.pop("keep", None))
        keymap = kwargs.pop("keymap", Keymap())
        game = Game(
            session, keymap, tmp_path / "films", executor=executor, clock=clock, seed=0, **kwargs
        )
        games.append(game)
        return game

    yield make
    for game in games:
        game.close()


@pytest.fixture
def run(clock):
    """Let a game tick until it has shown so many steps of the world; without a number until nothing
    happens any more, for a game that stands."""

    def run(game, steps=0):
        start = game.shown.view.number
        for _ in range(400):
            clock.now += 0.01
            happened = game.tick()
            if game._queue:
                continue
            if game.shown.view.number - start >= steps if steps else not happened:
                return
        raise AssertionError(f"still at step {game.shown.view.number}")

    return run
