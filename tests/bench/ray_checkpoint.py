"""A job that is 99 % done: seconds until it has found out what is left, written it and ended, ours and Ray Data's.

Ray Data's is `read_parquet -> map -> write_webdataset` with `DataContext.checkpoint_config`, which keeps the ids of written
rows in Parquet files. `python -m tests.bench.ray_checkpoint TABLE OUT CHECKPOINT` runs it. Both copy FLAC of clips into
tars, on a Ray that runs; ours also decodes and checks what is left.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import shards
from tests.bench import inputs
from tests.bench.ratio import Row, alternate, seconds
from tests.bench.sizes import Sizes
from tests.bench.warm_ray import warm_ray

SHARDS = 100
ID = "__key__"  # write_webdataset takes it for the name of a sample; other columns become files in the tar


def read_clip(row: dict[str, Any]) -> dict[str, Any]:
    """Add the files of a sample."""
    return {ID: row[ID], "flac": Path(row["path"]).read_bytes(), "json": json.dumps({"text": ["a sound"]}).encode()}


def main(words: Sequence[str]) -> None:
    """Write the clips of a table that no checkpoint names yet."""
    import ray
    from ray.data.checkpoint import CheckpointConfig

    table, out, checkpoint = words
    ray.init(logging_level="ERROR", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column=ID, checkpoint_path=checkpoint, delete_checkpoint_on_success=False
    )
    ray.data.read_parquet(table, columns=[ID, "path"]).map(read_clip).write_webdataset(out, min_rows_per_file=10)


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield one row; nothing where Ray is left out."""
    if not sizes.ray:
        return
    source = inputs.write_clips(folder, "flac", sizes.clips, sizes)
    with warm_ray() as environment:
        ours, theirs = _ours(folder, source, sizes, environment), _theirs(folder, source, environment)
        found = alternate(ours, theirs, sizes.repeats)
    yield Row(
        what=f"end a job of {sizes.clips} clips that is 99 % done",
        ours=f"{found.ours.median:.1f} s",
        peer=f"{found.peer.median:.1f} s, Ray Data's write_webdataset with its checkpoint",
        found=found.ratio,
        at_most=1.0,
    )


def _ours(folder: Path, source: Path, sizes: Sizes, environment: dict[str, str]) -> Callable[[], float]:
    """Return a run of our job after one of its hundred shards has been taken away."""
    out = folder / "resumed_ours"
    words = (str(source), str(out), str(-(-sizes.clips // SHARDS)), "1")
    command = inputs.stage("tests.bench.caption_job", *words)
    inputs.run(command, **environment)
    done = shards.committed(str(out))

    def run() -> float:
        (out / shards.stats_name(done[-1])).unlink()
        (out / "sizes.json").unlink()
        took = seconds(lambda: inputs.run(command, **environment))
        assert shards.committed(str(out)) == done
        return took

    return run


def _theirs(folder: Path, source: Path, environment: dict[str, str]) -> Callable[[], float]:
    """Return a run of Ray Data's job with the checkpoint of 99 % of the rows."""
    out, kept, checkpoint = (folder / f"resumed_{name}" for name in ("theirs", "kept", "checkpoint"))
    paths = [place.path for place in inputs.flac_files(source)]
    table = pa.table({ID: [Path(path).stem for path in paths], "path": paths})
    for name, count in (("first.parquet", len(paths) - max(1, len(paths) // SHARDS)), ("all.parquet", len(paths))):
        pq.write_table(table.slice(0, count), folder / name)

    def command(name: str) -> list[str]:
        return inputs.stage("tests.bench.ray_checkpoint", str(folder / name), str(out), str(checkpoint))

    inputs.run(command("first.parquet"), **environment)
    shutil.copytree(checkpoint, kept)
    before = set(out.iterdir())

    def run() -> float:
        shutil.rmtree(checkpoint)
        shutil.copytree(kept, checkpoint)
        took = seconds(lambda: inputs.run(command("all.parquet"), **environment))
        written = set(out.iterdir()) - before
        assert written, "nothing was left to write"
        for path in written:
            path.unlink()
        return took

    return run


if __name__ == "__main__":
    main(sys.argv[1:])
