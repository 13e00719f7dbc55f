"""What loggers have recorded, read back by the tools that they belong to."""

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

Place = tuple[str, int]


class Records(NamedTuple):
    """Of one run: every number in the order of the store, pictures and tables by key and step, the configuration."""

    scalars: list[tuple[Place, float]]
    images: dict[Place, np.ndarray]
    tables: dict[Place, list[list[Any]]]
    config: dict[str, Any]

    def steps(self, key: str) -> list[int]:
        return [step for (name, step), _ in self.scalars if name == key]


def tensorboard_records(run_dir: Path) -> Records:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    scalars = [((tag, e.step), e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    images = {
        (tag, event.step): decoded(event.encoded_image_string)
        for tag in events.Tags()["images"]
        for event in events.Images(tag)
    }
    texts = {
        (tag.removesuffix("/text_summary"), event.step): make_ndarray(event.tensor_proto).item().decode()
        for tag in events.Tags()["tensors"]
        for event in events.Tensors(tag)
    }
    newest = max(step for tag, step in texts if tag == "config") if any(tag == "config" for tag, _ in texts) else None
    config = yaml.safe_load(texts["config", newest]) if newest is not None else {}
    tables = {place: cells(text) for place, text in texts.items() if place[0] != "config"}
    return Records(scalars, images, tables, config)


def mlflow_records(uri: str, run_id: str) -> Records:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(run_id)
    points = [point for key in run.data.metrics for point in client.get_metric_history(run_id, key)]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    images = {(str(f.parent.relative_to(folder)), int(f.stem)): decoded(f.read_bytes()) for f in folder.rglob("*.png")}
    tables = {
        (str(file.parent.relative_to(folder)), int(file.stem)): json.loads(file.read_text())["data"]
        for file in folder.rglob("*.json")
    }
    config = folder / "config.yaml"
    return Records(
        [((point.key, point.step), point.value) for point in points],
        images,
        tables,
        yaml.safe_load(config.read_text()) if config.exists() else {},
    )


def trackio_records(folder: Path, project: str, run_id: str) -> Records:
    """From trackio's files themselves: its own reader keeps to one folder a process."""
    with closing(sqlite3.connect(folder / f"{project}.db")) as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", (run_id,)).fetchall()
        configs = database.execute("SELECT config FROM configs WHERE run_id = ?", (run_id,)).fetchall()
    values = [((key, step), value) for step, row in rows for key, value in json.loads(row).items()]
    media = {place: value for place, value in values if isinstance(value, dict)}
    images = {
        place: decoded((folder / "media" / value["file_path"]).read_bytes())
        for place, value in media.items()
        if value["_type"] == "trackio.image"
    }
    tables = {
        place: [list(row.values()) for row in value["_value"]]
        for place, value in media.items()
        if value["_type"] == "trackio.table"
    }
    scalars = [(place, value) for place, value in values if not isinstance(value, dict)]
    return Records(scalars, images, tables, json.loads(configs[0][0]) if configs else {})


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def cells(markdown: str) -> list[list[str]]:
    """The rows of a table in Markdown, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.split("\n")[2:]]
