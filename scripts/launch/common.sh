# shellcheck shell=bash
# What the launchers share: checks of their arguments, the surroundings of a run. They source it; nobody runs it.

set -euo pipefail

# One line and the status of a wrong command line, as all commands of the project do it.
refuse() {
    echo "likeness: error: $*" >&2
    exit 2
}

# The comment at the head of the launcher.
show_help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 0
}

# needs_value OPTION [VALUE ...]
needs_value() {
    (($# > 1)) || refuse "$1 takes a value"
}

# positive OPTION VALUE
positive() {
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || refuse "$1 takes a whole number of at least 1, got '${2:-}'"
}

# train_on --gpus|--cpus N: sets `processes` of this machine and their `accelerator`.
# shellcheck disable=SC2034 # the launchers read them
train_on() {
    [[ ! ${processes:-} ]] || refuse "give --gpus or --cpus, once"
    positive "$@"
    processes=$2
    accelerator=cpu
    if [[ $1 == --gpus ]]; then accelerator=gpu; fi
}

# Checks the options of the training, which follow `--`, and finds run_dir among them.
read_training_options() {
    [[ -f scripts/train.py ]] || refuse "run the launcher from the root of the repository, not from $PWD"
    (($#)) || refuse "nothing follows --: give the training's options there, as in -- --config FILE --run_dir FOLDER"
    [[ $1 == -* ]] || refuse "'$1' follows --: only options of 'likeness train fit' belong there, as --config FILE"
    run_dir=
    while (($#)); do
        case $1 in
            --run_dir) run_dir=${2:-} ;;
            --run_dir=*) run_dir=${1#*=} ;;
            --trainer.devices* | --trainer.num_nodes* | --auto_resume*) refuse "${1%%=*} is for the launcher to say" ;;
        esac
        shift
    done
    [[ $run_dir ]] || refuse "--run_dir is missing after --: the folder in which the run lives and from which it goes on"
}

# surroundings PROCESSES: sets `environment`, of each of the processes that this machine runs.
surroundings() {
    local threads=${SLURM_CPUS_PER_TASK:-$(($(nproc) / $1))} temporary
    environment=("OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}")
    # Temporary files on the run's file system: a move into the run is then a rename, and a node's small /tmp does not
    # fill up. Workers keep Unix sockets there, whose paths may have 107 characters: a deep folder is left alone.
    temporary=$(realpath -m "$run_dir")/.tmp
    if ((${#temporary} <= 70)); then
        environment+=("TMPDIR=$temporary")
    fi
}

# Prints the command and ends, where --dry-run was given; else makes the folders that it needs.
print_or_prepare() {
    if [[ ${dry_run:-} ]]; then
        printf '%q ' "$@" | sed 's/ $/\n/'
        exit 0
    fi
    mkdir -p "$run_dir/.tmp"
}

# The project's environment where it was made by `make`, else the one that is active.
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python
    if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
fi
