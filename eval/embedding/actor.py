"""A model in an actor: rows of decoded clips -> rows of embeddings. It runs in a Ray Data actor or in this process."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from eval.embedding.view import AS_IT_IS, View
from pipeline.sources import AudioLocation
from train import checkpoint
from train.checkpoint import Network

DECODERS = 2  # threads of a reading task
LOCATION_COLUMNS = ("id", *AudioLocation._fields)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("duration_s", pa.float64()),
        ("features", pa.list_(pa.float32())),
        ("outputs", pa.list_(pa.float32())),
    ]
)


def read(rows: pa.Table, sample_rate_hz: int, view: View = AS_IT_IS) -> pa.Table:
    """Decode clips in a view, given LOCATION_COLUMNS; adds `samples`, int16 bytes, or `reason` where there are none."""

    def decode(row: dict[str, Any]) -> tuple[bytes, str]:
        location = AudioLocation(**{name: row[name] for name in AudioLocation._fields})
        found = view.read(location, sample_rate_hz)
        return (b"", found) if isinstance(found, str) else (found.tobytes(), "")

    with ThreadPoolExecutor(DECODERS) as pool:
        found = list(pool.map(decode, rows.to_pylist()))
    columns = {"id": rows["id"], "samples": [samples for samples, _ in found], "reason": [why for _, why in found]}
    return pa.table(columns, schema=pa.schema([("id", "string"), ("samples", "large_binary"), ("reason", "string")]))


class EmbeddingActor:
    """Holds a model; called with rows of `read` it returns their `features` and `outputs`, see `encoder.Heard`."""

    def __init__(self, model: str | Network, device: str) -> None:
        """Take a loaded model, or the checkpoint to load it from, for an actor on another machine."""
        self.model: Any = (checkpoint.load(model).model if isinstance(model, str) else model).to(device)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Listen to the clips that could be read; the others keep their reason and get empty lists."""
        clips = [np.frombuffer(row.as_py(), np.int16) for row in rows["samples"]]
        good = [i for i, clip in enumerate(clips) if len(clip)]
        empty = np.zeros(0, np.float32)
        features, outputs = [empty] * len(clips), [empty] * len(clips)
        if good:
            with torch.inference_mode():
                embeddings = self.model.encode_clips([clips[i] for i in good])
            for i, own, made in zip(
                good, embeddings.features.cpu().numpy(), embeddings.outputs.cpu().numpy(), strict=True
            ):
                features[i], outputs[i] = own, made
        durations = [len(clip) / self.model.sample_rate_hz for clip in clips]
        columns = [rows["id"], rows["reason"], durations, features, outputs]
        return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
