"""The training loop: optimizer, parallel processes, saved state, progress."""
