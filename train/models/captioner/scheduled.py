"""Scheduled sampling without decoding every prefix anew: the model's own words so far, one cached step each.

At each word a draw for the whole batch says whether the true prefix is given or the model's own: the most probable word
at every place before, under whichever prefix was given there. Recipe: wsntxxn/AudioCaption (2022), which decodes each
prefix from its start: L passes over up to L words, where this takes L steps and two passes. Own words are chosen without
dropout here, with it there.
"""

import torch
from torch import Tensor

from train.models.captioner.decoder import DecoderCache, WordDecoder
from train.models.captioner.vocabulary import START


@torch.no_grad()
def own_words(
    decoder: WordDecoder, logits: Tensor, memory: Tensor, num_frames: Tensor, guidance: Tensor, true_prefix: Tensor
) -> Tensor:
    """Return the model's own words (B, L), start first, to be given as prefix.

    Args:
        decoder: the word decoder.
        logits: (B, L, V) under the true prefixes.
        memory: (B, S, memory_dim).
        num_frames: (B,) valid frames of the memory.
        guidance: (B, D) tag vector.
        true_prefix: (L,) bool: where `logits` decide on the word; elsewhere the own prefix does.
    """
    training = decoder.training
    decoder.eval()
    batch, length = logits.shape[:2]
    cache = DecoderCache(decoder, memory, num_frames, guidance, 1, length)
    rows = torch.arange(batch, device=logits.device)
    said = [torch.full((batch,), START, device=logits.device)]
    for place, forced in enumerate(true_prefix[:-1].tolist()):
        scores = cache.step(said[-1], rows)
        said.append((logits[:, place] if forced else scores).argmax(dim=1))
    decoder.train(training)
    return torch.stack(said, dim=1)
