"""Do both latent actions of a two-player model really control the two players?

Codes get their meaning from 200 labelled transitions of games that were trained on, once and for
all games; everything else is measured on games of styles never seen, and on real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genie_env.world_model.two_player import NUM_PLAYERS, PlayersNotSeenError, TwoPlayerModel
from training.evaluation.report import read_report, write_report
from training.evaluation.sections import Row, Section, bootstrap
from training.evaluation.two_player.bars import FOUND
from training.evaluation.two_player.driven import driven_section, interventions_section
from training.evaluation.two_player.sections import (
    change_section,
    codes_section,
    ladder_section,
    places_section,
)
from training.evaluation.two_player.variations import limits_section, variations_section
from training.evaluation.two_player.watch import (
    NUM_FRAMES,
    NUM_SEEN,
    halves_codes,
    learn_actions,
    watch,
    watch_trained_on,
)

HELD_OUT = 1_000_000 << 32
"""Seed of games of our own that are never trained on."""


@dataclass(frozen=True)
class TwoPlayerEvaluation:
    """What to measure, and on how much."""

    games: tuple[str, ...] = ("duel", "cooperative_pong", "atari_pong")
    """`duel`: our own, of styles held out."""
    num_games: int = 200
    num_driven: int = 40
    """Games that are driven for 20 steps in the model and in the real game."""
    num_varied: int = 40
    """Games of our own of each kind of variation."""


def evaluate_two_player(
    name: str, config: TwoPlayerEvaluation, out: Path
) -> dict[str, list[Section]]:
    """Every test on every game, written to `out`; the sections of each game. Raises as
    `TwoPlayerModel.from_pretrained`; ImportError without a real game that is named."""
    model = TwoPlayerModel.from_pretrained(name)
    try:
        meaning_SK = learn_actions(watch_trained_on(model, 20 + config.num_games // 10))
    except PlayersNotSeenError:
        meaning_SK = np.zeros((NUM_PLAYERS, model.config.num_codes), np.int64)
    found = {}
    for game in config.games:
        found[game] = _measure(name, model, meaning_SK, game, config)
        # What is known is written, should the rest be cut off.
        summary = {
            "games": f"{config.num_games} each, {NUM_FRAMES} frames; players are looked for in the "
            f"first {NUM_SEEN}",
            "intervals": "95%, bootstrap over games",
        }
        sections = [
            replace(section, title=f"{game}: {section.title}")
            for game, sections in found.items()
            for section in sections
        ]
        write_report(out, name, summary, sections)
    return found


def read_two_player(out: Path) -> dict[str, list[Section]]:
    """What `evaluate_two_player` wrote to `out`, by game; figures left out. Raises
    FileNotFoundError."""
    found: dict[str, list[Section]] = {}
    for section in read_report(out):
        game, _, title = section.title.partition(": ")
        found.setdefault(game, []).append(replace(section, title=title))
    return found


def _measure(
    name: str,
    model: TwoPlayerModel,
    meaning_SK: np.ndarray,
    game: str,
    config: TwoPlayerEvaluation,
) -> list[Section]:
    """Where it sees both players in no game, that is all there is to say."""
    count, varied = config.num_driven, config.num_varied

    def section(title: str, measure: Callable[[], Section]) -> Section:
        try:
            return measure()
        except PlayersNotSeenError as nobody:
            return Section(title, str(nobody), [])

    try:
        watched = watch(model, game, config.num_games, HELD_OUT)
    except PlayersNotSeenError as nobody:
        none = bootstrap(np.zeros(config.num_games))
        return [Section("Where the players are", str(nobody), [Row(FOUND, none)])]
    sections = [
        places_section(watched),
        codes_section(watched, meaning_SK, halves_codes(model, watched)),
        change_section(model, watched),
        ladder_section(name, watched),
        section("Driven", lambda: driven_section(model, game, meaning_SK, count, HELD_OUT + 1)),
    ]
    if game == "duel":
        sections += [
            section(
                "Made to move",
                lambda: interventions_section(model, meaning_SK, count, HELD_OUT + 2),
            ),
            section(
                "Variations", lambda: variations_section(model, meaning_SK, varied, HELD_OUT + 3)
            ),
            section("Known limits", lambda: limits_section(model, varied, HELD_OUT + 4)),
        ]
    return sections
