"""The tag-guided captioner: audio encoder -> bidirectional GRU -> word decoder with the mean tag embedding at every step.

Shapes: B = clips, T = samples, S = frame embeddings, L = words, K = known tags, V = vocabulary.
Architecture: wsntxxn/AudioCaption (`EventCondTransformerModel`, 2022), the group of BLAT; parameter names are theirs. One
correction: a clip without tags gets a zero tag vector instead of NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.models.captioner import scheduled, search
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoder import WordDecoder
from train.models.captioner.decoding import Decoding
from train.models.captioner.encoder import EncodedAudio, RecurrentEncoder, TagEncoder
from train.models.captioner.graphs import Inputs, Searches
from train.models.captioner.vocabulary import END, Vocabulary
from train.models.encoders.encoder import FrameProbabilities, Waveform
from train.models.encoders.frontend import send


class Caption(NamedTuple):
    """A caption and its probability."""

    text: str
    score: float  # mean log-probability per word, the end word counted
    log_probs: list[float]  # of each word and of the end word where there is one


class TagGuidedCaptioner(nn.Module):
    """Audio and tags -> word logits; `generate` writes captions."""

    def __init__(self, config: CaptionerConfig, vocabulary: Vocabulary, tags: Sequence[str]) -> None:
        super().__init__()
        self.config, self.vocabulary, self.tags = config, vocabulary, list(tags)
        self.tag_ids = {tag: index for index, tag in enumerate(self.tags)}
        self.encoder = RecurrentEncoder(config.audio, config.gru_dim, config.gru_layers)
        self.decoder = WordDecoder(
            num_words=len(vocabulary),
            memory_dim=2 * config.gru_dim,
            dim=config.model_dim,
            layers=config.decoder_layers,
            heads=config.decoder_heads,
            feedforward=config.decoder_feedforward,
            dropout=config.dropout,
            bias=config.classifier_bias,
        )
        self.label_encoder = TagEncoder(len(self.tags), config.model_dim) if config.guided else None
        self.tagger = nn.Linear(self.encoder.cnn.embedding_dim, len(self.tags)) if config.tagger else None
        self.searches = Searches()
        if self.tagger is None:  # DDP would wait for gradients of weights that no output depends on
            for name in self.encoder.cnn.only_for_clip:
                self.encoder.cnn.get_submodule(name).requires_grad_(False)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio encoder, Hz."""
        return self.encoder.cnn.sample_rate_hz

    def compile_encoder(self) -> None:
        """Compile the audio encoder for batches of one shape; see `AudioEncoder.compile_network`."""
        self.encoder.cnn.compile_network()

    def multi_hot(self, tags: Sequence[Sequence[str]]) -> Tensor:
        """Return (B, K) float: 1 where a clip has the tag; unknown tags are ignored."""
        y = torch.zeros(len(tags), len(self.tags))
        for row, names in enumerate(tags):
            y[row, [self.tag_ids[name] for name in names if name in self.tag_ids]] = 1.0
        return y

    def forward(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        tags: Tensor,
        words: Tensor,
        sample_rate_hz: int | None = None,
        true_prefix: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Score a caption, given its own prefix at each word or the words that the model itself would have chosen.

        Args:
            waveform: (B, T) int16 or float, padded to the fixed length.
            num_samples: (B,) true lengths.
            tags: (B, K) multi-hot guidance; a zero row is a clip without guidance. A plain captioner ignores it.
            words: (B, L) ids: start, words, end, pad.
            sample_rate_hz: rate of `waveform`; the encoder's own when left out.
            true_prefix: (L - 1,) bool on the CPU: where the true prefix is given (scheduled sampling); None for all words.

        Returns:
            Logits (B, L - 1, V) of the next word, and tag logits (B, K) from the audio where there is a tagger.
        """
        features, memory = self.encoder(waveform, num_samples, sample_rate_hz)
        given = (memory, features.num_frames, self._guidance(tags, memory))
        logits = self.decoder(words[:, :-1], *given)
        if true_prefix is not None and not bool(true_prefix.all()):
            predicted = scheduled.predict_words(self.decoder, logits, *given, true_prefix)
            is_true = send(true_prefix, logits.device)[:, None]
            logits = torch.where(is_true, logits, self.decoder(predicted, *given))
        return logits, self.tagger(features.clip) if self.tagger is not None else None

    @torch.no_grad()
    def encode_audio(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> EncodedAudio:
        """Encode a batch of clips once, for `predict_tags` and `generate`; see `forward` for the arguments."""
        return EncodedAudio(*self.encoder(waveform, num_samples, sample_rate_hz))

    def encode_audio_clips(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> EncodedAudio:
        """Encode clips of any length, int16 (T,) each, cut or padded to the model's clip length."""
        size = round(self.config.clip_s * (sample_rate_hz or self.sample_rate_hz))
        cut = [torch.tensor(clip[:size]) for clip in clips]
        num_samples = torch.tensor([len(clip) for clip in cut])
        waveform = torch.stack([nn.functional.pad(clip, (0, size - len(clip))) for clip in cut])
        device = self.decoder.classifier.weight.device
        return self.encode_audio(waveform.to(device), num_samples.to(device), sample_rate_hz)

    @torch.no_grad()
    def predict_tags(self, encoded: EncodedAudio, threshold: float) -> Tensor:
        """Return (B, K) multi-hot: the tags whose probability reaches the threshold, possibly none.

        Raises:
            ValueError: when this captioner has no tagging head.
        """
        if self.tagger is None:
            raise ValueError("this captioner has no tagging head: it was trained or released without one")
        return (self.tagger(encoded.features.clip).sigmoid() >= threshold).float()

    @torch.no_grad()
    def tag_frames(
        self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None
    ) -> FrameProbabilities:
        """Return the probabilities of the tags in each frame; see `predict_tags`, and `forward` for the arguments."""
        if self.tagger is None:
            raise ValueError("this captioner has no tagging head: it was trained or released without one")
        cnn = self.encoder.cnn
        features = cnn(waveform, num_samples, sample_rate_hz)
        probabilities = self.tagger(cnn.embed_frames(features.frames)).sigmoid()
        return FrameProbabilities(probabilities, features.num_frames, cnn.frame_edges_s(features.frames.shape[1]))

    @torch.no_grad()
    def generate(
        self, encoded: EncodedAudio, tags: Tensor, how: Decoding, keys: Sequence[str] = ()
    ) -> list[list[Caption]]:
        """Write captions for a batch.

        Args:
            encoded: B clips, from `encode_audio`.
            tags: (B, K) multi-hot guidance; a zero row is a clip without guidance.
            how: the decoding.
            keys: B names of the clips; with the seed they fix the draws of nucleus sampling.

        Returns:
            Each clip's captions, best first, no two alike. Empty captions are left out: where the end word is the most
            probable first word, the reference returns "" and this function the best caption that has words. A clip whose
            beams are all empty has no caption.

        Raises:
            ValueError: when the decoding is invalid, such as more captions than beams.
        """
        how.check()
        memory, num_frames = encoded.memory, encoded.features.num_frames
        max_words = self.vocabulary.max_tokens
        draws = None
        if how.method == "nucleus":
            assert len(keys) == len(memory), f"sampling needs {len(memory)} keys, got {len(keys)}"
            draws = search.uniform(keys, how.rows, max_words, how.seed).to(memory.device)
        found = self.searches(
            self.decoder, Inputs(memory, num_frames, self._guidance(tags, memory), draws), how, max_words
        )
        words, log_probs, scores = (tensor.tolist() for tensor in found)
        return [self._captions(*clip, how.num_captions) for clip in zip(words, log_probs, scores, strict=True)]

    def _captions(
        self, words: list[list[int]], log_probs: list[list[float]], scores: list[float], wanted: int
    ) -> list[Caption]:
        captions: dict[str, Caption] = {}
        for ids, values, score in zip(words, log_probs, scores, strict=True):
            if len(captions) == wanted:
                break
            length = ids.index(END) + 1 if END in ids else len(ids)
            text = self.vocabulary.decode(ids)
            if text and score > float("-inf"):
                captions.setdefault(text, Caption(text, score, values[:length]))
        return list(captions.values())

    def _guidance(self, tags: Tensor, memory: Tensor) -> Tensor:
        if self.label_encoder is None:
            return memory.new_zeros(len(memory), self.config.model_dim)
        guidance: Tensor = self.label_encoder(tags)
        return guidance
