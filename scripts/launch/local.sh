#!/usr/bin/env bash
# Train on the GPUs, or with several CPU processes, of this machine.
#
#   scripts/launch/local.sh --gpus 4 -- --config configs/experiment/demo.yaml --run_dir runs/demo
#   scripts/launch/local.sh --cpus 2 -- --config configs/experiment/demo.yaml --run_dir runs/demo
#
#   --gpus N    one process on each of N GPUs          --cpus N    N processes without a GPU
#   --dry-run   print the command and run nothing      --          what follows are options of `likeness train fit`
#
# The same line starts the run and continues it. data.batch_size is over all processes.

# shellcheck source=scripts/launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

while (($#)); do
    case $1 in
        --gpus | --cpus) train_on "$1" "${2:-}" && shift ;;
        --dry-run) dry_run=yes ;;
        --help | -h) show_help ;;
        --) break ;;
        *) refuse "unknown option $1; the launcher's are --gpus N, --cpus N and --dry-run, the training's come after --" ;;
    esac
    shift
done
[[ ${processes:-} ]] || refuse "say on what to train: --gpus N or --cpus N"
read_training_options "${@:2}"
surroundings "$processes"

command=(
    env "${environment[@]}" "$PYTHON" -m scripts.train fit --auto_resume true "${@:2}"
    --trainer.accelerator "$accelerator" --trainer.devices "$processes"
)
print_or_prepare "${command[@]}"
exec "${command[@]}"
