"""Tagged audio -> caption shards."""
