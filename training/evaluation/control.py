"""Controllability: what the latent actions say of the true ones, and whether the dream does what
the real game would have done.

Shapes: B scenes, T frames, M = T - 1 transitions, P plans, K codes, A buttons, k steps, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from genie_env.world_model import WorldModel
from genie_env.world_model.quantize import perplexity
from training.evaluation.dreams import PROMPT_FRAMES, dream, infer_actions, reconstruct
from training.evaluation.report import matrix_png
from training.evaluation.scenes import BUTTONS, DIRECTION, JUMPS, RealGame, Scenes, effects
from training.evaluation.sections import Figure, Row, Section, bootstrap, share, strips_png
from training.metrics import normalized_mutual_information, scene_shift

PLANS = np.array(BUTTONS)[:, None]
NOOP, JUMP = 0, 3
"""Places in BUTTONS."""
SPLITS = ("jump where possible", "direction on the ground", "direction in the air")
RETRIEVE_AT = (1, 2, 4, 8)
GROUND, AIR = 0, 1
LEAST_SHIFT = 0.5
"""Pixels over the held steps from which a shift counts as one."""


@dataclass(frozen=True)
class Tries:
    """Every distinct effect of a button, tried once from one frame of each scene, and the latent
    action that the model sees in it."""

    scene_X: np.ndarray
    plan_X: np.ndarray
    """Place in BUTTONS of the plainest button with that effect."""
    code_X: np.ndarray
    grounded_X: np.ndarray
    """Whether a jump was possible, so that the agent stood on something."""

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(bool mask over tries, int target) of one of SPLITS."""
        if name == SPLITS[0]:
            return self.grounded_X, np.array([JUMPS[BUTTONS[p]] for p in self.plan_X], int)
        where_X = self.grounded_X if name == SPLITS[1] else ~self.grounded_X
        return where_X, np.array([DIRECTION[BUTTONS[p]] for p in self.plan_X])


def try_all(world: WorldModel, game: RealGame, scenes: Scenes, at: range) -> Tries:
    """Try every button from the frames `at` of each scene."""
    scene, plan, code, grounded = [], [], [], []
    for t in at:
        frames, ended = game.play([states[t] for states in scenes.states], PLANS)
        class_BP = effects(frames[:, :, 0], ended[:, :, 0])
        history = scenes.frames_BTHWC[:, : t + 1]
        b_X, p_X = np.nonzero(class_BP == np.arange(len(PLANS)))
        clips = np.concatenate((history[b_X], frames[b_X, p_X, :1]), 1)
        code.append(infer_actions(world, clips)[:, -1])
        scene.append(b_X)
        plan.append(p_X)
        # An end among the two says nothing of whether a jump was possible: count it as air.
        jump_B = (class_BP[:, JUMP] != class_BP[:, NOOP]) & (class_BP[:, [NOOP, JUMP]] >= 0).all(1)
        grounded.append(jump_B[b_X])
    return Tries(*(np.concatenate(part) for part in (scene, plan, code, grounded)))


@dataclass(frozen=True)
class Mapping:
    """Latent and true actions translated into each other, learnt from labelled tries."""

    to_target: dict[str, dict[int, int]]
    """Per split: code -> its commonest target."""
    to_code_2P: np.ndarray
    """int64 (2, P): on the ground and in the air, the commonest code of each button."""


def learn_mapping(tries: Tries, num_codes: int) -> Mapping:
    """Best map of codes to targets and of buttons to codes. Learn it on other levels than those it
    is used on."""
    to_target = {}
    for name in SPLITS:
        mask_X, target_X = tries.split(name)
        best = {}
        for code in range(num_codes):
            own_X = mask_X & (tries.code_X == code)
            # A code that was never seen means what most tries mean.
            values, counts = np.unique(
                target_X[own_X if own_X.any() else mask_X], return_counts=True
            )
            best[code] = int(values[counts.argmax()]) if len(values) else 0
        to_target[name] = best
    to_code_2P = np.zeros((2, len(BUTTONS)), np.int64)
    for place, where_X in ((GROUND, tries.grounded_X), (AIR, ~tries.grounded_X)):
        count_PK = np.zeros((len(BUTTONS), num_codes))
        np.add.at(count_PK, (tries.plan_X[where_X], tries.code_X[where_X]), 1)
        for p, button in enumerate(BUTTONS):
            # A button that has no effect of its own here does what its plainer twin does.
            twins = [p, *(q for q in range(p) if DIRECTION[BUTTONS[q]] == DIRECTION[button]), 0]
            chosen = next((q for q in twins if count_PK[q].any()), 0)
            to_code_2P[place, p] = count_PK[chosen].argmax()
    return Mapping(to_target, to_code_2P)


def agreement_section(
    world: WorldModel, codes_BM: np.ndarray, tries: Tries, mapping: Mapping, fitted_on: str
) -> Section:
    num_codes = world.config.num_actions
    scenes = np.unique(tries.scene_X)
    rows = [
        Row(
            "perplexity of the codes",
            bootstrap(codes_BM, lambda rows: perplexity(torch.from_numpy(rows), num_codes)),
            beside={"codes": float(num_codes)},
        )
    ]
    for name in SPLITS:
        mask_X, target_X = tries.split(name)
        guess_X = np.array([mapping.to_target[name][code] for code in tries.code_X])
        counts_B2 = np.array(
            [
                [(mask_X & own & (guess_X == target_X)).sum(), (mask_X & own).sum()]
                for own in (tries.scene_X == b for b in scenes)
            ]
        )
        base = np.unique(target_X[mask_X], return_counts=True)[1].max() / mask_X.sum()
        rows.append(
            Row(
                name, bootstrap(counts_B2, share), beside={"base rate": float(base), "ceiling": 1.0}
            )
        )
    count_BPK = np.zeros((len(scenes), len(BUTTONS), num_codes))
    np.add.at(count_BPK, (np.searchsorted(scenes, tries.scene_X), tries.plan_X, tries.code_X), 1)
    rows.append(
        Row(
            "normalised mutual information of code and effect",
            bootstrap(count_BPK, lambda rows: normalized_mutual_information(rows.sum(0))),
        )
    )
    figures = []
    for label, where_X in (("ground", tries.grounded_X), ("air", ~tries.grounded_X)):
        count_PK = np.zeros((6, num_codes))
        chosen = where_X & (tries.plan_X < 6)
        np.add.at(count_PK, (tries.plan_X[chosen], tries.code_X[chosen]), 1)
        figures.append(
            Figure(
                f"codes-{label}",
                f"Share of each latent action among the tries of a button: {label}.",
                matrix_png(
                    count_PK / np.maximum(count_PK.sum(1, keepdims=True), 1),
                    ["none", "left", "right", "jump", "left+jump", "right+jump"],
                    [str(code) for code in range(num_codes)],
                    "{:.2f}",
                ),
            )
        )
    return Section(
        "Agreement with the true actions",
        f"From {len(scenes)} scenes, every button is tried in the real engine for one step; "
        "buttons that lead to exactly equal frames are one effect, and each effect counts once, "
        "so that the behaviour in the data decides nothing. The latent action of the step is "
        "inferred from the past frames and the one it led to. A code stands for the target that "
        f"it had most often on {fitted_on}. Jumps are judged where a jump changes the next "
        "frame; there the agent is on the ground, elsewhere in the air.",
        rows,
        figures,
    )


def retrieval_section(
    world: WorldModel, game: RealGame, scenes: Scenes, mapping: Mapping, at: int, fitted_on: str
) -> Section:
    """Counterfactual retrieval: is the dream of an action nearest to that action's own future?"""
    states = [states[at] for states in scenes.states]
    longest = max(RETRIEVE_AT)
    held = np.repeat(PLANS, longest, 1)
    real, ended = game.play(states, held)
    first_class = effects(real[:, :, 0], ended[:, :, 0])
    can_jump_B = first_class[:, JUMP] != first_class[:, NOOP]
    # Who jumped is in the air for the rest; who did not stays where he was. Known without looking
    # at the future.
    jumps_P = np.array([JUMPS[button] for button in BUTTONS])
    in_air = np.zeros((len(states), len(BUTTONS), longest), int)
    in_air[~can_jump_B] = AIR
    in_air[:, jumps_P, 1:] = AIR
    codes = mapping.to_code_2P[in_air, np.arange(len(BUTTONS))[:, None]]
    prompts = scenes.frames_BTHWC[:, at - PROMPT_FRAMES + 1 : at + 1]
    B, P = len(states), len(BUTTONS)
    # Of plans with equal futures only the plainest is dreamt.
    own_kBP = {
        k: effects(real[:, :, k - 1], ended[:, :, k - 1]) == np.arange(P) for k in RETRIEVE_AT
    }
    b_X, p_X = np.nonzero(np.any(list(own_kBP.values()), 0))
    dreamt = np.zeros_like(real)
    dreamt[b_X, p_X] = dream(
        world,
        prompts[b_X],
        codes[b_X, p_X],
        # The same luck for all plans of a scene: what differs is the action alone.
        seeds=b_X.tolist(),
        what="futures",
    ).frames_BNHWC
    rows = []
    for k, own_BP in own_kBP.items():
        right_B, cases_B, chance_B = np.zeros(B), np.zeros(B), np.zeros(B)
        for b in range(B):
            plans = np.flatnonzero(own_BP[b])
            if len(plans) < 2:
                continue
            ours = dreamt[b, plans, k - 1].astype(np.float32)
            theirs = real[b, plans, k - 1].astype(np.float32)
            error = ((ours[:, None] - theirs[None]) ** 2).mean((-3, -2, -1))
            right_B[b] = (error.argmin(1) == np.arange(len(plans))).sum()
            cases_B[b], chance_B[b] = len(plans), 1
        chance = chance_B.sum() / cases_B.sum()
        rows.append(
            Row(
                f"own future nearest, k = {k}",
                bootstrap(np.stack((right_B, cases_B), 1), share),
                beside={
                    "chance": float(chance),
                    "times chance": share(np.stack((right_B, cases_B), 1)) / float(chance),
                    "distinct futures": float(cases_B.sum() / chance_B.sum()),
                },
            )
        )
    best = np.argsort(-first_class[:, :6].max(1))[:2]
    shown = [np.concatenate((real[b, :6, 3][None], dreamt[b, :6, 3][None])) for b in best]
    return Section(
        "Counterfactual retrieval",
        f"From a saved state of each of {B} scenes every button is held for k steps in the real "
        "engine; equal frames are one future. The same is dreamt with latent actions, by the map "
        f"from button to code learnt on {fitted_on} (one for the ground, one for the air; after a "
        "jump the air's). A hit: of all distinct real futures that of the button that was "
        "dreamt has the least squared error. Plans that end the level are left out.",
        rows,
        [
            Figure(
                "futures",
                "After 4 steps of none, left, right, jump, left+jump, right+jump: real, and below "
                "dreamt.",
                strips_png(np.concatenate(shown), 3),
            )
        ],
    )


def consistency_section(
    world: WorldModel, starts_STHWC: np.ndarray, held_steps: int = 4
) -> Section:
    """Figure 17 of the paper: the same code from many starts. S starts."""
    num_starts, num_codes = len(starts_STHWC), world.config.num_actions
    codes_X = np.repeat(np.arange(num_codes), num_starts)
    dreamt = dream(
        world,
        np.tile(starts_STHWC, (num_codes, 1, 1, 1, 1)),
        np.repeat(codes_X[:, None], held_steps, 1),
        seeds=list(range(num_starts)) * num_codes,
        what="consistency",
    ).frames_BNHWC
    first = reconstruct(world, starts_STHWC)[:, -1:]
    clips = np.concatenate((np.tile(first, (num_codes, 1, 1, 1, 1)), dreamt), 1)
    shift_KS2 = np.array(
        [sum(scene_shift(a, b) for a, b in pairwise(clip)) for clip in clips]
    ).reshape(num_codes, num_starts, 2)
    own_KS2 = shift_KS2 - shift_KS2.mean(0)
    side_KS2 = np.where(np.abs(own_KS2) >= LEAST_SHIFT, np.sign(own_KS2), 0)
    rows = []
    for code in range(num_codes):
        for axis, (name, low, high) in enumerate(
            (("down-up", "up", "down"), ("left-right", "left", "right"))
        ):
            side_S = side_KS2[code, :, axis]
            commoner = 1 if (side_S > 0).sum() >= (side_S < 0).sum() else -1
            rows.append(
                Row(
                    f"code {code}, {name}: starts that go {high if commoner > 0 else low}",
                    bootstrap(side_S == commoner),
                    beside={
                        "median shift (px)": float(np.median(shift_KS2[code, :, axis])),
                        "the same less the start's mean": float(np.median(own_KS2[code, :, axis])),
                    },
                )
            )
    last = dreamt[:, -1].reshape(num_codes, num_starts, *dreamt.shape[2:])[:, :8].swapaxes(0, 1)
    return Section(
        "Consistency",
        f"Each code is held for {held_steps} steps from the same {num_starts} starts with the same "
        "luck. How far the scene went is the sum of the shifts of successive frames, found by "
        "matching their overlap (phase correlation, which the paper's figure suggests, locks on "
        "the still agent and on the walls' pattern). Each start's mean over the codes is taken off "
        "(gravity, speed, camera); then the share of starts on the commoner side is counted, "
        f"shifts under {LEAST_SHIFT} px on neither.",
        rows,
        [
            Figure(
                "consistency",
                "A row a start: the start, then where each code leads.",
                strips_png(np.concatenate((first[:8], last), 1)),
            )
        ],
    )
