"""The package as a whole: what importing it costs, and which way imports run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room and the rooms it may not import; imports run cli -> agents -> training ->
# genie_env.envs -> genie_env.world_model.
FORBIDDEN = {
    "genie_env.world_model": ("genie_env.envs", "genie_env.play", "training", "agents"),
    "genie_env.envs": ("genie_env.play", "training", "agents"),
    "genie_env.play": ("genie_env.world_model", "training", "agents"),
    "training": ("genie_env.play", "agents"),
    "agents": ("genie_env.play",),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily or not, by its full name."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_one_way(room):
    upward = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in ROOT.joinpath(*room.split(".")).rglob("*.py")
        for module in imports(path)
        for above in (*FORBIDDEN[room], "genie_env.cli")
        if is_within(module, above)
    ]
    assert not upward


def test_the_import_reader_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "genie_env" / "envs").mkdir(parents=True)
    path = tmp_path / "genie_env" / "envs" / "a.py"
    path.write_text(
        "import training.loop\nfrom genie_env import cli\nfrom ..play import game\n"
        "def f():\n    from . import b\n"
    )
    assert set(imports(path)) == {
        "training.loop",
        "genie_env.cli",
        "genie_env.play.game",
        "genie_env.envs.b",
    }


def test_importing_genie_env_imports_no_torch():
    code = (
        "import sys, genie_env, gymnasium; "
        "heavy = {'torch', 'pygame', 'procgen', 'av', 'stable_baselines3'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "assert gymnasium.spec('GenieEnv-v0').entry_point == 'genie_env.envs.single:GenieEnv'; "
        "assert genie_env.__version__"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_version_is_that_of_pyproject():
    import tomllib

    import genie_env

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert genie_env.__version__ == project["version"]
