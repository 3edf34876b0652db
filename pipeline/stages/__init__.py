"""One file for each stage of `python -m pipeline`: check the command, wire, run."""
