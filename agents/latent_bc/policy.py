"""A cloned policy in the real game: frames in, buttons out.

Shapes: B worlds, H W pixels, C = 3, K actions of the policy, A = 6 real ones.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from agents.latent_bc.mapping import ActionMap
from agents.networks import Past, Policy, draw, fingerprint
from agents.score import Act
from genie_env.envs.coinrun import PLAIN_BUTTONS

TEMPERATURE = 0.25
"""The best of 1, 0.5, 0.25 and 0.1 on validation levels, or as good, for nearly every clone."""


class RealPolicy:
    """Args:
    policy: of latent actions; or of `PLAIN_BUTTONS`.
    action_map: what its latent actions press; None for a policy of buttons.
    seed: of what is drawn.
    temperature: of what is drawn; 1 draws as often as it was cloned, less is surer of itself.

    Raises ValueError for a map of another number of actions, or no temperature above 0.
    """

    def __init__(
        self,
        policy: Policy,
        action_map: ActionMap | None = None,
        seed: int | None = None,
        temperature: float = TEMPERATURE,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}; accepted: above 0")
        known = len(PLAIN_BUTTONS) if action_map is None else len(action_map.weight_KA)
        if policy.num_actions != known:
            raise ValueError(
                f"a policy of {policy.num_actions} actions with a map of {known}; accepted: as many"
            )
        self.policy, self.action_map, self.seed = policy, action_map, seed
        self.temperature = temperature
        self._rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: np.ndarray,
        state: Past | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Past]:
        """Buttons of the real game, as SB3's policies give them.

        observation: uint8 (B, H, W, C), or one frame (H, W, C). state: what this returned last.
        episode_start: bool (B,), the worlds that begin an episode. deterministic: the likeliest
        instead of a drawn action.

        Returns ints (B,), or one, and the state. Raises ValueError for frames of another shape.
        """
        obs_BHWC = np.asarray(observation)
        single = obs_BHWC.ndim == 3
        if single:
            obs_BHWC = obs_BHWC[None]
        logits_BK, past = self.policy.logits(obs_BHWC, state, episode_start)
        codes_B = self._decide(logits_BK, deterministic)
        past = past.acted(codes_B)
        if self.action_map is None:
            buttons_B = codes_B
        else:
            chances_BA = self.action_map.chances(logits_BK, codes_B)
            with np.errstate(divide="ignore"):
                logits_BA = np.log(chances_BA)
            buttons_B = self._decide(logits_BA, deterministic)
        pressed_B = np.take(PLAIN_BUTTONS, buttons_B)
        return (pressed_B[0] if single else pressed_B), past

    def _decide(self, logits_BK: np.ndarray, deterministic: bool) -> np.ndarray:
        if deterministic:
            return logits_BK.argmax(-1)
        return draw(logits_BK / self.temperature, self._rng)

    def player(self) -> Act:
        """To be scored with."""
        past: Past | None = None
        last = np.zeros(0, np.int64)

        def act(obs: np.ndarray, worlds: np.ndarray, begin: bool) -> np.ndarray:
            nonlocal past, last
            if begin:
                past = None
            elif past is not None and len(worlds) < len(last):
                past = past.of_worlds(np.searchsorted(last, worlds))
            buttons_B, past = self.predict(obs, past)
            last = worlds
            return buttons_B

        return act

    def fingerprint(self) -> str:
        """Of its weights and map, and the seed and temperature of what it draws."""
        facts = None if self.action_map is None else self.action_map.to_json()
        text = json.dumps([fingerprint(self.policy), facts, self.seed, self.temperature])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, folder: Path, about: dict[str, Any] | None = None) -> None:
        """Policy and map in one folder; `about` is any JSON beside them."""
        self.policy.save(folder, about)
        facts = None if self.action_map is None else self.action_map.to_json()
        (folder / "map.json").write_text(
            json.dumps({"map": facts, "temperature": self.temperature}) + "\n"
        )

    @classmethod
    def load(cls, folder: Path, seed: int | None = None) -> RealPolicy:
        """What `save` wrote. FileNotFoundError where nothing is."""
        policy = Policy.load(folder)
        facts = json.loads((folder / "map.json").read_text())
        known = None if facts["map"] is None else ActionMap.from_json(facts["map"])
        return cls(policy, known, seed, facts["temperature"])
