"""An expert of the real game that looks ahead: it runs, and jumps where it must.

The engine's state can be saved and put back, so what would happen can be tried before it is done.
What such an expert does follows from what is seen: to the right wherever that goes well, and a jump
in the middle of the stretch from which it gets past what is in the way. Somebody who tries again by
chance until it goes well finds ways too, but then what was pressed is half chance, and who clones
them learns little.

Shapes: B worlds, T steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from agents.config import PlanConfig
from genie_env.envs.coinrun import LEFT, NOOP, RIGHT, RIGHT_JUMP, CoinRunVectorEnv

Ways = list[np.ndarray | None]
"""From each state the buttons, int64 (T,), that lead to the coin; None where none were found."""


@dataclass
class Try:
    """Buttons pressed from a state, and what came of it."""

    start: bytes
    right: list[float]
    """How far to the right the agent is, cells: at the start, and with each of `states`."""
    buttons: np.ndarray
    """int64 (T,)."""
    wait: int = 0
    """Of them, those that only run on before something else is done."""
    states: list[bytes] = field(default_factory=list)
    """After `PlanConfig.every` buttons, twice as many, ... as long as it goes on."""
    ended: int | None = None
    """Buttons after which the level was over."""
    won: bool = False


Plan = Generator[list[Try], None, np.ndarray | None]
"""Yields tries to be carried out together; returns the buttons to the coin, or None."""


def find_way(start: bytes, right: float, config: PlanConfig) -> Plan:
    """How a level is gone through from a state in which the agent is so far to the right."""
    every = config.every
    way: list[np.ndarray] = []
    here, walked = start, 0
    while walked < config.max_steps:
        run = Try(here, [right], _buttons((RIGHT, config.ahead)))
        yield [run]
        if run.won:
            return np.concatenate([*way, run.buttons[: run.ended]])
        trouble = _trouble(run, config)
        if trouble is None:
            # Not so far that something begins too late for what comes after.
            chosen, saved = run, (config.ahead - config.before) // every
        else:
            # From the last saved state before which nothing need be done.
            saved = max(0, trouble - config.before) // every
            way.append(run.buttons[: saved * every])
            walked += saved * every
            here, right = ([here, *run.states])[saved], run.right[saved]
            past = max(run.right) + config.progress
            late = trouble - saved * every
            if run.ended is None:
                # Then it stands there already.
                late -= 2 * every
            for tries in _ideas(here, right, trouble - saved * every, config):
                yield tries
                well = [one.won or (one.ended is None and max(one.right) > past) for one in tries]
                if any(well):
                    chosen = _choose(tries, well, late)
                    break
            else:
                return None
            if chosen.won:
                return np.concatenate([*way, chosen.buttons[: chosen.ended]])
            saved = -(-(len(chosen.buttons) - config.safe) // every)
        way.append(chosen.buttons[: saved * every])
        walked += saved * every
        here, right = chosen.states[saved - 1], chosen.right[saved]
    return None


def _buttons(*runs: tuple[int, int]) -> np.ndarray:
    """Of (button, how often)."""
    return np.concatenate([np.full(count, button) for button, count in runs])


def _trouble(run: Try, config: PlanConfig) -> int | None:
    """Steps after which running on leads nowhere: it dies, or stands."""
    if run.ended is not None:
        return run.ended
    for k in range(2, len(run.right)):
        if run.right[k] - run.right[k - 2] < config.progress:
            return k * config.every
    return None


def _ideas(here: bytes, right: float, trouble: int, config: PlanConfig) -> Iterator[list[Try]]:
    """What may be done before trouble that is so many steps ahead; likelier things first."""

    def tries(first: int, *variants: Sequence[tuple[int, int]]) -> list[Try]:
        return [
            Try(here, [right], _buttons((RIGHT, wait), *variant, (RIGHT, config.safe)), wait)
            for variant in variants
            for wait in range(first, trouble + 2, 2)
        ]

    jump = (RIGHT_JUMP, 1)
    for first in (0, 1):
        yield tries(first, [jump])
    # Two jumps, one after the other.
    for gaps in ((5, 6), (4, 7, 8)):
        for first in (0, 1):
            yield tries(first, *([jump, (RIGHT, gap), jump] for gap in gaps))
    # Something is let pass, a run-up is taken, a jump is made short.
    yield tries(0, *([before, jump] for before in ((NOOP, 3), (NOOP, 6), (LEFT, 2), (LEFT, 4))))
    yield tries(0, [jump, (NOOP, 3)])


def _choose(tries: Sequence[Try], well: Sequence[bool], late: int) -> Try:
    """Of those that go well, the middle of the longest stretch before it is late: the most room for
    who copies it to be early or late. Else the first: who stands sees the same from then on, and
    must do the same."""
    early = [good and one.wait <= late for one, good in zip(tries, well, strict=True)]
    if not any(early):
        return tries[int(np.argmax(well))]
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
        for count in sorted({min(32, config.at_once), config.at_once})
    ]
    try:
        for env in envs:
            env.reset()
        with tqdm(total=len(starts), desc=what, leave=False) as bar:
            while True:
                while len(todo) < config.at_once and (number := next(waiting, None)) is not None:
                    right, _ = envs[0].agent_position(starts[number])
                    plans[number] = find_way(starts[number], right, config)
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
                one.right.append(env.agent_position(states[b])[0])
        going = {b: one for b, one in going.items() if step < len(one.buttons)}
