"""The scripts of bash, zsh and fish. Each finds the subcommand that the line has reached, and then proposes words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from scripts.completion.words import Words

BASH = """\
# Completion of likeness for bash; made by: likeness completion bash
_likeness() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" word subcommands="" options="" values=""
    if [[ $current == "=" ]]; then current=""
    elif [[ $previous == "=" ]]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
{cases}
    if [[ -n $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$current"))
    elif [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$options --debug" -- "$current"))
    else COMPREPLY=($(compgen -W "$subcommands" -- "$current")); fi
}}
complete -o default -F _likeness likeness
"""

ZSH = """\
#compdef likeness
# Completion of likeness for zsh; made by: likeness completion zsh
_likeness() {{
    local current=${{words[CURRENT]}} previous=${{words[CURRENT-1]}}
    local command="" word subcommands="" options="" values=""
    if [[ $current == --*=* ]]; then previous=${{current%%=*}}; compset -P '*='; fi
    for word in "${{(@)words[2,CURRENT-1]}}"; do
{cases}
    if [[ -n $values ]]; then compadd -- ${{=values}}
    elif [[ $current == -* ]]; then compadd -- ${{=options}} --debug
    elif [[ -n $subcommands ]]; then compadd -- ${{=subcommands}}
    else _files; fi
}}
if [[ ${{funcstack[1]}} == _likeness ]]; then _likeness "$@"; else compdef _likeness likeness; fi
"""

CASES = """\
        case "$command $word" in
            {paths}) command="${{command:+$command }}$word" ;;
        esac
    done
    case "$command" in
{after}
    esac
    case "$command $previous" in
{values}
    esac"""

FISH = """\
# Completion of likeness for fish; made by: likeness completion fish
function __likeness_at --argument-names wanted
    set --local reached ''
    for word in (commandline --tokenize --cut-at-cursor --current-process)[2..]
        set --local longer (string trim "$reached $word")
        contains -- $longer {paths}; and set reached $longer
    end
    test "$reached" = "$wanted"
end
complete --command likeness --long-option debug
{lines}
"""


def bash_script(words: Mapping[str, Words]) -> str:
    """The completion of bash: one function, and the command that it completes."""
    return BASH.format(cases=_cases(words))


def zsh_script(words: Mapping[str, Words]) -> str:
    """The completion of zsh: to be read after ``compinit``, or a file ``_likeness`` on the ``fpath``."""
    return ZSH.format(cases=_cases(words))


def _cases(words: Mapping[str, Words]) -> str:
    """What bash and zsh write alike: the subcommand that is reached, what can follow it, the values of an option."""
    paths = [f'" {command}"' if " " not in command else f'"{command}"' for command in words if command]
    after = [
        f'        "{command}") subcommands="{" ".join(known.subcommands)}" options="{" ".join(known.options)}" ;;'
        for command, known in words.items()
    ]
    values = [
        f'        "{command} {option}") values="{" ".join(values)}" ;;'
        for command, known in words.items()
        for option, values in known.options.items()
        if values
    ]
    return CASES.format(paths=" | ".join(paths), after="\n".join(after), values="\n".join(values))


def fish_script(words: Mapping[str, Words]) -> str:
    """The completion of fish: a line for the subcommands of each command, and one for each option."""
    paths = " ".join(f"'{command}'" for command in words if command)
    lines = [line for command, known in words.items() for line in _fish_lines(command, known)]
    return FISH.format(paths=paths, lines="\n".join(lines))


def _fish_lines(command: str, known: Words) -> Iterator[str]:
    start = f"complete --command likeness --condition '__likeness_at \"{command}\"'"
    if known.subcommands:
        yield f"{start} --no-files --arguments '{' '.join(known.subcommands)}'"
    for option, values in known.options.items():
        kind = "--long-option" if option.startswith("--") else "--short-option"
        choice = f" --exclusive --arguments '{' '.join(values)}'" if values else ""
        yield f"{start} {kind} {option.lstrip('-')}{choice}"


SCRIPTS: dict[str, Callable[[Mapping[str, Words]], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}
