"""Checks of clips and captions without a model: silence, copies, captions that contradict the tags."""
