"""Predicts in a process of its own, from frames and whole numbers: nothing but the codes can have
told it what comes.

    python -m training.evaluation.two_player.predict MODEL IN.npz OUT.npz

IN: `frames` uint8 (B, T, H, W, C), `codes` int64 (N, B, M, S), N sets of codes. OUT: `foretold`
(B, M) and `told` (N, B, M), mean squared errors of pixels 0..255.
"""

from __future__ import annotations

import sys

import numpy as np

from genie_env.world_model.two_player import TwoPlayerModel


def predict(model: TwoPlayerModel, frames_BTHWC: np.ndarray, codes_NBMS: np.ndarray) -> dict:
    target = frames_BTHWC[:, -codes_NBMS.shape[2] :].astype(np.float32)
    seen = frames_BTHWC.shape[1] - codes_NBMS.shape[2]

    def error(pixels_BMCHW: np.ndarray) -> np.ndarray:
        pixels = (np.moveaxis(pixels_BMCHW, 2, -1) + 1) * 127.5
        return ((pixels - target) ** 2).mean((2, 3, 4))

    told = []
    for codes_BMS in codes_NBMS:
        foretold, with_codes = model.predict(frames_BTHWC, codes_BMS, seen)
        told.append(error(with_codes))
    return {"foretold": error(foretold), "told": np.stack(told)}


if __name__ == "__main__":
    name, given, out = sys.argv[1:]
    with np.load(given) as columns:
        found = predict(TwoPlayerModel.from_pretrained(name), columns["frames"], columns["codes"])
    np.savez(out, **found)
