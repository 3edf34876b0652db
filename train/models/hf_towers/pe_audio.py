"""PE-Audio: PeAudioModel, and the audio and text towers of a PeAudioVideoModel (Vyas et al. 2025, arXiv 2512.19687).

Its logits are scale * a @ t + bias of vectors that have no fixed length, the scale as it is and not its logarithm; neither
transformers nor the released code normalises them. Cosines of a and t would rank otherwise. Ours are cosines all the same,
of vectors with two numbers more, (a / A, rest, 0) and (t / T, 0, rest), where `rest` makes the length 1 and the bounds A
and T are lengths that no vector exceeds (Bachrach et al. 2014, doi 10.1145/2645710.2645741). Their dot product is
a @ t / (A T): every score ranks as the logits do, and the scale of the towers is A T times the model's. The cosines are
small where the bounds are wide. Between two clips, or two texts, the cosine falls with their Euclidean distance.

The facebook/pe-a-frame-* checkpoints are a PeAudioFrameLevelModel: their head was trained on frames of 40 ms alone, and
AutoModel's PeAudioModel of the same weights gives clip embeddings that mean nothing. `train.checkpoint` refuses them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train.models.clap import Encode
from train.models.configs import HfTowersConfig
from train.models.encoders.configs import PeAudioConfig
from train.models.encoders.encoder import Waveform, Windows
from train.models.encoders.pe_audio import PeAudio
from train.models.hf_towers.towers import HfTextTower, HfTowers, check_tokenizer, read_weights, stated

SLACK = 1 + 1e-5  # of a bound, for rounding
REST_FLOOR = 1e-12  # of the square of `rest`, whose root has no gradient at 0


class PeTextTower(HfTextTower):
    """The text tower of PE-Audio: the first token's last hidden state."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        made = self.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        first: Tensor = made.hidden_states[-1][:, 0]
        return first


class UnitHead(nn.Module):
    """A head of PE-Audio: embeddings (B, E) -> unit vectors (B, D + 2), as the head of this module says."""

    def __init__(self, head: Any, rest_first: bool) -> None:
        super().__init__()
        self.head, self.rest_first, self.bound = head, rest_first, bound(head)

    def forward(self, embeddings: Tensor) -> Tensor:
        """See the class."""
        vectors = self.head(embeddings).float() / self.bound
        rest = (1 - vectors.square().sum(dim=-1, keepdim=True)).clamp(min=REST_FLOOR).sqrt()
        zero = torch.zeros_like(rest)
        return torch.cat([vectors, *((rest, zero) if self.rest_first else (zero, rest))], dim=-1)


def bound(head: Any) -> float:
    """Return a length that no output of a head exceeds: its LayerNorm gives E numbers of length at most sqrt(E)."""
    weight, norm = head.proj.weight.detach().double(), head.layer_norm
    scaled = torch.linalg.matrix_norm(weight * norm.weight.detach().double(), ord=2) * math.sqrt(weight.shape[1])
    return float(scaled + (weight @ norm.bias.detach().double()).norm()) * SLACK


class HfPeAudio(HfTowers):
    """A PeAudioModel; what trains its vectors beyond the bounds of the weights it began with is cut to them."""

    audio_encoder: PeAudio
    audio_proj: UnitHead
    text_proj: UnitHead
    logit_bias: nn.Parameter

    def __init__(self, config: HfTowersConfig, model: Any, processor: Any) -> None:
        super().__init__(config, model.config, processor)
        self.audio_encoder = PeAudio(model.audio_encoder, processor.feature_extractor)
        text_dim = model.config.text_config.hidden_size
        self.text_encoder = PeTextTower(model.text_model, processor.tokenizer, config.max_tokens, text_dim)
        self.audio_proj, self.text_proj = UnitHead(model.audio_head, True), UnitHead(model.text_audio_head, False)
        scale = model.text_audio_logit_scale.item() * self._bounds
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.logit_bias = nn.Parameter(model.text_audio_logit_bias.detach()[0].clone())

    @property
    def _bounds(self) -> float:
        return self.audio_proj.bound * self.text_proj.bound

    def encode_windows(self, clips: Sequence[Waveform], size: int, encode: Encode) -> tuple[Windows, Tensor]:
        """See `TwoTowers`; only windows of one length are a batch, as zeros behind a clip change its last frames."""
        windows = Windows(clips, size)
        return windows, windows.unpadded(encode, self.logit_scale.device)

    def whole(self) -> Any:
        """See `HfTowers`; of a PeAudioVideoModel, the PeAudioModel in it."""
        from transformers import PeAudioModel

        with torch.device("meta"):
            whole: Any = PeAudioModel(self.architecture)
        whole.audio_encoder, whole.audio_head = self.audio_encoder.model, self.audio_proj.head
        whole.text_model, whole.text_audio_head = self.text_encoder.model, self.text_proj.head
        scale = self.logit_scale.detach().double().exp() / self._bounds
        whole.text_audio_logit_scale = nn.Parameter(scale.float().reshape(1))
        whole.text_audio_logit_bias = nn.Parameter(self.logit_bias.detach().reshape(1))
        return whole


def load(folder: Path, architecture: Any) -> HfPeAudio:
    """Load one from a folder with its config; raises as `loading.load`."""
    from transformers import AutoTokenizer, PeAudioFeatureExtractor, PeAudioModel, PeAudioProcessor

    if architecture.model_type == "pe_audio_video":
        architecture = architecture.audio_config
    extractor = PeAudioFeatureExtractor.from_pretrained(folder)
    processor = PeAudioProcessor(extractor, AutoTokenizer.from_pretrained(folder))
    check_tokenizer(processor.tokenizer)
    model = read_weights(PeAudioModel, folder, architecture)
    if not (scale := model.text_audio_logit_scale.item()) > 0:
        raise ValueError(f"its text_audio_logit_scale is {scale}, which no training ends with")
    return HfPeAudio(_config(architecture, processor), model, processor)


def _config(architecture: Any, processor: Any) -> HfTowersConfig:
    extractor, text = processor.feature_extractor, architecture.text_config
    hop = architecture.audio_config.dac_config.hop_length
    if hop != extractor.hop_length:
        raise ValueError(f"its network has hop_length {hop}, its processor {extractor.hop_length}")
    return HfTowersConfig(
        transformers=architecture.model_type,
        joint_dim=text.hidden_size + 2,
        clip_s=PeAudioConfig.clip_s,
        sample_rate_hz=extractor.sampling_rate,
        long_clips="windows",
        max_tokens=min(processor.tokenizer.model_max_length, text.max_position_embeddings),
        processor=stated(processor),
    )
