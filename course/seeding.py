"""The same first weights for everybody, however a class was written."""

import torch
from torch import nn

from course.comparing import close, take_weights


def same_start(model: nn.Module, reference: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """`model` with the first weights of `reference`, which computes the same from them.

    A text that describes a run counts on it: PyTorch draws first weights in the order in which a
    class makes its layers, at the scale that it asks for, and both are up to the student. Where
    the layers do not match one by one, the reference itself is returned, and it says so.
    inputs: a batch that both take.
    """
    modes = model.training, reference.training
    try:
        take_weights(model, reference, inputs)
        with torch.no_grad():
            came, expected = model.eval()(inputs), reference.eval()(inputs)
        fits = close(came, expected)
    except ValueError:
        fits = False
    model.train(modes[0])
    reference.train(modes[1])
    if fits:
        return model
    name = type(reference).__name__
    print(
        f"(the reference's {name} runs in place of yours, whose layers have other shapes or places)"
    )
    return reference
