"""The procedural corpus: deterministic, disjoint, and its captions say what sounds."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio, sources, storage
from pipeline.corpus import phrases, sounds
from pipeline.sources import audioset
from pipeline.stages import synth


@pytest.mark.parametrize("name", sorted(sounds.SOUNDS))
def test_every_sound_is_audible_finite_and_varied(name: str) -> None:
    first, second = (sounds.render(name, np.random.default_rng(seed), 1.5) for seed in (0, 1))
    assert np.isfinite(first).all()
    assert np.sqrt(np.mean(first**2)) == pytest.approx(0.1, rel=1e-6)
    assert not np.allclose(first, second)


def test_sounds_and_wordings_agree() -> None:
    assert list(sounds.SOUNDS) == list(phrases.WORDINGS)
    assert len({wording.mid for wording in phrases.WORDINGS.values()}) == 20


def test_captions_name_every_event_in_order() -> None:
    rng = np.random.default_rng(0)
    for layout, count in phrases.TEMPLATES:
        for _ in range(50):
            names = [str(name) for name in rng.choice(list(sounds.SOUNDS), count, replace=False)]
            text = phrases.caption(rng, names, layout)
            found = []
            for name in names:
                wordings = [words for pair in phrases.WORDINGS[name].pairs for words in pair]
                places = [text.find(words) for words in wordings if words in text]
                assert places, (name, text)
                found.append(min(places))
            assert found == sorted(found), text


def test_same_seed_same_bytes_other_split_other_sound() -> None:
    def render(split: int) -> bytes:
        rng = np.random.default_rng([0, split, 0])
        return audio.encode_flac(audio.to_int16(synth.mix(rng, synth.draw_scene(rng, "x" * 11, "Rain", 1), 2.0)))

    assert render(0) == render(0)
    assert render(0) != render(1)


def test_corpus_files_and_splits(corpus: str) -> None:
    splits = {name: sources.read_clips(storage.join(corpus, f"{name}_segments.csv")) for name in synth.SPLITS}
    assert {name: {len(clip.captions) for clip in clips} for name, clips in splits.items()} == {
        "captioned": {1},
        "tagged": {0},
        "evaluation": {5},
    }
    assert all(len(sources.tag_vocabulary(clips)) == 20 for clips in splits.values())
    keys = [clip.key for clips in splits.values() for clip in clips]
    assert len(keys) == len(set(keys))
    for clip in splits["tagged"]:
        samples = audio.decode(storage.read(clip.uri))
        assert len(samples) == 2 * audio.SAMPLE_RATE_HZ
        assert np.abs(samples.astype(float)).max() > 500


def test_mids_are_the_official_ones(blat_data: Path) -> None:
    text = gzip.decompress((blat_data / "meta" / "audioset_class_labels_indices.csv.gz").read_bytes()).decode()
    official = audioset.read_labels(text)
    assert {wording.mid: name for name, wording in phrases.WORDINGS.items()}.items() <= official.items()
