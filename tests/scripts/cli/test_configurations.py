"""Configuration files are read as YAML 1.2 says, and what is wrong with one is said with its name and line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cli.configurations import dumped, prepared_arguments, read_configuration, read_value
from scripts.cli.entry_point import UsageError, run_command
from scripts.hubness import main as hubness
from scripts.inputs import load_data
from scripts.sweep import main as sweep
from scripts.train import main as train

WRONG = {
    "duplicate": (
        b"trainer:\n  max_epochs: 1\ntrainer:\n  max_steps: 1\n",
        "line 3, column 1: the key 'trainer' is there",
    ),
    "nested duplicate": (
        b"data:\n  init_args: {a: 1, a: 2}\n",
        "line 2, column 21: the key 'a' is there already, in line 2",
    ),
    "quoted duplicate": (b"a: 1\n'a': 2\n", "line 2, column 1: the key 'a' is there already, in line 1"),
    "empty": (b"", "holds nothing, and no keys"),
    "comment": (b"# nothing\n", "holds nothing, and no keys"),
    "list": (b"- data: 1\n", "holds a list, and no keys"),
    "text": (b"data\n", "holds a str, and no keys"),
    "latin-1": (b"# a\nrun_dir: caf\xe9\n", "is not UTF-8: byte 0xe9 in line 2"),
    "UTF-16": ("data: 1\n".encode("utf-16"), "is not UTF-8: byte 0xff in line 1"),
    "tab": (b"data:\n\tclass_path: a\n", r"line 2, column 1: found character '\t'"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
    "unclosed": (b"a: [1,\nb: 2\n", "line 3"),
    "control character": (b"a: \x01\n", "special characters are not allowed"),
}


@pytest.fixture(params=WRONG)
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file that is no configuration, and what must be said of it."""
    content, said = WRONG[request.param]
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    return path, said


def test_what_is_wrong_is_named_with_file_and_line(wrong: tuple[Path, str]) -> None:
    path, said = wrong
    with pytest.raises(UsageError) as error:
        read_configuration(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("command", ["train", "data", "hubness", "sweep"])
def test_every_command_says_it_in_one_line_with_status_2(
    command: str, wrong: tuple[Path, str], tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, said = wrong
    main, arguments = {
        "train": (train, ["fit", "--config", str(root / "tests/integration/classifier.yaml"), f"--config={path}"]),
        "data": (lambda words: load_data(Path(words[0])), [str(path)]),
        "hubness": (hubness, ["analyse", str(path), "--out", str(tmp_path / "out")]),
        "sweep": (sweep, [str(path), "--count"]),
    }[command]
    with pytest.raises(SystemExit) as end:
        run_command(main, arguments)
    errors = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert len(errors) == 1
    assert errors[0].startswith("likeness: error: ")
    assert str(path) in errors[0]
    assert said in errors[0]


@pytest.mark.parametrize(("name", "said"), [("none.yaml", "there is no configuration"), (".", "is a folder")])
def test_what_is_no_file_is_named(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{said}|configuration .* {said}"):
        read_configuration(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, text) for text in ("1:30", "12:30:00", "1:30.5", "010", "-07", "yes", "No", "on", "off", "y")],
        *[("2024-01-01", "2024-01-01"), ("1e", "1e"), ("1.2.3", "1.2.3"), ("=", "="), ("0x", "0x")],
        *[("1e-3", 1e-3), ("1E5", 1e5), ("+.5e3", 500.0), ("-.5", -0.5), ("1.", 1.0), ("1_000.5", 1000.5)],
        *[("-3", -3), ("1_000", 1000), ("0", 0), ("0x1F", 31), ("0o17", 15), ("0.0", 0.0), ("-0.0", 0.0)],
        *[(".inf", float("inf")), ("-.inf", -float("inf")), ("true", True), ("False", False)],
        *[("null", None), ("~", None), ("", None), ("'1'", "1"), ("'no'", "no")],
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    read = read_value(f"a: {text}")["a"]
    assert read == value
    assert type(read) is type(value)


def test_the_projects_own_files_mean_the_same_in_both_versions(root: Path) -> None:
    for path in sorted((root / "configs").rglob("*.yaml")):
        assert read_configuration(path) == yaml.safe_load(path.read_text()), path


def test_values_are_written_as_pyyaml_writes_them_and_read_back() -> None:
    texts = ["no", "010", "1:30", "~", "", " a", "a: b", "#", "a\nb", "é ε", "\t", "word " * 50, "0x1F", "x.Y"]
    values = {"z": texts, "a": [1, -0.5, 1e-30, float("inf"), True, None], "empty": [{}, []], "nested": {"b": {"a": 1}}}
    assert dumped(values) == yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    assert read_value(dumped(values)) == values
    assert list(read_value(dumped(values))) == list(values)


def test_keys_that_a_merge_brings_may_be_replaced() -> None:
    text = "base: &base {width: 1, depth: 2}\nouter: {other: {<<: *base, depth: 3}}\n"
    assert read_value(text) == {"base": {"width": 1, "depth": 2}, "outer": {"other": {"width": 1, "depth": 3}}}


def test_class_paths_that_moved_are_read_as_they_are_now() -> None:
    text = "callbacks: [{class_path: callbacks.samples.SampleFigures}, callbacks.progress.RunProgressBar, samples]"
    assert read_value(text) == {
        "callbacks": [{"class_path": "callbacks.SampleFigures"}, "callbacks.RunProgressBar", "samples"]
    }


def test_a_byte_order_mark_of_utf_8_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("data: é\n".encode("utf-8-sig"))
    assert read_configuration(tmp_path / "a.yaml") == {"data": "é"}


def test_files_are_found_at_home_and_in_the_project(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("data: 1\n")
    assert read_configuration(Path("~/a.yaml")) == {"data": 1}
    assert prepared_arguments(["fit", "--config", "~/a.yaml", "--config=configs/trainer/cpu.yaml"]) == [
        *("fit", "--config", f"{tmp_path}/a.yaml", f"--config={root}/configs/trainer/cpu.yaml")
    ]


def test_class_paths_of_a_command_line_may_be_old() -> None:
    words = ["fit", "--model=lightning_modules.diffenc.DiffEnc", "--data", "datamodules.radial.Radial"]
    assert prepared_arguments(words) == ["fit", "--model=lightning_modules.DiffEnc", "--data", "datamodules.Radial"]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("data.init_args.batch_size", "1:30", "batch_size"),
        ("trainer.log_every_n_steps", "12:30:00", "log_every_n_steps"),
        ("trainer.fast_dev_run", "perhaps", "fast_dev_run"),
    ],
)
def test_a_sexagesimal_is_no_number_in_a_file_and_on_the_command_line(
    option: str, value: str, named: str, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: Any = value
    for key in reversed(option.split(".")):
        content = {key: content}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content).replace("'", ""))
    base = ["fit", "--config", str(root / "tests/integration/classifier.yaml"), "--run_dir", str(tmp_path / "run")]
    for words in ([*base, "--config", str(tmp_path / "a.yaml")], [*base, f"--{option}", value]):
        with pytest.raises(SystemExit) as end:
            run_command(train, words)
        assert end.value.code == 2
        assert named in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("value", ["yes", "on", "true"])
def test_a_switch_takes_each_word_for_true(
    value: str, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(f"overwrite: yes\ntrainer:\n  detect_anomaly: {value}\n")
    words = ["fit", "--config", str(root / "tests/integration/classifier.yaml"), "--config", str(tmp_path / "a.yaml")]
    with pytest.raises(SystemExit) as end:
        run_command(train, [*words, "--print_config"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "overwrite: true" in shown
    assert "detect_anomaly: true" in shown
