"""`eval search`: ranks by exact comparison, filters before it ranks, and refuses what it cannot answer."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import eval.__main__ as eval_room
from eval.embedding.in_process import embed_text
from eval.search import Hit, Query, Searcher, index
from eval.stages.index_search import IndexSearchConfig, run
from pipeline import cli, storage
from pipeline.errors import InputError, JobError
from tests.support import shard_set
from train import checkpoint

CLIPS = {
    "rain1": (200.0, ["rain falls on a tin roof"], ["Rain", "Roof"]),
    "rain2": (3_000.0, ["it is raining", "drops of rain fall"], ["Rain"]),
    "dog": (500.0, ["a dog barks"], ["Dog", "Animal"]),
    "dog_rain": (900.0, ["a dog barks in the rain"], ["Dog", "Animal", "Rain"]),
    "bell": (1_700.0, ["Smith's bell rings"], ["Smith's bell", 'a "quoted" tag']),
    "silent": (60.0, [], []),
}


@pytest.fixture(scope="module")
def built(clap: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of the clips, in two shards."""
    folder, items = tmp_path_factory.mktemp("search"), list(CLIPS.items())
    data = shard_set.write(folder / "data", dict(items[:3]), dict(items[3:]))
    run(IndexSearchConfig(out=str(folder / "index"), model=clap, data=(data,)))
    return str(folder / "index")


@pytest.fixture(scope="module")
def searcher(built: str) -> Searcher:
    return Searcher(built)


@pytest.fixture(scope="module")
def audio(clap: str) -> dict[str, np.ndarray]:
    """The vectors of the clips, by their keys, as the model makes them of the tones."""
    sounds = [shard_set.sound(pitch) for pitch, _, _ in CLIPS.values()]
    return dict(zip(CLIPS, checkpoint.load(clap).model.embed_clips(sounds).numpy(), strict=True))


def keys(hits: list[Hit]) -> list[str]:
    return [hit.key for hit in hits]


def ids(searcher: Searcher) -> dict[str, str]:
    return {hit.key: hit.id for hit in searcher.search(Query(text="a", k=100))}


def ranked(vector: np.ndarray, audio: dict[str, np.ndarray]) -> list[str]:
    return sorted(audio, key=lambda key: -float(vector @ audio[key]))


def test_text_ranks_every_clip_by_cosine(searcher: Searcher, clap: str, audio: dict[str, np.ndarray]) -> None:
    vector = embed_text(checkpoint.load(clap).model, ["a dog barks"])[0]
    hits = searcher.search(Query(text="a dog barks"))
    assert keys(hits) == ranked(vector, audio)
    assert np.allclose([hit.score for hit in hits], [vector @ audio[hit.key] for hit in hits], atol=1e-5)
    assert keys(searcher.search(Query(text="a dog barks", k=2))) == keys(hits)[:2]


def test_sound_finds_itself_and_like_finds_the_others(searcher: Searcher, audio: dict[str, np.ndarray]) -> None:
    hits = searcher.search(Query(samples=shard_set.sound(CLIPS["dog"][0])))
    assert keys(hits) == ranked(audio["dog"], audio) and hits[0].key == "dog" and hits[0].score > 0.9999
    like = searcher.search(Query(like=hits[0].id))
    assert keys(like) == keys(hits)[1:]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_text_and_sound_are_mixed_by_weight(
    searcher: Searcher, clap: str, audio: dict[str, np.ndarray], weight: float
) -> None:
    vector = weight * embed_text(checkpoint.load(clap).model, ["rain"])[0] + (1 - weight) * audio["bell"]
    vector /= np.linalg.norm(vector)
    hits = searcher.search(Query(text="rain", samples=shard_set.sound(CLIPS["bell"][0]), text_weight=weight))
    assert np.allclose([hit.score for hit in hits], sorted(audio[key] @ vector for key in audio)[::-1], atol=1e-5)


@pytest.mark.parametrize("mode", ["embedding", "words", "hybrid"])
@pytest.mark.parametrize(
    ("tags", "without"),
    [
        (("Rain",), ()),
        (("Rain", "Dog"), ()),
        ((), ("Dog",)),
        (("Rain",), ("Dog", "Roof")),
        (("Smith's bell",), ()),
        ((), ("Smith's bell", 'a "quoted" tag')),
        (("Roof", "Dog"), ()),
    ],
)
def test_tags_filter_before_the_first_k_are_taken(
    searcher: Searcher, mode: Any, tags: tuple[str, ...], without: tuple[str, ...]
) -> None:
    everything = keys(searcher.search(Query(text="a dog in rain", mode=mode)))
    wanted = [key for key in everything if set(tags) <= set(CLIPS[key][2]) and not set(without) & set(CLIPS[key][2])]
    for k in (1, 20):
        found = keys(searcher.search(Query(text="a dog in rain", mode=mode, tags=tags, without_tags=without, k=k)))
        assert found == wanted[:k] if mode == "embedding" else len(found) == len(wanted[:k]) and {*found} <= {*wanted}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rain", {"rain1", "rain2", "dog_rain"}),
        ("barking dogs", {"dog", "dog_rain"}),  # by their stems
        ("TIN", {"rain1"}),
        ("Smith's", {"bell"}),
        ("rain AND (\"barks' --", {"rain1", "rain2", "dog", "dog_rain"}),
        ("the", set()),
        ("saxophone", set()),
    ],
)
def test_words_are_found_in_captions_and_nothing_else(searcher: Searcher, text: str, found: set[str]) -> None:
    assert set(keys(searcher.search(Query(text=text, mode="words")))) == found


def test_hybrid_adds_reciprocal_ranks(searcher: Searcher) -> None:
    text = "a dog barks in the rain"
    rankings = [keys(searcher.search(Query(text=text, mode=mode))) for mode in ("embedding", "words")]
    scores = {key: sum(1 / (60 + ranking.index(key)) for ranking in rankings if key in ranking) for key in CLIPS}
    hits = searcher.search(Query(text=text, mode="hybrid"))
    assert {hit.key: pytest.approx(hit.score, rel=0.02) for hit in hits} == scores
    assert keys(searcher.search(Query(text=text, mode="hybrid", k=2))) == keys(hits)[:2]


def test_a_clip_its_audio_and_the_tags(searcher: Searcher) -> None:
    hit = searcher.clip(ids(searcher)["bell"])
    assert (hit.captions, hit.tags) == (("Smith's bell rings",), ("Smith's bell", 'a "quoted" tag'))
    assert hit.uri == f"{hit.data}/00001.tar" and hit.source_id == "source of bell" and hit.duration_s == 0.25
    flac = shard_set.outcome("bell", *CLIPS["bell"]).flac
    assert searcher.audio(hit.id) == flac == storage.read(hit.uri, hit.offset, hit.size)
    assert searcher.tags()[:3] == [("Rain", 3), ("Animal", 2), ("Dog", 2)] and len(searcher.tags()) == 6
    for wrong in ("0" * 24, "' OR 1=1 --", "../../etc", ""):
        with pytest.raises(KeyError):
            searcher.clip(wrong)
        with pytest.raises(KeyError):
            searcher.audio(wrong)


def test_audio_that_has_gone_is_named(clap: str, tmp_path: Path) -> None:
    data = shard_set.write(tmp_path / "data", {"dog": CLIPS["dog"]})
    run(IndexSearchConfig(out=str(tmp_path / "index"), model=clap, data=(data,)))
    (tmp_path / "data" / "00000.tar").unlink()
    searcher = Searcher(str(tmp_path / "index"))
    (hit,) = searcher.search(Query(text="dog"))
    with pytest.raises(JobError, match=f"the audio of clip {hit.id} cannot be read: missing"):
        searcher.audio(hit.id)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "TEXT is missing: give words to search for"),
        ({"text": "  "}, "TEXT is missing"),
        ({"text": "a", "k": 0}, "--k 0: use 1 to 1000"),
        ({"text": "a", "k": 1_001}, "--k 1001: use 1 to 1000"),
        ({"text": "a", "text_weight": 1.5}, "--text-weight 1.5: use 0 to 1"),
        ({"text": "a", "text_weight": float("nan")}, "--text-weight nan: use 0 to 1"),
        ({"text": "a", "mode": "best"}, "--mode 'best': use one of embedding, words, hybrid"),
        ({"text": "a", "tags": ("rain",)}, "--tags 'rain': no clip has this tag; close to it: Rain"),
        ({"text": "a", "tags": ("bell",)}, "close to it: .*Smith's bell"),
        ({"text": "a", "without_tags": ("Xylophone",)}, "--not 'Xylophone': no clip has this tag; most frequent: Rain"),
        ({"like": "0" * 24}, "--like '0+': the index has no clip of this id"),
        ({"samples": np.zeros(0, np.int16)}, "--like is missing: the sound must be int16"),
        ({"samples": np.zeros(9, np.float32)}, "the sound must be int16"),
        ({"samples": np.ones(9, np.int16), "like": "0" * 24}, "give one sound only"),
        ({"samples": np.ones(9, np.int16), "mode": "hybrid"}, "--mode 'hybrid': searches words: give a text"),
        ({"samples": np.ones(9, np.int16), "mode": "words", "text": "a"}, "--mode 'words': cannot use a sound"),
    ],
)
def test_a_query_that_cannot_be_answered_is_named(searcher: Searcher, query: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        searcher.search(Query(**query))


def test_an_open_searcher_states_what_the_index_has_become(clap: str, tmp_path: Path) -> None:
    items, out = list(CLIPS.items()), str(tmp_path / "index")
    data = shard_set.write(tmp_path / "data", dict(items[:3]))
    run(IndexSearchConfig(out=out, model=clap, data=(data,)))
    searcher = Searcher(out)
    assert searcher.info.clips == 3
    shard_set.write(tmp_path / "data", dict(items[3:]), first=1)
    run(IndexSearchConfig(out=out, model=clap, data=(data,)))
    assert searcher.info.clips == 6 and searcher.info == index.read_info(out)
    Path(out, index.INFO_FILE).unlink()
    assert searcher.info.clips == 6, "an index that is being moved does not stop a server"


def test_another_checkpoint_is_refused_and_a_moved_one_is_taken(built: str, clap: str, tmp_path: Path) -> None:
    moved = shutil.copytree(clap, tmp_path / "moved")
    assert Searcher(built, model=str(moved)).search(Query(text="rain"))
    config = storage.read_json(str(moved / "config.json"))
    storage.publish_json(str(moved / "config.json"), config | {"revision": "0" * 64})
    with pytest.raises(InputError, match=r"--model .*has revision 000000000000, the index is of"):
        Searcher(built, model=str(moved))


@pytest.mark.parametrize("content", ["{", "[]", '{"clips": 3}'])
def test_a_damaged_index_is_named(built: str, tmp_path: Path, content: str) -> None:
    copy = shutil.copytree(built, tmp_path / "index")
    (copy / index.INFO_FILE).write_text(content)
    with pytest.raises(InputError, match=r"--index .*index\.json cannot be read .*index-search` again"):
        Searcher(str(copy))
    (copy / index.INFO_FILE).write_bytes(Path(built, index.INFO_FILE).read_bytes())
    shutil.rmtree(copy / "clips.lance")
    with pytest.raises(InputError, match=r"--index .*its table cannot be opened"):
        Searcher(str(copy))


def command(*words: str) -> int:
    return cli.main("eval", "", eval_room.STAGES, ["search", *words])


def test_the_command_prints_a_table_or_json(built: str, searcher: Searcher, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--index", built, "a dog barks", "--tags", "Dog", "--not", "Rain", "Roof")
    assert command(*words) == 0
    head, line = capsys.readouterr().out.splitlines()
    (hit,) = searcher.search(Query(text="a dog barks", tags=("Dog",), without_tags=("Rain",)))
    assert head.split("  ")[0] == "rank" and line.startswith(f"1     {hit.score:.3f}  dog  Dog, Animal  a dog barks")
    assert line.endswith(f"{hit.data}/00000.tar {hit.offset}+{hit.size}")
    assert command(*words, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["id"] == hit.id and found["tags"] == ["Dog", "Animal"] and found["offset"] == hit.offset
    assert command("--index", built, "saxophone", "--mode", "words") == 0
    assert capsys.readouterr().out == "no clip matches\n"


def test_the_command_takes_a_file_or_an_id_to_be_like(
    built: str, searcher: Searcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "dog.wav", shard_set.sound(CLIPS["dog"][0]), 32_000)
    assert command("--index", built, "--like", str(tmp_path / "dog.wav"), "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["key"] == "dog"
    assert command("--index", built, "--like", ids(searcher)["dog"], "--json", "--k", "3") == 0
    assert "dog" not in [hit["key"] for hit in json.loads(capsys.readouterr().out)]
    (tmp_path / "dog.wav").write_bytes(b"RIFF broken")
    for file, reason in (("dog.wav", "no audio to read"), ("absent.wav", r"no audio to read (missing)")):
        assert command("--index", built, "--like", str(tmp_path / file)) == 2
        assert reason in capsys.readouterr().err
    assert command("--index", built) == 2
    assert command("--index", str(tmp_path / "nothing"), "rain") == 2
    assert "--index" in capsys.readouterr().err.splitlines()[-1]
