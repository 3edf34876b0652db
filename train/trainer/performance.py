"""How a network is laid out for speed and memory: arithmetic, memory format, compiled or recomputed blocks, over ranks."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.errors import InputError
from train import parallel
from train.losses.grad_cache import frozen_statistics
from train.models.blocks import blocks
from train.models.encoders.encoder import AudioEncoder
from train.trainer.state import whole

# Dense bfloat16 rates of matrix products, FLOP/s, from NVIDIA's data sheets; what MFU is a share of.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


@dataclass(frozen=True, kw_only=True)
class PerformanceConfig:
    """Speed and memory. Results stay the same but for rounding."""

    channels_last: bool = True
    """Keep images and kernels channel by channel, as tensor cores and CPUs read them fastest. Not used with `shard`:
    FSDP2 takes contiguous weights."""
    compile: bool = False
    """Compile the audio encoder and the blocks of the text encoder; the first step then takes a minute."""
    recompute: bool = False
    """Keep no activations inside those blocks but compute them again for the gradients: less memory, a third more time."""
    shard: bool = False
    """Split weights, gradients and moments over the workers (FSDP2) where each would hold all of them (DDP)."""

    def check(self, num_workers: int) -> None:
        """Raise InputError for what cannot be."""
        if self.shard and num_workers < 2:
            raise InputError("--speed.shard", True, "needs --scale.num-workers of 2 or more")
        if self.compile and self.recompute:
            raise InputError(
                "--speed.recompute", True, "a compiled block plans its own memory; leave out --speed.compile"
            )


class Prepared(NamedTuple):
    """A network ready for training."""

    model: nn.Module  # what a step calls
    network: nn.Module  # the bare network, whose parameters are trained
    evaluated: nn.Module  # what validation calls: the network, or a copy where weights are sharded or averaged
    sharded: bool = False

    def evaluated_with(self, weights: Mapping[str, Tensor] | None, for_good: bool = False) -> nn.Module:
        """Return what is evaluated, holding these weights, or else those of the network; every rank must call.

        `for_good` is for the end of a run: then the network itself may be given the weights.
        """
        if self.evaluated is not self.network:
            held = self.network.state_dict() if weights is None else weights
            self.evaluated.load_state_dict({name: whole(value) for name, value in held.items()})
        elif weights is not None:
            assert for_good, "an average needs a copy to be evaluated in"
            self.network.load_state_dict(dict(weights))
        return self.evaluated


def prepare(
    network: nn.Module,
    device: torch.device,
    world_size: int = 1,
    precision: str = "float32",
    config: PerformanceConfig | None = None,
    copied: bool = False,
) -> Prepared:
    """Put a network on a device and lay it out.

    Args:
        network: to be trained; its weights' names stay as they are.
        device: of this rank.
        world_size: number of ranks.
        precision: arithmetic of its forward pass, float32 or bfloat16; weights are float32.
        config: see `PerformanceConfig`.
        copied: evaluate in a copy, for runs that average their weights.
    """
    config = config or PerformanceConfig()
    network = network.to(device)
    shard = config.shard and world_size > 1  # an elastic run may be down to one
    if config.channels_last and not shard:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    evaluated = copy.deepcopy(network) if copied or shard else network
    if precision == "bfloat16":
        network.forward = torch.autocast(device.type, dtype=torch.bfloat16)(network.forward)  # type: ignore[method-assign]
    if shard:
        from torch.distributed.fsdp import fully_shard  # here: its import takes two seconds
    if config.compile:
        _compile(network, shard)
    for block in blocks(network):
        if config.recompute:
            block.forward = partial(_recomputed, block, block.forward)  # type: ignore[method-assign]
        if shard and any(p.requires_grad for p in block.parameters()):
            fully_shard(block)
    if world_size == 1:
        return Prepared(network, network, evaluated)
    if shard:
        scalars = {parameter for parameter in network.parameters() if parameter.dim() == 0}  # which FSDP does not split
        fully_shard(network, ignored_params=scalars)
        parallel.average_each(scalars)
        return Prepared(network, network, evaluated, sharded=True)
    return Prepared(parallel.average_gradients(network, device), network, evaluated)


def _compile(network: nn.Module, shard: bool) -> None:
    """Compile each audio encoder as one graph, other blocks one by one; in a sharded network all blocks one by one."""
    encoders = [] if shard else [module for module in network.modules() if isinstance(module, AudioEncoder)]
    inside = {id(part) for encoder in encoders for part in encoder.modules()}
    for encoder in encoders:
        encoder.compile_network()
    for block in blocks(network):
        if id(block) not in inside:
            block.compile(dynamic=False)


def _recomputed(block: nn.Module, forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    """Run a block without keeping its activations; BatchNorm's statistics move in the first pass alone."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)  # type: ignore[arg-type]


def flops(network: nn.Module, inputs: tuple[Tensor, ...], **named: object) -> float:
    """Return the operations of one training step on `inputs`: three passes forward, as the field counts them."""
    training = network.training
    from torch.utils.flop_counter import FlopCounterMode  # here: its import takes long

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(*inputs, **named)
    network.train(training)
    return 3.0 * counter.get_total_flops()


def peak_flops(device: torch.device) -> float:
    """Return the bfloat16 rate of a GPU that MFU is a share of, FLOP/s; 0 where it is not known."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((rate for model, rate in PEAK_FLOPS.items() if model in name), 0.0)
