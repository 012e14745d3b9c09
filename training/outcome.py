"""The outcome head's objective: how likely the next step ends the episode, and how.

The one part of a world model that needs labels: of a few recorded episodes, how each ended. What it
is shown of a frame is what the finished dynamics know of it, so few are enough.

Shapes: E episodes, F frames of all episodes, T frames of one, N tokens in a frame, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from genie_env.world_model import WorldModel
from genie_env.world_model.outcome import DEATH, NOTHING, SUCCESS, OutcomeConfig, OutcomeHead
from training.data import clip_store
from training.data.clip_store import ClipStore, load_labels

_OUTCOME = {clip_store.SUCCESS: SUCCESS, clip_store.DEATH: DEATH, clip_store.TRUNCATION: NOTHING}


@dataclass(frozen=True)
class OutcomeTraining:
    """How the head is trained."""

    episodes: int = 1_000
    """Labelled episodes at most, drawn from the whole store."""
    window: int = 24
    """Of each episode so many frames are used before its end, and up to as many from elsewhere in
    it, which then count for all that are left out."""
    steps: int = 2_000
    batch_size: int = 256
    """Frames in a step."""
    ends: float = 0.25
    """Share of them that end an episode. They count by how common they really are, so that
    chances come out right; more of them only steadies the gradient."""
    learning_rate: float = 2e-3
    """Falls to 0 at the last step."""
    weight_decay: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Episode:
    """A recorded episode whose end is known."""

    frames_THWC: np.ndarray
    """uint8, up to the last frame before the end."""
    outcome: int
    """What the step from the last frame brought, an index into `outcome.OUTCOMES`."""


def labelled_episodes(folders: Sequence[Path], count: int, seed: int = 0) -> list[Episode]:
    """Episodes with their ends, at most `count`, drawn from all that the stores have. Where the
    recording stopped and the episode did not, nothing is known of the last frame: it is left out.

    Raises ValueError where none of them ends in success, or none in death; FileNotFoundError for
    stores without labels.
    """
    store = ClipStore(list(folders), clip_frames=2)
    ends_S = np.concatenate([load_labels(folder, shard).outcomes for folder, shard in store.shards])
    rows = np.flatnonzero(store.segments[:, 2] > 2)
    rows = np.random.default_rng(seed).permutation(rows)[:count]
    for name, end in (("success", clip_store.SUCCESS), ("death", clip_store.DEATH)):
        if not (ends_S[rows] == end).any():
            raise ValueError(
                f"none of {len(rows)} labelled episodes in {', '.join(map(str, folders))} ends in "
                f"{name}"
            )
    return [
        Episode(store.segment(row)[:-1], NOTHING)
        if ends_S[row] == clip_store.CUT
        else Episode(store.segment(row), _OUTCOME[int(ends_S[row])])
        for row in np.sort(rows)
    ]


@torch.no_grad()
def episode_features(model: WorldModel, frames_THWC: np.ndarray, first: int = 0) -> Tensor:
    """What the dynamics know of each frame from `first` on when it has become history: (T - first,
    N, D)."""
    began = max(0, first - model.config.context_frames + 1)
    frames = torch.from_numpy(np.array(frames_THWC[began:]))[None].to(model.device)
    tokens_BTN = model.tokenizer.encode(frames)
    # Nothing lies between the frames of a single one.
    none_BM = tokens_BTN.new_zeros(1, 0)
    codes_BM = model.latent_actions(frames).codes if len(frames[0]) > 1 else none_BM
    return model.dynamics.features(tokens_BTN, codes_BM)[0, first - began :]


def windows(length: int, size: int, rng: np.random.Generator) -> list[tuple[int, int, float]]:
    """(first frame, frame after the last, how many frames each stands for) of the parts of an
    episode to look at: one from anywhere before its end, and the end."""
    before = length - size
    if before <= size:
        return [(0, length, 1.0)]
    # Any place that overlaps: so every frame is as likely in it as every other.
    places = before + size - 1
    first = int(rng.integers(places)) - size + 1
    return [
        (max(0, first), min(before, first + size), places / size),
        (before, length, 1.0),
    ]


def next_outcomes(episode: Episode) -> np.ndarray:
    """What the step from each frame brought: int64 (T,)."""
    outcome_T = np.full(len(episode.frames_THWC), NOTHING)
    outcome_T[-1] = episode.outcome
    return outcome_T


def train_head(
    model: WorldModel,
    episodes: Sequence[Episode],
    config: OutcomeTraining,
    head: OutcomeConfig,
    progress: bool = True,
) -> OutcomeHead:
    """A head for this model, from these episodes. The model itself stays as it is.

    The features of all frames are held in memory, in the model's own type.
    """
    rng = np.random.default_rng(config.seed)
    features, outcomes, weights = [], [], []
    for episode in tqdm(episodes, desc="labelled episodes", disable=not progress):
        outcome_T = next_outcomes(episode)
        for first, end, weight in windows(len(outcome_T), config.window, rng):
            features.append(episode_features(model, episode.frames_THWC[:end], first).cpu())
            outcomes.append(outcome_T[first:end])
            weights.append(np.full(end - first, weight))
    features_FND, outcome_F, weight_F = (
        torch.cat(features),
        np.concatenate(outcomes),
        np.concatenate(weights),
    )
    torch.manual_seed(config.seed)
    trained = OutcomeHead(head, *features_FND.shape[1:]).to(model.device)
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    num_ends = round(config.ends * config.batch_size)
    counts = num_ends, config.batch_size - num_ends
    # Of each group: its frames, how likely each is drawn, and what all of it is worth.
    groups = []
    for group in (np.flatnonzero(outcome_F != NOTHING), np.flatnonzero(outcome_F == NOTHING)):
        share = weight_F[group].sum()
        groups.append((group, weight_F[group] / share, share / weight_F.sum()))
    worth = np.repeat(
        [s * config.batch_size / n for (*_, s), n in zip(groups, counts, strict=True)], counts
    )
    worth_B = torch.from_numpy(worth).float().to(model.device)
    target_F = torch.from_numpy(outcome_F)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        drawn = np.concatenate(
            [rng.choice(g, n, p=p) for (g, p, _), n in zip(groups, counts, strict=True)]
        )
        logits = trained(features_FND[drawn].to(model.device).float())
        loss_B = F.cross_entropy(logits, target_F[drawn].to(model.device), reduction="none")
        loss = (loss_B * worth_B).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return trained.eval()
