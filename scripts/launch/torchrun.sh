#!/usr/bin/env bash
# Train through torchrun, which starts all processes again when one dies; the run goes on from its last checkpoint.
#
#   scripts/launch/torchrun.sh --gpus 4 -- --config configs/experiment/demo.yaml --run_dir runs/demo
#
# On several machines: the same line on each of them, with one of them as the meeting point, and run_dir shared.
#
#   scripts/launch/torchrun.sh --nodes 2 --master node1:29400 --gpus 4 -- --config FILE --run_dir FOLDER
#
#   --gpus N         processes on each machine, a GPU each     --cpus N    the same without GPUs
#   --nodes M        machines (1)                              --master HOST:PORT    where they meet, one of them
#   --max_restarts R how often to start again (3)              --dry-run   print the command and run nothing
#
# Ends with 0 when training is done; with 143 (SIGTERM), 138 (SIGUSR1), 130 (Ctrl-C), 129 (SIGHUP) or 75 (--stop_after)
# when it was stopped and can go on; with 2 for a wrong option; with 1 for any other error.

# shellcheck source=scripts/launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes=1 master='' max_restarts=3
while (($#)); do
    case $1 in
        --gpus | --cpus) train_on "$1" "${2:-}" && shift ;;
        --nodes) positive "$1" "${2:-}" && nodes=$2 && shift ;;
        --master) needs_value "$@" && master=$2 && shift ;;
        --max_restarts) needs_value "$@" && max_restarts=$2 && shift ;;
        --dry-run) dry_run=yes ;;
        --help | -h) show_help ;;
        --) break ;;
        *) refuse "unknown option $1; the training's options come after --, the launcher's stand in --help" ;;
    esac
    shift
done
[[ ${processes:-} ]] || refuse "say on what each machine trains: --gpus N or --cpus N"
[[ $max_restarts =~ ^[0-9]+$ ]] || refuse "--max_restarts takes a whole number, got '$max_restarts'"
if ((nodes == 1)); then
    [[ -z $master ]] || refuse "--master is for several machines: give --nodes too"
    meeting=(--standalone)
else
    [[ $master =~ ^[^:]+:[0-9]+$ ]] || refuse "--nodes $nodes needs --master HOST:PORT, one of the machines, got '$master'"
    meeting=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$master")
fi
read_training_options "${@:2}"
surroundings "$processes"
((nodes == 1)) || meeting+=(--rdzv-id "$(basename "$run_dir")")

# torchrun would also restart a run that was asked to stop, and ends with 1 whatever its processes end with. So a
# stopped run ends with 0 here and leaves its status in this folder (scripts/cli/restarts.py).
stop_dir=$run_dir/.stop
environment+=("LIKENESS_STOP_DIR=$stop_dir" "LIKENESS_STARTED=$(date +%s)")
# The processes stop when this script is gone (scripts/cli/watch.py), and it finds them by this when torchrun is.
environment+=("LIKENESS_LAUNCHER=$$")
# By default torch keeps one store for all restarts, in which processes then find the addresses of those that are dead.
environment+=("TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
command=(
    env "${environment[@]}"
    "$PYTHON" -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$processes" --max-restarts "$max_restarts"
    -m scripts.train fit --auto_resume true "${@:2}"
    --trainer.accelerator "$accelerator" --trainer.devices "$processes" --trainer.num_nodes "$nodes"
)
print_or_prepare "${command[@]}"
mkdir -p "$stop_dir"
rm -f "$stop_dir"/*

# Signals go to the processes that train and not to torchrun, which would kill them 30 seconds later. In a process group
# of its own it does not hear a terminal's Ctrl-C either.
torchrun='' signals=0
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    signals=$((signals + 1))
    echo "$2" >"$stop_dir/asked"
    grep -ls "^PPid:[[:space:]]*$torchrun\$" /proc/[0-9]*/status | cut -d/ -f3 | xargs -r kill -s "$1" || true
}
trap 'pass_on INT 130' INT
trap 'pass_on TERM 143' TERM
trap 'pass_on USR1 138' USR1
trap 'pass_on HUP 129' HUP
set -m
"${command[@]}" </dev/null &
torchrun=$!

heard=-1 status=0
while ((heard != signals)); do # a signal ends `wait` early
    heard=$signals status=0
    wait "$torchrun" || status=$?
done

# Where torchrun was killed its processes stop by themselves, with a checkpoint; what is left after that is killed.
descendants() {
    grep -lsz "^LIKENESS_LAUNCHER=$$\$" /proc/[0-9]*/environ | cut -d/ -f3 | grep -vx "$$" || true
}
if ((status > 128)); then
    echo "likeness: error: torchrun was killed by SIG$(kill -l "$status"): its processes are being stopped" >&2
    for ((second = 0; second < 60; second++)); do
        [[ $(descendants) ]] || break
        sleep 1
    done
    descendants | xargs -r kill -s KILL || true
fi

# A stopped run has left its status; torchrun itself, told to stop or out of restarts, ends with 1.
for said in stopped asked; do
    if [[ -f $stop_dir/$said ]]; then
        ((status == 0)) && [[ $said == asked ]] || exit "$(<"$stop_dir/$said")"
    fi
done
exit "$status"
