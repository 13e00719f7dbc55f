"""Checkpoints cut short or altered on the disk are refused by name, and the run goes on from the one before."""

import random
import shutil
from pathlib import Path

import pytest

from lightning_modules.checkpoint_files import PREVIOUS
from scripts.cli.run_directory import checkpoint_path
from tests.faults.conftest import Trial
from tests.faults.runs import Victim, undisturbed

PLACES = 50
FEW = 14  # in the short run


def cut(raw: bytes, place: float) -> bytes:
    return raw[: int(place * len(raw))]


def flipped(raw: bytes, place: float) -> bytes:
    at = int(place * len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]


DAMAGE = {"truncated": cut, "with a flipped bit": flipped}


@pytest.mark.parametrize("places", [FEW, pytest.param(PLACES, marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_refused_by_name(
    damage: str, places: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], trial: Trial
) -> None:
    shutil.copytree(undisturbed("classifier")[0].directory / "checkpoints", tmp_path / "checkpoints")
    last, chance = tmp_path / "checkpoints" / "last.ckpt", random.Random(damage)
    whole = last.read_bytes()
    # The ends of the file are its signature and its checksum: always among the places.
    ends = [0.0, 1 / len(whole), *(1 - n / len(whole) for n in (1, 3, 40, 80, 82, 90, 102))]
    for place in [*ends, *(chance.random() for _ in range(places - len(ends)))]:
        with trial(f"a checkpoint {damage}"):
            last.write_bytes(DAMAGE[damage](whole, place))
            assert checkpoint_path(tmp_path, "last").name == PREVIOUS, place
            said = capsys.readouterr().err
            assert f"checkpoint {last} is " in said
            assert f"continuing from {last.with_name(PREVIOUS)}" in said


def test_a_run_goes_on_from_the_one_before(tmp_path: Path, trial: Trial) -> None:
    require_fallback("truncated", 0.6, tmp_path, trial)


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("place", [0.0, 0.6])
@pytest.mark.parametrize("die_at_change", [0, *range(5, 11)])
def test_a_run_goes_on_though_it_is_killed_too(
    damage: str, place: float, die_at_change: int, tmp_path: Path, trial: Trial
) -> None:
    require_fallback(damage, place, tmp_path, trial, die_at_change)


def require_fallback(damage: str, place: float, tmp_path: Path, trial: Trial, die_at_change: int = 0) -> None:
    """Damage the last checkpoint of a run that was broken off, and perhaps kill the run that goes on from it."""
    victim = Victim("classifier", tmp_path / "run")
    with trial(f"a checkpoint {damage}, through the command" + (", then kill -9" if die_at_change else "")):
        broken_off = victim.start()
        broken_off.wait(victim.last.with_name(PREVIOUS).exists)
        broken_off.signal(9)
        broken_off.end()
        if not victim.last.exists():
            shutil.copy(victim.last.with_name(PREVIOUS), victim.last)
        victim.last.write_bytes(DAMAGE[damage](victim.last.read_bytes(), place))
        if die_at_change:
            assert victim.start(die_at_change).end().status == -9
            victim.require_finished(victim.go())
            return
        ended = victim.go()
        assert f"continuing from {victim.last.with_name(PREVIOUS)}" in ended.output
        assert f"checkpoint {victim.last} is " in ended.output
        victim.require_finished(ended)
