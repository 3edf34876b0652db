"""Checkpoint -> results."""
