"""Audio encoders: waveform -> frame embeddings with their mask, and one clip embedding."""
