"""An expert of the real game that looks ahead: it runs, and jumps where it must.

The engine's state can be saved and put back, so what would happen can be tried before it is done.
What such an expert does follows from what is seen: to the right wherever that goes well, and a jump
in the middle of the stretch from which it gets past what is in the way. Who clones it sees a screen
and no more. So a try that ends beyond the screen's edge counts as one whose end nobody knows, and
it is carried out until that end comes into sight; and no way is found by trying until chance helps.

Shapes: B worlds, T steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from tqdm import tqdm

from agents.config import PlanConfig
from genie_env.envs.coinrun import LEFT, NOOP, RIGHT, RIGHT_JUMP, CoinRunVectorEnv
from genie_env.envs.coinrun_state import Body

Ways = list[np.ndarray | None]
"""From each state the buttons, int64 (T,), that lead to the coin; None where none were found."""


@dataclass
class Try:
    """Buttons pressed from a state, and what came of it."""

    start: bytes
    bodies: list[Body]
    """The agent at the start, and with each of `states`."""
    buttons: np.ndarray
    """int64 (T,)."""
    begins: int = 0
    """Of them, those that come before what is tried."""
    states: list[bytes] = field(default_factory=list)
    """After `PlanConfig.every` buttons, twice as many, ... as long as it goes on."""
    ended: int | None = None
    """Buttons after which the level was over."""
    won: bool = False


class Worth(IntEnum):
    """Of a try, as far as can be seen when it is begun."""

    BAD = 0
    UNKNOWN = 1
    """It ends, or comes down, beyond the screen."""
    LANDS = 2
    """It comes down on its feet and must then do something again."""
    GOOD = 3


Plan = Generator[list[Try], None, np.ndarray | None]
"""Yields tries to be carried out together; returns the buttons to the coin, or None."""


@dataclass(frozen=True)
class Planner:
    """How a level is gone through."""

    config: PlanConfig
    frame_skip: int
    """Engine steps for which a button is held."""

    def find_way(self, start: bytes, body: Body) -> Plan:
        """From a state, and the agent in it."""
        every = self.config.every
        way: list[np.ndarray] = []
        here, walked = start, 0
        while walked < self.config.max_steps:
            run = Try(here, [body], _buttons((RIGHT, self.config.ahead)))
            yield [run]
            if run.won:
                return np.concatenate([*way, run.buttons[: run.ended]])
            trouble = self._trouble(run)
            if trouble is None:
                # Not so far that something begins too late for what comes after.
                chosen, saved = run, (self.config.ahead - self.config.before) // every
            else:
                # From the last saved state before which nothing need be done, or can be known of.
                saved = max((trouble - self.config.before) // every, self._in_sight(run, trouble))
                way.append(run.buttons[: saved * every])
                walked += saved * every
                here, body = ([here, *run.states])[saved], run.bodies[saved]
                past = max(at.x for at in run.bodies) + self.config.progress
                late = trouble - saved * every
                blocked = run.ended is None
                if blocked:
                    # Then it stands there already.
                    late -= 2 * every
                best = Worth.BAD
                ideas = self._ideas(here, body, trouble - saved * every, blocked)
                for number, tries in enumerate(ideas, 1):
                    yield tries
                    worth = [self._worth(one, past) for one in tries]
                    if max(worth) > best:
                        best, chosen = max(worth), _choose(tries, worth, late)
                    # Who is stopped by a wall has the time to look for what is safe.
                    if best >= Worth.LANDS or (best and number >= 3 * blocked):
                        break
                if not best:
                    return None
                if chosen.won:
                    return np.concatenate([*way, chosen.buttons[: chosen.ended]])
                saved = -(-(len(chosen.buttons) - self.config.safe) // every)
                if chosen.ended is not None:
                    shown = self._in_sight(chosen, chosen.ended)
                    if shown * every > chosen.begins:
                        # How it ends is seen on the way.
                        saved = min(saved, shown)
                    saved = min(saved, len(chosen.states))
            way.append(chosen.buttons[: saved * every])
            walked += saved * every
            here, body = chosen.states[saved - 1], chosen.bodies[saved]
        return None

    def _trouble(self, run: Try) -> int | None:
        """Steps after which running on leads nowhere: it dies, or stands."""
        if run.ended is not None:
            return run.ended
        for k in range(2, len(run.bodies)):
            if run.bodies[k].x - run.bodies[k - 2].x < self.config.progress:
                return k * self.config.every
        return None

    def _x(self, one: Try, step: int) -> float:
        """Where a try has got to after so many steps, from the last saved state before."""
        k = min(step // self.config.every, len(one.bodies) - 1)
        steps = (step - k * self.config.every) * self.frame_skip
        return one.bodies[k].x + one.bodies[k].speed_x * steps

    def _in_sight(self, one: Try, step: int) -> int:
        """The first saved state of a try that shows where it gets to in so many steps."""
        place = self._x(one, step)
        near = (k for k, at in enumerate(one.bodies) if place - at.x <= self.config.sight)
        return next(near, len(one.bodies) - 1)

    def _worth(self, one: Try, past: float) -> Worth:
        """Of a try that must get past a place."""
        if one.won:
            return Worth.GOOD
        begins = self._x(one, one.begins)
        furthest = max(at.x for at in one.bodies)
        ends_in_sight = False
        if one.ended is not None:
            end = self._x(one, one.ended)
            furthest = max(furthest, end)
            ends_in_sight = end - begins <= self.config.sight
        if furthest <= past:
            return Worth.BAD
        lands = self._lands(one)
        if lands is None or one.bodies[lands].x - begins > self.config.sight:
            return Worth.BAD if ends_in_sight else Worth.UNKNOWN
        if one.ended is None or not ends_in_sight:
            return Worth.GOOD
        room = one.ended - lands * self.config.every
        return Worth.LANDS if room > self.config.room else Worth.BAD

    def _lands(self, one: Try) -> int | None:
        """The saved state of a try in which it stands again after a jump."""
        flies = False
        for k in range(one.begins // self.config.every + 1, len(one.bodies)):
            if flies and one.bodies[k].stands:
                return k
            flies = not one.bodies[k].stands
        return None

    def _ideas(self, here: bytes, body: Body, trouble: int, blocked: bool) -> Iterator[list[Try]]:
        """What may be done before trouble that is so many steps ahead; likelier things first."""

        def tries(first: int, *variants: Sequence[tuple[int, int]]) -> list[Try]:
            safe = (RIGHT, self.config.safe)
            return [
                Try(here, [body], _buttons((RIGHT, wait), *variant, safe), wait)
                for variant in variants
                for wait in range(first, trouble + 2, 2)
            ]

        jump = (RIGHT_JUMP, 1)
        for first in (0, 1):
            yield tries(first, [jump])
        if blocked:
            # Up a wall, and down again just behind its edge.
            yield tries(0, *([jump, (RIGHT, n), (LEFT, 2)] for n in (1, 2, 3)))
        # Two jumps, one after the other.
        for gaps in ((5, 6), (4, 7, 8)):
            for first in (0, 1):
                yield tries(first, *([jump, (RIGHT, gap), jump] for gap in gaps))
        # Something is let pass, a run-up is taken, a jump is made short.
        before = ((NOOP, 3), (NOOP, 6), (LEFT, 2), (LEFT, 4))
        yield tries(0, *([one, jump] for one in before))
        yield tries(0, [jump, (NOOP, 3)])
        if not body.stands:
            # It may be held back, to come down earlier and jump again.
            held = [(button, n) for button in (LEFT, NOOP) for n in (1, 2, 3, 4, 5)]
            yield tries(0, *([one] for one in held))
            for gap in (0, 2, 4):
                yield tries(0, *([one, (NOOP, gap), jump] for one in held))


def _buttons(*runs: tuple[int, int]) -> np.ndarray:
    """Of (button, how often)."""
    return np.concatenate([np.full(count, button) for button, count in runs])


def _choose(tries: Sequence[Try], worth: Sequence[Worth], late: int) -> Try:
    """Of the best, the middle of the longest stretch before it is late: the most room for who
    copies it to be early or late. Else the first: who stands sees the same from then on, and must
    do the same."""
    best = [one == max(worth) for one in worth]
    early = [good and one.begins <= late for one, good in zip(tries, best, strict=True)]
    if not any(early):
        return tries[int(np.argmax(best))]
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(early, int), 0]))
    begins, ends = edges[::2], edges[1::2]
    longest = np.argmax(ends - begins)
    return tries[int(begins[longest] + ends[longest] - 1) // 2]


def plan_ways(
    starts: Sequence[bytes],
    look: str,
    difficulty: str,
    frame_skip: int,
    config: PlanConfig,
    what: str = "",
) -> Ways:
    """The ways from states of the real game to its coins; a button is held for `frame_skip` steps
    of the engine."""
    planner = Planner(config, frame_skip)
    ways: Ways = [None] * len(starts)
    waiting = iter(range(len(starts)))
    plans: dict[int, Plan] = {}
    unfinished: dict[int, int] = {}
    todo: list[tuple[int, Try]] = []

    def go_on(number: int) -> None:
        try:
            tries = next(plans[number])
        except StopIteration as stop:
            ways[number] = stop.value
            bar.update()
        else:
            unfinished[number] = len(tries)
            todo.extend((number, one) for one in tries)

    # Idle worlds cost as much as others, and in the end few tries are left.
    envs = [
        CoinRunVectorEnv(count, look, difficulty, frame_skip=frame_skip)
        for count in sorted({min(count, config.at_once) for count in (4, 16, config.at_once)})
    ]
    try:
        for env in envs:
            env.reset()
        with tqdm(total=len(starts), desc=what, leave=False) as bar:
            while True:
                while len(todo) < config.at_once and (number := next(waiting, None)) is not None:
                    body = envs[0].agent_body(starts[number])
                    plans[number] = planner.find_way(starts[number], body)
                    go_on(number)
                if not todo:
                    return ways
                # Short ones together: all wait for the longest.
                todo.sort(key=lambda item: len(item[1].buttons))
                now, todo = todo[: config.at_once], todo[config.at_once :]
                env = next(env for env in envs if env.num_envs >= len(now))
                carry_out(env, [one for _, one in now], config.every)
                for number, _ in now:
                    unfinished[number] -= 1
                    if not unfinished[number]:
                        go_on(number)
    finally:
        for env in envs:
            env.close()


def carry_out(env: CoinRunVectorEnv, tries: Sequence[Try], every: int) -> None:
    """Press the buttons of at most as many tries as there are worlds, side by side."""
    spare = [tries[0].start] * (env.num_envs - len(tries))
    env.set_states([one.start for one in tries] + spare)
    going = {b: one for b, one in enumerate(tries) if len(one.buttons)}
    step = 0
    while going:
        pressed_B = np.full(env.num_envs, NOOP)
        for b, one in going.items():
            pressed_B[b] = one.buttons[step]
        _, _, terminated_B, truncated_B, infos = env.step(pressed_B)
        step += 1
        for b in np.flatnonzero(terminated_B | truncated_B):
            if b in going:
                one = going.pop(b)
                one.ended, one.won = step, bool(infos["success"][b])
        if step % every == 0 and going:
            states = env.get_states()
            for b, one in going.items():
                one.states.append(states[b])
                one.bodies.append(env.agent_body(states[b]))
        going = {b: one for b, one in going.items() if step < len(one.buttons)}
