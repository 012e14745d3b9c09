"""The proof that the latent actions of a two-player model control two players."""
