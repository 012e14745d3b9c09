import pytest
import torch

from genie_env.world_model.transformer import (
    STTransformer,
    TransformerConfig,
    attend,
    rotary_table,
    rotate,
)

CONFIG = TransformerConfig(width=32, num_layers=3, num_heads=2, context_frames=4)


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    model = STTransformer(CONFIG)
    for weight in model.parameters():  # the zeros of the start would hide every mistake
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def clip(num_frames, seed=1):
    return torch.randn(2, num_frames, 5, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_causal_in_time(transformer):
    x = clip(6)
    changed = x.clone()
    changed[:, 3] += 1.0
    before, after = transformer(x), transformer(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-2)


@torch.no_grad()
def test_tokens_of_a_frame_see_each_other(transformer):
    x = clip(1)
    changed = x.clone()
    changed[:, 0, 4] += 1.0
    difference = (transformer(x) - transformer(changed)).abs().amax((0, 1, 3))
    assert (difference > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 3, 4, 19])
def test_cached_equals_uncached_within_and_far_beyond_the_window(transformer, num_frames):
    x = clip(num_frames)
    whole = transformer(x)
    cache = transformer.new_cache(2, 5)
    for t in range(num_frames):
        torch.testing.assert_close(transformer.step(x[:, t], cache), whole[:, t])
        cache.advance()


@torch.no_grad()
def test_a_decoded_frame_is_history_only_as_committed(transformer):
    x = clip(6)
    cache = transformer.new_cache(2, 5)
    for t in range(6):
        for draft in range(3):  # MaskGIT steps write the slot of the frame again and again
            transformer.step(clip(1, seed=10 + draft)[:, 0], cache)
        last = transformer.step(x[:, t], cache)
        cache.advance()
    torch.testing.assert_close(last, transformer(x)[:, -1])


@torch.no_grad()
def test_only_differences_of_time_matter(transformer):
    x = clip(4)
    torch.testing.assert_close(
        transformer(x), transformer(x, time_T=torch.arange(4) + 1_000_000), atol=2e-4, rtol=1e-4
    )


@torch.no_grad()
def test_beyond_the_reach_of_all_layers_nothing_is_remembered(transformer):
    reach = CONFIG.num_layers * (CONFIG.context_frames - 1) + 1
    x = clip(reach + 3)
    torch.testing.assert_close(transformer(x)[:, -1], transformer(x[:, -reach:])[:, -1])


def test_a_clone_of_a_cache_goes_its_own_way(transformer):
    with torch.no_grad():
        x = clip(3)
        cache = transformer.new_cache(2, 5)
        transformer.step(x[:, 0], cache)
        cache.advance()
        copy = cache.clone()
        expected = transformer.step(x[:, 1], copy)
        transformer.step(x[:, 2], cache)
        cache.advance()
        torch.testing.assert_close(transformer.step(x[:, 1], copy), expected)


def test_attention_is_the_same_with_and_without_gradients():
    q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    written_out = attend(q, k, v, mask)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, mask), written_out)


def test_rotation_keeps_length():
    x = torch.randn(3, 8)
    turned = rotate(x, rotary_table(torch.tensor([0, 5, 123_456]), 8, torch.float32))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[0], x[0])


def test_width_that_does_not_divide():
    with pytest.raises(ValueError, match="width=30 with num_heads=4"):
        TransformerConfig(width=30, num_heads=4)
