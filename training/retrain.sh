#!/usr/bin/env bash
# ColTiny from nothing, on Debian 12: `training/retrain.sh [MINUTES]`, 120 by default (of training; see README.md for
# how long that is on what). Needs root once, to install the fonts and word lists of packages.txt. Run it again to go
# on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-120}
missing=$(comm -23 <(sort training/packages.txt) <(dpkg-query -W -f '${Package}\n' | sort))
if [ -n "$missing" ]; then
    apt-get update -q && apt-get install -y -q --no-install-recommends $missing
fi
python=training/work/venv/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv training/work/venv
    "$python" -m pip install -q --upgrade 'pip>=25.1'
    "$python" -m pip install -q -e . --group training
fi
precision=float32 # bfloat16 takes two thirds of the time, where the processor multiplies it
grep -qE "avx512_bf16|amx_bf16" /proc/cpuinfo && precision=bfloat16
[ -f training/work/corpus.json.gz ] || "$python" -m training.corpus
[ -f training/work/senses.npz ] || "$python" -m training.senses
"$python" -m training.train --run training/work/runs/one --minutes "$minutes" --precision "$precision"
"$python" -m training.export --weights training/work/runs/one/final.pt --out training/work/export
"$python" -m training.evaluate --fetch --model training/work/export colpali_integrations/models/coltiny/weights
