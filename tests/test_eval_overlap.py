"""Evaluated clips that were trained on are counted: by key, by recording, by sound."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from eval.report import headline
from eval.results import overlap
from pipeline import sources
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from pipeline.stages import fingerprint
from pipeline.stages.fingerprint import FingerprintConfig
from train import checkpoint


def clip(key: str, origin: str = "") -> Clip:
    return Clip(key=key, uri="", source_id=key, recording_id=origin)


@pytest.fixture
def model(clap: str, tmp_path: Path) -> str:
    """A model that was trained on some clips, selected on another, and began from a third."""
    network = checkpoint.load(clap).model
    checkpoint.save(str(tmp_path / "start"), network, {}, ["rain"])
    uri = str(tmp_path / "model")
    checkpoint.save(uri, network, {}, ["dog", "Yabcdefghijk_0_10000"], validated=["cat"])
    return uri


def test_keys_and_recordings_are_counted_by_stage(model: str, tmp_path: Path) -> None:
    evaluated = [clip("dog"), clip("cat"), clip("rain"), clip("bird"), clip("x", "youtube:abcdefghijk")]
    lineage = {"init_audio": str(tmp_path / "start"), "generation": {"captioner": str(tmp_path / "gone")}}
    found = overlap.count(evaluated, model, lineage, ())
    assert found == {"model": 2, "model_selected_on": 1, "captioner": None, "init_audio": 1}
    assert overlap.count([clip("bird")], model, {}, ()) == {"model": 0}


@pytest.fixture
def save(clap: str, tmp_path: Path) -> Any:
    """Save a checkpoint of a name, made from others, trained on some clips; return where it lies."""
    network = checkpoint.load(clap).model

    def saved(name: str, lineage: dict[str, Any], *trained: str) -> str:
        checkpoint.save(str(tmp_path / name), network, lineage, trained)
        return str(tmp_path / name)

    return saved


def test_ancestors_are_followed_all_the_way_back_and_once(save: Any, tmp_path: Path) -> None:
    first = save("a", {"init": str(tmp_path / "c")}, "dog", "cat")  # a ring, as of a folder that was written anew
    second = save("b", {"init": first, "init_audio": first}, "rain")
    lineage = {"init": second, "init_audio": str(tmp_path / "c")}
    found = overlap.count([clip("dog"), clip("cat")], save("c", lineage), lineage, ())
    assert found == {"model": 0, "init": 0, "init/init": 2}
    assert headline.mark(found) == "*" and "init/init was trained on 2 of the 2 clips" in headline.describe_overlap(
        found, 2
    )


def test_an_ancestor_that_is_gone_is_not_known(save: Any, tmp_path: Path) -> None:
    lineage = {"init": save("b", {"init": str(tmp_path / "gone"), "init_audio": save("a", {}, "dog")})}
    found = overlap.count([clip("dog")], save("c", lineage), lineage, ())
    assert found == {"model": 0, "init": 0, "init/init": None, "init/init_audio": 1}
    assert headline.mark(found) == "*?"


def test_captioners_of_all_datasets_and_the_scorers_of_their_overlays_count(save: Any) -> None:
    scorer, recaptioner = save("scorer", {}, "dog"), save("recaptioner", {}, "dog", "cat")
    origins: list[dict[str, Any]] = [{"generation": {"captioner": save(name, {}, "cat")}} for name in ("one", "two")]
    overlays = [{"stage": "pipeline score", "model": scorer}, {"stage": "pipeline recaption", "model": recaptioner}]
    evaluated, model = [clip("dog"), clip("cat")], save("model", {})
    found = overlap.count(evaluated, model, {"origins": [*origins, {}], "overlay": overlays}, ())
    assert found == {"model": 0, "captioner": 1, "captioner 2": 1, "scorer": 1, "captioner 3": 2}
    assert overlap.count(evaluated, model, {**origins[0], "overlay": overlays[0]}, ())["scorer"] == 1
    chosen = {"stage": "pipeline choose", "model": "score among a, b", "candidates": overlays}
    found = overlap.count(evaluated, model, {**origins[0], "overlay": chosen}, ())
    assert found == {"model": 0, "captioner": 1, "scorer": 1, "captioner 2": 2}


def test_what_released_weights_were_trained_on_is_not_known(save: Any) -> None:
    released = {"stage": checkpoint.RELEASED}
    tagger = save("tagger", released)
    assert overlap.count([clip("dog")], tagger, released, ()) == {"model": None}
    towers = save("towers", {"init_audio": tagger}, "dog")
    found = overlap.count([clip("dog")], save("model", {}), {"init": towers}, ())
    assert found == {"model": 0, "init": 1, "init/init_audio": None} and headline.mark(found) == "*?"


def test_another_recording_with_digits_in_its_key_is_none(model: str) -> None:
    assert overlap.count([clip("x", "youtube:abcdefghijX"), clip("y", "freesound:1")], model, {}, ())["model"] == 0


def test_a_renamed_and_resampled_clip_is_found_by_its_sound(blat_data: Path, model: str, tmp_path: Path) -> None:
    evaluated = sources.read_clips(str(blat_data / "esc50" / "metadata.csv"))[:12]
    leaked = sources.read_samples(evaluated[3], 22_050)
    other = sources.read_samples(sources.read_clips(str(blat_data / "esc50" / "metadata.csv"))[400], 22_050)
    (tmp_path / "training").mkdir()
    soundfile.write(tmp_path / "training" / "innocent.ogg", (leaked * 0.6).astype(np.int16), 22_050)
    soundfile.write(tmp_path / "training" / "other.ogg", other, 22_050)
    table = str(tmp_path / "training.parquet")
    fingerprint.run(FingerprintConfig(source=str(tmp_path / "training"), name="training", out=table))
    assert overlap.count(evaluated, model, {}, (table,)) == {"model": 0, "model_sounds": 1}
    missing = [dataclasses.replace(each, uri=str(tmp_path / "gone.wav")) for each in evaluated]
    assert overlap.count(missing, model, {}, (table,))["model_sounds"] == 0


def test_a_table_that_is_none_is_named(model: str, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match=r"--fingerprints .*x\.parquet"):
        overlap.count([clip("dog")], model, {}, (str(tmp_path / "x.parquet"),))
