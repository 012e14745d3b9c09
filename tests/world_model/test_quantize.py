import pytest
import torch

from genie_env.world_model.quantize import QuantizerConfig, make_quantizer, perplexity

FSQ = QuantizerConfig(kind="fsq", levels=(4, 3, 5))
KINDS = [
    FSQ,
    QuantizerConfig(kind="vq_ema", num_codes=16, latent_dim=6),
    QuantizerConfig(kind="vq_gradient", num_codes=16, latent_dim=6),
    QuantizerConfig(kind="vq_gradient", num_codes=16, latent_dim=6, normalize=False),
]


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.normalize}")
def test_codes_and_vectors_agree_and_gradients_pass(config):
    torch.manual_seed(0)
    quantizer = make_quantizer(config)
    latent = torch.randn(2, 7, quantizer.latent_dim, requires_grad=True)
    quantizer.eval()
    vectors, codes, _ = quantizer(latent)
    assert codes.shape == (2, 7)
    assert codes.min() >= 0
    assert codes.max() < quantizer.num_codes
    torch.testing.assert_close(vectors, quantizer.lookup(codes))
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert latent.grad.abs().sum() > 0


def test_fsq_counts_every_code_once():
    quantizer = make_quantizer(FSQ).eval()
    assert quantizer.num_codes == 60
    vectors = quantizer.lookup(torch.arange(60))
    assert len(vectors.unique(dim=0)) == 60
    # A latent that stands on a code comes back as that code.
    codes = quantizer(torch.atanh(vectors * 0.999)).codes
    assert torch.equal(codes, torch.arange(60))


def test_fsq_uses_all_levels_whatever_the_latents_scale():
    torch.manual_seed(0)
    quantizer = make_quantizer(FSQ)
    for _ in range(300):
        latent = 3 + 40 * torch.randn(256, 3)
        quantizer(latent)
    quantizer.eval()
    assert perplexity(quantizer(latent).codes, 60) > 45


def test_ema_codebook_finds_the_clusters_and_uses_all_codes():
    torch.manual_seed(0)
    config = QuantizerConfig(kind="vq_ema", num_codes=8, latent_dim=4, normalize=False, decay=0.9)
    quantizer = make_quantizer(config).train()
    centres = 4 * torch.eye(8)[:, :4] + 4 * torch.eye(8).flip(0)[:, :4] * -1
    for _ in range(200):
        chosen = torch.randint(8, (256,))
        codes = quantizer(centres[chosen] + 0.05 * torch.randn(256, 4)).codes
    assert perplexity(codes, 8) > 7
    distance = torch.cdist(centres, quantizer.codebook_KE).min(1).values
    assert distance.max() < 0.2


def test_dead_codes_are_seeded_again_and_apart():
    torch.manual_seed(0)
    config = QuantizerConfig(kind="vq_ema", num_codes=8, latent_dim=4, decay=0.5)
    quantizer = make_quantizer(config).train()
    quantizer.codebook_KE.data[:] = quantizer.codebook_KE[0].clone()
    quantizer.sum_KE[:] = quantizer.codebook_KE / 8
    for _ in range(50):
        codes = quantizer(torch.randn(512, 4)).codes
    assert len(quantizer.codebook_KE.unique(dim=0)) == 8
    assert perplexity(codes, 8) > 5


def test_gradient_codebook_learns_by_gradient():
    quantizer = make_quantizer(KINDS[3]).eval()
    quantizer(torch.randn(32, 6)).loss.backward()
    assert quantizer.codebook_KE.grad.abs().sum() > 0


@pytest.mark.parametrize("config", KINDS[1:], ids=lambda c: f"{c.kind}-{c.normalize}")
def test_training_goes_through_while_dead_codes_are_seeded(config):
    torch.manual_seed(0)
    quantizer = make_quantizer(config).train()
    latent = torch.randn(64, 6, requires_grad=True)
    for _ in range(3):
        vectors, _, loss = quantizer(latent)
        (loss + vectors.square().sum()).backward()
    assert torch.isfinite(latent.grad).all()


def test_perplexity_of_none_and_all():
    assert perplexity(torch.zeros(100, dtype=torch.int64), 8) == pytest.approx(1)
    assert perplexity(torch.arange(80) % 8, 8) == pytest.approx(8)


def test_unknown_kind_and_bad_levels():
    with pytest.raises(ValueError, match="unknown quantizer 'pq'; known: fsq"):
        make_quantizer(QuantizerConfig(kind="pq"))
    with pytest.raises(ValueError, match="at least 2"):
        make_quantizer(QuantizerConfig(levels=(4, 1)))
