"""Measure a world model against the real game; begins in `evaluate`."""
