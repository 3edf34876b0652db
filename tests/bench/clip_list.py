"""Measure the trainer's list of clips: seconds to open it, and bytes of memory for each clip, alone and on eight ranks.

Part of `make bench`. The ledgers are synthetic: keys of 18 letters as AudioSet's segments have, three captions of eight
words, two tags; there is no audio.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from pipeline import storage
from pipeline.dataset import shards
from train.data import clip_file

CLIPS_PER_SHARD, RANKS = 4096, 8
TEXT_COLUMNS = ("text", "tags")
OPEN = """
import sys, time
from pathlib import Path
from pipeline.dataset.selection import SelectionConfig
from train.data import clip_sets, datasets

def kilobytes(file, name):
    return int(Path("/proc/self", file).read_text().split(name + ":")[1].split()[0])

before = kilobytes("status", "RssAnon")
started = time.monotonic()
parts = datasets.open_data([sys.argv[1]], SelectionConfig(), (), sys.argv[2:])
clips = clip_sets.Mixture(parts)
seconds = time.monotonic() - started
for index in range(0, len(clips.keys), 1009):
    clips.keys[index], clips.texts[index], clips.tags[index], clips.location(index)
own = kilobytes("status", "RssAnon") - before
print(*datasets.names(parts), seconds, own * 1000, flush=True)
sys.stdin.readline()
print(kilobytes("smaps_rollup", "Pss_File") * 1000, flush=True)
sys.stdin.readline()
"""


def prepare(folder: Path, clips: int) -> int:
    """Write ledgers of so many clips; return the bytes of their captions and tags as Arrow holds them."""
    words = [f"word{i:03d}" for i in range(500)]
    sizes, bytes_of_text = {}, 0
    for first in range(0, clips, CLIPS_PER_SHARD):
        rows = range(first, min(first + CLIPS_PER_SHARD, clips))
        columns = {
            "key": [f"Y{row:011d}_{row % 600:05d}" for row in rows],
            "status": ["written"] * len(rows),
            "flac_offset": [512 + 500_000 * (row - first) for row in rows],
            "flac_size": [400_000] * len(rows),
            "sha256": [hashlib.sha256(str(row).encode()).hexdigest() for row in rows],
            "text": [[" ".join(words[(row * k + i) % 500] for i in range(8)) for k in (3, 5, 7)] for row in rows],
            "tags": [[f"Label {row % 527}", f"Label {row % 31}"] for row in rows],
        }
        absent = {name: [None] * len(rows) for name in shards.LEDGER.names if name not in columns}
        table = pa.table({**columns, **absent}, schema=shards.LEDGER)
        bytes_of_text += sum(table[name].nbytes for name in TEXT_COLUMNS)
        number = first // CLIPS_PER_SHARD
        storage.publish_table(str(folder / shards.ledger_name(number)), table)
        sizes[shards.tar_name(number)] = len(rows)
    storage.publish_json(str(folder / "sizes.json"), sizes)
    return bytes_of_text


class Rank:
    """A process that has opened the clips and holds them."""

    def __init__(self, folder: Path, *names: str) -> None:
        words = [sys.executable, "-c", OPEN, str(folder), *names]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self) -> list[str]:
        """Return the words of its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def go_on(self) -> None:
        """Let it write its next line, or end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def measure(folder: Path, clips: int) -> list[str]:
    """Return rows: the first process of a machine, then eight ranks that share what it wrote."""
    bytes_of_text = prepare(folder, clips)
    first = Rank(folder)
    name, seconds, own = first.say()
    first.go_on(), first.say(), first.go_on(), first.process.wait()
    size = clip_file.path(name).stat().st_size
    ranks = [Rank(folder, name) for _ in range(RANKS)]
    opened = [rank.say() for rank in ranks]
    for rank in ranks:
        rank.go_on()
    shared = sum(int(rank.say()[0]) for rank in ranks)
    for rank in ranks:
        rank.go_on()
        rank.process.wait()
    return [
        f"| open {clips:,} clips, first process of a machine | {float(seconds):.1f} s | {int(own) / clips:.0f} own bytes "
        f"a clip | {(size - bytes_of_text) / clips:.0f} bytes a clip in the file beyond captions and tags |",
        f"| the same on {RANKS} ranks | {max(float(each[1]) for each in opened):.1f} s | "
        f"{sum(int(each[2]) for each in opened) / clips / RANKS:.1f} own bytes a clip and rank | "
        f"{shared / clips:.0f} bytes a clip of shared files in all ranks together |",
    ]
