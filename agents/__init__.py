"""Agents: policies trained in the dream, from labels, and adapters to other libraries."""
