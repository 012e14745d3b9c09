"""`genie eval`: measure a world model on levels it never saw, against the real game.

Shapes: B scenes, S starts, T frames, M = T - 1 transitions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genie_env.world_model import WorldModel
from training.data.collect import VALIDATION_LEVELS
from training.evaluation.config import SECTIONS, EvaluationConfig, parse_levels
from training.evaluation.control import (
    agreement_section,
    consistency_section,
    learn_mapping,
    retrieval_section,
    try_all,
)
from training.evaluation.distance import distance_section
from training.evaluation.dreams import PROMPT_FRAMES, futures, infer_actions
from training.evaluation.drift import drift_section
from training.evaluation.fidelity import PREDICT_AT, prediction_section, tokenizer_section
from training.evaluation.outcome import outcome_section
from training.evaluation.prompts import prompt_section
from training.evaluation.report import write_report
from training.evaluation.scenes import RealGame
from training.evaluation.sections import Section


def evaluate(model: str | WorldModel, config: EvaluationConfig, out: str | Path) -> list[Section]:
    """Measure, and write report.html, report.json, report.md and the pictures into `out`.

    Raises:
        ValueError: unknown sections, levels that are no range, a model whose look the real game
            does not have.
        ImportError: the engine is not installed.
    """
    unknown = sorted(set(config.sections) - set(SECTIONS))
    if unknown or not config.sections:
        raise ValueError(f"sections {unknown or 'none'}; known: {', '.join(SECTIONS)}")
    first_level, num_levels = parse_levels(config.levels)
    name = model if isinstance(model, str) else type(model).__name__
    world = WorldModel.from_pretrained(model) if isinstance(model, str) else model
    wanted = config.sections
    if "outcome" in wanted and world.outcome_head is None:
        if wanted != SECTIONS:
            raise ValueError("this model has no outcome head: leave the section `outcome` out")
        wanted = tuple(section for section in SECTIONS if section != "outcome")
    look, frame_skip = world.config.look, world.config.frame_skip
    if look not in ("plain", "full"):
        raise ValueError(
            f"the model was trained on look {look!r}; `genie eval` compares with the real CoinRun, "
            "whose looks are plain and full"
        )

    def game_on(first: int, count: int) -> RealGame:
        return RealGame(look, config.difficulty, first, count, frame_skip)

    game = game_on(first_level, num_levels)
    num_frames = PROMPT_FRAMES + max(PREDICT_AT) + 1
    scenes = game.scenes(config.num_scenes, num_frames, config.seed)
    codes_BM = infer_actions(world, scenes.frames_BTHWC)
    rng = np.random.default_rng(config.seed)
    random_BM = rng.choice(codes_BM.ravel(), size=codes_BM.shape)
    starts_STHWC = scenes.frames_BTHWC[: config.num_starts, :PROMPT_FRAMES]
    sections = []

    if "prediction" in wanted or "distance" in wanted:
        ahead = futures(world, scenes.frames_BTHWC, codes_BM, random_BM)
    if "tokenizer" in wanted:
        sections.append(tokenizer_section(world, game, scenes))
    if "prediction" in wanted:
        sections.append(prediction_section(game, scenes, ahead))
    if "agreement" in wanted or "retrieval" in wanted:
        # Codes are given their meaning on validation levels, never on those reported.
        other = game_on(*VALIDATION_LEVELS)
        labelled = other.scenes(config.num_scenes, num_frames, config.seed + 1)
        tried_at = range(PROMPT_FRAMES + 1, num_frames - 1, 3)
        fitted = try_all(world, other, labelled, tried_at)
        other.close()
        mapping = learn_mapping(fitted, world.config.num_actions)
        first, count = VALIDATION_LEVELS
        fitted_on = f"{len(fitted.code_X)} tries on levels {first} to {first + count - 1}"
        if "agreement" in wanted:
            tries = try_all(world, game, scenes, tried_at)
            sections.append(agreement_section(world, codes_BM, tries, mapping, fitted_on))
        if "retrieval" in wanted:
            sections.append(
                retrieval_section(world, game, scenes, mapping, PROMPT_FRAMES, fitted_on)
            )
    if "consistency" in wanted:
        sections.append(consistency_section(world, starts_STHWC))
    if "distance" in wanted:
        others = game.scenes(config.num_scenes, num_frames, config.seed + 2)
        sections.append(distance_section(ahead, others.frames_BTHWC[:, PROMPT_FRAMES:], config.i3d))
    if "drift" in wanted:
        sections.append(drift_section(world, starts_STHWC, scenes.frames_BTHWC, codes_BM))
    if "prompts" in wanted:
        sections.append(prompt_section(world, starts_STHWC))
    if "outcome" in wanted:
        sections.append(outcome_section(world, game, config.num_scenes, config.seed))
    game.close()
    write_report(
        Path(out),
        name,
        {
            "levels": f"{first_level} to {first_level + num_levels - 1}, {config.difficulty}",
            "look": f"{look}, frame_skip {frame_skip}",
            "scenes": f"{config.num_scenes} clips of {num_frames} frames, the default mix of "
            f"policies, {len(np.unique(scenes.levels_B))} levels; seed {config.seed}",
            "sampling": f"{world.config.sampling.steps} MaskGIT steps, temperature "
            f"{world.config.sampling.temperature}",
            "intervals": "95%, bootstrap over scenes",
        },
        sections,
    )
    return sections
