"""Layouts for speed give the weights of the plain one: recomputed, compiled and sharded over two processes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from pipeline.errors import InputError
from tests.test_train_loader import Numbered
from train import parallel
from train.configs import TINY_CLAP
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader
from train.data.order import Order, Step
from train.losses import contrastive
from train.losses.contrastive import Pairs
from train.losses.grad_cache import backward
from train.models import text
from train.models.blocks import blocks
from train.models.clap import Clap, Towers
from train.models.encoders import registry
from train.models.encoders.cnn14 import Cnn14Config
from train.models.encoders.mobilenet import MobileNetConfig
from train.trainer import performance
from train.trainer.context import Context
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import PerformanceConfig, prepare

CONFIG = OptimConfig(epochs=2, batch_size=6, lr=1e-2, save_every_s=0.0, ema_decay=0.5)
CPU = torch.device("cpu")


def network() -> Clap:
    torch.manual_seed(0)
    return Clap(TINY_CLAP, text.build(TINY_CLAP.text, ["text other 0 1 2 3 4 5 6 7 8 9"]))


def train(folder: Path, out: str, config: PerformanceConfig, epochs: int = 2, **where: int) -> dict[str, torch.Tensor]:
    """Train two towers on numbered clips; return the weights that are evaluated: a moving average."""
    clips: ListedClips = Numbered(folder, 18).listed
    context = Context(**where)
    ranks = parallel.Ranks(CONFIG.batch_size)
    net = network()
    ready = prepare(net, CPU, context.world_size, "float32", config, copied=True)

    def objective(model: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        inputs = (batch.waveform, batch.num_samples, *net.text_encoder.tokenize(batch.texts))
        rows = torch.arange(len(batch.keys)) + 100 * context.rank

        def loss(towers: Towers) -> torch.Tensor:
            pairs = Pairs(towers.audio, towers.text, rows, rows, batch.valid)
            return contrastive.loss("global", pairs, towers.scale, towers.bias, ranks, False)

        return backward(model, [inputs], loss, step.seed, sample_rate_hz=32_000)

    order = Order(sizes=(18,), batch_size=6, seed=0)
    loader = Loader(clips, order, 32_000, context.rank, context.world_size)
    fit(ready, objective, loader, replace(CONFIG, epochs=epochs), context, out)
    return {name: value.clone() for name, value in ready.evaluated.state_dict().items()}


def test_recomputed_blocks_change_nothing(tmp_path: Path) -> None:
    """Not even the statistics of BatchNorm, which pass twice."""
    plain = train(tmp_path, str(tmp_path / "plain"), PerformanceConfig())
    found = train(tmp_path, str(tmp_path / "found"), PerformanceConfig(recompute=True))
    for name, value in plain.items():
        assert torch.allclose(value, found[name], atol=1e-6), name


def test_compiled_blocks_give_the_same_loss() -> None:
    """With inductor's real kernels for this CPU; weights keep their names."""
    net, rows = network(), 4
    inputs = (torch.randint(-9000, 9000, (rows, 64_000), dtype=torch.int16), torch.full((rows,), 64_000))
    inputs += net.text_encoder.tokenize(["text 1", "text 2", "other 3", "text 4"])
    names = list(net.state_dict())
    plain = net(*inputs, sample_rate_hz=32_000)
    ready = prepare(network(), CPU, config=PerformanceConfig(compile=True))
    compiled = ready.model(*inputs, sample_rate_hz=32_000)
    encoder, compiled_blocks = ready.network.audio_encoder, [b for b in blocks(ready.network) if b._compiled_call_impl]
    assert compiled_blocks == blocks(ready.network.text_encoder), "blocks of the audio encoder are parts of its graph"
    assert encoder.network._torchdynamo_orig_callable is not None
    assert torch.allclose(plain.audio, compiled.audio, atol=1e-4) and torch.allclose(
        plain.text, compiled.text, atol=1e-4
    )
    assert list(ready.network.state_dict()) == names


@pytest.mark.parametrize("config", [Cnn14Config(channels=(4, 8)), MobileNetConfig(width=0.4)])
def test_kernels_that_are_channels_last_keep_every_batch_so(config: Cnn14Config | MobileNetConfig) -> None:
    """A batch has one channel, which has no layout; the first convolution gives it that of its kernels."""
    encoder = registry.build(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept: list[bool] = []

    def note(_module: torch.nn.Module, _inputs: object, made: torch.Tensor) -> None:
        kept.append(made.is_contiguous(memory_format=torch.channels_last))

    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    encoder(torch.randint(-9000, 9000, (2, 64_000), dtype=torch.int16), torch.full((2,), 64_000), 32_000)
    assert kept and all(kept)


def one_rank(rank: int, folder: str, out: str, config: PerformanceConfig, epochs: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{out}-store-{epochs}", rank=rank, world_size=2)
    weights = train(Path(folder), out, config, epochs, rank=rank, world_size=2)
    torch.save(weights, f"{out}-{rank}.pt")
    distributed.destroy_process_group()


def test_sharded_weights_train_like_whole_ones_and_go_on_on_one_rank(tmp_path: Path) -> None:
    """FSDP2 over two ranks against DDP over two ranks (BatchNorm sees half a batch in both); the state has no shards."""
    found = {}
    for name, config in (("ddp", PerformanceConfig()), ("fsdp", PerformanceConfig(shard=True))):
        out = str(tmp_path / name)
        mp.spawn(one_rank, args=(str(tmp_path), out, config, 2), nprocs=2)
        found[name] = torch.load(f"{out}-0.pt", weights_only=True)
    for name, value in found["ddp"].items():
        if value.is_floating_point() and "running" not in name:
            assert torch.allclose(value, found["fsdp"][name], atol=1e-4), name
    states = sorted(path.name for path in (tmp_path / "fsdp" / "training_state").glob("*.json"))
    assert states == ["00000006.json"]
    alone = train(
        tmp_path, str(tmp_path / "fsdp"), PerformanceConfig(), epochs=2
    )  # nothing is left to do: the state as it was
    for name, value in alone.items():
        assert torch.allclose(value.float(), found["fsdp"][name].float(), atol=1e-6), name


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"--speed.shard True: needs --scale.num-workers"):
        PerformanceConfig(shard=True).check(1)
    with pytest.raises(InputError, match=r"--speed.recompute"):
        PerformanceConfig(compile=True, recompute=True).check(1)


def test_operations_are_three_passes_forward() -> None:
    linear = torch.nn.Linear(10, 20)
    assert performance.flops(linear, (torch.zeros(4, 10),)) == 3 * 2 * 4 * 10 * 20
    assert performance.peak_flops(CPU) == 0.0
