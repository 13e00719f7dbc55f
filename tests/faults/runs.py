"""Short trainings that faults are injected into: the same line each time, and the undisturbed run to compare with."""

import shutil
import time
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.children import die_at
from tests.integration.commands import Command, Ended
from tests.integration.test_resume import BASE, EPOCHS, MODELS, RECORDER, Run, assert_same_run

LINE = (*BASE, "--auto_resume", "true", "--trainer.max_epochs", str(EPOCHS), "--checkpoint.every_n_train_steps", "1")


class Victim:
    """A training in ``run_dir`` that is started with the same line again and again.

    ``records`` is where its steps are written down, the run directory by default.
    """

    def __init__(
        self, model: str, run_dir: Path, *options: str, wait_at_step: int = -1, records: Path | None = None
    ) -> None:
        self.model = model
        self.run_dir = run_dir
        self.records = records or run_dir
        self.line = (
            *("fit", *MODELS[model], *LINE, "--run_dir", str(run_dir)),
            *("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(self.records)),
            *("--trainer.callbacks.wait_at_step", str(wait_at_step)),
            *options,
        )

    def start(self, die_at_change: int = 0) -> Command:
        """With ``die_at_change``, a training that kills itself before that change of a file in ``run_dir``."""
        before = partial(die_at, die_at_change, str(self.run_dir)) if die_at_change else None
        return Command("train", *self.line, before=before)

    def go(self) -> Ended:
        """One segment to its end."""
        return self.start().end()

    @property
    def last(self) -> Path:
        return self.run_dir / "checkpoints" / "last.ckpt"

    @property
    def unfinished(self) -> Path:
        """What a save writes to before it is a checkpoint."""
        return self.last.with_name(".last.ckpt.tmp")

    def require_finished(self, ended: Ended) -> None:
        """The run ended well and is, to the last bit, the one that nothing happened to."""
        assert ended.status == 0, ended.output
        if self.records != self.run_dir:
            shutil.copy(self.records / "steps-0.jsonl", self.run_dir)
        assert_same_run(Run(self.run_dir), undisturbed(self.model)[0])

    def forget_step(self, step: int) -> None:
        """Strike out of the record a step that was taken with a poisoned number."""
        record = self.records / "steps-0.jsonl"
        rows = record.read_text().splitlines(keepends=True)
        record.write_text("".join(row for row in rows if not row.startswith(f'{{"step": {step},')))


@cache
def undisturbed(model: str) -> tuple[Run, float]:
    """The run that nothing happens to, and the seconds it took."""
    victim = Victim(model, Path(mkdtemp(prefix="likeness-")) / "whole")
    begun = time.monotonic()
    ended = victim.go()
    assert ended.status == 0, ended.output
    return Run(victim.run_dir), time.monotonic() - begun
