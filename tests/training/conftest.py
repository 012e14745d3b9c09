"""What tests of training share: the debug experiment with its data."""

from dataclasses import replace

import pytest


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """The debug preset; its training and validation data are collected. Write nothing into them."""
    from training import run as stages
    from training.presets import load_preset

    experiment = load_preset("debug")
    folder = tmp_path_factory.mktemp("data") / "debug"
    experiment = replace(experiment, data=(replace(experiment.data[0], out=str(folder)),))
    stages.collect_missing(experiment)
    return experiment
