"""Step into a dreamed world: `genie play`."""
