"""The pass of `caption` that takes the fingerprint of every clip, before any is captioned, where copies are left out."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from pipeline import audio
from pipeline.audio import fingerprint
from pipeline.graph import engine
from pipeline.graph.captioner import ClipFilter
from pipeline.graph.reader import READERS, ReadClip, Reader
from pipeline.planning.tables import PlanRow
from pipeline.progress import Progress
from pipeline.quality import deduplication


class Fingerprinter:
    """What a task of the pass does; pickled to each."""

    def __init__(self, reader: Reader, clip_filter: ClipFilter) -> None:
        """Take the job's reader, and which clips would be captioned."""
        self.reader, self.clip_filter = reader, clip_filter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Publish the fingerprints of the clips of one shard that would be captioned: others must not be the kept ones."""
        (shard,) = batch["shard"].to_pylist()
        rows = self.reader.plan.read_shard(self.reader.out, shard)
        rows = [row for row in rows if self.clip_filter.passes(row["tags"], row.get("texts") or ())]
        with self.reader.reading(shard) as read_clip, ThreadPoolExecutor(READERS) as pool:
            words = list(filter(None, pool.map(partial(self._words, read_clip), rows)))
        deduplication.write_words(self.reader.out, shard, words)
        return pa.table({"shard": [shard]})

    def _words(self, read_clip: ReadClip, row: PlanRow) -> deduplication.WordsRow | None:
        _, found = self.reader.check(row, read_clip)
        if found is None:
            return None
        words = fingerprint.compute(found.samples, audio.SAMPLE_RATE_HZ)
        return {"key": row["key"], "words": words.astype("<u4").tobytes()}


def run(out: str, num_shards: int, task: Fingerprinter, in_process: bool) -> None:
    """Fix which clips of a plan are copies; shards that a retry added since are compared with all before them."""
    if not deduplication.without_copies(out, range(num_shards)):
        return
    if todo := deduplication.without_words(out, range(num_shards)):
        progress = Progress("copies", "shards", len(todo))
        for _ in engine.rows(todo, engine.Tasks(task), in_process=in_process):
            progress.add(1)
    deduplication.fix(out, num_shards)
