"""What students end up with, their solutions, computes what timm and the reference compute."""

import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import coatnet
from coatnet import CONFIGS, timm_weights
from course import lesson_files
from course.comparing import randomise, take_weights
from tests.checks.harness import define, lesson


@pytest.mark.parametrize("make", ["the solution", "the reference"])
@pytest.mark.parametrize("stride", [1, 2])
def test_mbconv_with_timms_weights_gives_timms_outputs(make, stride):
    namespace = lesson(3).solved()
    block_class = namespace["MBConv"] if make == "the solution" else coatnet.MBConv
    torch.manual_seed(stride)
    blocks = timm.create_model("coatnet_0_224", depths=(2, 1, 1, 1)).stages[0].blocks
    theirs, ours = (
        (blocks[0], block_class(64, 96, 2)) if stride == 2 else (blocks[1], block_class(96, 96))
    )
    for name, tensor in theirs.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.2)
    take_weights(ours, theirs)
    x = torch.randn(2, 64 if stride == 2 else 96, 14, 22)
    with torch.no_grad():
        expected, came = theirs.eval()(x), ours.eval()(x)
    assert (came - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("stride", [1, 2])
def test_transformer_block_with_timms_weights_gives_timms_outputs(stride):
    namespace = lesson(4).solved()
    torch.manual_seed(stride)
    model = timm.create_model("coatnet_0_224", img_size=64, depths=(1, 1, 2, 1)).eval()
    theirs = model.stages[2].blocks[0 if stride == 2 else 1]
    in_channels, side = (192, 8) if stride == 2 else (384, 4)
    for tensor in theirs.parameters():
        nn.init.normal_(tensor, std=0.1)
    x = torch.randn(2, in_channels, side, side)
    with torch.no_grad():
        expected = theirs(x)
    position = theirs.attn.rel_pos
    position.relative_position_bias_table = nn.Parameter(
        position.relative_position_bias_table.T.unflatten(1, (7, 7))
    )
    ours = namespace["TransformerBlock"](in_channels, 384, (4, 4), stride).eval()
    take_weights(ours, theirs)
    with torch.no_grad():
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [(56, 56), (90, 60)])
def test_the_students_coatnet_gives_the_references_logits(size):
    namespace = lesson(5).solved()
    config = coatnet.CoAtNetConfig(depths=(1, 2, 2, 1), widths=(32, 64, 96, 128))
    torch.manual_seed(0)
    reference = coatnet.CoAtNet(config, num_classes=10, image_size=56)
    for name, tensor in reference.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.1)
    students = namespace["CoAtNet"](config, 10, 56)
    take_weights(students, reference)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected, came = reference.eval()(images), students.eval()(images)
    assert (came - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_nano_rw_224", "coatnet_0_rw_224"])
def test_timms_logits_with_every_number_at_random(name):
    torch.manual_seed(1)
    namespace = lesson(6).solved()
    theirs = randomise(timm.create_model(name))
    make = namespace["CoAtNet"] if name == "coatnet_0_224" else namespace["CoAtNetRW"]
    ours = make(CONFIGS[name])
    ours.load_state_dict(namespace["convert"](theirs.state_dict(), ours))
    images = torch.randn(2, 3, 224, 224)
    assert namespace["largest_difference"](ours, theirs, images) <= 1e-4
    assert theirs.stem.conv1.weight.std() > 0.1  # not what timm begins with


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download of one file needs."""

    def __init__(self, *args, content):
        self.content = content
        super().__init__(*args)

    def do_HEAD(self):
        found = self.path.endswith("/model.safetensors")
        self.send_response(200 if found or self.path == "/" else 404)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.content)

    def log_message(self, *_):
        pass


LOAD = """
import json, sys, torch
from coatnet import CONFIGS
from tests.checks.harness import lesson
namespace = lesson(6).solved()
model = namespace["fetch"]("coatnet_nano_rw_224")
ours = namespace["CoAtNetRW"](CONFIGS["coatnet_nano_rw_224"])
ours.load_state_dict(namespace["convert"](model.state_dict(), ours))
trained = torch.load(sys.argv[1])
print(ours.eval()(trained["images"]).sub(trained["logits"]).abs().max().item())
"""


@pytest.mark.slow
def test_published_weights_come_from_the_hub(tmp_path):
    """In a process of its own, since the hub's address is read when its library is imported."""
    torch.manual_seed(2)
    trained = randomise(timm.create_model("coatnet_nano_rw_224")).eval()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        logits = trained(images)
    torch.save({"images": images, "logits": logits}, tmp_path / "trained.pt")
    content = (tmp_path / "model.safetensors").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, content=content))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "trained.pt")],
        env={**os.environ, **hub, "PYTHONPATH": str(lesson_files.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    server.shutdown()
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout.splitlines()[-1]) <= 1e-4 * logits.abs().max()


def test_without_a_network_the_lesson_says_so_in_a_line_and_goes_on(capsys, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(timm_weights, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    namespace = lesson(6).solved()
    namespace["translate"] = namespace["convert"]
    namespace["difference"] = namespace["largest_difference"]
    namespace["yours"] = lambda answer: answer
    cells = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / "06_meeting_timm.py").cells
    define(next(cell.source for cell in cells if cell.source.startswith("mine, their")), namespace)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    offline = "This is the output of a run without a network: coatnet_"
    assert all(line.startswith(offline) for line in lines[::2])
    assert all(line.endswith("random weights loaded") for line in lines[1::2])
