import itertools
import math

import pytest
import torch

from genie_env.world_model.sampling import SamplingConfig, decode_frame, num_masked_after

NUM_TOKENS, NUM_CODES, MASK = 64, 6, 6


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def constant_logits(probabilities):
    logits = torch.tensor(probabilities).log()
    return lambda tokens, places: logits.expand(*places.shape, len(probabilities))


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 25])
@pytest.mark.parametrize("order", ["random", "confidence"])
def test_every_token_is_settled_once_by_the_schedule(steps, order):
    masked_counts = []

    def logits_of(tokens, places):
        masked_counts.append(int((tokens[0] == MASK).sum()))
        # Only what is hidden is asked for.
        assert (tokens.gather(1, places) == MASK).all()
        # Settled tokens must keep their value: the model now votes for another code everywhere.
        return torch.full((*places.shape, NUM_CODES), -20.0).index_fill(
            -1, torch.tensor([len(masked_counts) % NUM_CODES]), 20.0
        )

    config = SamplingConfig(steps=steps, order=order)
    tokens, _ = decode_frame(logits_of, NUM_TOKENS, MASK, generators(1), config)
    expected = [NUM_TOKENS] + [num_masked_after(s, steps, NUM_TOKENS) for s in range(steps)]
    assert [*masked_counts, 0] == expected
    assert tokens.max() < NUM_CODES
    for call, (before, after) in enumerate(itertools.pairwise(expected)):
        if steps <= NUM_CODES:
            assert (tokens == (call + 1) % NUM_CODES).sum() == before - after


def test_cosine_schedule_settles_few_tokens_first():
    counts = [64] + [num_masked_after(s, 8, 64) for s in range(8)]
    settled = [a - b for a, b in itertools.pairwise(counts)]
    assert counts[-1] == 0
    assert settled == sorted(settled)
    assert counts[4] == math.floor(64 * math.cos(math.pi / 4))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_temperature_gives_the_tempered_distribution(temperature, steps):
    probabilities = torch.tensor([0.6, 0.25, 0.1, 0.03, 0.01, 0.01])
    config = SamplingConfig(steps=steps, temperature=temperature)
    tokens, _ = decode_frame(
        constant_logits(probabilities.tolist()), NUM_TOKENS, MASK, generators(*range(200)), config
    )
    share = torch.bincount(tokens.flatten(), minlength=NUM_CODES) / tokens.numel()
    tempered = probabilities ** (1 / temperature)
    torch.testing.assert_close(share, tempered / tempered.sum(), atol=0.02, rtol=0)


def test_temperature_zero_takes_the_likeliest():
    config = SamplingConfig(steps=2, temperature=0)
    tokens, _ = decode_frame(
        constant_logits([0.2, 0.5, 0.1, 0.1, 0.05, 0.05]), 64, MASK, generators(1), config
    )
    assert (tokens == 1).all()


def test_entropy_is_that_of_the_model():
    logits = constant_logits([1 / 6] * 6)
    _, entropy_BN = decode_frame(logits, 64, MASK, generators(1, 2), SamplingConfig())
    torch.testing.assert_close(entropy_BN, torch.full((2, 64), math.log(6)))


def test_a_world_does_not_depend_on_its_neighbours():
    logits = constant_logits([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    config = SamplingConfig(steps=3, order="confidence")
    together, _ = decode_frame(logits, 64, MASK, generators(7, 8, 9), config)
    for row, seed in enumerate((7, 8, 9)):
        alone, _ = decode_frame(logits, 64, MASK, generators(seed), config)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"steps": 26}, {"temperature": -1.0}, {"temperature": math.nan}, {"order": "x"}],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        SamplingConfig(**bad)
