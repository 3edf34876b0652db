"""Caption shards -> checkpoint."""
