#!/usr/bin/env bash
# Everything that the project measures and checks on a GPU, in one call of under ten minutes.
#
#     OUT=benchmarks-gpu benchmarks/gpu.sh
#
# Results go to $OUT: a JSON and a log for each step. The last thing printed is a table of all of them. A step that
# fails, or takes longer than it may, is named there, and the next one is run all the same.
#
# It runs with .venv where there is one, else with a python3 that has torch and transformers, else it makes .venv. What a
# benchmark measures against is installed by the benchmark, in its own time: where that is downloaded first, call it twice.
#
# Exits with 0 if every step ended well, 1 if one did not, and 3 if there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-benchmarks-gpu}
WHOLE=580 # seconds for all steps
NO_GPU=3

has_learning() { "$1" -c 'import torch, transformers' 2>/dev/null; }

no_gpu() {
  echo "No GPU is here ($1): nothing was measured."
  exit "$NO_GPU"
}

if [ -x .venv/bin/python ] && has_learning .venv/bin/python; then
  PYTHON=$PWD/.venv/bin/python
elif has_learning python3; then
  PYTHON=$(command -v python3)
else
  command -v nvidia-smi >/dev/null || no_gpu "there is no nvidia-smi"
  make setup || exit 1
  PYTHON=$PWD/.venv/bin/python
fi
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || no_gpu "torch sees no CUDA device"
"$PYTHON" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'

export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$OUT"
rm -f "$OUT"/*.json "$OUT"/*.log "$OUT"/steps.tsv
SECONDS=0

# step NAME SECONDS COMMAND...: runs it, for at most so long and as is left of the whole, and notes how it ended.
step() {
  local name=$1 most=$2 began=$SECONDS status
  shift 2
  local left=$((WHOLE - SECONDS))
  [ "$left" -lt "$most" ] && most=$left
  if [ "$most" -lt 10 ]; then
    printf '%s\t%s\t0\n' "$name" "left out: no time was left" >>"$OUT/steps.tsv"
    return
  fi
  echo "== $name (at most $most s)"
  timeout --kill-after=5 "$most" "$@" >"$OUT/$name.log" 2>&1
  status=$?
  tail -n 3 "$OUT/$name.log"
  case $status in
    0) status="ok" ;;
    124 | 137) status="stopped after $most s" ;;
    *) status="FAILED with $status, see $name.log" ;;
  esac
  printf '%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - began))" >>"$OUT/steps.tsv"
}

benchmark() {
  local name=$1 most=$2
  shift 2
  step "$name" "$most" "$PYTHON" "benchmarks/$name.py" --quick --device cuda --json "$OUT/$name.json" "$@"
}

# Only what learning needs: the fixtures above tests/learning want a database.
step checks 120 "$PYTHON" -m pytest -q -m gpu --confcutdir=tests/learning -p no:cacheprovider \
  -o addopts=--import-mode=importlib -o filterwarnings= tests/learning
benchmark sampling_speed 110
benchmark ppo_speed 160
benchmark reward_speed 110
if [ -d ../shared/data/ukp_convarg1 ]; then
  benchmark reward_quality 80 --parts cross-topic
else
  printf '%s\t%s\t0\n' reward_quality "left out: its data are not in ../shared/data" >>"$OUT/steps.tsv"
fi

"$PYTHON" benchmarks/gpu_table.py "$OUT"
