"""Train an agent inside the dream, and see what it is worth in the real game.

What keeps a dream honest (Ha and Schmidhuber, 2018, arXiv 1803.10122): sampled at temperature 1 or
above, begun from many real frames, cut short with the value of the rest bootstrapped, and checked
against the real game under the same actions while it trains.

Shapes: B worlds, T frames, H W pixels, C = 3, h w the token grid, E latent width, K latent actions,
S scenes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dacite
import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor, VecNormalize
from torch import nn

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from agents.config import DreamConfig
from agents.latent_bc.mapping import learn_dictionary
from agents.sb3 import SB3VecEnv
from agents.score import Levels, score_buttons, solved
from agents.tokenized import TokenizedCoinRun
from genie_env.envs.coinrun import CoinRunVectorEnv
from genie_env.world_model import WorldModel
from training.data.clip_store import ClipLabels, ClipStore
from training.data.collect import VALIDATION_LEVELS, CollectConfig, collect
from training.evaluation.config import parse_levels
from training.evaluation.dreams import PROMPT_FRAMES, infer_actions
from training.evaluation.scenes import RealGame, Scenes

CHECK_SCENES = 64
GRACE = 3
"""Steps for which the real game may still end after the dream did: nobody is exact to a frame, and
actions chosen from what is dreamt after an end mean nothing."""
GIF_ZOOM, GIF_FRAME_MS = 3, 120


class LatentCNN(BaseFeaturesExtractor):
    """Token latents (h, w, E), stacked frames in the last axis, to features."""

    def __init__(self, space: gym.spaces.Box, features_dim: int = 256) -> None:
        super().__init__(space, features_dim)
        height, width, channels = space.shape
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.out = nn.Sequential(nn.Linear(64 * height * width, features_dim), nn.ReLU())

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.out(self.convolutions(latents.movedim(-1, 1)))


def film(config: DreamConfig, model: WorldModel) -> ClipStore:
    """Video of the real game on training levels, recorded once for each run."""
    folder = collect(
        CollectConfig(
            out=str(config.run / "footage"),
            num_frames=16 * max(config.num_starts, config.labels // 4),
            look=model.config.look,
            difficulty=config.difficulty,
            frame_skip=model.config.frame_skip,
            seed=config.seed + 1,
        )
    )
    return ClipStore(folder, PROMPT_FRAMES)


def draw_starts(config: DreamConfig, store: ClipStore) -> list[np.ndarray]:
    """What dreams begin with, uint8 (T, H, W, 3) each."""
    rng = np.random.default_rng(config.seed)
    return list(store.clips(rng.choice(len(store), config.num_starts, replace=False)))


def name_actions(config: DreamConfig, model: WorldModel, store: ClipStore) -> np.ndarray:
    """The real action of each latent one, int (K,), from `config.labels` transitions."""
    rng = np.random.default_rng(config.seed + 1)
    labelled = rng.choice(len(store), config.labels, replace=False)
    # Of a labelled clip only the last transition is read: the codes before it have less past.
    codes_X = infer_actions(model, store.clips(labelled))[:, -1]
    return learn_dictionary(
        codes_X, ClipLabels(store).actions(labelled)[:, -1], model.config.num_actions
    )


def load_model(config: DreamConfig) -> WorldModel:
    """ValueError for a world model whose dreams hold no reward."""
    model = WorldModel.from_pretrained(config.model)
    if config.world == "dream" and model.config.outcome is None:
        raise ValueError(
            f"{config.model} has no outcome head, so its dreams hold no reward: train one "
            f"(`genie train outcome --run RUN --change start_from={config.model}`), name RUN/model"
        )
    return model


def make_worlds(
    config: DreamConfig,
    model: WorldModel,
    starts: list[np.ndarray],
    button_K: np.ndarray | None,
) -> VecEnv:
    """What the agent trains in."""
    env: Any
    if config.world == "dream":
        env = gym.make_vec(
            "GenieEnv-v0",
            num_envs=config.num_worlds,
            model=model,
            prompt=starts,
            reward="learned",
            observation="latents",
            max_episode_steps=config.horizon,
            temperature=config.temperature,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    else:
        env = TokenizedCoinRun(
            model,
            button_K,
            num_envs=config.num_worlds,
            difficulty=config.difficulty,
            seed=config.seed,
        )
    return VecFrameStack(VecMonitor(SB3VecEnv(env)), config.frame_stack)


def train(config: DreamConfig) -> PPO:
    """Train with PPO; ends with `run/agent.zip`. Resumes from its last save where it stopped, with
    fresh worlds.

    Raises ValueError for a model whose dreams hold no reward, or a run of another config.
    """
    model = load_model(config)
    config.run.mkdir(parents=True, exist_ok=True)
    written = {key: value for key, value in asdict(config).items() if key not in ("run", "steps")}
    path = config.run / "agent.json"
    if path.exists() and json.loads(path.read_text())["config"] != written:
        raise ValueError(f"{config.run} holds an agent of another config (see {path})")
    starts, button_K = [], None
    if config.world != "real":
        store = film(config, model)
        starts, button_K = draw_starts(config, store), name_actions(config, model, store)
    # Beside the weights: what is needed to take the agent into the real game.
    about = {"config": written, "buttons": None if button_K is None else button_K.tolist()}
    path.write_text(json.dumps(about, indent=2) + "\n")

    worlds = make_worlds(config, model, starts, button_K)
    saves = _saves(config.run)
    if saves:
        steps = max(saves)
        worlds = VecNormalize.load(str(_scale_path(config.run, steps)), worlds)
        agent = PPO.load(saves[steps], worlds)
        # Else every sitting would begin with the luck of the first.
        agent.set_random_seed(config.seed + steps)
        print(f"resumed from {saves[steps]}")
    else:
        worlds = VecNormalize(worlds, norm_obs=False, gamma=config.discount)
        agent = PPO(
            "MlpPolicy",
            worlds,
            n_steps=config.rollout_steps,
            batch_size=config.batch_size,
            n_epochs=config.epochs,
            learning_rate=config.learning_rate,
            gamma=config.discount,
            ent_coef=config.entropy,
            policy_kwargs={"features_extractor_class": LatentCNN, "net_arch": []},
            tensorboard_log=str(config.run / "tensorboard"),
            seed=config.seed,
        )
    every = max(1, config.check_every // config.num_worlds)
    callbacks: list[BaseCallback] = [
        CheckpointCallback(every, str(config.run), "agent", save_vecnormalize=True)
    ]
    if config.world == "dream" and button_K is not None:
        callbacks.append(RealCheck(config, model, button_K, every))
    left = config.steps - agent.num_timesteps
    if left > 0:
        agent.learn(left, callbacks, reset_num_timesteps=not saves, progress_bar=True)
        agent.save(_agent_path(config.run, agent.num_timesteps))
        worlds.save(str(_scale_path(config.run, agent.num_timesteps)))
    agent.save(config.run / "agent.zip")
    worlds.close()
    return agent


def _agent_path(run: Path, steps: int) -> Path:
    """As SB3's `CheckpointCallback` names it."""
    return run / f"agent_{steps}_steps.zip"


def _scale_path(run: Path, steps: int) -> Path:
    return run / f"agent_vecnormalize_{steps}_steps.pkl"


def _saves(run: Path) -> dict[int, Path]:
    """Steps -> saved agent, where the scale of its rewards was saved too (it comes second)."""
    found = {int(path.stem.split("_")[1]): path for path in run.glob("agent_*_steps.zip")}
    return {steps: path for steps, path in found.items() if _scale_path(run, steps).exists()}


class RealCheck(BaseCallback):
    """Now and then the agent dreams from real scenes whose engine states are known, and the real
    game is given the same actions. Logged as `check/dream_return`, `check/real_return`, and kept
    in `run/check.jsonl`."""

    def __init__(
        self, config: DreamConfig, model: WorldModel, button_K: np.ndarray, every: int
    ) -> None:
        super().__init__()
        self._config, self._model, self._button_K, self._every = config, model, button_K, every
        game = real_game(config.difficulty, model, *VALIDATION_LEVELS)
        self._scenes = game.scenes(CHECK_SCENES, PROMPT_FRAMES, config.seed)
        game.close()

    def _on_step(self) -> bool:
        if self.n_calls % self._every == 0:
            # The agent's choices draw from torch's own generator: a look changes no training.
            with torch.random.fork_rng():
                pairs = dream_beside_real(
                    self.model, self._model, self._button_K, self._scenes, self._config
                )
            found = {
                "dream_return": float(pairs.dream_S.mean()),
                "real_return": float(pairs.real_S.mean()),
                "dream_ends": float(pairs.dream_end_S.mean()),
                "real_ends": float(pairs.real_end_S.mean()),
            }
            for key, value in found.items():
                self.logger.record(f"check/{key}", value)
            with (self._config.run / "check.jsonl").open("a") as file:
                file.write(json.dumps({"steps": self.num_timesteps, **found}) + "\n")
        return True


@dataclass(frozen=True)
class Pairs:
    """The same actions from the same scenes in the dream and in the real game, until either has
    ended (the dream and `GRACE` steps) or the horizon."""

    dream_S: np.ndarray
    real_S: np.ndarray
    """Return."""
    dream_end_S: np.ndarray
    real_end_S: np.ndarray
    """bool: whether it ended."""
    dream_frames: list[np.ndarray]
    real_frames: list[np.ndarray]
    """uint8 (S, H, W, 3) a step, if asked for; after an end the last frame."""


def real_game(difficulty: str, model: WorldModel, first_level: int, num_levels: int) -> RealGame:
    """The game as this model's video showed it."""
    config = model.config
    return RealGame(config.look, difficulty, first_level, num_levels, config.frame_skip)


def dream_beside_real(
    agent: BaseAlgorithm,
    model: WorldModel,
    button_K: np.ndarray,
    scenes: Scenes,
    config: DreamConfig,
    with_frames: bool = False,
) -> Pairs:
    """Dream from each scene with the agent choosing, and play the same in the real game."""
    count = len(scenes.frames_BTHWC)
    worlds = model.start(scenes.frames_BTHWC, seeds=range(count), decode=with_frames)
    real = CoinRunVectorEnv(
        count, model.config.look, config.difficulty, frame_skip=model.config.frame_skip
    )
    shown, _ = real.reset(options={"states": [states[-1] for states in scenes.states]})
    latents = model.latents(worlds)
    stack = np.concatenate([np.zeros_like(latents)] * (config.frame_stack - 1) + [latents], -1)
    returns = {"dream": np.zeros(count), "real": np.zeros(count)}
    over = {"dream": np.zeros(count, bool), "real": np.zeros(count, bool)}
    left_S = np.full(count, GRACE)
    frames: dict[str, list[np.ndarray]] = {"dream": [], "real": []}
    for _ in range(config.horizon):
        codes_S, _ = agent.predict(stack)
        model.step(worlds, codes_S, temperature=config.temperature)
        next_shown, reward_S, terminated_S, truncated_S, _ = real.step(button_K[codes_S])
        left_S -= over["dream"]
        going = {"dream": ~over["dream"], "real": ~over["real"] & (left_S > 0)}
        ends = {
            "dream": model.outcome(worlds),
            "real": (reward_S, terminated_S | truncated_S),
        }
        for where, (paid_S, ended_S) in ends.items():
            returns[where] += np.where(going[where], paid_S, 0.0)
            over[where] |= going[where] & ended_S
        shown = np.where((going["real"] & ~over["real"])[:, None, None, None], next_shown, shown)
        if with_frames:
            now = model.render(worlds)
            last = frames["dream"][-1] if frames["dream"] else now
            frames["dream"].append(np.where(going["dream"][:, None, None, None], now, last))
            frames["real"].append(shown)
        latents = model.latents(worlds)
        stack = np.concatenate((stack[..., latents.shape[-1] :], latents), -1)
        if not (going["dream"] | going["real"]).any():
            break
    real.close()
    return Pairs(
        returns["dream"],
        returns["real"],
        over["dream"],
        over["real"],
        frames["dream"],
        frames["real"],
    )


@dataclass(frozen=True)
class Trained:
    """A finished agent and what it needs to play."""

    config: DreamConfig
    button_K: np.ndarray | None
    """Its real action for each latent one; None: it was trained on real actions."""


def read_about(run: Path) -> Trained:
    """FileNotFoundError where there is no finished agent."""
    if not (run / "agent.zip").exists():
        raise FileNotFoundError(f"{run} has no finished agent: `genie dream train --run {run}`")
    about = json.loads((run / "agent.json").read_text())
    config = dacite.from_dict(DreamConfig, about["config"] | {"run": run})
    return Trained(config, None if about["buttons"] is None else np.array(about["buttons"]))


def score(
    runs: Sequence[Path], levels: str = "20000-20999", buttons: bool = True
) -> dict[str, np.ndarray]:
    """Which of the real levels the agents of these runs solve, bool (L,) each, beside policies that
    only press buttons.

    Raises FileNotFoundError for a run without a finished agent; ValueError for runs whose agents
    live in different games, or levels that are no range.
    """
    about = {run: read_about(run) for run in runs}
    models = {run: load_model(trained.config) for run, trained in about.items()}
    games = {(models[run].config.look, about[run].config.difficulty) for run in runs}
    if len(games) != 1:
        raise ValueError(f"the agents live in different games: {sorted(games)}; score them apart")
    (look, difficulty) = games.pop()
    held_out = Levels(look, difficulty, *parse_levels(levels))
    scores = score_buttons(held_out) if buttons else {}
    for run, trained in about.items():
        agent = PPO.load(run / "agent.zip", device="cpu")
        name = f"PPO, {agent.num_timesteps:,} steps in the {trained.config.world} ({run})"
        scores[name] = solved(
            partial(_chosen, agent),
            partial(_held_out_env, trained, models[run]),
            held_out,
            what=str(run),
        )
    return scores


def _chosen(agent: BaseAlgorithm, obs: np.ndarray, worlds: np.ndarray, begin: bool) -> np.ndarray:
    return agent.predict(obs)[0]


def _held_out_env(trained: Trained, model: WorldModel, num_envs: int) -> VecEnv:
    env = TokenizedCoinRun(
        model, trained.button_K, num_envs=num_envs, difficulty=trained.config.difficulty
    )
    return VecFrameStack(SB3VecEnv(env), trained.config.frame_stack)


def film_side_by_side(run: Path, num_scenes: int = 4, seed: int = 0) -> Path:
    """`run/side_by_side.gif`: the agent dreaming from real scenes of levels 20,000 and above (left)
    and the real game under the same actions (right). ValueError for an agent of real actions."""
    trained = read_about(run)
    if trained.button_K is None:
        raise ValueError(f"the agent of {run} plays real actions: it cannot play in the dream")
    model = load_model(trained.config)
    game = real_game(trained.config.difficulty, model, 20_000, 1_000)
    scenes = game.scenes(num_scenes, PROMPT_FRAMES, seed)
    game.close()
    agent = PPO.load(run / "agent.zip", device="cpu")
    pairs = dream_beside_real(
        agent, model, trained.button_K, scenes, trained.config, with_frames=True
    )
    path = run / "side_by_side.gif"
    images = []
    for dreamt_SHWC, real_SHWC in zip(pairs.dream_frames, pairs.real_frames, strict=True):
        sheet = np.concatenate(np.concatenate((dreamt_SHWC, real_SHWC), 2))
        images.append(Image.fromarray(sheet.repeat(GIF_ZOOM, 0).repeat(GIF_ZOOM, 1)))
    images[0].save(path, save_all=True, append_images=images[1:], duration=GIF_FRAME_MS, loop=0)
    return path
