"""What timm's users expect of a model, and training with less memory. No lesson rebuilds this."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class TimmInterface(nn.Module):
    """The methods of timm's models, beside `forward_features` and `forward_head`, for a CoAtNet."""

    num_classes: int
    stem: Any
    stages: Any
    norm: nn.Module
    head: Any
    features: Any

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What the head gets, and `features`: all, the last n, or those of `indices`, as in timm.

        `norm` applies the last norm to S4's, `stop_early` leaves out stages behind the last index.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is 'NCHW', got {output_fmt!r}")
        every = range(len(self.stages) + 1)
        if isinstance(indices, int):
            indices = every[-indices:]
        wanted = sorted({every[i] for i in (every if indices is None else indices)})
        outputs = self.features(images, max(wanted) if stop_early else None)
        x = self.norm(outputs[-1]) if len(outputs) == len(every) else outputs[-1]
        if norm:
            outputs[-1] = x
        intermediates = [outputs[i] for i in wanted]
        return intermediates if intermediates_only else (x, intermediates)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a fresh one for another number of classes, 0 for none."""
        self.num_classes = num_classes
        self.head.reset(num_classes)
        self.head.classifier.to(self.stem.conv1.weight)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Less memory, slower steps: activations are computed again instead of stored."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that do not decay: norms, biases and relative positions."""
        named = self.named_parameters()
        return {name for name, p in named if p.ndim < 2 or "position_bias" in name}

    def load_state_dict(self, state_dict: Mapping, *args: Any, **kwargs: Any) -> Any:
        """Takes what DataParallel and torch.compile saved, too: "module." and "_orig_mod." go."""
        plain = {
            k.replace("_orig_mod.", "").removeprefix("module."): v for k, v in state_dict.items()
        }
        return super().load_state_dict(plain, *args, **kwargs)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """block(x), whose activations are computed again in the backward pass instead of stored."""
    norms = [m for m in block.modules() if getattr(m, "running_mean", None) is not None]

    @contextmanager
    def second_pass():  # on copies of the statistics, which must not count the batch once more
        buffers = [dict(norm._buffers) for norm in norms]
        for norm, kept in zip(norms, buffers, strict=True):
            norm._buffers.update({name: value.clone() for name, value in kept.items()})
        try:
            yield
        finally:
            for norm, kept in zip(norms, buffers, strict=True):
                norm._buffers.update(kept)

    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), second_pass())
    )
