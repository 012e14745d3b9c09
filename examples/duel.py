"""Two players in one dream: each row of the picture has one of the nine pairs of codes, held.

python examples/duel.py --out duel.png
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

import genie_env


@dataclass
class Options:
    out: Path = Path("duel.png")
    model: str = "duel"
    """Name of a shipped checkpoint, a folder, or a hub id."""
    steps: int = 6
    seed: int = 0
    """Of the start that is drawn."""


def main(options: Options) -> None:
    env = genie_env.parallel_env(model=options.model)
    first, second = env.possible_agents
    rows = []
    for codes in product(range(env.action_space(first).n), range(env.action_space(second).n)):
        obs, infos = env.reset(seed=options.seed)
        frames = [obs[first]]
        for _ in range(options.steps):
            obs, *_ = env.step({first: codes[0], second: codes[1]})
            frames.append(obs[first])
        rows.append(np.concatenate(frames, 1))
    for agent in env.possible_agents:
        x, y = infos[agent]["position"]
        print(f"{agent} begins at {x:.0f}, {y:.0f}")
    picture = Image.fromarray(np.concatenate(rows, 0))
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(
        options.out
    )
    print(f"{len(rows)} pairs of codes: {options.out}")
    env.close()


if __name__ == "__main__":
    main(tyro.cli(Options))
