"""What people read of a dataset: its card and its listening page."""
