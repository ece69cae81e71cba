"""Small folders of pictures, made here."""

import json

import pytest
from PIL import Image


@pytest.fixture
def imagenet(tmp_path):
    """Two classes in folders, five pictures, each of one grey."""
    for number, name in enumerate(("n02/b.png", "n01/a.png", "n01/c.JPEG", "n02/d.png", "n02/e.png")):
        file = tmp_path / "imagenet" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (50 * number,) * 3).save(file)
    return tmp_path / "imagenet"


@pytest.fixture
def coco(tmp_path):
    """A picture stored at half its size, with two cups, a spoon and a crowd."""
    Image.new("RGB", (20, 10)).save(tmp_path / "one.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "two.png")
    square = [0, 0, 7.9, 0, 7.9, 3.9, 0, 3.9]
    annotations = [
        {"image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": [square]},
        {"image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": [[20, 10, 29.9, 10, 29.9, 19.9, 20, 19.9]]},
        {"image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [[30, 0, 39.9, 0, 39.9, 1.9, 30, 1.9]]},
        {"image_id": 2, "category_id": 5, "iscrowd": 1, "segmentation": {"counts": [], "size": [10, 20]}},
    ]
    images = [{"id": n, "file_name": f"{name}.png", "width": 40, "height": 20} for n, name in ((1, "one"), (2, "two"))]
    categories = [{"id": 5, "name": "cup"}, {"id": 7, "name": "spoon"}]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file
