#!/bin/bash
# From nothing to a bound below 1.25 bits/dim on MNIST and a Fréchet distance below 1.5 on Fashion-MNIST: train a DDPM of each,
# measure both on all held-out pictures, and print their line for the table of records (docs/records.md).
#
#   bash training/speedrun.sh [FOLDER]     by default runs/speedrun; stopped, the same command goes on
#
#   SEEDS      one DDPM of each data set for each of these ("0 1")
#   TRAIN      options of training/train_ddpm.py: the recipe
#   MEASURE    further options of training/evaluate.py, for a trial run
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-runs/speedrun}
recipe=${TRAIN:---steps 7000 --multipliers 1 1}
models=()
for seed in ${SEEDS:-0 1}; do
    for dataset in mnist fashion-mnist; do
        run=$folder/$dataset-$seed
        resume=$([ -d "$run/checkpoints" ] && echo --resume || true)
        python training/train_ddpm.py --dataset "$dataset" --seed "$seed" --run "$run" $recipe $resume
        python training/evaluate.py "$run" --continuous-images 0 --ode-images 0 --curve-samples 0 --chain-samples 0 ${MEASURE:-}
        models+=("$run")
    done
done
python training/record.py "${models[@]}"
