"""What the ONNX files cost: `python -m tests.bench.onnx --model CHECKPOINT --published FOLDER --task-dir CORPUS`.

FOLDER is what `train publish --onnx --int8` wrote of CHECKPOINT. For torch, ONNX and int8, on the clips of one evaluation:
R@10 in both directions, the largest difference of a number of a vector from torch's, milliseconds a clip and a text on the
CPU, one at a time, and the sizes of the files. Returns 1 when int8 costs more than two points of R@10.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from eval import tasks
from eval.embedding import in_process
from eval.stages import retrieval
from pipeline.sources.clip import Clip
from train import checkpoint
from train.models.clap import TwoTowers
from train.publishing.onnx_files import onnxruntime_session

FILES = {"ONNX": ("audio.onnx", "text.onnx"), "ONNX, int8": ("audio_int8.onnx", "text_int8.onnx")}
MAX_LOSS = 0.02  # of R@10, by int8


class Vectors(NamedTuple):
    """Embeddings of the clips (N, D) and texts (M, D) of a task, and how long one took, milliseconds."""

    audio: np.ndarray
    text: np.ndarray
    ms_clip: float
    ms_text: float


class OnnxTowers:
    """The two files of a published folder, as a program without torch uses them."""

    def __init__(self, folder: Path, audio: str, text: str) -> None:
        self.described = json.loads((folder / "onnx.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.audio, self.text = (onnxruntime_session(folder / name) for name in (audio, text))

    def embed_clip(self, waveform: np.ndarray) -> np.ndarray:
        """Return the unit vector (D,) of a clip (T,), int16 at the model's rate."""
        size = self.described["window_samples"]
        windows = [waveform[start : start + size] / np.float32(32768) for start in range(0, len(waveform), size)]
        lengths = np.array([len(window) for window in windows])
        vectors = np.concatenate([self._embed(window) for window in windows])
        mean = lengths @ vectors / lengths.sum()
        return mean / np.linalg.norm(mean)

    def _embed(self, window: np.ndarray) -> np.ndarray:
        padded = np.pad(window, (0, max(0, self.described["min_samples"] - len(window))))
        return self.audio.run(None, {"waveform": padded[None], "num_samples": np.array([len(window)])})[0]

    def embed_text(self, text: str) -> np.ndarray:
        """Return the unit vector (D,) of a text."""
        encoded = self.tokenizer.encode(text)
        inputs = {"input_ids": np.array([encoded.ids]), "attention_mask": np.array([encoded.attention_mask])}
        return self.text.run(None, inputs)[0][0]


def embed(
    clips: list[Clip], rate_hz: int, clip: Callable[[Any], np.ndarray], text: Callable[[str], np.ndarray]
) -> Vectors:
    """Embed all clips and their captions, one at a time."""
    seconds, audio = 0.0, []
    for _, samples in in_process.batches(clips, rate_hz, 64, {}):
        started = time.perf_counter()
        audio += [clip(each) for each in samples]
        seconds += time.perf_counter() - started
    texts = [caption for each in clips for caption in each.captions]
    started = time.perf_counter()
    vectors = [text(each) for each in texts]
    ms_text = 1000 * (time.perf_counter() - started) / len(texts)
    return Vectors(np.array(audio, np.float64), np.array(vectors, np.float64), 1000 * seconds / len(clips), ms_text)


def measure(model: TwoTowers, folder: Path, clips: list[Clip]) -> dict[str, Vectors]:
    """Return the embeddings by torch and by each pair of files."""

    def clip(samples: Any) -> np.ndarray:
        return model.embed_clips([samples])[0].numpy()

    found = {"torch": embed(clips, model.sample_rate_hz, clip, lambda text: model.embed_texts([text])[0].numpy())}
    for name, files in FILES.items():
        towers = OnnxTowers(folder, *files)
        found[name] = embed(clips, model.sample_rate_hz, towers.embed_clip, towers.embed_text)
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 when int8 costs too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("--model", "--published", "--task-dir"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--task", default="synth")
    given = parser.parse_args(argv)
    folder, model = Path(given.published), checkpoint.load(given.model).model
    clips = [clip for clip in tasks.read(given.task, given.task_dir, ())[1] if clip.captions]
    found, clip_of_caption = measure(model, folder, clips), retrieval.clips_of_captions(clips)
    reached: dict[str, list[float]] = {}
    print(f"{len(clips)} clips, {len(clip_of_caption)} captions")
    print("| | text to audio R@10 | audio to text R@10 | largest difference | ms a clip | ms a text | MB |")
    print("|---|---|---|---|---|---|---|")
    for name, one in found.items():
        metrics = retrieval.measure(one.audio @ one.text.T, clip_of_caption).metrics
        reached[name] = [metrics[way]["R@10"]["value"] for way in ("text_to_audio", "audio_to_text")]
        pairs = ((one.audio, found["torch"].audio), (one.text, found["torch"].text))
        apart = max(np.abs(ours - theirs).max() for ours, theirs in pairs)
        files = FILES.get(name, ("model.safetensors",))
        size = " + ".join(f"{(folder / file).stat().st_size / 1e6:.1f}" for file in files)
        shares = " | ".join(f"{100 * value:.1f}" for value in reached[name])
        print(f"| {name} | {shares} | {apart:.1e} | {one.ms_clip:.1f} | {one.ms_text:.1f} | {size} |")
    lost = max(before - after for before, after in zip(reached["torch"], reached["ONNX, int8"], strict=True))
    print(f"int8 costs at most {100 * lost:.1f} points of R@10; {100 * MAX_LOSS:.0f} are allowed")
    return int(lost > MAX_LOSS)


if __name__ == "__main__":
    sys.exit(main())
