"""`python -m course.predict`: classes of pictures, as a table, CSV, JSON lines and a sheet."""

import csv
import io
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from course.predict import main
from tests.course.test_train import PUBLISHED, imagenet, paint, photos, trained

__all__ = ["imagenet", "photos", "trained"]  # fixtures


@pytest.fixture
def pictures(tmp_path):
    """Three pictures in folders below, a text that calls itself one, and a note."""
    folder = tmp_path / "pictures"
    paint(folder / "deep", count=1, seed=7)
    Image.new("L", (50, 40), 200).save(folder / "b.jpg")
    (folder / "a.png").write_text("not a picture")
    return folder


def lines_of(capsys, *argv, code=1):
    assert main([str(word) for word in argv]) == code
    return capsys.readouterr()


def test_json_lines_of_a_run_with_what_is_unreadable_named(trained, pictures, capsys):
    shown = lines_of(capsys, trained, pictures, "--format", "jsonl", "--device", "cpu")
    records = [json.loads(line) for line in shown.out.splitlines()]
    names = [record["file"].removeprefix(f"{pictures}/") for record in records]
    assert names == ["b.jpg", "deep/dark/0.png", "deep/light/0.png"]
    for record in records:
        assert {found["class"] for found in record["top"]} == {"dark", "light"}
        shares = [found["share"] for found in record["top"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == sorted(shares, reverse=True)
    assert [records[1]["top"][0]["class"], records[2]["top"][0]["class"]] == ["dark", "light"]
    assert shown.err.count("\n") == 1
    assert "a.png" in shown.err


def test_the_shares_are_the_models(trained, pictures, capsys):
    from course.runs import RunFolder

    settings = RunFolder(trained).read()
    model = RunFolder(trained).model(settings, "best")[0].eval()
    file = pictures / "deep" / "dark" / "0.png"
    shown = lines_of(capsys, trained, file, "--format", "csv", "--device", "cpu", code=0)
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (settings.mean, settings.std))
    with torch.no_grad():
        shares = model(((image - mean) / std)[None]).softmax(1)[0]
    assert [row["place"] for row in rows] == ["1", "2"]
    for row in rows:
        expected = shares[settings.classes.index(row["class"])].item()
        assert float(row["share"]) == pytest.approx(expected, abs=1e-4)


def test_a_table_and_a_sheet(trained, pictures, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    shown = lines_of(capsys, trained, pictures, "--sheet", sheet, "--top", "1", "--device", "cpu")
    assert shown.out.count("%") == 3
    with Image.open(sheet) as image:
        assert image.width >= 300
        assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing", "x.jpg"], "nobody published weights of nothing"),
        (["coatnet_0_224", "x.jpg"], "nobody published weights of coatnet_0_224"),
        (["RUN", "no/such.jpg"], "no/such.jpg: there is no such file"),
        (["RUN", "EMPTY"], "there is no picture to look at"),
        (["RUN", "EMPTY", "--top", "0"], "must be above 0"),
        (["EMPTY", "x.jpg"], "holds no run"),
        (["RUN", "EMPTY", "--sheet", "no/where.png"], "there is no folder"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(argv, message, trained, tmp_path, capsys):
    places = {"RUN": str(trained), "EMPTY": str(tmp_path)}
    shown = lines_of(capsys, *[places.get(word, word) for word in argv], code=2)
    assert message in shown.err


@pytest.mark.slow
def test_published_weights_by_name_agree_with_timms(imagenet, capsys):
    weights = ["--weights-file", imagenet / "weights.pth", "--device", "cpu"]
    shown = lines_of(
        capsys, PUBLISHED, imagenet / "val", *weights, "--format", "jsonl", "--top", 1000, code=0
    )
    records = [json.loads(line) for line in shown.out.splitlines()]
    assert len(records) == 4
    model = timm.create_model(PUBLISHED, checkpoint_path=imagenet / "weights.pth").eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    described = timm.data.ImageNetInfo().label_descriptions()
    with torch.no_grad():
        expected = model(transform(Image.open(records[0]["file"]))[None]).softmax(1)[0]
    found = {entry["class"]: entry["share"] for entry in records[0]["top"]}
    for place in (0, 1, 500, 999):
        assert found[described[place]] == pytest.approx(expected[place].item(), rel=0.05)
