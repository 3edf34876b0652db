"""The procedural corpus: deterministic, disjoint, and its captions say what sounds."""

import dataclasses
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio, sources, storage
from pipeline.configs import SYNTH
from pipeline.corpus import phrases, sounds
from pipeline.errors import InputError
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


def test_noise_replaces_the_share_of_the_tags_it_names_and_nothing_else() -> None:
    names = list(sounds.SOUNDS)
    labels = [tuple(names[(i + j) % 20] for j in range(1 + i % 3)) for i in range(100)]
    count, noisy = sum(map(len, labels)), {}
    for share in (0.0, 0.2, 0.5, 1.0):
        noisy[share] = synth.with_noise(labels, share, seed=0)
        wrong = [
            (old, new)
            for row, got in zip(labels, noisy[share], strict=True)
            for old, new in zip(row, got, strict=True)
            if old != new
        ]
        assert len(wrong) == round(share * count)
        assert all(len(set(row)) == len(row) for row in noisy[share]), "a clip has a tag twice"
    for row, fifth, half, whole in zip(labels, noisy[0.2], noisy[0.5], noisy[1.0], strict=True):
        assert not set(row) & set(whole), "a right tag is left"
        assert all(new == more for old, new, more in zip(row, fifth, half, strict=True) if new != old)
    assert synth.with_noise(labels, 0.2, seed=0) == noisy[0.2] != synth.with_noise(labels, 0.2, seed=1)


def test_noise_is_in_the_tagged_split_alone(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path / "noisy")
    config = SYNTH["tiny"][1]
    synth.run(dataclasses.replace(config, out=out, tag_noise=0.5))
    assert storage.read_json(storage.join(out, "config.json"))["tag_noise"] == 0.5
    names = {split: f"{split}_segments.csv" for split in synth.SPLITS}
    same = {split: storage.read(f"{out}/{name}") == storage.read(f"{corpus}/{name}") for split, name in names.items()}
    assert same == {"captioned": True, "tagged": False, "evaluation": True}
    for name in storage.list_names(storage.join(corpus, "audio")):
        assert storage.read(f"{out}/audio/{name}") == storage.read(f"{corpus}/audio/{name}")


def test_a_corpus_of_the_time_before_tag_noise_is_left_alone(corpus: str, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "old")
    for name in ("run.json", "config.json"):
        content = storage.read_json(str(tmp_path / "old" / name))
        del content["tag_noise"]
        storage.publish_json(str(tmp_path / "old" / name), content)
    synth.run(dataclasses.replace(SYNTH["tiny"][1], out=str(tmp_path / "old")))
    assert "tag_noise" not in storage.read_json(str(tmp_path / "old" / "config.json"))
    with pytest.raises(InputError, match=r"tag_noise was 0\.0, now 0\.2"):
        synth.run(dataclasses.replace(SYNTH["tiny"][1], out=str(tmp_path / "old"), tag_noise=0.2))


def test_a_share_beyond_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--tag-noise 20\.0: use a share"):
        synth.run(synth.SynthConfig(out=str(tmp_path), tag_noise=20.0))
