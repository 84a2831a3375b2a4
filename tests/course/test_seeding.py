"""Everybody's first weights are the same, however the class was written."""

import pytest
import torch

import vit
from course.seeding import same_start
from tests.checks.harness import define, lesson

SIZES = {"num_hiddens": 12, "num_heads": 3, "num_classes": 7, "depth": 2}


def vit_with(*exercises):
    """The ViT of lesson 1, with those exercises in another style."""
    namespace = lesson(1).solved(until="vision-transformer")
    define(lesson(1).given, namespace)
    for exercise, solution in lesson(1).solutions.items():
        other = next(iter(lesson(1).right[exercise].values()))
        define(other if exercise in exercises else solution, namespace)
    return namespace["ViT"]


@pytest.mark.parametrize("exercises", [(), ("encoder-block",), ("feed-forward",)])
def test_an_answer_starts_like_the_reference(exercises, capsys):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    model, reference = vit_with(*exercises)(16, 4, **SIZES), vit.ViT(16, 4, **SIZES)
    assert not torch.allclose(model.eval()(images), reference.eval()(images), atol=1e-3)
    model.train(), reference.train()
    assert same_start(model, reference, images) is model
    assert model.training
    assert torch.allclose(model.eval()(images), reference.eval()(images), atol=1e-5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("exercise", ["attention-head", "vision-transformer"])
def test_for_other_layers_the_reference_runs_and_it_says_so(exercise, capsys):
    model, reference = vit_with(exercise)(16, 4, **SIZES), vit.ViT(16, 4, **SIZES)
    images = torch.randn(2, 3, 16, 16)
    first = reference.eval()(images)
    started = same_start(model, reference, images)
    if exercise == "attention-head":  # one layer for query, key and value
        assert started is reference
        assert "the reference's ViT runs in place of yours" in capsys.readouterr().out
    assert torch.equal(reference.eval()(images), first)
    assert torch.allclose(started.eval()(images), first, atol=1e-4)
