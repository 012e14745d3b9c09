"""Dreams a few hundred frames with the shipped checkpoint, no window needed.

Writes OUT/genie.gif (several starts at once, all given the same latent action) and
OUT/contact_sheet.png (above, the starts and a sketch over time; below, one start under each
latent action held), and prints the measured frames a second.

    python examples/demo.py --steps 320 --out demo
"""

import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

import genie_env  # noqa: F401  (registers GenieEnv-v0)

SKETCH = Path(__file__).with_name("sketch.png")
NUM_STARTS = 4
HOLD = 5  # steps for which the GIF holds an action
HELD = 8  # steps for which the sheet's lower block holds one
COLUMNS = 10
GIF_ZOOM, SHEET_ZOOM = 4, 2
GIF_FRAME_MS = 100
MARGIN = 24  # pixels for captions
FONT = ImageFont.load_default(size=16)


def main(out: Path = Path("demo"), steps: int = 320, model: str = "coinrun-plain", seed: int = 0):
    """Makes the demo.

    Args:
        out: folder to write to.
        steps: environment steps of the GIF, over its four starts together.
        model: a shipped checkpoint's name, a folder or a hub id.
        seed: of starts, actions and sampling.
    """
    out.mkdir(parents=True, exist_ok=True)
    # The world without ends: what is shown is how it goes on.
    env = gym.make("GenieEnv-v0", model=model, reward="none", render_mode="rgb_array")
    num_actions = int(env.action_space.n)
    num_steps = max(1, steps // NUM_STARTS)
    # Every code equally often, each in a new order: a code's effect shows after each other code.
    rng = np.random.default_rng(seed)
    num_rounds = -(-num_steps // (num_actions * HOLD))
    codes = np.concatenate([rng.permutation(num_actions) for _ in range(num_rounds)])
    actions = codes.repeat(HOLD)[:num_steps].tolist()

    prompts = pick_starts(env, seed)
    started = time.perf_counter()
    dreams = [dream(env, prompt, actions, seed) for prompt in prompts]
    seconds = time.perf_counter() - started  # starting from the prompts included
    sketched = dream(env, str(SKETCH), actions, seed)
    held = [dream(env, prompts[0], [code] * HELD, seed) for code in range(num_actions)]
    env.close()

    write_gif(out / "genie.gif", dreams, actions)
    write_sheet(
        out / "contact_sheet.png",
        dict(zip([*prompts, SKETCH.name], [*dreams, sketched], strict=True)),
        {f"action {code}": frames for code, frames in enumerate(held)},
        what_held=f"{prompts[0]}, each latent action held",
    )
    num_frames = len(dreams) * num_steps
    print(f"{num_frames} steps in {seconds:.1f} s: {num_frames / seconds:.1f} frames a second")
    print(f"wrote {out / 'genie.gif'} and {out / 'contact_sheet.png'}")


def pick_starts(env: gym.Env, seed: int) -> list[str]:
    """Up to NUM_STARTS different ones of the starts that ship with the model."""
    env.reset(seed=seed)
    names = [env.reset()[1]["prompt"] for _ in range(20 * NUM_STARTS)]
    return list(dict.fromkeys(names))[:NUM_STARTS]


def dream(env: gym.Env, prompt: str, actions: list[int], seed: int) -> list[np.ndarray]:
    """The start and a frame an action, each uint8 (H, W, 3)."""
    frames = [env.reset(seed=seed, options={"prompt": prompt})[0]]
    for action in actions:
        obs, *_ = env.step(action)
        frames.append(obs)
    return frames


def enlarge(frame_HWC: np.ndarray, zoom: int) -> Image.Image:
    return Image.fromarray(frame_HWC.repeat(zoom, axis=0).repeat(zoom, axis=1))


def write_gif(path: Path, dreams: list[list[np.ndarray]], actions: list[int]) -> None:
    """All dreams at once, two in a row, with the action that led to each frame above them."""
    side = dreams[0][0].shape[0] * GIF_ZOOM
    images = []
    for t, frames in enumerate(zip(*dreams, strict=True)):
        image = Image.new("RGB", (2 * side, MARGIN + (len(dreams) + 1) // 2 * side))
        caption = "start" if t == 0 else f"latent action {actions[t - 1]}"
        ImageDraw.Draw(image).text((4, 2), caption, "white", FONT)
        for i, frame_HWC in enumerate(frames):
            image.paste(enlarge(frame_HWC, GIF_ZOOM), (i % 2 * side, MARGIN + i // 2 * side))
        # Few colours and no dithering: the noise of dithering would be most of the file.
        images.append(image.quantize(64, dither=Image.Dither.NONE))
    images[0].save(path, save_all=True, append_images=images[1:], duration=GIF_FRAME_MS, loop=0)


def write_sheet(
    path: Path,
    dreams: dict[str, list[np.ndarray]],
    held: dict[str, list[np.ndarray]],
    what_held: str,
) -> None:
    """Two blocks, a named row each: dreams over their whole time, held actions step by step."""
    last = len(next(iter(dreams.values()))) - 1
    blocks = [
        ("starts over time", dreams, np.linspace(0, last, COLUMNS).round().astype(int).tolist()),
        (what_held, held, list(range(HELD + 1))),
    ]
    side = SHEET_ZOOM * len(next(iter(held.values()))[0])
    pitch, left = side + 2, 4 * MARGIN
    height = sum(2 * MARGIN + len(rows) * pitch for _, rows, _ in blocks)
    image = Image.new("RGB", (left + COLUMNS * pitch, height), "#303030")
    draw = ImageDraw.Draw(image)
    y = 0
    for title, rows, times in blocks:
        draw.text((4, y + 2), title, "white", FONT)
        for column, t in enumerate(times):
            draw.text((left + column * pitch, y + MARGIN), f"t={t}", "white", FONT)
        y += 2 * MARGIN
        for name, frames in rows.items():
            draw.text((4, y + side // 2 - 8), name, "white", FONT)
            for column, t in enumerate(times):
                image.paste(enlarge(frames[t], SHEET_ZOOM), (left + column * pitch, y))
            y += pitch
    image.save(path)


if __name__ == "__main__":
    tyro.cli(main)
