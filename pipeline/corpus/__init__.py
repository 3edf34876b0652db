"""The procedural corpus: sounds and the phrases that describe them."""
