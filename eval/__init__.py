"""Checkpoint -> results.json."""
