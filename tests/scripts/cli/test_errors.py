"""How commands end: the status and the one line."""

import io
import sys

import pytest

from scripts.cli.entry_point import Stopped, one_line, run_command


def status(capsys: pytest.CaptureFixture[str], error: BaseException | None, *flags: str) -> tuple[int, str]:
    def main(argv: object) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as end:
        run_command(main, flags)
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def test_success_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(capsys, None) == (0, "")


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(capsys, ValueError("K = 4\n  does not fit 6")) == (1, "likeness: error: K = 4 does not fit 6\n")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = status(capsys, ValueError("K"), "--debug")
    assert code == 1
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Stopped("asked", 143), 143), (SystemExit(2), 2)]
)
def test_other_ends_keep_their_status(capsys: pytest.CaptureFixture[str], error: BaseException, code: int) -> None:
    assert status(capsys, error)[0] == code


def test_other_ranks_say_who_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert status(capsys, ValueError("x"))[1] == "likeness: error (rank 1): x\n"


def test_an_empty_message_names_the_type() -> None:
    assert one_line(KeyError("gamma")) == "KeyError: 'gamma'"
    assert one_line(RuntimeError()) == "RuntimeError"


def test_of_a_list_of_possible_types_only_the_reason_is_left() -> None:
    message = (
        'Parser key "trainer.max_epochs": Does not validate against any of the Union subtypes\nSubtypes: '
        "[<class 'int'>, <class 'NoneType'>]\nErrors:\n  - Expected a <class 'int'>\n"
        "  - Expected a <class 'NoneType'>\n"
        "Given value type: <class 'str'>\nGiven value: many"
    )
    assert one_line(message) == "Parser key \"trainer.max_epochs\": Expected a <class 'int'>, got many"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_of_any_encoding_shows_what_it_can(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def main(argv: object) -> None:
        print("ε • 3")
        raise ValueError("ε is not finite")

    with pytest.raises(SystemExit) as end:
        run_command(main, [])
    assert end.value.code == 1
    for name, shown in (("stdout", b"? ? 3\n"), ("stderr", b"likeness: error: ? is not finite\n")):
        streams[name].flush()
        assert streams[name].buffer.getvalue() == shown
