"""The order of a clip's captions: that in which they were made, each text once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import sources, storage
from pipeline.graph.caption_actor import CaptionActor, other_tags
from pipeline.graph.caption_config import CaptionActorConfig, Guidance
from pipeline.graph.captioner import distinct
from pipeline.graph.run_config import RunConfig
from pipeline.graph.shard_batch import CaptionRow, ShardBatch
from pipeline.graph.write_shard import caption_record
from pipeline.stages.score import _best_first
from train.models.captioner.decoding import Decoding


def test_a_caption_made_again_stays_in_its_first_place() -> None:
    """As with several kinds of guidance, and with samples: the record that stays is that of the first."""
    records = [{"text": text, "guidance": guidance} for text, guidance in zip("ABCAD", "tttnn", strict=True)]
    assert distinct(records) == [records[0], records[1], records[2], records[4]]


def test_scores_that_tie_keep_the_order_of_the_captions() -> None:
    assert _best_first([(0.5, "b"), (0.9, "z"), (0.5, "c"), (0.5, "a")]) == [
        (0.9, "z"),
        (0.5, "b"),
        (0.5, "c"),
        (0.5, "a"),
    ]


@pytest.fixture(scope="module")
def clips(corpus: str) -> ShardBatch:
    """Clips as a reader passes them on."""
    listed = sources.read_clips(storage.join(corpus, "tagged_segments.csv"))[:6]
    waveforms = np.concatenate([sources.read_samples(clip) for clip in listed])
    rows: list[Any] = [{"status": "ready", "num_samples": 64_000, "key": c.key, "tags": list(c.tags)} for c in listed]
    return ShardBatch(shard=0, clips=rows, waveforms=waveforms)


def captions(clips: ShardBatch, config: CaptionActorConfig) -> list[list[CaptionRow]]:
    captioned = ShardBatch.from_table(CaptionActor(config)(clips.to_table()))
    assert not len(captioned.waveforms), "samples came back from the actor"
    return [row["captions"] or [] for row in captioned.clips]


def test_merged_passes_are_the_passes_one_after_the_other(captioner: str, clips: ShardBatch) -> None:
    """Two kinds of guidance, each decoded by beam search and by sampling; each of the four by itself, in this order."""
    both: tuple[Guidance, ...] = ("tags", "none")
    beam, nucleus = Decoding(num_captions=3), Decoding(method="nucleus", num_captions=5, top_p=0.5)
    merged = CaptionActorConfig(
        captioner=captioner, guidance=both, samples=5, decoding=Decoding(num_captions=3, top_p=0.5)
    )
    alone = [
        captions(clips, CaptionActorConfig(captioner=captioner, guidance=(guidance,), decoding=decoding))
        for guidance in both
        for decoding in (beam, nucleus)
    ]
    wanted = [[record for made in passes for record in made] for passes in zip(*alone, strict=True)]
    assert any(len({record["text"] for record in records}) < len(records) for records in wanted), "no caption repeats"
    texts = [[record["text"] for record in distinct(records)] for records in wanted]
    got = captions(clips, merged)
    assert [[record["text"] for record in records] for records in got] == texts
    assert [records[0]["guidance"] for records in got] == ["tags"] * 6


def test_shuffled_guidance_gives_each_clip_the_tags_of_another(captioner: str, clips: ShardBatch) -> None:
    """A permutation of the shard's tags without a clip's own; batches change nothing; it is in the captions' records."""
    config = CaptionActorConfig(captioner=captioner, guidance=("shuffled",))
    records, single = ([made[0] for made in captions(clips, replace(config, batch_size=size))] for size in (4, 1))
    assert [record["tags"] for record in records] == [record["tags"] for record in single]
    given, own = [record["tags"] for record in records], [row["tags"] for row in clips.clips]
    assert sorted(map(str, given)) == sorted(map(str, own))
    keyed = [{"key": row["key"], "tags": [row["key"]]} for row in clips.clips]
    assert all(other != row["tags"] for other, row in zip(other_tags(keyed), keyed, strict=True))
    settings = RunConfig(config=config, captioner_revision="0", arithmetic="float32")
    stated = [caption_record(record, settings) for record in records]
    assert [record["shuffled_tags"] for record in stated] == ["|".join(tags or []) for tags in given]
    assert not any(record["tags_given"] for record in stated)
