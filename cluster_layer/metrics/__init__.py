"""Metrics: a small protocol, and one module for each system that they can go to."""
