"""A run goes on only with the config that it began with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def remember(config: Any, path: Path, apart: Sequence[str] = (), **more: str) -> None:
    """Write a dataclass beside its run (its folder is made), and what else the run rests on; the
    fields `apart` may change.

    Raises ValueError where the run began with another one.
    """
    written = {key: value for key, value in asdict(config).items() if key not in apart} | more
    text = json.dumps(written, indent=2, default=str) + "\n"
    if path.exists() and json.loads(path.read_text()) != json.loads(text):
        raise ValueError(
            f"{path.parent} was begun with another config (see {path}): name another folder, or go "
            "on with the config and code it began with"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
