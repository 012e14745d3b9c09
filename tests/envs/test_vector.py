"""GenieVectorEnv: the same worlds as single environments, together."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from genie_env.envs import vector
from genie_env.envs.vector import GenieVectorEnv

B = 4


@pytest.fixture(scope="module")
def prompts(tiny_model):
    """Starts of different lengths: worlds that begin together need not be alike."""
    size = tiny_model.config.frame_size
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (t, size, size, 3), dtype=np.uint8) for t in (1, 2, 2, 3)]


@pytest.fixture
def make(tiny_model, prompts):
    def make(num_envs=B, **kwargs) -> GenieVectorEnv:
        kwargs = {"model": tiny_model, "prompt": prompts} | kwargs
        return gym.make_vec("GenieEnv-v0", num_envs=num_envs, **kwargs)

    return make


def drawn_actions(steps, num_envs=B):
    return np.random.default_rng(1).integers(8, size=(steps, num_envs))


def near(a, b):
    """Equal, but for a pixel in a thousand: batched sums are rounded in another order."""
    return a.shape == b.shape and (np.asarray(a) != np.asarray(b)).mean() < 1e-3


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_equals_single_environments(make, tiny_model, prompts, mode):
    single = SyncVectorEnv(
        [lambda: gym.make("GenieEnv-v0", model=tiny_model, prompt=prompts, max_episode_steps=5)]
        * B,
        autoreset_mode=mode,
    )
    batched = make(max_episode_steps=5, autoreset_mode=mode)
    assert batched.metadata["autoreset_mode"] == mode
    (ours, info), (theirs, their_info) = batched.reset(seed=3), single.reset(seed=3)
    assert near(ours, theirs)
    assert list(info["prompt"]) == list(their_info["prompt"])
    for actions_B in drawn_actions(14):
        ours, theirs = batched.step(actions_B), single.step(actions_B)
        assert near(ours[0], theirs[0])
        for mine, other in zip(ours[1:4], theirs[1:4], strict=True):
            assert mine.dtype == other.dtype and (mine == other).all()
        assert set(ours[4]) == set(theirs[4])
        for key in ("token_entropy", "final_obs"):
            if key in theirs[4]:
                assert (ours[4]["_" + key] == theirs[4]["_" + key]).all()
                for b in np.flatnonzero(theirs[4]["_" + key]):
                    np.testing.assert_allclose(
                        ours[4][key][b].astype(float), theirs[4][key][b].astype(float), atol=1e-2
                    )


def test_a_world_does_not_depend_on_its_neighbours(make):
    few, many = make(2), make(7)
    assert near(few.reset(seed=[5, 6])[0], many.reset(seed=[5, 6, 1, 2, 3, 4, 9])[0][:2])
    for actions_B in drawn_actions(6, 7):
        assert near(few.step(actions_B[:2])[0], many.step(actions_B)[0][:2])


def test_seeds_repeat_a_rollout_and_runs_go_on_without(make):
    def rollout(env, seed):
        return [env.reset(seed=seed)[0], *(env.step(a)[0] for a in drawn_actions(4))]

    env, other = make(max_episode_steps=3), make(max_episode_steps=3)
    first = rollout(env, 1)
    assert all((a == b).all() for a, b in zip(first, rollout(other, 1), strict=True))
    unseeded = rollout(env, None)
    assert all((a == b).all() for a, b in zip(unseeded, rollout(other, None), strict=True))
    assert not all((a == b).all() for a, b in zip(first, unseeded, strict=True))


def test_partial_reset_leaves_the_others_alone(make):
    env, undisturbed = make(), make()
    mask_B = np.array([False, True, False, True])
    for each in (env, undisturbed):
        each.reset(seed=0)
        each.step(np.zeros(B, int))
    obs, info = env.reset(options={"reset_mask": mask_B})
    assert (info["_prompt"] == mask_B).all()
    for actions_B in drawn_actions(5):
        expected = undisturbed.step(actions_B)[0]
        obs = env.step(actions_B)[0]
        assert near(obs[~mask_B], expected[~mask_B])
        assert not near(obs[mask_B], expected[mask_B])


def test_disabled_autoreset_asks_for_a_reset(make):
    env = make(autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=2)
    env.reset(seed=0)
    env.step(np.zeros(B, int))
    assert env.step(np.zeros(B, int))[3].all()
    with pytest.raises(ResetNeeded, match=r"worlds \[0, 1, 2, 3\] are at their end"):
        env.step(np.zeros(B, int))
    env.reset(options={"reset_mask": np.ones(B, bool)})
    assert not env.step(np.zeros(B, int))[3].any()


def test_latents_are_the_same_worlds_without_pixels(make, tiny_model, monkeypatch):
    frames, latents = make(max_episode_steps=4), make(max_episode_steps=4, observation="latents")
    shown = make(max_episode_steps=4, observation="latents", render_mode="rgb_array")
    for env in (frames, latents, shown):
        env.reset(seed=2)
    assert latents.single_observation_space.shape == (4, 4, 3)
    for actions_B in drawn_actions(9):
        pixels = frames.step(actions_B)[0]
        seen = latents.step(actions_B)[0]
        assert seen in latents.observation_space and seen.dtype == np.float32
        assert (seen == shown.step(actions_B)[0]).all()
        assert near(np.stack(shown.render()), pixels)
    decoded = []
    monkeypatch.setattr(tiny_model.tokenizer, "decode_step", lambda *a: decoded.append(1))
    latents.step(np.zeros(B, int))
    assert not decoded and latents.render() is None


def test_spaces_and_fresh_arrays(make):
    env = make(render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space and len(env.render()) == B
    kept = obs.copy()
    obs[:] = 0
    assert (np.stack(env.render()) == kept).all()
    stepped, reward_B, terminated_B, truncated_B, info = env.step(np.zeros(B, int))
    assert stepped in env.observation_space
    assert (reward_B.dtype, terminated_B.dtype, truncated_B.dtype) == (float, bool, bool)
    assert (info["token_entropy"] > 0).all() and (info["step_ms"] > 0).all()
    assert not truncated_B.any() and reward_B.sum() == 0


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs=0; accepted: an integer >= 1"),
        ({"num_envs": 2.5}, ValueError, "num_envs=2.5"),
        ({"max_episode_steps": -1}, ValueError, "max_episode_steps=-1"),
        ({"observation": "sound"}, ValueError, "'sound'; accepted: frames, latents"),
        ({"render_mode": "human"}, ValueError, "'human'; accepted: None, 'rgb_array'"),
        ({"temperature": -1.0}, ValueError, "temperature=-1.0; accepted"),
        ({"prompt": []}, ValueError, "empty list"),
    ],
)
def test_bad_arguments(tiny_model, prompts, kwargs, error, message):
    with pytest.raises(error, match=message):
        GenieVectorEnv(**{"num_envs": 2, "model": tiny_model, "prompt": prompts} | kwargs)


def test_too_many_worlds_for_the_memory(tiny_model, prompts, monkeypatch):
    monkeypatch.setattr(vector, "world_bytes", lambda *_: 2**40)
    with pytest.raises(MemoryError, match=r"2 worlds need 2048.0 GiB .* at most 0 worlds fit"):
        GenieVectorEnv(2, prompt=prompts, model=tiny_model)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1], r"shape \(2,\)"),
        ([0, 1, 2, 8], "from 0 to 8; accepted: 0 to 7"),
        ([0, 1, 2, -1], "from -1 to 2"),
        ([0.0, 1.0, 2.0, 3.0], "dtype float64"),
        ([[0, 1, 2, 3]], r"shape \(1, 4\)"),
    ],
)
def test_bad_actions(make, actions, message):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"seed": [1, 2]}, ValueError, "2 seeds for 4 worlds"),
        ({"options": {"level": 3}}, ValueError, "unknown reset options .'level'."),
        ({"options": {"reset_mask": [True] * 4}}, TypeError, "NumPy array of bool"),
        ({"options": {"reset_mask": np.zeros(4, bool)}}, ValueError, "at least one True"),
        ({"options": {"reset_mask": np.ones(3, bool)}}, ValueError, r"shape \(4,\)"),
    ],
)
def test_bad_resets(make, kwargs, error, message):
    env = make()
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(**kwargs)


def test_order_of_calls(make):
    env = make()
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(B, int))
    with pytest.raises(ResetNeeded, match="all worlds first"):
        env.reset(options={"reset_mask": np.array([True, False, False, False])})
    env.reset(seed=0)
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.step(np.zeros(B, int))
    with pytest.raises(ClosedEnvironmentError):
        env.reset()


def test_states_are_put_in_place_of_others(tiny_model, prompts):
    a = tiny_model.start(np.stack(prompts[1:3]), seeds=[1, 2])
    b = tiny_model.start(prompts[3][None], seeds=[3])
    with pytest.raises(ValueError, match="render the worlds first"):
        a.select([0])
    alone = b.clone()
    for state in (a, b, alone):
        tiny_model.render(state)
    a.put([1], b)
    for action in (1, 5, 2):
        tiny_model.step(a, [0, action])
        tiny_model.step(alone, [action])
        assert near(tiny_model.render(a)[1:], tiny_model.render(alone))
    with pytest.raises(ValueError, match="1 worlds cannot take the places of 2"):
        a.put([0, 1], b)
    blind = tiny_model.start(prompts[3][None], seeds=[3], decode=False)
    with pytest.raises(ValueError, match="decode=False"):
        a.put([0], blind)
    with pytest.raises(ValueError, match="they have no frames"):
        tiny_model.render(blind)
