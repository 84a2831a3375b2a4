"""Dropout that drops the same units every time, and a record of what a forward pass uses."""

import zlib
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class SameDropout(TorchFunctionMode):
    """Makes dropout drop the same units every time, so that two modules can be compared in train
    mode: the mask follows from the last two lengths alone, [N, N] for attention, [N, D] or [D, N].

    Afterwards `dropped` says whether anything was dropped at all.
    """

    dropped = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (F.dropout, torch.dropout):
            return self.dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self.attention(func, *args, **kwargs)
        if func is F.multi_head_attention_forward:  # what it calls does not come by here
            with patch.multiple(
                F, dropout=self.dropout, scaled_dot_product_attention=self._written_out
            ):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def dropout(
        self,
        input: Any,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        train: Any = None,
    ) -> torch.Tensor:
        if not (training if train is None else train) or not p:
            return input
        self.dropped = True
        rows, columns = input.shape[-2:] if input.ndim > 1 else (1, len(input))
        shape = sorted((rows, columns))
        generator = torch.Generator().manual_seed(zlib.crc32(repr(shape).encode()))
        kept = torch.rand(shape, generator=generator) >= p
        mask = (kept if rows <= columns else kept.T).reshape(input.shape[-2:]).to(input) / (1 - p)
        return input.mul_(mask) if inplace else input * mask

    def attention(
        self,
        func: Any,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: Any = 0.0,
        is_causal: bool = False,
        scale: Any = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if not dropout_p:
            return func(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return self._written_out(query, key, value, attn_mask, dropout_p, is_causal, scale)

    def _written_out(
        self,
        query,
        key,
        value,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        enable_gqa=False,
    ):
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query @ key.transpose(-2, -1) * scale
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self.dropout(scores.softmax(dim=-1), dropout_p) @ value


class Usage(TorchFunctionMode):
    """Records which of a module's parameters a forward pass uses, in that order.

    order: the names, each once. times: how often each one was used.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.times = dict.fromkeys(self._names.values(), 0)
        self.order: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self._note((*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))

    def _note(self, values):
        for value in values:
            if isinstance(value, tuple | list):
                self._note(value)
            elif id(value) in self._names:
                name = self._names[id(value)]
                self.times[name] += 1
                if name not in self.order:
                    self.order.append(name)
