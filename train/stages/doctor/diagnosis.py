"""What limits training, and how many reading processes keep a step busy: plain arithmetic on what was measured."""

from dataclasses import asdict, dataclass
from typing import Any

MIN_GAIN = 1.1  # less is within the scatter of a short measurement
NEARLY = 0.95  # of the best rate is enough: more processes take memory

LIMITS = {
    "step": "the step of the model on its device",
    "store": "reading: the processes wait for the store that holds the shards",
    "processes": "reading: too few processes decode clips",
    "decode": "the cores: most of their time goes into reading and decoding clips",
    "model": "the cores: most of their time goes into the step of the model",
}


@dataclass(frozen=True, kw_only=True)
class TrainingRates:
    """What was measured on one worker."""

    device: str
    cores: float
    """That the worker has for itself."""
    batch: int
    """Clips of a step on this worker."""
    read_core_s: float
    """In which a core reads and decodes one clip, seconds."""
    read_wall_s: float
    """For one clip, of one reading process with its threads, seconds."""
    processes: int
    """--loader.processes; 0 is one reader in the worker."""
    loader_wall_s: float
    """For one clip, with these processes, nothing else running, seconds."""
    step_s: float
    step_core_s: float
    """Of one step; seconds, and seconds in which a core works."""


@dataclass(frozen=True, kw_only=True)
class TrainingDiagnosis:
    """What limits training, what to change, and how long the run takes."""

    limit: str
    """A key of LIMITS."""
    samples_per_s: float
    """Of all workers."""
    eta_s: float
    gpu_hours: float
    flags: str
    """That make it faster; empty where none was found."""
    advised_samples_per_s: float
    advised_eta_s: float


def diagnose(rates: TrainingRates, workers: int, clips: int) -> TrainingDiagnosis:
    """Return what limits a run over so many clips, counted in every epoch; start-up and validation are not in it."""
    now = throughput(rates, rates.processes)
    counts = range(1, max(1, int(rates.cores)) + 1)
    best = max(throughput(rates, count) for count in counts)
    count = next(count for count in counts if throughput(rates, count) >= NEARLY * best)
    pays = throughput(rates, count) >= MIN_GAIN * now
    advised = throughput(rates, count) if pays else now
    return TrainingDiagnosis(
        limit=limit(rates),
        samples_per_s=workers * now,
        eta_s=clips / (workers * now),
        gpu_hours=clips / now / 3600 if rates.device.startswith("cuda") else 0.0,
        flags=f"--loader.processes {count}" if pays else "",
        advised_samples_per_s=workers * advised,
        advised_eta_s=clips / (workers * advised),
    )


def loads(rates: TrainingRates, processes: int) -> dict[str, float]:
    """Return the seconds that each part needs for one clip of this worker; the largest sets the rate."""
    as_measured = rates.loader_wall_s if processes == rates.processes else rates.read_wall_s / max(1, processes)
    return {
        "step": rates.step_s / rates.batch,
        "reading": as_measured,
        "cores": (rates.read_core_s + rates.step_core_s / rates.batch) / rates.cores,
    }


def throughput(rates: TrainingRates, processes: int) -> float:
    """Return samples a second of one worker."""
    return 1 / max(loads(rates, processes).values())


def limit(rates: TrainingRates) -> str:
    """Return what limits the rate as configured: a key of LIMITS."""
    found = loads(rates, rates.processes)
    slowest = max(found, key=lambda name: found[name])
    if slowest == "reading":
        return "store" if rates.read_wall_s > rates.read_core_s else "processes"
    if slowest == "cores":
        return "decode" if rates.read_core_s >= rates.step_core_s / rates.batch else "model"
    return slowest


def describe(rates: TrainingRates, found: TrainingDiagnosis) -> str:
    """Return a diagnosis and what it was made from, for people."""
    lines = [
        f"read     {1 / rates.read_core_s:10,.1f} samples/s a core, {1 / rates.read_wall_s:,.1f} of one process",
        f"loader   {1 / rates.loader_wall_s:10,.1f} samples/s with --loader.processes {rates.processes}",
        f"step     {rates.batch / rates.step_s:10,.1f} samples/s: {rates.step_s * 1e3:,.1f} ms for {rates.batch} clips on "
        f"{rates.device}",
        f"limit: {LIMITS[found.limit]}",
        f"rate: {found.samples_per_s:,.1f} samples/s of all workers",
        f"time: {found.eta_s / 60:,.1f} min for all epochs, {found.gpu_hours:,.2f} GPU hours, without validation",
    ]
    if found.flags:
        rise = f"{found.samples_per_s:,.1f} -> {found.advised_samples_per_s:,.1f} samples/s"
        lines.append(f"change: {found.flags}: {rise}; time {found.advised_eta_s / 60:,.1f} min")
    else:
        lines.append("change: nothing; no number of reading processes makes it a tenth faster")
    return "\n".join(lines)


def as_json(rates: TrainingRates, found: TrainingDiagnosis) -> dict[str, Any]:
    """Return what training_rates.json holds."""
    return {"rates": asdict(rates), "diagnosis": asdict(found)}
