"""Tokenizer, latent actions and dynamics: causality, streams, and what each may see."""

from dataclasses import replace

import pytest
import torch

from genie_env.world_model import WorldModelConfig
from genie_env.world_model.dynamics import Dynamics, DynamicsConfig
from genie_env.world_model.latent_actions import LatentActionDecoder, LatentActionEncoder
from genie_env.world_model.quantize import QuantizerConfig
from genie_env.world_model.stems import StemConfig
from genie_env.world_model.tokenizer import VideoTokenizer

TINY = WorldModelConfig.tiny()
STEMS = [StemConfig("conv", 16, 8, 1), StemConfig("patch", 16)]
QUANTIZERS = [
    QuantizerConfig(levels=(4, 4, 4)),
    QuantizerConfig(kind="vq_ema", num_codes=32, latent_dim=8),
    QuantizerConfig(kind="vq_gradient", num_codes=32, latent_dim=8),
]


def awake(module, seed=0):
    """Weights that begin at zero would hide every mistake."""
    torch.manual_seed(seed)
    for weight in module.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    return module.eval()


def video(num_frames, batch=2):
    generator = torch.Generator().manual_seed(3)
    shape = (batch, num_frames, 64, 64, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("stem", STEMS, ids=lambda s: s.kind)
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: q.kind)
@torch.no_grad()
def test_tokenizer_streams_are_whole_clips(stem, quantizer):
    tokenizer = awake(VideoTokenizer(replace(TINY.tokenizer, stem=stem, quantizer=quantizer)))
    frames = video(9)
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (2, 9, 16)
    assert len(tokens.unique()) > 4
    pixels = tokenizer.decode(tokens)
    assert pixels.shape == frames.shape
    assert pixels.dtype == torch.uint8
    encoder, decoder = tokenizer.new_encoder_cache(2), tokenizer.new_decoder_cache(2)
    for t in range(9):
        assert torch.equal(tokenizer.encode_step(frames[:, t], encoder), tokens[:, t])
        step = tokenizer.decode_step(tokens[:, t], decoder)
        assert (step.int() - pixels[:, t].int()).abs().max() <= 1
        encoder.advance()
        decoder.advance()


@torch.no_grad()
def test_tokenizer_is_causal():
    tokenizer = awake(VideoTokenizer(TINY.tokenizer))
    frames = video(5)
    changed = frames.clone()
    changed[:, 3] = 255 - changed[:, 3]
    before, after = tokenizer.encode(frames), tokenizer.encode(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


@torch.no_grad()
def test_an_action_is_read_off_no_later_frame():
    encoder = awake(LatentActionEncoder(TINY.latent_actions))
    frames = video(6)
    changed = frames.clone()
    changed[:, 4] = 255 - changed[:, 4]
    before, after = (
        encoder.latents(encoder.features(video, encoder.came_from(video)))
        for video in (frames, changed)
    )
    assert before.shape == (2, 5, 8)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


@pytest.mark.parametrize(
    ("reach", "shape"), [((24, 8), (2, 4, 16, 426)), (None, (2, 4, 64, 64, 3))]
)
@torch.no_grad()
def test_the_forward_model_sees_the_past_and_the_action_only(reach, shape):
    config = replace(TINY.latent_actions, reach=reach)
    encoder = LatentActionEncoder(config).eval()
    decoder = awake(LatentActionDecoder(config, 8))
    frames = video(5)
    actions = encoder(frames)
    guess = decoder(frames, actions)
    assert guess.shape == shape
    changed = frames.clone()
    changed[:, 3] = 255 - changed[:, 3]
    other = decoder(changed, actions._replace(came_from=encoder.came_from(changed)))
    # Guess m is for frame m + 1, from frames 0..m: frame 3 shows in guess 3 first.
    torch.testing.assert_close(guess[:, :3], other[:, :3])
    assert not torch.allclose(guess[:, 3], other[:, 3], atol=1e-3)
    moved = actions.vectors.clone()
    moved[:, 1] += 1
    other = decoder(frames, actions._replace(vectors=moved))
    torch.testing.assert_close(guess[:, :1], other[:, :1])
    assert not torch.allclose(guess[:, 1], other[:, 1], atol=1e-3)
    seen = actions.features.clone()
    seen[:, 1] += 1
    other = decoder(frames, actions._replace(features=seen))
    # What the encoder saw of transition 1 may help with transition 2, never with itself.
    torch.testing.assert_close(guess[:, :2], other[:, :2])
    assert not torch.allclose(guess[:, 2], other[:, 2], atol=1e-3)


def test_patches_to_follow_need_one_even_size():
    with pytest.raises(ValueError, match=r"patches of 16 \(encoder\) and 8 \(decoder\) pixels"):
        replace(TINY.latent_actions, decoder_stem=StemConfig(patch_size=8))


def test_latent_actions_need_two_frames():
    with pytest.raises(ValueError, match="got 1 frame"):
        LatentActionEncoder(TINY.latent_actions)(video(1))


def dynamics_of(**changes):
    config = DynamicsConfig(transformer=TINY.dynamics.transformer, **changes)
    return awake(Dynamics(config, num_tokens=9, num_codes=20, num_actions=8))


def tokens_and_actions(num_frames=6):
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(20, (2, num_frames, 9), generator=generator)
    actions = torch.randint(8, (2, num_frames - 1), generator=generator)
    hidden = torch.rand(tokens.shape, generator=generator) < 0.6
    return tokens, actions, hidden


@pytest.mark.parametrize("action", ["add", "prepend"])
@torch.no_grad()
def test_training_sees_exactly_what_sampling_sees(action):
    """The two-stream forward pass equals decoding with the cache, frame by frame."""
    dynamics = dynamics_of(action=action)
    tokens, actions, hidden = tokens_and_actions(7)
    masked = tokens.masked_fill(hidden, dynamics.mask_token)
    logits = dynamics(tokens, actions, masked)
    cache = dynamics.new_cache(2)
    dynamics.commit(tokens[:, 0], torch.full((2,), -1), cache)
    for t in range(1, 7):
        step = dynamics.step(masked[:, t], actions[:, t - 1], cache)
        torch.testing.assert_close(step, logits[:, t - 1])
        dynamics.commit(tokens[:, t], actions[:, t - 1], cache)


@pytest.mark.parametrize("history", ["clean", "masked"])
@torch.no_grad()
def test_hidden_tokens_and_later_frames_cannot_be_seen(history):
    dynamics = dynamics_of(history=history)
    tokens, actions, hidden = tokens_and_actions()
    masked = tokens.masked_fill(hidden, dynamics.mask_token)
    logits = dynamics(tokens, actions, masked)
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + hidden[:, 4].long()) % 20
    other = dynamics(changed, actions, changed.masked_fill(hidden, dynamics.mask_token))
    torch.testing.assert_close(logits[:, :4], other[:, :4])  # frames 1..4
    changed_anywhere = not torch.allclose(logits[:, 4], other[:, 4], atol=1e-4)
    assert changed_anywhere == (history == "clean")  # clean history shows frame 4 to frame 5


@pytest.mark.parametrize("action", ["add", "prepend"])
@torch.no_grad()
def test_the_action_counts_from_its_frame_on(action):
    dynamics = dynamics_of(action=action)
    tokens, actions, hidden = tokens_and_actions()
    masked = tokens.masked_fill(hidden, dynamics.mask_token)
    other = actions.clone()
    other[:, 2] = (other[:, 2] + 1) % 8
    a, b = dynamics(tokens, actions, masked), dynamics(tokens, other, masked)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2], atol=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dynamics_of(history="dirty"), "unknown history 'dirty'; known: clean, masked"),
        (lambda: dynamics_of(action="multiply"), "unknown action 'multiply'; known: add, prepend"),
        (lambda: VideoTokenizer(replace(TINY.tokenizer, frame_size=60)), "frame_size=60"),
        (
            lambda: VideoTokenizer(replace(TINY.tokenizer, stem=StemConfig("cnn", 16))),
            "unknown stem 'cnn'",
        ),
    ],
)
def test_bad_configs(build, message):
    with pytest.raises(ValueError, match=message):
        build()
