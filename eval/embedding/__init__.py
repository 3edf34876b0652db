"""Clips -> embeddings by a checkpoint: in this process or in Ray Data actors, cached."""
