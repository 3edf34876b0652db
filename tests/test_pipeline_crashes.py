"""A clip that kills the process that decodes it, by a real SIGSEGV: the job ends with it as a failed clip."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.dataset import ledgers, shards
from pipeline.errors import JobError
from pipeline.graph import reader
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.clip_process import ClipProcess
from pipeline.sources.clip import AudioLocation
from pipeline.stages import caption
from tests.support import zoo

CRASHING_SOUNDFILE = """
import importlib.machinery, importlib.util, os, signal, sys
others = [path for path in sys.path if path != os.path.dirname(__file__)]
spec = importlib.machinery.PathFinder.find_spec("soundfile", others)
sys.modules["soundfile"] = soundfile = importlib.util.module_from_spec(spec)
spec.loader.exec_module(soundfile)
begin = soundfile.SoundFile.__init__

def crash(self, file, *arguments, **options):
    if hasattr(file, "getvalue") and (sign := file.getvalue()[-7:]).startswith(b"SIG"):
        os.kill(os.getpid(), getattr(signal, sign.decode()))
    begin(self, file, *arguments, **options)

soundfile.SoundFile.__init__ = crash
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which libsndfile dies of a file that ends with the name of a signal."""
    (tmp_path / "crashing").mkdir()
    (tmp_path / "crashing" / "soundfile.py").write_text(CRASHING_SOUNDFILE)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "crashing"), *sys.path])}


def wav(sign: bytes) -> bytes:
    return zoo.encoded(zoo.tone(1.0), kind="WAV") + sign


@pytest.fixture
def killer(caption_config: CaptionConfig, dataset: str, tmp_path: Path) -> tuple[str, str]:
    """A copy of the corpus with a clip that kills libsndfile, in the middle shard: its table, and the clip's key."""
    source = Path(caption_config.source)
    key: str = next(iter(ledgers.read(dataset, [1])))["key"][3].as_py()
    shutil.copytree(source.parent / "audio", tmp_path / "corpus" / "audio")
    for name in (source.name, "class_labels_indices.csv"):
        shutil.copy(source.parent / name, tmp_path / "corpus" / name)
    (file,) = (tmp_path / "corpus" / "audio").glob(f"{key[:12]}*")
    file.write_bytes(wav(b"SIGSEGV"))
    return str(tmp_path / "corpus" / source.name), key


def check(out: str, key: str, dataset: str) -> None:
    """Check that only that clip is lost."""
    for shard, ledger in enumerate(ledgers.read(out, range(3))):
        outcomes = Counter(zip(ledger["status"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
        if shard == 1:
            failed = [row for row in ledger.to_pylist() if row["status"] == "failed"]
            assert [(row["key"], row["reason"]) for row in failed] == [(key, "crashed")] and outcomes.total() == 8
            assert "SIGSEGV" in failed[0]["detail"]
        else:
            name = shards.tar_name(shard)
            assert Path(out, name).read_bytes() == Path(dataset, name).read_bytes()
    assert not Path(out, "attempts").exists()


@pytest.mark.parametrize("on", ["this process", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_clip_that_kills_its_decoder_is_found_and_named(
    on: str, environment: dict[str, str], killer: tuple[str, str], caption_config: CaptionConfig, dataset: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    (source, key), out = killer, str(tmp_path / "data")
    command = [sys.executable, "-m", "pipeline", "caption", "tiny", "--source", source, "--out", out]
    command += ["--captioner", caption_config.captioner, "--actors.max", str(int(on == "ray"))]
    codes = [0] if on == "ray" else [-signal.SIGSEGV] * reader.MAX_DEATHS + [0]
    for code in codes:
        assert subprocess.run(command, env=environment, check=False).returncode == code
    check(out, key, dataset)


def test_a_process_that_is_killed_from_outside_is_no_fault_of_a_clip(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    paths = {sign: tmp_path / f"{sign}.wav" for sign in ("SIGKILL", "SIGSEGV", "")}
    for sign, path in paths.items():
        path.write_bytes(wav(sign.encode()))
    monkeypatch.setattr(
        sys, "path", [str(tmp_path / "crashing"), *sys.path]
    )  # of which multiprocessing makes the child's
    with ClipProcess() as process:
        with pytest.raises(storage.StoreFault, match=r"SIGKILL.wav cannot be used now \(its process got SIGKILL"):
            process.read(AudioLocation(str(paths["SIGKILL"])))
        assert len(process.read(AudioLocation(str(paths[""]))).samples) == 32_000
        with pytest.raises(Exception, match="crashed: decoding ended its process by SIGSEGV"):
            process.read(AudioLocation(str(paths["SIGSEGV"])))


def test_a_shard_that_cannot_be_read_alive_ends_the_job(
    caption_config: CaptionConfig, dataset: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(caption_config, out=str(tmp_path / "data"))
    (tmp_path / "data" / "attempts").mkdir(parents=True)
    for i in range(reader.LAST_DEATH):
        (tmp_path / "data" / "attempts" / f"00001-{i}.begun").touch()
    with pytest.raises(JobError, match=r"shard 00001 \(Y\S+ to Y\S+\): 100 processes died reading it"):
        caption.run(config)
    caption.run(config)
    assert Path(config.out, "00001.tar").read_bytes() == Path(dataset, "00001.tar").read_bytes()
