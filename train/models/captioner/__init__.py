"""The tag-guided captioner: encoder, word decoder, search, vocabulary."""
