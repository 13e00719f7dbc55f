"""Run directories that no training wrote, as small as a test wants them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

# One grey pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
SEGMENT = {
    "start": "2026-01-01T10:00:00+00:00",
    "end": "2026-01-01T11:02:03+00:00",
    "why": "finished",
    "first_step": 0,
    "last_step": 40,
    "host": "somewhere",
    "world_size": 1,
    "num_nodes": 1,
    "device": "cpu",
    "versions": {"likeness": "0.1.0", "torch": "2.8"},
    "git": "abc",
}
Row = Sequence[object]


def config(seed: int = 0, lr: float = 0.1, model: str = "lightning_modules.DiffEnc") -> dict[str, object]:
    return {
        "seed_everything": seed,
        "model": {"class_path": model, "init_args": {"lr": lr}},
        "data": {"class_path": "datamodules.Digits"},
        "run_dir": f"runs/{seed}",
    }


def write_metrics(run: Path, columns: Sequence[str], rows: Sequence[Row]) -> Path:
    lines = [columns, *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.csv").write_bytes("".join(f"{','.join(line)}\r\n" for line in lines).encode())
    return run / "metrics.csv"


def write_run(run: Path, *, segments: Sequence[object] = (SEGMENT,), **options: object) -> Path:
    """A finished run of forty steps with a loss, a bound, a picture and a checkpoint."""
    seed = options.get("seed", 0)
    rows = [(step, 5 / (step + 1) + 0.1 * seed, 3.0 - step / 100 if step % 10 == 9 else None) for step in range(40)]
    write_metrics(run, ("step", "train/loss", "val/bpd"), rows)
    (run / "config.yaml").write_text(yaml.safe_dump(config(**options)))  # type: ignore[arg-type]
    (run / "segments.json").write_text(json.dumps(segments))
    for folder in ("figures", "checkpoints"):
        (run / folder).mkdir()
    (run / "figures" / "samples.png").write_bytes(PNG)
    (run / "figures" / "samples-step=000010.png").write_bytes(PNG)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")  # a pickle that would run
    depths = "num_steps,bpd,bpd_se,fitted,fitted_se\n10,4.5,0.1,4.0,0.1\n100,3.1,0.1,3.0,0.1\n,2.9,0.1,2.9,0.1\n"
    (run / "figures" / "depth_curve.csv").write_text(depths)
    return run


def write_labels(run: Path) -> None:
    """Similarities of two labels, one of which is undefined between them."""
    head = "label_a,label_b,raw,centred,invariant,together\n"
    rows = "cat,cat,1,1,1,1\ncat,dog,0.5,,0.25,-1\ndog,cat,0.5,,0.25,-1\ndog,dog,1,1,1,1\n"
    (run / "figures" / "label_similarity.csv").write_text(head + rows)


def write_embeddings(run: Path) -> None:
    """Two models, of which the second has principal axes, two classes with label vectors and one without."""
    rows = ["model,vector,class,x,y,x_share,y_share", "0,f,cat,1,2,,", "0,f,dog,-1,0.5,,", "0,f,cow,0,-2,,"]
    rows += ["0,g,cat,3,4,,", "0,g,dog,-3,-4,,", "1,f,cat,10,0,0.75,0.2", "1,f,dog,,0,0.75,0.2", "1,f,dog,1e300,0,,"]
    rows += ["1,g,cat,0,1,0.75,0.2", "1,g,dog,0,-1,0.75,0.2", "1,h,dog,0,0,0.75,0.2"]
    (run / "figures" / "embeddings.csv").write_text("\n".join(rows))


def write_comparison(run: Path) -> None:
    """Three siblings and two measures, one of which has directions, a null and p values."""
    folder = run / "comparison"
    folder.mkdir(parents=True)
    head = "model_a,model_b,kl_ab,kl_ba,m_cca_f,m_cca_f_null,m_cca_f_p,undefined\n"
    rows = "a,b,0.1,0.2,0.9,0.3,0.01,\na,c,0.3,0.4,0.8,0.3,0.02,\nb,c,0.5,0.6,,0.3,,m_cca_f: constant\n"
    (folder / "comparison.csv").write_text(head + rows)
    (folder / "models.csv").write_text("model,accuracy\na,0.9\nb,0.8\nc,0.7\n")
