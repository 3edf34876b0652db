"""Odd listings made at random: every item is accounted for, every caption is beside the audio it was written for."""

import csv
import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from pipeline import sources
from pipeline.errors import InputError
from pipeline.sources.clip import Clip

NUM_LISTINGS = 100  # of each kind
TITLES = ("a{}", "{} Track 2.0 (Clean Version)", "dir.v1/b{}", "v1.2.{}", "\u00fcber {}", "UPPER{}", "./c{}")
WORDS = (
    "rain",
    "a dog, barking",
    'he said "hi"',
    "two\nlines",
    "gr\u00fcn",
    "semi; colon",
    "tab\there",
    "# no comment",
)
AUDIO = (".mp3", ".FLAC", ".Wav", ".ogg", ".m4a")
UNUSED = (".cls", ".jpg", ".npy", ".mid")


def listed(source: str, **options: str) -> tuple[list[Clip], sources.ListingStats]:
    clips, stats = sources.read_listing(source, **options)
    assert stats.balanced and stats.clips == len(clips), stats
    return clips, stats


@pytest.mark.parametrize("seed", range(NUM_LISTINGS))
def test_tars(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    members: list[tuple[str, bytes]] = []
    truth: dict[str, tuple[bytes | None, str]] = {}  # title -> the bytes and the caption that belong together
    skipped = 0
    for i in range(rng.randint(1, 12)):
        title = rng.choice(TITLES).format(i)
        caption = f"{rng.choice(WORDS)} {i}"
        kind = rng.choice(("json", "JSON", "txt", "none"))
        has_audio = kind == "none" or rng.random() < 0.9
        text = json.dumps({"text": caption}).encode() if kind.lower() == "json" else caption.encode()
        if has_audio:
            members.append((title + rng.choice(AUDIO), f"audio {i}".encode()))
        if kind != "none":
            members.append((f"{title}.{kind}", text))
        truth[title.removeprefix("./")] = (
            f"audio {i}".encode() if has_audio else None,
            caption if kind != "none" else "",
        )
        if rng.random() < 0.3:
            members.append((title + rng.choice(UNUSED), b"?"))
            skipped += 1
        if rng.random() < 0.2:
            members.append((f"{title}_dir/._{i}.flac", b"macOS"))
            skipped += 1
    rng.shuffle(members)
    again = [
        (name, data) for name, data in members if rng.random() < 0.2 and not name.endswith(UNUSED) and "._" not in name
    ]
    earlier = [(name, b"{}" if name.lower().endswith("json") else b"earlier") for name, _ in again]
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for name, data in [*earlier, *members]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    clips, stats = listed(str(path))
    assert stats.read == {"members": len(members) + len(again)}
    assert sum(stats.skipped.values()) == skipped + len(again)
    assert {clip.source_id: (_bytes(clip), "".join(clip.captions)) for clip in clips} == truth
    assert sum(bool(clip.note) for clip in clips) == len(
        {name.removeprefix("./").rpartition(".")[0] for name, _ in again}
    )


def _bytes(clip: Clip) -> bytes | None:
    return (
        None if clip.fault.startswith("missing") else sources.read_bytes(clip.uri, clip.offset, clip.size, clip.fault)
    )


@pytest.mark.parametrize("seed", range(NUM_LISTINGS))
def test_tables(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    delimiter = rng.choice(",;\t")
    names = [rng.choice((" {} ", "{}", "\u00ef{}", "d/{}")).format(i) + ".wav" for i in range(rng.randint(1, 15))]
    rows = [(name, f"{rng.choice(WORDS)} {i}") for name in names for i in range(rng.choice((1, 1, 3)))]
    if rng.random() < 0.5:
        rng.shuffle(rows)  # captions of one clip lie apart
    blanks = [("", " ")] * rng.randint(0, 3)
    text = io.StringIO()
    quoting = rng.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL))
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=rng.choice(("\n", "\r\n")))
    writer.writerow(
        [rng.choice(("file", " FILE", "File_Name ")), rng.choice(("caption", "Sentence", " text ")), "rating"]
    )
    body = rows + blanks
    rng.shuffle(body)
    for row in body:
        writer.writerow([*row, "" if row in blanks else "5"])
    comments = "# exported\n#\n" * rng.randint(0, 1)
    data = (comments + text.getvalue()).encode(rng.choice(("utf-8", "utf-8-sig")))
    path = tmp_path / rng.choice(("t.csv", "t.tsv" if delimiter == "\t" else "t.txt", "t.csv.gz"))
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    clips, stats = listed(str(path))
    wanted: dict[str, list[str]] = {}
    for name, caption in (row for row in body if row not in blanks):
        wanted.setdefault(name.strip(), []).append(caption)
    assert stats.read == {"rows": len(body)} and stats.skipped.total() == len(blanks)
    assert stats.merged == len(rows) - len(names) and list(stats.unused_columns) == ["rating"]
    assert {clip.source_id: list(clip.captions) for clip in clips} == wanted


@pytest.mark.parametrize("seed", range(NUM_LISTINGS // 2))
def test_a_quote_that_is_left_open_never_takes_in_rows(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = [f'c{i}.wav,Rain,"it rains {i}"' if rng.random() < 0.3 else f"c{i}.wav,Rain,it rains {i}" for i in range(30)]
    broken = rng.randrange(30)
    rows[broken] = f'c{broken}.wav,Rain,"it rains' if rng.random() < 0.7 else f'"c{broken}.wav,Rain,it rains'
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["file,labels,caption", *rows]) + "\n")
    with pytest.raises(InputError, match=rf"t\.csv, line {broken + 2}: .*quote"):
        sources.read_clips(str(path))


@pytest.mark.parametrize("seed", range(NUM_LISTINGS // 2))
def test_json_lines(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    fields = [
        {
            rng.choice(("file_name", "Audio_Filepath", "file")): f"{rng.choice(('./', 'data/', ''))}{i}.wav",
            "text": [f"{rng.choice(WORDS)} {i}", "more"] if rng.random() < 0.5 else f"{rng.choice(WORDS)} {i}",
            "labels": rng.choice((["Rain"], "Rain|Bell", [], None)),
            "duration": 10.0,
        }
        for i in range(rng.randint(1, 12))
    ]
    lines = [json.dumps(each, ensure_ascii=rng.random() < 0.5) for each in fields]
    if rng.random() < 0.3:
        text = f"[{', '.join(lines)}]"
        blanks = 0
    else:
        blanks = rng.randint(0, 3)
        body = lines[1:] + [" "] * blanks
        rng.shuffle(body)
        text = "\n".join([lines[0], *body]) + "\n"
    path = tmp_path / rng.choice(("m.json", "m.jsonl"))
    path.write_text(text)
    clips, stats = listed(str(path))
    assert stats.read == {"rows": len(fields) + blanks} and stats.skipped.total() == blanks
    found = {clip.source_id.rpartition("/")[2]: (clip.captions, clip.tags) for clip in clips}
    for i, each in enumerate(fields):
        caption = each["text"] if isinstance(each["text"], list) else [each["text"]]
        labels = each["labels"].split("|") if isinstance(each["labels"], str) else each["labels"] or []  # type: ignore[union-attr]
        assert found[f"{i}.wav"] == (tuple(caption), tuple(labels))
