"""The layer measured beside its peers; `scripts/bench` runs it."""
