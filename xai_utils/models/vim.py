"""Vision Mamba in plain PyTorch: two scans a block, one each way, and the class token in the middle of the patches.

Parameters carry the official names, so published checkpoints load strictly (:func:`read`, :func:`from_checkpoint`).
Each scan is a small module of its own that is called with one :class:`~selective_scan.Scan`: a hook on it sees all that
hidden attention depends on.

Source: Zhu et al. (2024), arXiv:2401.09417, section 3, algorithm 1; in the form of the released weights ("bimamba v2":
both scans share the projections in and out, and their outputs are averaged).
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Mapping
from math import ceil, log, sqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.maths.selective_scan import Scan, selective_scan


class ScanStep(nn.Module):
    """One scan with its skip and its gate; without parameters, so that hooks have a place to stand."""

    def forward(self, scan: Scan) -> Tensor:
        """Return ``(batch, channel, token)``, in token order also for a scan that runs backward."""
        output = selective_scan(scan.u, scan.delta, scan.A, scan.B, scan.C, scan.D, scan.backward)
        return output if scan.gate is None else output * F.silu(scan.gate)


class Mixer(nn.Module):
    """The bidirectional Mamba block between its norms, ``(batch, token, width)`` to the same."""

    conv1d: nn.Conv1d
    conv1d_b: nn.Conv1d
    scan: ScanStep
    scan_b: ScanStep
    A_log: nn.Parameter
    A_b_log: nn.Parameter

    def __init__(self, width: int, layer: int, states: int, kernel: int, expand: int, rank: int) -> None:
        """Two of everything that belongs to a direction: plain names read forward, names with ``_b`` backward."""
        super().__init__()
        channels = expand * width
        self.layer, self.states, self.rank = layer, states, rank
        self.in_proj = nn.Linear(width, 2 * channels, bias=False)
        self.out_proj = nn.Linear(channels, width, bias=False)
        for mark in ("", "_b"):
            convolution = nn.Conv1d(channels, channels, kernel, groups=channels, padding=kernel - 1)
            self.add_module(f"conv1d{mark}", convolution)
            self.add_module(f"act{mark}", nn.SiLU())
            self.add_module(f"x_proj{mark}", nn.Linear(channels, rank + 2 * states, bias=False))
            self.add_module(f"dt_proj{mark}", nn.Linear(rank, channels))
            self.add_module(f"scan{mark}", ScanStep())
            self.register_parameter(f"A{mark}_log", nn.Parameter(torch.empty(channels, states)))
            self.register_parameter(f"D{mark}", nn.Parameter(torch.empty(channels)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Average both directions and project back."""
        x, gate = self.in_proj(tokens.transpose(0, 1)).permute(1, 2, 0).chunk(2, 1)  # time is slowest in memory
        gate = _full(gate)
        both = self.scan(self.scan_of(x, gate, False)) + self.scan_b(self.scan_of(x, gate, True))
        return self.out_proj(both.permute(2, 0, 1) / 2).transpose(0, 1)

    def scan_of(self, x: Tensor, gate: Tensor, backward: bool) -> Scan:
        """Compute what one scan is given, from ``(batch, channel, token)``; float32 also under autocast."""
        part = {name: getattr(self, f"{name}{'_b' if backward else ''}") for name in ("act", "x_proj", "dt_proj", "D")}
        A_log = self.A_b_log if backward else self.A_log
        u = part["act"](self.convolved(x, backward).permute(2, 0, 1).contiguous())
        low, B, C = part["x_proj"](u).split([self.rank, self.states, self.states], -1)
        delta = F.softplus(_full(part["dt_proj"](low)))
        u, delta, B, C = (_full(tensor).permute(1, 2, 0) for tensor in (u, delta, B, C))
        return Scan(u, delta, -_full(A_log).exp(), B, C, _full(part["D"]), gate, self.layer, backward)

    def convolved(self, x: Tensor, backward: bool) -> Tensor:
        """Convolve over time: each token with those before it, or, backward, with those behind it."""
        own = self.conv1d_b if backward else self.conv1d
        weight, back = (own.weight.flip(-1), own.kernel_size[0] - 1) if backward else (own.weight, 0)
        padded = F.conv1d(x, weight, own.bias, padding=own.kernel_size[0] - 1, groups=own.groups)
        return padded[..., back : back + x.shape[-1]]


class Block(nn.Module):
    """Norm, mixer and the residual stream around them."""

    def __init__(self, width: int, layer: int, **mixer: int) -> None:
        """Number the block; the rest is of :class:`Mixer`."""
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = Mixer(width, layer, **mixer)

    def forward(self, stream: Tensor) -> Tensor:
        """Add what the mixer makes of the stream to the stream, ``(batch, token, width)``."""
        return stream + self.mixer(self.norm(stream))


class PatchEmbed(nn.Module):
    """Patches to tokens, row by row; patches overlap where the stride is shorter than the patch."""

    def __init__(self, img_size: int, patch_size: int, stride: int, width: int) -> None:
        """Sides and stride in pixels."""
        super().__init__()
        side = (img_size - patch_size) // stride + 1
        self.img_size, self.grid_size = (img_size, img_size), (side, side)
        self.proj = nn.Conv2d(3, width, patch_size, stride)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return ``(batch, token, width)``; ``ValueError`` for a picture of another size."""
        if tuple(pixels.shape[1:]) != (3, *self.img_size):
            wanted = (3, *self.img_size)
            raise ValueError(f"pictures have shape {tuple(pixels.shape)}, expected (batch, *{wanted}): resize them.")
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Vim(nn.Module):
    """Vision Mamba with its class token at position ``class_position`` = half the number of patches.

    Args:
        img_size: side of the picture, pixels.
        patch_size: side of a patch, pixels.
        stride: from patch to patch, pixels; ``None`` for the patch size.
        embed_dim: width of the residual stream.
        depth: number of blocks.
        num_classes: number of classes.
        d_state: states of a channel.
        d_conv: length of the convolution over time.
        expand: channels of a scan over the width.
        dt_rank: rank of the step sizes; ``None`` for a sixteenth of the width.
    """

    num_prefix_tokens = 1  #: tokens that stand for no patch: the class token

    def __init__(
        self, img_size: int = 224, patch_size: int = 16, stride: int | None = None, embed_dim: int = 192,
        depth: int = 24, num_classes: int = 1000, d_state: int = 16, d_conv: int = 4, expand: int = 2,
        dt_rank: int | None = None,
    ) -> None:  # fmt: skip
        """Initialise as published."""
        super().__init__()
        mixer = {"states": d_state, "kernel": d_conv, "expand": expand, "rank": dt_rank or ceil(embed_dim / 16)}
        self.embed_dim, self.num_classes = embed_dim, num_classes
        self.patch_embed = PatchEmbed(img_size, patch_size, stride or patch_size, embed_dim)
        rows, columns = self.patch_embed.grid_size
        self.class_position = rows * columns // 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns + 1, embed_dim))
        self.layers = nn.ModuleList(Block(embed_dim, layer, **mixer) for layer in range(depth))
        self.norm_f = nn.RMSNorm(embed_dim, eps=1e-5)
        self.head = nn.Linear(embed_dim, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores ``(batch, class)`` of normalised pictures ``(batch, 3, img_size, img_size)``."""
        return self.forward_head(self.forward_tokens(self.tokens(x)))

    def tokens(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return ``(batch, token, width)`` entering the first block, the class token in the middle.

        Args:
            x: normalised pictures.
            seen: flat indices ``(batch, patch)`` of the patches to keep, each with its own position; all without.
        """
        middle = self.class_position
        own, place = self.pos_embed.split([middle, 1, self.pos_embed.shape[1] - middle - 1], 1)[::2], self.pos_embed
        patches = self.patch_embed(x) + torch.cat(own, 1)
        if seen is not None:
            patches = patches.gather(1, seen[..., None].expand(-1, -1, patches.shape[-1]))
        start = (self.cls_token + place[:, middle : middle + 1]).expand(len(x), -1, -1)
        half = patches.shape[1] // 2
        return torch.cat([patches[:, :half], start, patches[:, half:]], 1)

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """Run the blocks and the last norm, ``(batch, token, width)``."""
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm_f(tokens)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Read the class token in the middle."""
        return self.head(tokens[:, (tokens.shape[1] - 1) // 2])


def read(path: Path) -> Mapping[str, Tensor]:
    """Read the weights of a published checkpoint without running code from it.

    The file also carries the training's arguments, a plain namespace; nothing else than tensors and that is accepted.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):
            checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{path.name} holds more than tensors and is not loaded: {said}") from error
    if not isinstance(checkpoint, Mapping) or "model" not in checkpoint:
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(f"{path.name} has no entry 'model' with the weights; it holds: {found}.")
    return checkpoint["model"]


def from_checkpoint(state: Mapping[str, Tensor], img_size: int = 224) -> Vim:
    """Build the model whose shapes the weights have; ``ValueError`` names every tensor that does not fit."""
    model = Vim(**arguments_of(state, img_size))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit this Vision Mamba: {error}") from error
    return model


def arguments_of(state: Mapping[str, Tensor], img_size: int = 224) -> dict[str, Any]:
    """Read the arguments of :class:`Vim` off the shapes of a checkpoint; ``ValueError`` names a tensor that lacks."""
    first = ("A_log", "conv1d.weight", "dt_proj.weight")
    needed = ("patch_embed.proj.weight", "pos_embed", "head.weight", *(f"layers.0.mixer.{name}" for name in first))
    if lacking := [name for name in needed if name not in state]:
        raise ValueError(f"this is no checkpoint of Vision Mamba: it lacks {', '.join(lacking)}.")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    side = round(sqrt(state["pos_embed"].shape[1] - 1))
    channels, states = state["layers.0.mixer.A_log"].shape
    return {
        "img_size": img_size, "patch_size": patch, "stride": (img_size - patch) // max(1, side - 1),
        "embed_dim": width, "depth": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
        "num_classes": len(state["head.weight"]), "d_state": states, "expand": channels // width,
        "d_conv": state["layers.0.mixer.conv1d.weight"].shape[-1],
        "dt_rank": state["layers.0.mixer.dt_proj.weight"].shape[1],
    }  # fmt: skip


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@torch.no_grad()
def _initialise(model: Vim) -> None:
    """Decays 1 to N, step sizes from 0.001 to 0.1 (log-uniform), as in the published code."""
    for tensor in (model.cls_token, model.pos_embed, model.head.weight):
        nn.init.trunc_normal_(tensor, std=0.02)
    nn.init.zeros_(model.head.bias)
    for layer in model.layers:
        mixer: Any = layer.mixer
        mixer.out_proj.weight /= sqrt(len(model.layers))
        for mark in ("", "_b"):
            decays, project = getattr(mixer, f"A{mark}_log"), getattr(mixer, f"dt_proj{mark}")
            decays.copy_(torch.arange(1, mixer.states + 1).log().expand_as(decays))
            getattr(mixer, f"D{mark}").fill_(1)
            nn.init.uniform_(project.weight, -(mixer.rank**-0.5), mixer.rank**-0.5)
            steps = torch.empty_like(project.bias).uniform_(log(1e-3), log(1e-1)).exp()
            project.bias.copy_(steps + (-torch.expm1(-steps)).log())
