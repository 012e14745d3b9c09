"""GenieEnv-v0: the Gymnasium contract, seeding, rendering, and every bad input its error."""

import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from gymnasium.utils.env_checker import check_env

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from genie_env.envs.single import GenieEnv, WallClock
from genie_env.world_model import shipped_checkpoints

SHIPPED = shipped_checkpoints()
ACTIONS = [0, 3, 7, 7, 1, 2]


@pytest.fixture(scope="module")
def prompt_THWC(tiny_model) -> np.ndarray:
    size = tiny_model.config.frame_size
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


@pytest.fixture
def make(tiny_model, prompt_THWC):
    """gym.make on the tiny model; closes what it made."""
    made = []

    def make(**kwargs):
        kwargs = {"model": tiny_model, "prompt": prompt_THWC} | kwargs
        made.append(gym.make("GenieEnv-v0", **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def rollout(env: gym.Env, seed: int | None, actions=ACTIONS) -> np.ndarray:
    """Frames of a reset and of each action, uint8 (T, H, W, 3)."""
    frames = [env.reset(seed=seed)[0]]
    frames += [env.step(action)[0] for action in actions]
    return np.stack(frames)


def test_passes_gymnasium_check_env(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(render_mode="rgb_array").unwrapped)


def test_passes_sb3_check_env(make):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make().unwrapped)


def test_spaces_and_types(make, tiny_model):
    env = make()
    size = tiny_model.config.frame_size
    assert env.observation_space == gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(tiny_model.config.num_actions)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space
    assert info["token_entropy"] >= 0
    assert "(2, " in info["prompt"]
    obs, reward, terminated, truncated, info = env.step(1)
    assert obs in env.observation_space
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info["step_ms"] > 0
    assert type(info["token_entropy"]) is float
    assert np.isfinite(info["token_entropy"])


def test_same_seed_and_actions_same_frames(make):
    first, second = make(), make()
    frames = rollout(first, seed=7)
    assert np.array_equal(frames, rollout(second, seed=7))
    unseeded = rollout(first, seed=None)
    assert np.array_equal(unseeded, rollout(second, seed=None)), "the stream goes on alike"
    assert np.array_equal(frames, rollout(first, seed=7)), "a reseeded env starts over"


def test_another_seed_other_frames(make):
    env = make()
    frames = rollout(env, seed=7)
    assert not np.array_equal(frames, rollout(env, seed=8))
    assert not np.array_equal(frames, rollout(env, seed=None))


def test_temperature_reaches_the_model(make):
    # With the default sampling the random tiny model draws almost evenly from all codes.
    assert not np.array_equal(rollout(make(temperature=0.01), 7), rollout(make(), 7))


@pytest.mark.parametrize("steps", [1, 4])
def test_maskgit_steps_are_passes_of_the_dynamics(make, tiny_model, monkeypatch, steps):
    env = make(maskgit_steps=steps)
    env.reset(seed=0)
    passes = []
    once = tiny_model.dynamics.step
    monkeypatch.setattr(tiny_model.dynamics, "step", lambda *a: passes.append(a) or once(*a))
    env.step(0)
    assert len(passes) == steps


def test_runs_past_the_context(make, tiny_model):
    env = make()
    actions = [0, 1] * (2 * tiny_model.config.context_frames)
    assert len(rollout(env, 0, actions)) == len(actions) + 1


def test_observations_are_fresh_arrays(make):
    env = make(render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    obs[:] = 0
    assert np.array_equal(env.render(), kept)
    stepped = env.step(0)[0]
    expected = env.render()
    env.render()[:] = 0
    stepped[:] = 0
    assert np.array_equal(env.render(), expected)


def test_prompt_of_one_episode(make, prompt_THWC):
    env = make()
    default, _ = env.reset(seed=0)
    other, info = env.reset(seed=0, options={"prompt": 255 - prompt_THWC[1]})
    assert not np.array_equal(default, other)
    assert info["prompt"] == f"ndarray {prompt_THWC[1].shape}"
    assert np.array_equal(default, env.reset(seed=0)[0]), "the next episode has the env's own"


def test_list_of_prompts_is_drawn_from_by_the_seed(make, prompt_THWC):
    prompt = [prompt_THWC, 255 - prompt_THWC, prompt_THWC // 2]
    first, second = make(prompt=prompt), make(prompt=prompt)
    starts = [first.reset(seed=3)[0]] + [first.reset()[0] for _ in range(20)]
    again = [second.reset(seed=3)[0]] + [second.reset()[0] for _ in range(20)]
    assert np.array_equal(starts, again)
    assert len({start.tobytes() for start in starts}) == 3


def test_none_draws_from_the_starts_of_the_model(make, tiny_model, prompt_THWC, monkeypatch):
    shipped_PTHWC = np.stack([prompt_THWC, 255 - prompt_THWC])
    monkeypatch.setattr(tiny_model, "prompts", shipped_PTHWC)
    env = make(prompt=None)
    drawn = {env.reset(seed=seed)[1]["prompt"] for seed in range(20)}
    assert drawn == {"shipped:0", "shipped:1"}


def test_prompt_of_a_real_level(make):
    pytest.importorskip("procgen")
    env = make(prompt="coinrun")
    _, info = env.reset(seed=0)
    assert info["prompt"].startswith("coinrun:10")
    assert env.reset(options={"prompt": "coinrun:123"})[1]["prompt"] == "coinrun:123"


def test_long_prompt_is_cut_to_the_context(make, tiny_model, prompt_THWC):
    long_THWC = prompt_THWC.repeat(tiny_model.config.context_frames, axis=0)
    cut_THWC = long_THWC[-tiny_model.config.context_frames :]
    env = make()
    frames = [env.reset(seed=0, options={"prompt": long_THWC})[0], env.step(1)[0]]
    expected = [env.reset(seed=0, options={"prompt": cut_THWC})[0], env.step(1)[0]]
    assert np.array_equal(frames, expected)


def test_max_episode_steps_truncates(make):
    env = make(max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


def test_make_vec_sync(tiny_model, prompt_THWC):
    envs = gym.make_vec(
        "GenieEnv-v0",
        num_envs=2,
        vectorization_mode="sync",
        model=tiny_model,
        prompt=prompt_THWC,
    )
    obs_BHWC, _ = envs.reset(seed=0)
    assert obs_BHWC.shape == (2, *envs.single_observation_space.shape)
    _, reward_B, *_, info = envs.step(np.array([0, 1]))
    assert reward_B.shape == info["step_ms"].shape == (2,)
    assert info["step_ms"].dtype == np.float64
    envs.close()


def test_id_may_name_the_module(tiny_model, prompt_THWC):
    gym.make("genie_env:GenieEnv-v0", model=tiny_model, prompt=prompt_THWC).close()


def test_spec_with_a_loaded_model_makes_an_equal_env(make):
    env = make()
    spec = env.spec  # deep-copies its arguments, the model among them
    again = gym.make(spec)
    assert np.array_equal(rollout(env, 0), rollout(again, 0))


def test_spec_of_strings_survives_json(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    env = gym.make("GenieEnv-v0", model=str(tmp_path / "model"), prompt="coinrun:5")
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert spec.kwargs == {"model": str(tmp_path / "model"), "prompt": "coinrun:5"}
    gym.make(spec).close()


def test_saved_state_branches(make):
    env = make().unwrapped
    rollout(env, 0)
    saved = env.get_state()
    futures = []
    for _ in range(2):
        start = env.set_state(saved)
        futures.append([start] + [env.step(action)[0] for action in ACTIONS])
    assert np.array_equal(*futures)
    env.set_state(saved)
    other = [env.step(5 - action % 5)[0] for action in ACTIONS]
    assert not np.array_equal(futures[0][1:], other)


def test_rgb_array_is_the_observation(make):
    env = make(render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert np.array_equal(env.render(), obs)
    obs = env.step(2)[0]
    assert np.array_equal(env.render(), obs)


def test_human_mode_shows_each_frame_crisply(make):
    pygame = pytest.importorskip("pygame")
    env = make(render_mode="human")
    obs, _ = env.reset(seed=0)
    for action in (None, 1, 2):
        if action is not None:
            obs = env.step(action)[0]
        shown_HWC = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        zoom = shown_HWC.shape[0] // obs.shape[0]
        assert zoom >= 4
        assert np.array_equal(shown_HWC, obs.repeat(zoom, axis=0).repeat(zoom, axis=1))
    assert env.render() is None
    assert not pygame.get_init() and not pygame.mixer.get_init()
    env.close()
    assert not pygame.display.get_init()


def test_close_may_be_called_again(make):
    for mode in (None, "human"):
        env = make(render_mode=mode).unwrapped
        env.close()
        env.reset(seed=0)
        env.close()
        env.close()


def test_play_sends_the_code_of_the_key(make, monkeypatch):
    pygame = pytest.importorskip("pygame")
    from gymnasium.utils.play import play

    env = make(render_mode="rgb_array")
    keys = env.unwrapped.get_keys_to_action()
    assert keys == {(ord(str(code + 1)),): code for code in range(env.action_space.n)}
    sent = []

    def callback(obs, next_obs, action, *_):
        sent.append(action)
        if len(sent) == 1:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ord("4")))
        if len(sent) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(env, callback=callback, fps=200, seed=0)
    assert sent == [0, 3, 3]


def test_measured_times_do_not_tell_two_equal_steps_apart():
    assert WallClock(1.0) == WallClock(2.0)
    assert (WallClock(1.0) != WallClock(2.0)) is False
    assert WallClock(1.0) == 1.0
    assert WallClock(1.0) != 2.0
    assert WallClock(1.0) < WallClock(2.0)
    assert isinstance(WallClock(1.0), float)


@pytest.mark.parametrize(
    "action", [-1, 8, 100, 1.0, 1.5, "1", None, True, np.array([1, 2]), np.nan]
)
def test_bad_action(make, action):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"accepted: an integer from 0 to 7"):
        env.unwrapped.step(action)


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_kinds_of_integer_actions(make, action):
    env = make()
    frames = rollout(env, 0, [3])
    assert np.array_equal(frames, rollout(env, 0, [action]))


def test_before_reset_and_after_close(make):
    for env in (make(render_mode="rgb_array"), make(render_mode="rgb_array").unwrapped):
        with pytest.raises(ResetNeeded):
            env.step(0)
        with pytest.raises(ResetNeeded):
            env.render()
    with pytest.raises(ResetNeeded, match="get_state"):
        env.get_state()
    env.reset(seed=0)
    env.close()
    with pytest.raises(ResetNeeded, match="step"):
        env.step(0)


def test_set_state_of_something_else(make):
    with pytest.raises(TypeError, match="set_state got a int; accepted: a SavedState"):
        make().unwrapped.set_state(3)


def test_unknown_reset_option(make):
    with pytest.raises(ValueError, match=r"unknown reset options \['promt'\]; accepted: 'prompt'"):
        make().reset(options={"promt": "coinrun"})


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_bad_seed(make, seed):
    with pytest.raises(gym.error.Error):
        make().unwrapped.reset(seed=seed)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"prompt": "nothing.png"}, FileNotFoundError, "nothing.png"),
        ({"prompt": np.zeros((64, 64, 3))}, TypeError, "float64; accepted: uint8"),
        ({"prompt": []}, ValueError, "empty list"),
        ({"model": 3}, TypeError, "model of type int; accepted"),
        ({"model": "no-such-model"}, FileNotFoundError, ".*".join(["no-such-model", *SHIPPED])),
        ({"device": "cpu"}, ValueError, "device='cpu' with a loaded model"),
        ({"render_mode": "ansi"}, ValueError, "unknown render_mode 'ansi'.*'rgb_array', 'human'"),
        ({"temperature": -1.0}, ValueError, "temperature=-1.0; accepted"),
        ({"temperature": np.nan}, ValueError, "temperature=nan; accepted"),
        ({"temperature": "hot"}, TypeError, "temperature is 'hot'; accepted"),
        ({"maskgit_steps": 0}, ValueError, "steps=0; accepted: 1 to 25"),
        ({"maskgit_steps": 26}, ValueError, "steps=26; accepted: 1 to 25"),
        ({"maskgit_steps": 2.5}, TypeError, "maskgit_steps is 2.5; accepted"),
    ],
)
def test_bad_argument(tiny_model, prompt_THWC, kwargs, error, message):
    kwargs = {"model": tiny_model, "prompt": prompt_THWC} | kwargs
    with pytest.raises(error, match=f"(?s){message}"):
        GenieEnv(**kwargs)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_checkpoint_dreams_from_each_of_its_starts(name):
    env = gym.make("GenieEnv-v0", model=name)
    num_starts = len(env.unwrapped.model.prompts)
    assert num_starts >= 4
    frames = []
    for i in range(num_starts):
        env.reset(seed=0, options={"prompt": f"shipped:{i}"})
        frames.append(env.step(0)[0])
    assert len({frame.tobytes() for frame in frames}) == num_starts
    env.close()


def test_corrupt_prompt_is_told_at_reset(make, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    env = make(prompt=tmp_path / "broken.png")
    with pytest.raises(ValueError, match=r"broken.png.* no readable image"):
        env.reset()


def test_human_mode_without_pygame_names_the_extra(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DependencyNotInstalled, match=r"genie-env\[play\]"):
        make(render_mode="human")


def test_futures_are_what_the_actions_lead_to(make):
    env = make().unwrapped
    env.reset(seed=0)
    env.step(2)
    before = env.get_state()
    futures, ended = env.futures(2)
    assert ended.shape == (env.model.config.num_actions, 2) and not ended.any()
    size = env.model.config.frame_size
    assert futures.shape == (env.model.config.num_actions, 2, size, size, 3)
    for action in (0, 5):
        env.set_state(before)
        np.testing.assert_array_equal([env.step(action)[0] for _ in range(2)], futures[action])


def test_uncertainty_is_a_map_of_the_token_entropy(make):
    env = make().unwrapped
    env.reset(seed=0)
    assert not env.uncertainty().any()
    info = env.step(1)[-1]
    grid = env.model.config.tokenizer.grid
    assert env.uncertainty().shape == (grid, grid)
    assert env.uncertainty().mean() == pytest.approx(info["token_entropy"], rel=1e-5)


def test_sampling_changes_from_the_next_step_on(make):
    env = make(temperature=1.0).unwrapped
    assert env.sample_with().temperature == 1.0
    sampling = env.sample_with(temperature=0.0, maskgit_steps=1)
    assert (sampling.temperature, sampling.steps) == (0.0, 1)
    by_hand = rollout(env, 0)
    np.testing.assert_array_equal(rollout(make(temperature=0.0, maskgit_steps=1), 0), by_hand)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"temperature": -1.0}, ValueError),
        ({"temperature": "hot"}, TypeError),
        ({"maskgit_steps": 0}, ValueError),
        ({"maskgit_steps": 1.5}, TypeError),
    ],
)
def test_bad_sampling_is_refused_and_changes_nothing(make, given, error):
    env = make().unwrapped
    before = env.sample_with()
    with pytest.raises(error):
        env.sample_with(**given)
    assert env.sample_with() == before


def test_futures_say_where_the_world_ends(ending_model, prompt_THWC):
    env = GenieEnv(prompt_THWC, ending_model)
    env.reset(seed=0)
    state = env.get_state()
    _, ended = env.futures(6)
    assert ended.any() and (ended[:, 1:] >= ended[:, :-1]).all()
    action = int(ended.any(1).argmax())
    env.set_state(state)
    over = [env.step(action)[2] for _ in range(6)]
    assert over.index(True) == ended[action].argmax()


def test_futures_of_no_step(make):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="num_steps=0"):
        env.futures(0)


@pytest.mark.parametrize("ask", ["futures", "uncertainty"])
def test_questions_before_reset(make, ask):
    with pytest.raises(ResetNeeded):
        getattr(make().unwrapped, ask)()
