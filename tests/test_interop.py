"""Shards are read unchanged by programs that know nothing of this repository.

webdataset, Hugging Face datasets and GNU tar are run. open_clip's audio loader is on its main branch only (the newest
release, open-clip-torch 3.3.0, reads images alone) and LAION-CLAP's (laion-clap 1.1.7) needs numpy 1 and the network to be
imported: their rules, read in the sources, are stated as checks that use nothing but tarfile.
"""

import io
import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import webdataset

from pipeline import audio, storage
from pipeline.dataset import shards
from pipeline.sources import audioset

CLIPS_PER_SHARD = 5
# AudioSet ids may begin with - or _; captions as people write them, and one that looks like JSON
YTIDS = (
    "-0RWZT-miFs",
    "_aBcDeFgHiJ",
    "--4gqARaEJE",
    "0a1b2c3d4e5",
    "A-_-_-_-_-Z",
    "-abc",
    "zzzzzzzzzzz",
    "__--__--__-",
    "9",
    "---",
)
CAPTIONS = (
    "a dog barks, then “someone” laughs",
    "ein Hund bellt über die Straße",
    "雨が降っている 🌧️",
    "1.5",
    "null",
    "a\tb \\ 'c' \"d\" e\u0301\u2028f",
)
TAGS = ("Rain", "Wind", "Vehicle horn, car horn, honking", "Gurgling / bubbling", "Sound «étrange»")


def clip(index: int) -> shards.Outcome:
    """One clip as `pipeline caption` writes it; lengths, numbers of captions and optional fields differ between clips."""
    rng = np.random.default_rng(index)
    samples = rng.integers(-9000, 9000, int(audio.SAMPLE_RATE_HZ * rng.uniform(1, 2))).astype(np.int16)
    texts = [CAPTIONS[(index + n) % len(CAPTIONS)] for n in range(1 + index % 3)]
    end_s = round(len(samples) / audio.SAMPLE_RATE_HZ, 3)
    record = {"model": "captioner", "revision": "0123abcd", "decoding": "beam 3", "precision": "float32"}
    captions = [{"text": text, "score": -0.5 * n, "tags_given": n == 0, **record} for n, text in enumerate(texts)]
    meta = {
        "text": texts,
        "tag": [TAGS[(index + n) % len(TAGS)] for n in range(1 + index % 2)],
        "mids": ["/m/06mb1"],
        "source_id": YTIDS[index],
        "start_s": 30.0,
        "end_s": 30.0 + end_s,
        "num_samples": len(samples),
        "sample_rate_hz": audio.SAMPLE_RATE_HZ,
        "captions": captions,
    }
    key = audioset.key(YTIDS[index], 30.0, 30.0 + end_s)
    flac = audio.encode_flac(samples)
    return shards.Outcome(key=key, status="written", stage="write", duration_s=end_s, flac=flac, meta=meta)


@pytest.fixture(scope="module")
def written() -> list[shards.Outcome]:
    """The clips of both shards, in order."""
    return [clip(index) for index in range(2 * CLIPS_PER_SHARD)]


@pytest.fixture(scope="module")
def data(written: list[shards.Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two shards, with a failed clip in each."""
    folder = tmp_path_factory.mktemp("interop")
    failed = shards.Outcome(key="Ybad_0_1", status="failed", stage="read", reason="empty", detail="0 bytes")
    for shard in range(2):
        part = written[shard * CLIPS_PER_SHARD :][:CLIPS_PER_SHARD]
        shards.write(str(folder), shard, [part[0], failed, *part[1:]], "hash")
    storage.publish_json(str(folder / "sizes.json"), {shards.tar_name(shard): CLIPS_PER_SHARD for shard in range(2)})
    return folder


def samples_of(flac: bytes) -> np.ndarray:
    decoded, rate_hz = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert rate_hz == 32_000 and decoded.ndim == 1
    return decoded


def check(read: list[tuple[str, bytes, Any]], written: list[shards.Outcome]) -> None:
    """Compare (key, FLAC, JSON) as someone read it with what was written."""
    assert [key for key, _, _ in read] == [outcome.key for outcome in written]
    for (_, flac, meta), outcome in zip(read, written, strict=True):
        assert flac == outcome.flac
        assert len(samples_of(flac)) == outcome.meta["num_samples"]
        assert meta["text"] == outcome.meta["text"] and meta["tag"] == outcome.meta["tag"]
        assert meta == outcome.meta


@pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "0000{0,1}.tar"])
def test_webdataset(data: Path, written: list[shards.Outcome], pattern: str) -> None:
    samples = webdataset.WebDataset(str(data / pattern), shardshuffle=False, empty_check=False)
    check([(s["__key__"], s["flac"], json.loads(s["json"])) for s in samples], written)


@pytest.fixture(scope="module")
def ffmpeg() -> None:
    """torchaudio and datasets decode with torchcodec, and that with FFmpeg's shared libraries."""
    from torchcodec.decoders import AudioDecoder

    try:
        AudioDecoder(audio.encode_flac(np.zeros(320, np.int16)))
    except RuntimeError as error:
        pytest.skip(f"no FFmpeg: {str(error).splitlines()[0]}")


def test_webdataset_decodes(data: Path, written: list[shards.Outcome], ffmpeg: None) -> None:
    """With webdataset's own decoders, as LAION-CLAP has it."""
    pipeline = webdataset.WebDataset(str(data / "{00000..00001}.tar"), shardshuffle=False)
    for sample, outcome in zip(pipeline.decode(webdataset.torch_audio), written, strict=True):
        waveform, rate_hz = sample["flac"]
        assert rate_hz == audio.SAMPLE_RATE_HZ and sample["json"] == outcome.meta
        assert (waveform[0].numpy() * 2**15 == samples_of(outcome.flac)).all()


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The library `datasets`, without network and with its caches in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        import datasets

        yield datasets


def load(hugging_face: Any, data: Path, cache: Path, streaming: bool) -> Any:
    files = [str(data / shards.tar_name(shard)) for shard in range(2)]
    loaded = hugging_face.load_dataset(
        "webdataset", data_files=files, split="train", streaming=streaming, cache_dir=str(cache)
    )
    assert {"__key__", "flac", "json"} <= set(loaded.column_names)
    assert isinstance(loaded.features["flac"], hugging_face.Audio)
    return loaded


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(
    hugging_face: Any, data: Path, written: list[shards.Outcome], tmp_path: Path, streaming: bool
) -> None:
    """The columns and the bytes, which need torchcodec to be installed but no FFmpeg."""
    loaded = load(hugging_face, data, tmp_path, streaming).cast_column("flac", hugging_face.Audio(decode=False))
    check([(row["__key__"], row["flac"]["bytes"], row["json"]) for row in loaded], written)


def test_hugging_face_datasets_decode(
    hugging_face: Any, data: Path, written: list[shards.Outcome], tmp_path: Path, ffmpeg: None
) -> None:
    for row, outcome in zip(load(hugging_face, data, tmp_path, False), written, strict=True):
        decoded = row["flac"].get_all_samples()
        assert decoded.sample_rate == audio.SAMPLE_RATE_HZ
        assert (decoded.data[0].numpy() * 2**15 == samples_of(outcome.flac)).all()


def members(data: Path) -> Iterator[list[tuple[str, str, bytes]]]:
    """For each tar, what trainers see of it: (key, extension, content), the key ending at the first dot of the name."""
    for path in sorted(data.glob("*.tar")):
        with tarfile.open(path) as tar:
            named = [(*member.name.split(".", 1), tar.extractfile(member).read()) for member in tar]
        yield [(key, extension, content) for key, extension, content in named]


def grouped(data: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples as every reader groups them: neighbours with one key."""
    for tar in members(data):
        for key, group in groupby(tar, key=lambda member: member[0]):
            yield key, {extension: content for _, extension, content in group}


def test_the_rules_of_open_clip(data: Path, written: list[shards.Outcome]) -> None:
    """open_clip_train/audio_data.py on main, `--dataset-type webdataset-audio --audio-ext flac`.

    A sample without audio (wav, flac, mp3, ogg) or caption (json, txt, cls) is dropped; the first of json, txt and cls that
    is there counts. Of JSON, `text` is the caption, or else `caption`: a str, or a list of which one is drawn; an empty list
    would make the whole JSON the caption. The number of samples is the sum of sizes.json beside the tars, by file name.
    """
    sizes = json.loads((data / "sizes.json").read_text())
    samples = list(grouped(data))
    assert sum(sizes[path.name] for path in data.glob("*.tar")) == len(samples) == len(written)
    for (key, sample), outcome in zip(samples, written, strict=True):
        assert key == outcome.key and list(sample) == ["flac", "json"]
        assert len(samples_of(sample["flac"])) == outcome.meta["num_samples"]
        texts = json.loads(sample["json"].decode("utf-8"))["text"]
        assert isinstance(texts, list) and random.choice(texts) in outcome.meta["text"]
        assert all(isinstance(text, str) and text for text in texts)


def test_the_rules_of_laion_clap(data: Path, written: list[shards.Outcome]) -> None:
    """laion_clap/training/data.py: every sample has flac and json; of `text` one caption is drawn, `tag` becomes classes.

    sizes.json is read as by open_clip. Results name a clip by its key from the last `/` on, so keys hold none.
    """
    sizes = json.loads((data / "sizes.json").read_text())
    for path, tar in zip(sorted(data.glob("*.tar")), members(data), strict=True):
        assert sizes[path.name] == len({key for key, _, _ in tar})
    classes = list(TAGS)
    for (key, sample), outcome in zip(grouped(data), written, strict=True):
        meta = json.loads(sample["json"])
        assert "/" not in key and set(sample) == {"flac", "json"}
        assert isinstance(meta["text"], list) and isinstance(meta["text"][0], str)
        hits = np.isin(classes, meta["tag"])
        assert {name for name, hit in zip(classes, hits, strict=True) if hit} == set(outcome.meta["tag"])


def test_gnu_tar_lists_and_extracts(data: Path, written: list[shards.Outcome], tmp_path: Path) -> None:
    names = [f"{outcome.key}.{kind}" for outcome in written for kind in ("flac", "json")]
    listed = []
    for path in sorted(data.glob("*.tar")):
        done = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        listed += done.stdout.splitlines()
        subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
        assert not done.stderr
    assert listed == names and sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / names[0]).read_bytes() == written[0].flac


def test_tarfile_extracts_with_its_strict_filter(data: Path, written: list[shards.Outcome], tmp_path: Path) -> None:
    for path in sorted(data.glob("*.tar")):
        with tarfile.open(path) as tar:
            assert all(member.isreg() for member in tar)
            tar.extractall(tmp_path, filter="data")
    for outcome in written:
        assert (tmp_path / f"{outcome.key}.flac").read_bytes() == outcome.flac
        assert json.loads((tmp_path / f"{outcome.key}.json").read_text("utf-8")) == outcome.meta
