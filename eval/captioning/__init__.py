"""Captions of a task's clips and what they score: by a checkpoint, by an LLM, or as a dataset holds them."""

from eval.captioning.makers import Maker

__all__ = ["Maker"]
