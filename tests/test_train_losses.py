"""Losses of the captioner: hand-made values."""

import torch

from train.losses import captioning


def test_caption_loss_ignores_padding() -> None:
    logits = torch.randn(1, 3, 7)
    words = torch.tensor([[4, 2, 0]])
    assert torch.allclose(
        captioning.caption(logits, words, 0, 0.1), captioning.caption(logits[:, :2], words[:, :2], 0, 0.1)
    )


def test_tagging_loss_leaves_untagged_clips_out() -> None:
    logits, tags = torch.randn(2, 3), torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    first, none = torch.tensor([0]), torch.zeros(0, dtype=torch.int64)
    assert torch.allclose(captioning.tagging(logits, tags, first), captioning.tagging(logits[:1], tags[:1], first))
    assert captioning.tagging(logits[1:], tags[1:], none).item() == 0


def test_label_smoothing_spreads_over_the_other_words_and_leaves_out_padding() -> None:
    logits = torch.randn(2, 3, 5)
    words = torch.tensor([[4, 2, 0], [3, 4, 2]])
    log_probs = logits.log_softmax(dim=-1)
    terms = []
    for row in range(2):
        for position in range(3):
            if (word := int(words[row, position])) != 0:
                share = torch.full((5,), 0.1 / 4)
                share[word] = 0.9
                terms.append(-(share * log_probs[row, position]).sum())
    assert torch.allclose(captioning.caption(logits, words, 0, 0.1), torch.stack(terms).mean())
