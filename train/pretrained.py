"""Models for use in Python, with the methods of Hugging Face: load by folder, URI or hub name, then pass audio files.

embedder = Embedder.from_pretrained("build/demo/models/round1")
similarity = embedder.similarity(embedder.embed_audio(["dog.wav"]), embedder.embed_text(["a dog barks"]))

captioner = Captioner.from_pretrained("build/demo/captioner")
print(captioner.caption(["dog.wav"], tags=[["Bark"]])[0][0].text)
"""

import tempfile
from collections.abc import Sequence
from typing import ClassVar, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor

from pipeline import audio, sources, storage
from pipeline.errors import InputError
from pipeline.storage import hf
from train import checkpoint
from train.checkpoint import Kind, Lineage, Network
from train.data.reading import Samples
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import Caption, TagGuidedCaptioner
from train.models.clap import TwoTowers
from train.models.tagger import Tagger

NetworkT = TypeVar("NetworkT", bound=Network)
BATCH_SIZE = 32  # clips in one pass of a model


class Pretrained(Generic[NetworkT]):
    """A loaded network with its lineage."""

    kind: ClassVar[Kind]

    def __init__(self, model: NetworkT, lineage: Lineage, clips: Sequence[str]) -> None:
        self.model: NetworkT = model
        self.lineage, self.clips = lineage, list(clips)

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "cpu", revision: str | None = None) -> Self:
        """Load a checkpoint, in eval mode.

        Args:
            name: a folder, an `s3://` or `gs://` URI, or `namespace/name` on the Hugging Face hub; of a model that
                transformers wrote, such as a CLAP, `hf:` before the folder or the name.
            device: where to run, such as "cuda".
            revision: branch, tag or commit of a hub repository.

        Raises:
            InputError: when there is no checkpoint of this kind.
        """
        folder = _locate(name, revision)
        checkpoint.describe(folder, "name", cls.kind)
        loaded = checkpoint.load(folder)
        return cls(loaded.model.to(device), loaded.info.lineage, sorted(checkpoint.trained_on(folder)))

    def save_pretrained(self, uri: str) -> None:
        """Publish the checkpoint directory to a folder or URI, lineage included."""
        checkpoint.save(storage.resolve(uri), self.model, self.lineage, self.clips)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the checkpoint directory to the Hugging Face hub, where the token is that of `hf auth login`.

        Args:
            repo_id: `namespace/name`, made if it is not there yet.
            private: make a new repository private.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi  # only here: the rest works without network

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder).commit_url)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.model.parameters())).device

    def _read(self, files: Sequence[str]) -> list[Samples]:
        """Decode files to the model's rate; raises AudioError with the file and the reason."""
        return [self._read_one(file) for file in files]

    def _read_one(self, file: str) -> Samples:
        try:
            return audio.decode(sources.read_bytes(storage.resolve(file)), self.model.sample_rate_hz)
        except audio.AudioError as error:
            raise audio.AudioError(error.reason, f"{file}: {error.detail}") from error


class Embedder(Pretrained[TwoTowers]):
    """Two towers: audio and text to vectors in one space."""

    kind = "clap"

    def embed_audio(self, files: Sequence[str]) -> Tensor:
        """Embed audio files of any format, rate and length; (N, D) unit vectors."""
        batches = [files[i : i + BATCH_SIZE] for i in range(0, len(files), BATCH_SIZE)] or [()]
        return torch.cat([self.model.embed_clips(self._read(batch)) for batch in batches])

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; (M, D) unit vectors."""
        vectors: Tensor = self.model.embed_texts(texts)
        return vectors

    def similarity(self, audio: Tensor, text: Tensor) -> Tensor:
        """Return the cosines (N, M) of audio (N, D) and text (M, D)."""
        return TwoTowers.similarity(audio, text)


class Captioner(Pretrained[TagGuidedCaptioner]):
    """Audio, and tags if there are any, to captions."""

    kind = "captioner"

    def caption(
        self,
        files: Sequence[str],
        tags: Sequence[Sequence[str]] | Literal["predicted"] | None = None,
        decoding: Decoding | None = None,
        tag_threshold: float = 0.3,
    ) -> list[list[Caption]]:
        """Caption audio files; of a file longer than the model's clip length the rest is ignored.

        Args:
            files: audio of any format and rate.
            tags: the tags of each file; "predicted" for those that the model predicts; None for unguided captions.
            decoding: how captions are chosen; beam search with 3 beams when left out.
            tag_threshold: probability from which a predicted tag guides.

        Returns:
            For each file its captions with score and log-probabilities, best first.

        Raises:
            ValueError: when tags are unknown to the model, or it cannot predict any.
        """
        if isinstance(tags, Sequence) and not isinstance(tags, str):
            unknown = sorted({tag for names in tags for tag in names} - set(self.model.tags))
            if unknown or len(tags) != len(files):
                raise ValueError(f"{len(files)} files, {len(tags)} lists of tags; unknown: {unknown}; see .model.tags")
        found: list[list[Caption]] = []
        for first in range(0, len(files), BATCH_SIZE):
            batch = files[first : first + BATCH_SIZE]
            encoded = self.model.encode_audio_clips(self._read(batch))
            if tags == "predicted":
                hot = self.model.predict_tags(encoded, tag_threshold)
            else:
                given = tags[first : first + BATCH_SIZE] if tags else [()] * len(batch)
                hot = self.model.multi_hot(given).to(self._device)
            found += self.model.generate(encoded, hot, decoding or Decoding(), batch)
        return found


class AudioTagger(Pretrained[Tagger]):
    """Audio to the names of its sounds, by a converted tagger such as EfficientAT's."""

    kind = "tagger"

    def tag(self, files: Sequence[str], top: int = 5) -> list[list[tuple[str, float]]]:
        """Return for each file the `top` most probable tags with their probabilities; it reads each file to its end."""
        found = []
        for clip in self._read(files):
            waveform = torch.from_numpy(clip)[None].to(self._device)
            (probabilities,) = self.model.tag(waveform, torch.tensor([len(clip)], device=self._device))
            best = probabilities.topk(min(top, len(probabilities)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found.append([(self.model.tags[index], value) for index, value in pairs])
        return found


def _locate(name: str, revision: str | None) -> str:
    """Return the folder or URI of a name, downloaded from the hub where there is no such folder."""
    if hf.is_name(name):
        return f"{name}@{revision}" if revision else name
    if "://" in name or storage.is_folder(storage.resolve(name)):
        return storage.resolve(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot_download(name, revision=revision)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError("name", name, f"no such folder, and not on the hub ({reason})") from None
