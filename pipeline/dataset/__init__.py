"""A dataset of shards on disk: its format, how a shard is published, which of its clips and captions are used."""
