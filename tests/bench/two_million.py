"""Measure what grows with the number of clips, on two million: `python -m tests.bench --full`.

Planning two million AudioSet rows beside a folder of two million files, planning again when nothing has changed, reading
the plan of one shard of these and of ten thousand rows, finding the hundredth of the shards that is left of a job, the
memory of a whole caption job as it goes on, and that of the clips that are trained on.
"""

import csv
import os
import random
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline import sources, storage
from pipeline.dataset import shards
from pipeline.planning.plan import read_plan
from pipeline.sources import audioset
from tests.bench import clip_list

LABELS = 527
FEW_ROWS = 10_000  # to compare with
SAMPLED_SHARDS = 20
RESUME = """
import sys
from pipeline.dataset import commit, shards
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import draft_plan
plan = draft_plan(sys.argv[2], sys.argv[1], (), 512, DecontaminationConfig()).plan
commit.recover(sys.argv[2])
done = set(shards.committed(sys.argv[2]))
todo = [shard for shard in plan.shards if shard not in done]
print(len(todo), "shards left of", len(plan.shards))
"""


def prepare(folder: Path, rows: int) -> Path:
    """Write a segments file, its label table and an audio folder of empty files."""
    draw = random.Random(0)
    mids = [f"/m/{i:04x}" for i in range(LABELS)]
    (folder / audioset.LABELS_FILE).write_text(audioset.write_labels({mid: f"Label {mid[3:]}" for mid in mids}))
    (folder / "audio").mkdir()
    letters = string.ascii_letters + string.digits + "-_"
    table = folder / "unbalanced_train_segments.csv"
    with open(table, "w") as file:
        file.write("# Segments csv\n# num_ytids\n# YTID, start_seconds, end_seconds, positive_labels\n")
        for number in range(rows):
            ytid = f"{number:06x}" + "".join(draw.choices(letters, k=5))
            start = draw.randrange(0, 600, 10)
            labels = ",".join(draw.sample(mids, draw.randint(1, 4)))
            file.write(f'{ytid}, {start}.000, {start + 10}.000, "{labels}"\n')
            os.close(os.open(folder / "audio" / f"Y{ytid}.flac", os.O_CREAT))
    return table


def measure(words: list[str]) -> tuple[float, float, str]:
    """Run a command; return seconds, peak resident GB and the last line of what it printed."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    return time.monotonic() - started, usage.ru_maxrss / 1e6, said[-1]


def plan_rows(folder: Path, rows: int) -> tuple[list[str], str]:
    """Prepare so many rows; return the command that plans them and its --out."""
    table, out = prepare(folder, rows), str(folder / "out")
    words = ["plan", "tiny", "--clips-per-shard", "512", "--source", str(table), "--out", out]
    return ["-m", "pipeline", *words], out


def bytes_of_a_shard(data: str) -> float:
    """Return the bytes that reading the plan of one shard takes, as the kernel counts them; mean of twenty. Linux only."""
    plan = read_plan(data)
    assert plan is not None
    numbers = range(0, len(plan.shards), -(-len(plan.shards) // SAMPLED_SHARDS))
    plan.read_shard(data, 0)  # what Python loads at first counts too
    before = _bytes_read()
    for shard in numbers:
        plan.read_shard(data, shard)
    return (_bytes_read() - before) / len(numbers)


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def commit_all_but(data: str, left: int) -> None:
    """Write the commit marks of a job that has come far."""
    plan = read_plan(data)
    assert plan is not None
    for shard in range(len(plan.shards) - left):
        storage.publish_json(storage.join(data, shards.stats_name(shard)), {"shard": shard, "plan_hash": plan.hash})


def caption(folder: Path, clips: int) -> str:
    """Caption so many clips with a captioner trained for seconds; return a row on the memory of all processes."""

    def stage(*words: str) -> list[str]:
        return [sys.executable, "-m", *words]

    corpus, captioner, source = folder / "corpus", folder / "captioner", folder / "clips"
    subprocess.run(stage("pipeline", "synth", "tiny", "--out", str(corpus)), check=True)
    listing = str(corpus / "captioned_segments.csv")
    subprocess.run(stage("train", "captioner", "tiny", "--source", listing, "--out", str(captioner)), check=True)
    listed = sources.read_clips(str(corpus / "tagged_segments.csv"))
    (source / "audio").mkdir(parents=True)
    with open(source / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "labels"])
        for number in range(clips):
            clip = listed[number % len(listed)]
            os.link(clip.uri, source / "audio" / f"{number}.flac")
            table.writerow([f"{number}.flac", "|".join(clip.tags)])
    out = folder / "captions"
    words = ("tiny", "--source", str(source), "--captioner", str(captioner), "--out", str(out))
    process = subprocess.Popen(stage("pipeline", "caption", *words, "--clips-per-shard", "64", "--batch-size", "32"))
    used: dict[float, list[float]] = {}  # share of the shards that are done -> GB
    while process.poll() is None:
        time.sleep(1)
        done = len(shards.committed(str(out))) / (clips / 64)
        used.setdefault(int(done * 4) / 4, []).append(resident_gb(process.pid))
    assert process.returncode == 0
    shown = ", ".join(f"{statistics.mean(used[share]):.2f}" for share in (0.0, 0.25, 0.5, 0.75) if share in used)
    return f"| caption {clips:,} clips | {sum(map(len, used.values()))} | {shown} | by quarter of the job |"


def resident_gb(pid: int) -> float:
    """Return the memory of a process and all it started; what several share is counted once. Linux only."""
    parents, total = {}, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone since
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for each in parents:
        line = [each]
        while line[-1] in parents and line[-1] != pid:
            line.append(parents[line[-1]])
        with suppress(OSError):
            if line[-1] == pid:
                total += int((Path("/proc") / str(each) / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return total / 1e6


def measure_all(rows: int = 2_000_000, clips: int = 20_000) -> Iterator[str]:
    """Measure, print and yield the lines of a table."""
    folder = Path(tempfile.mkdtemp())
    try:
        for line in _lines(folder, rows, clips):
            print(line, flush=True)
            yield line
    finally:
        shutil.rmtree(folder)


def _lines(folder: Path, rows: int, clips: int) -> Iterator[str]:
    yield "| what | seconds | peak memory, GB | result |\n|---|---|---|---|"
    (folder / "few").mkdir()
    command, few = plan_rows(folder / "few", FEW_ROWS)
    measure(command)
    command, out = plan_rows(folder, rows)
    for what in (f"plan {rows:,} rows", "the same again, nothing changed"):
        seconds, peak, said = measure(command)
        yield f"| {what} | {seconds:.1f} | {peak:.2f} | {said} |"
    small, large = bytes_of_a_shard(few), bytes_of_a_shard(out)
    said = f"{large:,.0f} bytes of {rows:,} clips, {small:,.0f} of {FEW_ROWS:,}: {large / small:.2f} times as many"
    yield f"| read the plan of one shard | | | {said} |"
    commit_all_but(out, left=max(1, round(rows / 512 / 100)))
    seconds, peak, said = measure(["-c", RESUME, command[command.index("--source") + 1], out])
    yield f"| find what is left of a job 99 % done | {seconds:.1f} | {peak:.2f} | {said} |"
    yield caption(folder, clips)
    yield from clip_list.measure(folder / "ledgers", rows)
