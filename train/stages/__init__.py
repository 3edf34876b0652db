"""One file for each stage of `python -m train`."""
