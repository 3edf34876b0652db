"""Networks: torch modules that know neither Ray nor ranks nor paths."""
