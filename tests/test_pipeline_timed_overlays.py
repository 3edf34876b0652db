"""Phrases with times stay with their clips where captions are written anew, judged, chosen and exported."""

import dataclasses
import json
import tarfile
from pathlib import Path

from pipeline.configs import IN_PROCESS, RECAPTION
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import SelectionConfig
from pipeline.graph.caption_config import CaptionConfig
from pipeline.stages import audit, caption, choose, export, recaption, score, verify
from pipeline.stages.audit import AuditConfig
from pipeline.stages.choose import ChooseConfig
from pipeline.stages.export import ExportConfig
from pipeline.stages.score import ScoreConfig
from pipeline.stages.verify import VerifyConfig
from train.data import datasets


def test_times_stay_with_captions_of_overlays_and_a_choice_among_them(
    caption_config: CaptionConfig, clap: str, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    caption.run(dataclasses.replace(caption_config, out=data, timed=True))
    index = ClipIndex(data)
    wanted = {key: index.meta(row)["phrases"] for row, key in enumerate(index.keys)}
    again = dataclasses.replace(RECAPTION["tiny"][1], captioner=caption_config.captioner, actors=IN_PROCESS)
    recaption.run(dataclasses.replace(again, data=data, name="again"))
    choose.run(ChooseConfig(data=data, name="best", overlays=("shards", "again"), by="agreement", in_process=True))
    score.run(ScoreConfig(data=data, name="scored", captions="best", model=clap, actors=IN_PROCESS))
    audit.run(AuditConfig(data=data, name="audit", captions="scored", in_process=True))
    verify.run(VerifyConfig(data=data, in_process=True))

    out = str(tmp_path / "plain")
    export.run(ExportConfig(data=data, out=out, captions="scored", keep_fraction=0.5, rate=16_000, in_process=True))
    with tarfile.open(Path(out, "00000.tar")) as tar:
        files = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")}
        exported = {name.removesuffix(".json"): json.load(file)["phrases"] for name, file in files.items() if file}
    (clips,) = datasets.open_data([data], SelectionConfig(captions="scored", keep_fraction=0.5), timed=True)
    trained = dict(zip(clips.keys, clips.phrases, strict=True))
    assert exported == trained == {key: wanted[key] for key in exported} and 0 < len(exported) < len(wanted)
