"""Our checkpoints under the interfaces of the field's benchmarks: HEAR, X-ARES and mteb with its audio tasks (MAEB).

    eval.adapters.load_model("build/model")       HEAR's module API: `eval.adapters` is the module to name
    eval.adapters.FrameEncoder("build/model")     X-ARES: waveforms -> frames
    mteb.evaluate(eval.adapters.MtebEncoder("build/model"), tasks)

Shapes: N = sounds, T = samples, S = frames, E = embedding size of the audio encoder, D = size of the shared space.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from train import checkpoint
from train.models.captioner.model import TagGuidedCaptioner
from train.models.clap import TwoTowers
from train.models.encoders.encoder import AudioEncoder
from train.models.tagger import WINDOW_S

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta


HEAR_RATES_HZ = (16_000, 22_050, 44_100, 48_000)  # that HEAR knows; its validator refuses others, 32,000 among them


class FrameEncoder(nn.Module):
    """The audio encoder of a checkpoint for X-ARES: waveforms to frames, one every `hop_size_in_ms`."""

    def __init__(self, model: str, sampling_rate: int = 0) -> None:
        """Load a checkpoint of any kind from a folder or URI. Raises InputError when there is none.

        Args:
            model: the checkpoint.
            sampling_rate: of the sounds that will be given, in Hz; 0 is the encoder's own, others are resampled.
        """
        super().__init__()
        checkpoint.describe(model, "model", *checkpoint.KINDS)
        network = checkpoint.load(model).model
        self.encoder: AudioEncoder = _encoder(network).eval()
        self.sampling_rate, self.output_dim = sampling_rate or self.encoder.sample_rate_hz, self.encoder.embedding_dim
        self.window = round(WINDOW_S * self.sampling_rate)  # longer sounds are taken in pieces of it
        _, edges_s = next(self._pieces(torch.zeros(1, self.window)))
        self.hop_size_in_ms = 1_000 * float(edges_s[-1] - edges_s[-2])

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Return the frames (N, S, E) of sounds (N, T), or (T,), at the sampling rate."""
        return torch.cat([frames for frames, _ in self._pieces(audio)], dim=1)

    @torch.inference_mode()
    def timed(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames (N, S, E) of sounds (N, T), and their middles (N, S) in milliseconds."""
        pieces = list(self._pieces(audio))
        frames = torch.cat([found for found, _ in pieces], dim=1)
        middles_s = torch.cat([(edges_s[:-1] + edges_s[1:]) / 2 for _, edges_s in pieces])
        return frames, 1_000 * middles_s.expand(len(frames), -1)

    def _pieces(self, audio: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the frames (N, S, E) of each piece of sounds (N, T), and where they begin and end, (S + 1,) seconds.

        A rest that is shorter than a frame gives none.
        """
        sounds = torch.atleast_2d(audio).to(next(self.encoder.parameters()).device)
        for start in range(0, sounds.shape[1], self.window):
            piece = sounds[:, start : start + self.window]
            if start and piece.shape[1] < self.hop_size_in_ms * self.sampling_rate / 1_000:
                return
            found = self.encoder(
                piece, torch.full((len(piece),), piece.shape[1], device=piece.device), self.sampling_rate
            )
            count = int(found.num_frames[0])
            edges_s = self.encoder.frame_edges_s(found.frames.shape[1])[: count + 1].cpu()
            yield found.frames[:, :count], start / self.sampling_rate + edges_s


class HearModel(nn.Module):
    """A checkpoint under HEAR's API: its sizes and rate; `load_model` makes it.

    It asks for sounds at the encoder's own rate where HEAR knows that, else at the highest one, and resamples them.
    """

    def __init__(self, model: str) -> None:
        """Load two towers, a tagger or a classifier. Raises InputError when there is none."""
        super().__init__()
        checkpoint.describe(model, "model", "clap", "tagger", "classifier")
        self.network = checkpoint.load(model).model
        own = self.network.sample_rate_hz
        self.sample_rate = own if own in HEAR_RATES_HZ else HEAR_RATES_HZ[-1]
        self.frames = FrameEncoder(model, self.sample_rate)
        self.scene_embedding_size = self.timestamp_embedding_size = self.frames.output_dim

    def scene_embeddings(self, audio: Tensor) -> Tensor:
        """Return the clip embeddings (N, E) of sounds (N, T), the same that `eval linear-probe` takes."""
        features: Tensor = self.network.encode_clips(list(audio.cpu().numpy()), self.sample_rate).features
        return features


def load_model(model_file_path: str = "") -> HearModel:
    """Load a checkpoint for HEAR."""
    return HearModel(model_file_path)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Return one embedding (N, E) for each sound (N, T)."""
    return model.scene_embeddings(audio)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Return the encoder's frames (N, S, E) of sounds (N, T), and their middles (N, S) in milliseconds."""
    return model.frames.timed(audio)


class MtebEncoder:
    """Two towers, or the encoder of a tagger or classifier for audio alone, under mteb's `EncoderProtocol`."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        card: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Load a checkpoint from a folder or URI; its own hash is the revision.

        Args:
            model_name: the checkpoint.
            revision: not used.
            device: torch device; None is cpu.
            card: fields of mteb's ModelMeta that the checkpoint does not know, such as `license`.

        Raises:
            InputError: when there is no checkpoint.
        """
        self.checkpoint_info = checkpoint.describe(model_name, "model", "clap", "tagger", "classifier")
        self.name = checkpoint.title(model_name)
        self.model = checkpoint.load(model_name).model.to(device or "cpu")
        self.card = dict(card or {})

    @torch.inference_mode()
    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Return vectors (N, D) of a DataLoader's texts, its sounds, or where rows have both the sum of the two.

        Raises:
            ValueError: when texts are asked of a model that has no text tower.
        """
        from mteb.models.modality_collators import AudioCollator

        features, found = inputs.dataset.features, []
        if "audio" in features:
            inputs.collate_fn = AudioCollator(target_sampling_rate=self.model.sample_rate_hz)
        elif "text" not in features:
            raise ValueError(f"the rows have neither text nor audio: {sorted(features)}")
        for batch in inputs:
            parts = [self._embed_sounds(batch["audio"])] if "audio" in features else []
            parts += [self._read(batch["text"])] if "text" in features else []
            found.append(sum(parts[1:], parts[0]))
        vectors: np.ndarray = torch.cat(found).cpu().numpy()
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines (N, M) of embeddings (N, D) and (M, D)."""
        one, two = (
            nn.functional.normalize(torch.atleast_2d(torch.as_tensor(each)), dim=1)
            for each in (embeddings1, embeddings2)
        )
        return one @ two.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine (N,) of each pair of rows."""
        return nn.functional.cosine_similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2))

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """Describe the model: what its checkpoint states, and the fields of `card`; the others are unknown (None)."""
        two_towers = isinstance(self.model, TwoTowers)
        stated = {
            "name": f"blat-ray/{self.name}",
            "revision": self.checkpoint_info.revision,
            "modalities": ["audio", "text"] if two_towers else ["audio"],
            "n_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "memory_usage_mb": sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20,
            "embed_dim": self.model.config.joint_dim if two_towers else _encoder(self.model).embedding_dim,
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "use_instructions": False,
        }
        return model_meta({**stated, **self.card})

    def _embed_sounds(self, sounds: list[dict[str, Any]]) -> Tensor:
        embeddings = self.model.encode_clips([np.asarray(each["array"], np.float32) for each in sounds])
        vectors: Tensor = embeddings.outputs if isinstance(self.model, TwoTowers) else embeddings.features
        return vectors

    def _read(self, texts: list[str]) -> Tensor:
        if not isinstance(self.model, TwoTowers):
            raise ValueError(f"{self.name} is a {self.checkpoint_info.kind}; it has no text tower")
        return self.model.embed_texts(texts)


def model_meta(fields: Mapping[str, Any]) -> "ModelMeta":
    """Return mteb's description of a model; what `fields` lacks is unknown. Raises InputError for a value it refuses."""
    from mteb.models.model_meta import ModelMeta
    from pydantic import ValidationError

    try:
        return ModelMeta(**{**ModelMeta.create_empty().model_dump(), **fields})
    except ValidationError as error:
        wrong = error.errors()[0]
        field = str(wrong["loc"][0])
        raise InputError(f"--mteb.{field.replace('_', '-')}", fields[field], str(wrong["msg"])) from None


def _encoder(network: Any) -> AudioEncoder:
    if isinstance(network, TagGuidedCaptioner):
        return network.encoder.cnn
    encoder: AudioEncoder = network.audio_encoder if isinstance(network, TwoTowers) else network.encoder
    return encoder
