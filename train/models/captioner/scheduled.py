"""Scheduled sampling with cached decoding: the words that the model predicts as its own prefix, one step for each word.

At each word one draw for the whole batch decides between the true prefix and the predicted one. The predicted prefix holds
at every position the most probable word under the prefix that was given there. Recipe: wsntxxn/AudioCaption (2022), which
decodes each prefix from its start and needs L passes over up to L words; this module needs L steps and two passes.
Another difference: here words are predicted without dropout.
"""

import torch
from torch import Tensor

from train.models.captioner.cache import DecoderCache
from train.models.captioner.decoder import WordDecoder
from train.models.captioner.vocabulary import START


@torch.no_grad()
def predict_words(
    decoder: WordDecoder, logits: Tensor, memory: Tensor, num_frames: Tensor, guidance: Tensor, true_prefix: Tensor
) -> Tensor:
    """Return the predicted words (B, L), with the start word first, to be given as prefix.

    Args:
        decoder: the word decoder.
        logits: (B, L, V) under the true prefixes.
        memory: (B, S, memory_dim).
        num_frames: (B,) valid frames of the memory.
        guidance: (B, D) tag vector.
        true_prefix: (L,) bool: where `logits` choose the word; elsewhere the predicted prefix does.
    """
    training = decoder.training
    decoder.eval()
    batch, length = logits.shape[:2]
    cache = DecoderCache(decoder, memory, num_frames, guidance, 1, length)
    rows = torch.arange(batch, device=logits.device)
    predicted = [torch.full((batch,), START, device=logits.device)]
    for position, forced in enumerate(true_prefix[:-1].tolist()):
        scores = cache.step(predicted[-1], rows)
        predicted.append((logits[:, position] if forced else scores).argmax(dim=1))
    decoder.train(training)
    return torch.stack(predicted, dim=1)
