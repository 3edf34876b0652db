"""A listing -> a plan: which clip goes into which shard, without the clips of evaluation sets."""
