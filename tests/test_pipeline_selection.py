"""Selection: stored scores and verdicts cut only where a threshold says so."""

from itertools import pairwise

import pyarrow as pa
import pytest

from pipeline import audio, storage
from pipeline.dataset import overlays, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import FilterConfig, SelectionConfig, select
from pipeline.errors import InputError
from tests.support.zoo import tone

TEXTS = {"a": ["a dog barks", "dog"], "b": ["rain and a cat"], "c": ["rain"], "d": ["a copy of a"]}
SCORES = {"a": [0.9, 0.2], "b": [0.5], "c": [0.1]}  # d has none


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    """Four clips with a score overlay and an audit."""
    data = str(tmp_path_factory.mktemp("data"))
    flac = audio.encode_flac(audio.to_int16(tone(0.1)[:, 0]))
    clips = [
        shards.Outcome(
            key=key, status="written", stage="write", flac=flac, meta={"text": texts, "tag": [], "captions": []}
        )
        for key, texts in TEXTS.items()
    ]
    shards.write(data, 0, clips, "hash")
    storage.publish_json(storage.join(data, "sizes.json"), {"00000.tar": 4})
    scores = [{"key": key, "text": TEXTS[key], "score": SCORES[key]} for key in SCORES]
    verdicts = [
        {
            "key": key,
            "text": texts,
            "words": [len(text.split()) for text in texts],
            "foreign": [["Cat"] if "cat" in text else [] for text in texts],
            "unmentioned": [[] if "rain" in text else ["Rain"] for text in texts],
            "uses": [3 if text == "rain" else 1 for text in texts],
            "copy": key == "d",
        }
        for key, texts in TEXTS.items()
    ]
    for name, rows, schema in (
        ("scores", scores, overlays.CAPTIONS_SCHEMA),
        ("audit", verdicts, overlays.AUDIT_SCHEMA),
    ):
        folder = overlays.folder(data, name)
        storage.publish_table(storage.join(folder, "00000.parquet"), pa.Table.from_pylist(rows, schema=schema))
        storage.publish_json(storage.join(folder, overlays.MARK_FILE), {})
    return ClipIndex(data)


def chosen(index: ClipIndex, **config: object) -> dict[str, list[str]]:
    limits = {name: config.pop(name) for name in list(config) if name in FilterConfig.__dataclass_fields__}
    selection = SelectionConfig(filter=FilterConfig(**limits), **config)  # type: ignore[arg-type]
    return {row["key"]: row["text"] for part in select(index.data, selection) for row in part.to_pylist()}


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, TEXTS),
        ({"best_only": True}, {key: texts[:1] for key, texts in TEXTS.items()}),
        ({"captions": "scores"}, {key: TEXTS[key] for key in "abc"}),
        ({"captions": "scores", "min_score": 0.3}, {"a": ["a dog barks"], "b": TEXTS["b"]}),
        ({"captions": "scores", "keep_fraction": 0.5}, {key: TEXTS[key] for key in "ab"}),
        ({"audit": "audit"}, TEXTS),
        ({"audit": "audit", "max_foreign": 0}, {key: TEXTS[key] for key in "acd"}),
        ({"audit": "audit", "max_unmentioned": 0}, {key: TEXTS[key] for key in "bc"}),
        ({"audit": "audit", "min_words": 2}, {"a": ["a dog barks"], "b": TEXTS["b"], "d": TEXTS["d"]}),
        ({"audit": "audit", "max_uses": 2}, {key: TEXTS[key] for key in "abd"}),
        ({"audit": "audit", "drop_copies": True}, {key: TEXTS[key] for key in "abc"}),
        ({"captions": "scores", "min_score": 0.3, "audit": "audit", "max_foreign": 0}, {"a": ["a dog barks"]}),
    ],
)
def test_thresholds(index: ClipIndex, config: dict[str, object], kept: dict[str, list[str]]) -> None:
    assert chosen(index, **config) == kept


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"captions": "absent"}, r"--captions 'absent': no such overlay.*\['audit', 'scores'\]"),
        ({"audit": "absent"}, "--filter.audit 'absent': no such overlay"),
        ({"keep_fraction": 0.5}, "--keep-fraction 0.5.*needs --captions"),
        ({"keep_fraction": 0.0, "captions": "scores"}, "--keep-fraction 0.0"),
        ({"sample_fraction": 0.0}, "--sample-fraction 0.0"),
        ({"min_score": 0.1}, "--filter.min-score 0.1.*needs --captions"),
        ({"max_foreign": 0}, "--filter.audit is missing: give the overlay"),
    ],
)
def test_a_threshold_without_its_overlay_is_an_error(index: ClipIndex, config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(index, **config)


def test_a_clip_without_a_verdict_does_not_pass(index: ClipIndex) -> None:
    folder = overlays.folder(index.data, "partial")
    verdicts = storage.read_table(storage.join(overlays.folder(index.data, "audit"), "00000.parquet"))
    storage.publish_table(storage.join(folder, "00000.parquet"), verdicts.slice(0, 2))
    storage.publish_json(storage.join(folder, overlays.MARK_FILE), {})
    assert set(chosen(index, audit="partial")) == {"a", "b"}


@pytest.mark.parametrize("flag", ["captions", "audit"])
def test_an_overlay_from_before_a_retry_is_an_error(index: ClipIndex, flag: str) -> None:
    folder = overlays.folder(index.data, "early")
    storage.publish_json(storage.join(folder, overlays.MARK_FILE), {})
    with pytest.raises(InputError, match=rf"{flag} 'early': has no part for the shards \[0\].*run the stage .* again"):
        chosen(index, **{flag: "early"})


def test_smaller_samples_are_parts_of_larger_ones(index: ClipIndex) -> None:
    samples = [set(chosen(index, sample_fraction=share)) for share in (0.25, 0.5, 0.75, 1.0)]
    assert [len(sample) for sample in samples] == [1, 2, 3, 4]
    assert all(small < large for small, large in pairwise(samples))
    best = set(chosen(index, captions="scores", keep_fraction=0.5))
    assert set(chosen(index, captions="scores", keep_fraction=0.5, sample_fraction=0.75)) == best & samples[2]
