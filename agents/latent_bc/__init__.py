"""Latent behavioural cloning: what a few labels say of latent actions."""
