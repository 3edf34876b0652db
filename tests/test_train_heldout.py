"""Held-out figures while training: hand-made similarities, equal to the evaluation's own metrics; no test split."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from eval.stages.retrieval import measure
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip
from train.data.clip_sets import ListedClips
from train.metrics.zero_shot import PROMPTS
from train.trainer.context import Context
from train.validation import pairs, splits


class TextTower:
    """A stand-in for the text tower: a text is the name of a row of vectors."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([self.vectors[text] for text in texts])


def test_recalls_by_hand() -> None:
    """Two clips with two captions each. Caption b1 is closer to clip a: of four queries three find their clip first."""
    audio_vectors = torch.eye(2)
    texts_of = TextTower({"a1": [1, 0], "a2": [0.9, 0.1], "b1": [0.6, 0.4], "b2": [0, 0.8]})
    found = pairs.retrieval(audio_vectors, texts_of, [["a1", "a2"], ["b1", "b2"]])  # type: ignore[arg-type]
    assert found["text_to_audio_R@1"] == 0.75 and found["text_to_audio_R@5"] == 1.0
    assert found["audio_to_text_R@1"] == 1.0
    assert found["recall_geometric_mean"] == pytest.approx(0.75 ** (1 / 3))
    assert next(iter(found)) == "recall_geometric_mean"  # what a run selects by


@pytest.mark.parametrize("seed", range(3))
def test_recalls_are_those_of_the_evaluation_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio_vectors = rng.integers(-2, 3, (12, 3)).astype(np.float32)  # few values: many ties
    texts = [[f"{clip}-{i}" for i in range(rng.integers(1, 4))] for clip in range(12)]
    flat = [text for own in texts for text in own]
    vectors = {text: rng.integers(-2, 3, 3).astype(float).tolist() for text in flat}
    found = pairs.retrieval(torch.tensor(audio_vectors), TextTower(vectors), texts)  # type: ignore[arg-type]
    similarity = audio_vectors @ np.array([vectors[text] for text in flat], np.float32).T
    relevant = np.array([clip for clip, own in enumerate(texts) for _ in own])[None, :] == np.arange(12)[:, None]
    owners = relevant.argmax(axis=0)
    for way, expected in measure(similarity, owners).metrics.items():
        for k in pairs.RECALL_AT:
            assert found[f"{way}_R@{k}"] == pytest.approx(expected[f"R@{k}"]["value"], abs=1e-6), (way, k)


def test_one_tag_a_clip_gives_accuracy_more_give_average_precision() -> None:
    texts_of = TextTower(
        {p.format(name): [1.0, 0.0] if name == "dog" else [0.0, 1.0] for p in PROMPTS for name in ("dog", "rain")}
    )
    audio_vectors = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.9, 0.1]])
    single = pairs.zero_shot(audio_vectors, texts_of, [["Dog"], ["Rain"], ["Rain"]])  # type: ignore[arg-type]
    assert single == {"zeroshot_top1": pytest.approx(2 / 3)}
    both = pairs.zero_shot(audio_vectors, texts_of, [["Dog", "Rain"], ["Rain"], ["Dog"]])  # type: ignore[arg-type]
    assert both == {"zeroshot_mAP": pytest.approx(1.0)}


@pytest.mark.parametrize(
    "source", ["x/test.csv", "s3://b/AudioCaps/test.csv", "clotho/evaluation/metadata.csv", "/d/eval_segments.csv"]
)
def test_a_test_split_is_refused_by_its_name(source: str) -> None:
    with pytest.raises(InputError, match=r"is a test split by its name; .*validation split"):
        splits.refuse_test_split(source, [])


@pytest.mark.parametrize(
    "source", ["x/val.csv", "latest/validation.csv", "contest/metadata.csv", "test/run/valid/m.csv"]
)
def test_other_names_pass(source: str) -> None:
    splits.refuse_test_split(source, ["val", "dev", ""])


def test_a_test_split_is_refused_by_its_folds() -> None:
    with pytest.raises(InputError, match="holds clips of the fold 'test'"):
        splits.refuse_test_split("x/metadata.csv", ["dev", "test"])


def test_clips_that_cannot_be_read_are_named_and_the_others_embedded(tmp_path: Path) -> None:
    listed = []
    for name, length in (("gone", 0), ("short", 320), ("empty", 0), ("long", 640)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(length, 0.1), 32_000)
        listed.append(Clip(key=name, uri=str(tmp_path / f"{name}.wav"), source_id=name, tags=("dog",)))
    (tmp_path / "gone.wav").unlink()

    def embed(arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.tensor([[float(len(array))] for array in arrays])

    found = pairs.embed_clips(embed, ListedClips(listed, ("{}",)), Context())
    assert found.rows == [1, 3] and found.vectors.tolist() == [[320.0], [640.0]]
    assert list(found.faults) == ["gone", "empty"] and "missing" in found.faults["gone"]
    with pytest.raises(JobError, match="held-out clip gone cannot be read"):
        found.whole()
    none = pairs.embed_clips(embed, ListedClips(listed[:1], ("{}",)), Context())
    assert none.rows == [] and list(none.faults) == ["gone"]
