"""Environments: the dreamed ones and the real CoinRun. Import from the file that you need."""
