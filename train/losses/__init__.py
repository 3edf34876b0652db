"""Losses as pure functions of tensors, and the gradient of a batch in chunks."""
