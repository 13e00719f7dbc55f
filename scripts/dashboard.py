"""A W&B workspace for a run's metrics: ``python -m scripts.dashboard RUN_OR_CONFIG [--entity NAME --save]``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser

from scripts.dashboard_panels import Panel, Section, sections
from scripts.errors import door
from scripts.parsing import Parser

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

X_AXIS = "trainer/global_step"
CLOCK = "_runtime"  # seconds: system metrics have no steps
COLUMNS, ROWS = 3, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the workspace holds, or save it and print where it is; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    shown = sections(read_config(Path(arguments.run)))
    if not arguments.save:
        print(json.dumps(summary(shown), indent=2))
        return 0
    name = arguments.name or Path(arguments.run).stem
    print(save(build(shown, entity=arguments.entity, project=arguments.project, name=name)))
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this door."""
    parser = Parser(
        prog="likeness dashboard",
        description="Print, or with --save make on W&B, a workspace of plots, pictures and tables for runs of a kind.",
        epilog="--debug shows the traceback of an error.",
    )
    add = parser.add_argument
    add("run", metavar="RUN_OR_CONFIG", help="A run directory, or the configuration file of an experiment.")
    add("--entity", type=str | None, help="The W&B user or team; by default yours.")
    add("--project", type=str, default="likeness", help="The W&B project that the runs log to.")
    add("--name", type=str | None, help="Of the workspace; by default that of the run or file.")
    add("--save", action="store_true", help="Make it: needs the network and an account.")
    return parser


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run directory, or of a file. Raises FileNotFoundError, or ValueError for another file."""
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is neither a run directory with a config.yaml nor a configuration file")
    config = yaml.safe_load(file.read_text())
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no configuration")
    return config


def summary(shown: Sequence[Section]) -> dict[str, list[dict[str, Any]]]:
    """The panels by section, as plain values."""
    return {
        section.name: [{"title": panel.title, "kind": panel.kind, "keys": list(panel.keys)} for panel in section.panels]
        for section in shown
    }


def build(shown: Sequence[Section], *, entity: str | None, project: str, name: str) -> Workspace:
    """The workspace, not yet saved: nothing is sent. Runs are grouped, so that seeds show as a mean and a band.

    Raises ModuleNotFoundError, naming the extra, where wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('dashboards need wandb-workspaces: pip install -e ".[dashboard]"') from error

    layout = ws.SectionLayoutSettings(columns=COLUMNS, rows=ROWS)
    return ws.Workspace(
        entity=entity or "",
        project=project,
        name=name,
        sections=[
            ws.Section(
                name=section.name,
                panels=[_panel(panel) for panel in section.panels],
                is_open=section.name != "System",
                layout_settings=layout,
            )
            for section in shown
        ],
        settings=ws.WorkspaceSettings(x_axis=X_AXIS, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group")]),
    )


def save(workspace: Workspace) -> str:
    """Make the workspace on W&B and answer with its address."""
    if not workspace.entity:
        import wandb

        workspace.entity = str(wandb.Api().default_entity)
    workspace.save()
    return str(workspace.url)


def _panel(panel: Panel) -> Any:
    from wandb_workspaces.reports.v2 import interface as wr

    if panel.kind == "pictures":
        return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))
    if panel.kind == "table":
        return wr.WeavePanelSummaryTable(table_name=panel.keys[0])
    x = CLOCK if panel.kind == "system" else X_AXIS
    return wr.LinePlot(title=panel.title, x=x, y=list(panel.keys))


if __name__ == "__main__":
    door(main)
